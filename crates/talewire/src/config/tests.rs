//! Layers in, settings or problems out: each case is a file, some variables and flags.

use super::*;

fn layers<'a>(file: &'a str, variables: &[(&str, &str)], flags: &[(&'static str, &'static str, &str)]) -> Layers<'a> {
    Layers {
        file: Some(("t.toml", file)),
        environment: variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        flags: flags.iter().map(|(flag, path, text)| (*flag, *path, (*text).to_owned())).collect(),
        folder: concat!(env!("CARGO_MANIFEST_DIR"), "/src/config").into(),
        data_folder: "/data/here".into(),
    }
}

#[track_caller]
fn good(file: &str, variables: &[(&str, &str)]) -> Config {
    load(layers(file, variables, &[])).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// Each expected text is a problem: its place and a part of its reason.
#[track_caller]
fn bad(file: &str, variables: &[(&str, &str)], expected: &[(&str, &str)]) {
    let problems = load(layers(file, variables, &[])).expect_err("this must not pass");
    assert_eq!(problems.len(), expected.len(), "{problems:?}");
    for (problem, (place, part)) in problems.iter().zip(expected) {
        assert_eq!(problem.place, *place, "{problem}");
        assert!(problem.reason.contains(part), "{problem}");
    }
}

#[test]
fn nothing_said_is_the_defaults_in_the_data_folder() {
    let mut expected = Config::default();
    expected.store.path = "/data/here".into();
    assert_eq!(good("", &[]), expected);
}

#[test]
fn flags_go_before_variables_before_the_file_before_defaults() {
    let file = "[limits]\nping_interval_ms = 20_000\n[http]\nlisten = '127.0.0.1:1'\n";
    assert_eq!(good(file, &[]).limits.ping_interval_ms, 20_000);
    assert_eq!(good(file, &[]).limits.pong_deadline_ms, 8_000);
    let variables = [("TALEWIRE_LIMITS_PING_INTERVAL_MS", "30_000"), ("TALEWIRE_HTTP_LISTEN", "127.0.0.1:2")];
    let config = good(file, &variables);
    assert_eq!((config.limits.ping_interval_ms, config.http.listen.port()), (30_000, 2));
    let flags = [("--listen", "http.listen", "127.0.0.1:3"), ("--data", "store.path", "./data")];
    let config = load(layers(file, &variables, &flags)).expect("good");
    assert_eq!((config.http.listen.port(), config.store.path), (3, PathBuf::from("./data")));
}

#[test]
fn the_file_is_told_with_line_column_and_reason() {
    bad("[limits]\n  ping_interval_ms = 'x'\n", &[], &[("t.toml:2:22", "invalid type: string \"x\", expected u64")]);
    bad("[limits]\nping_interval_ms = -1\n", &[], &[("t.toml:2:20", "expected u64")]);
    bad("[limits\n", &[], &[("t.toml:1:8", "")]);
    bad("[limits]\na = 1\na = 2\n", &[], &[("t.toml:3:1", "duplicate key")]);
    bad("[namespaces.chat]\nkind = 'hist'\n", &[], &[("t.toml:2:8", "unknown variant `hist`, expected one of")]);
    bad("[http]\nlisten = 'everywhere'\n", &[], &[("t.toml:2:10", "invalid socket address")]);
    bad("limits = 3\n", &[], &[("t.toml:1:10", "expected struct Limits")]);
}

#[test]
fn unknown_names_are_told_all_at_once_with_the_nearest_known_one() {
    bad(
        "[limits]\nframe_byte_max = 1\n[namespaces.chat]\nhistorysize = 3\n[agent]\nx = 1\n[hub]\nzebra = 1\n",
        &[],
        &[
            ("t.toml:5:2", "unknown setting `agent`; did you mean `agents`?"),
            ("t.toml:8:1", "unknown setting `hub.zebra`"),
            ("t.toml:2:1", "unknown setting `limits.frame_byte_max`; did you mean `frame_bytes_max`?"),
            ("t.toml:4:1", "unknown setting `namespaces.chat.historysize`; did you mean `history_size`?"),
        ],
    );
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    bad(
        "[limits]\nping_interval_ms = 'x'\nframe_byte_max = 1\n[namespaces.a]\nkind = 'hist'\nhistory_size = 0\n\
         [http]\nlisten = 'everywhere'\n[hub]\noutbox_bytes_max = 9_000_000\n",
        &[("TALEWIRE_LIMITS_FRAME_COMMANDS_MAX", "0"), ("TALEWIRE_STORE_READER_THREADS", "many")],
        &[
            ("t.toml:8:10", "invalid socket address"),
            ("t.toml:3:1", "unknown setting `limits.frame_byte_max`"),
            ("t.toml:2:20", "expected u64"),
            ("t.toml:5:8", "unknown variant `hist`"),
            ("TALEWIRE_STORE_READER_THREADS", "must be a number"),
            ("TALEWIRE_LIMITS_FRAME_COMMANDS_MAX", "greater than zero"),
            ("t.toml:10:1", "cannot be more than hub.outbox_bytes_hard_max"),
            ("t.toml:6:1", "must be signal"),
        ],
    );
    // 9_000 would be too little for the pongs of a default that was not meant.
    bad("[limits]\npong_deadline_ms = 9_000\nping_interval_ms = 'x'\n", &[], &[("t.toml:3:20", "expected u64")]);
}

#[test]
fn a_model_without_an_address_is_found_before_the_start() {
    bad(
        "[agents]\nprovider = 'openai'\nconcurrency = 0\n",
        &[],
        &[
            ("t.toml:3:1", "agents.concurrency: must be greater than zero"),
            ("t.toml:3:1", "0 is not between 1 and 256"),
            ("default", "agents.openai.base_url: this is no address"),
            ("default", "agents.openai.model: say which model"),
        ],
    );
}

#[test]
fn addresses_of_other_systems_are_read_before_the_start() {
    bad(
        "[broker.redis]\nurls = ['http://:hunter2@x']\n[broker.nats]\nurls = ['nats://a', 'nats://b:99999']\n\
         [store]\nurl = 'postgres://u:hunter2@x:99999/y'\n[traces]\nendpoint = 'collector'\n\
         [sources.a]\nurl = 'http://:hunter2@x'\nfrom = 's'\n[sources.b]\nurl = 'redis://x:99999'\nfrom = 's'\n\
         [webhooks.c]\nurl = 'https://x:99999'\nsecret = '0123456789abcdef0123456789abcdef'\n",
        &[],
        &[
            ("t.toml:2:1", "broker.redis.urls: must begin with redis:// or rediss://, not http://"),
            ("t.toml:4:1", "broker.nats.urls: number 2 is not an address: invalid port"),
            ("t.toml:6:1", "store.url: cannot be used: invalid connection string"),
            ("t.toml:8:1", "traces.endpoint: must begin with http:// or https://"),
            ("t.toml:10:1", "sources.a.url: must begin with redis:// or rediss://, not http://"),
            ("t.toml:13:1", "sources.b.url: is not an address: invalid port"),
            ("t.toml:16:1", "webhooks.c.url: is not an address: invalid port"),
        ],
    );
    bad("", &[("TALEWIRE_BROKER_REDIS_URLS", "[]")], &[("TALEWIRE_BROKER_REDIS_URLS", "names no server")]);
    bad(
        "[broker.redis]\nurls = ['redis://a', 'rediss://b']\n",
        &[],
        &[("t.toml:2:1", "must all begin with redis://, or all with rediss://")],
    );
    good("[broker.redis]\nurls = ['redis://a:1', 'redis://:pw@[::1]:2/3']\n[store]\nurl = 'postgres://a,b/c'\n", &[]);
}

#[test]
fn schemas_are_read_from_beside_the_file_and_compiled() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("point.json"), r#" {"type":"object"}"#).expect("written");
    std::fs::write(folder.path().join("broken.json"), r#"{"type":"nothing"}"#).expect("written");
    let here = |file| Layers { folder: folder.path().to_owned(), ..layers(file, &[], &[]) };
    let config = load(here("[namespaces.a]\nschema = 'point.json'\n")).expect("good");
    assert_eq!(config.namespaces["a"].schema.as_deref(), Some(r#" {"type":"object"}"#));
    assert!(config.rules().is_ok());
    let inline = r#"{"required":["x"]}"#;
    let text = format!("[namespaces.a]\nschema = '{inline}'\n");
    let config = load(here(&text)).expect("good");
    assert_eq!(config.namespaces["a"].schema.as_deref(), Some(inline));
    let text = "[namespaces.a]\nschema = 'nowhere.json'\n[namespaces.b]\nschema = 'broken.json'\n[namespaces.c]\n\
                schema = '{'\n[namespaces.d]\nschema = '{\"$ref\":\"point.json\"}'\n";
    let problems = load(here(text)).expect_err("none is good");
    let expected = [
        ("t.toml:2:1", "cannot read"),
        ("t.toml:4:1", "cannot be used"),
        ("t.toml:6:1", "not JSON"),
        ("t.toml:8:1", "retrieving it failed"),
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:?}");
    for (problem, (place, part)) in problems.iter().zip(expected) {
        assert!(problem.place == place && problem.reason.contains(part), "{problem}");
    }
}

#[test]
fn a_namespace_may_have_a_dot_in_its_name() {
    let config = good("[namespaces.'a.b']\nhistory_size = 5\n", &[]);
    assert_eq!(config.namespaces["a.b"].history_size, 5);
    bad("[namespaces.'a.b']\nhistory_size = 0\n", &[], &[("t.toml:2:1", "must be signal")]);
}

#[test]
fn variables_have_the_types_of_their_settings() {
    let config = good(
        "",
        &[
            ("TALEWIRE_AUTH_HS256_SECRET", "00112233445566778899001122334455"),
            ("TALEWIRE_AUTH_ALLOWED_ORIGINS", "https://a.example, https://b.example"),
            ("TALEWIRE_AUTH_EXPIRY_REQUIRED", "true"),
            ("TALEWIRE_NAMESPACES_CHAT_HISTORY_SIZE", "7"),
            ("TALEWIRE_NAMESPACES_CHAT_HISTORY", "anyone"),
            ("TALEWIRE_NAMESPACES_MY_ROOM_PRESENCE_FOR", "anyone"),
            ("TALEWIRE_STORE_PATH", "/x"),
        ],
    );
    assert_eq!(config.auth.hs256_secret.expect("set").reveal(), "00112233445566778899001122334455");
    assert_eq!(config.auth.allowed_origins, ["https://a.example", "https://b.example"]);
    assert!(config.auth.expiry_required);
    assert_eq!(config.namespaces["chat"].history_size, 7);
    assert_eq!(config.namespaces["chat"].history, talewire_proto::namespace::Rule::Anyone);
    assert_eq!(config.namespaces["my_room"].presence_for, talewire_proto::namespace::Rule::Anyone);
    assert_eq!(config.store.path, PathBuf::from("/x"));
}

#[test]
fn wrong_variables_are_named_with_the_reason_and_without_the_value() {
    let check = |name: &str, value: &str, part: &str| bad("", &[(name, value)], &[(name, part)]);
    check("TALEWIRE_LIMITS_PING_INTERVAL_MS", "soon", "limits.ping_interval_ms: it must be a number");
    check("TALEWIRE_LIMITS_PING_INTERVAL_MS", "-5", "invalid value: integer `-5`, expected u64");
    check("TALEWIRE_LIMITS_PING_INTERVAL_MS", "1\n[hub]", "must be a number");
    check("TALEWIRE_AUTH_EXPIRY_REQUIRED", "yes", "must be true or false");
    check("TALEWIRE_HTTP_LISTEN", "everywhere", "it is written 127.0.0.1:8000");
    check("TALEWIRE_NAMESPACES_CHAT_KIND", "hist", "unknown variant `hist`");
    check("TALEWIRE_LIMITS_PING_INTERVAL", "1", "did you mean TALEWIRE_LIMITS_PING_INTERVAL_MS?");
    check("TALEWIRE_ZEBRA", "1", "no setting has this variable");
    check("TALEWIRE_NAMESPACES_NAME_KIND", "signal", "no setting has this variable");
    let problems = load(layers("", &[("TALEWIRE_AUTH_HS256_SECRET", "hunter2")], &[])).expect_err("too short");
    assert_eq!(problems[0].place, "default");
    assert!(!problems[0].to_string().contains("hunter2"));
}

#[test]
fn a_variable_that_a_setting_names_is_no_unknown_one() {
    good("", &[("TALEWIRE_MODEL_KEY", "k")]);
    good("[agents.openai]\nkey_variable = 'TALEWIRE_MY_KEY'\n", &[("TALEWIRE_MY_KEY", "k")]);
    bad(
        "[agents.openai]\nkey_variable = 'X'\n",
        &[("TALEWIRE_MODEL_KEY", "k")],
        &[("TALEWIRE_MODEL_KEY", "no setting")],
    );
}

#[test]
fn contradictions_are_told_where_they_were_said() {
    bad(
        "[limits]\npong_deadline_ms = 25_000\n",
        &[],
        &[("t.toml:2:1", "must be less than limits.ping_interval_ms (25000)")],
    );
    bad(
        "",
        &[("TALEWIRE_LIMITS_FRAME_COMMANDS_MAX", "0")],
        &[("TALEWIRE_LIMITS_FRAME_COMMANDS_MAX", "greater than zero")],
    );
    bad("[limits]\nrpc_bytes_max = 65_537\n", &[], &[("t.toml:2:1", "no larger one would arrive")]);
    bad(
        "[process]\ninsecure = true\n[http]\nlisten = '0.0.0.0:8000'\n",
        &[],
        &[("t.toml:2:1", "must be a loopback address")],
    );
    bad(
        "[store]\norders_age_ms = 1_000\norders_every_ms = 1_000\n",
        &[],
        &[("t.toml:3:1", "less than store.orders_age_ms (1000)")],
    );
    bad("[namespaces.story]\n", &[], &[("t.toml:1:13", "belongs to the story platform")]);
    bad("[namespaces.'a b']\n", &[], &[("t.toml:1:13", "named with letters")]);
    bad("[namespaces.a]\nkind = 'generation'\n", &[], &[("t.toml:2:1", "belong to the story platform")]);
    bad("[namespaces.a]\nhistory_size = 0\n", &[], &[("t.toml:2:1", "must be signal")]);
    bad("[namespaces.a]\npublish = 'token'\n", &[], &[("t.toml:2:1", "for subscribing only")]);
    bad("[namespaces.a]\nsubscribe = 'member'\n", &[], &[("t.toml:2:1", "only channels of stories")]);
    bad("[namespaces.a]\nsubscribe = 'subscribers'\n", &[], &[("t.toml:2:1", "first subscriber")]);
    bad("[namespaces.a]\nkind = 'signal'\nrecovery = 'latest'\n", &[], &[("t.toml:3:1", "there is no latest")]);
    bad("[namespaces.a]\nconflation_key = 'x'\n", &[], &[("t.toml:2:1", "only signals")]);
    bad("[namespaces.a]\nkind = 'signal'\nconflation_key = ''\n", &[], &[("t.toml:3:1", "names a tag")]);
    bad("[namespaces.a]\nbatch_ms = 10_001\n", &[], &[("t.toml:2:1", "at most 10000")]);
    bad("[namespaces.a]\nbatch_max = 0\n", &[], &[("t.toml:2:1", "greater than zero")]);
    bad("[namespaces.a]\npublications_per_second = 1_000_001\n", &[], &[("t.toml:2:1", "at most 1000000")]);
    bad(
        "[namespaces.a]\npublications_per_second = 1\npublication_burst = 0\n",
        &[],
        &[("t.toml:3:1", "nobody publishes")],
    );
    bad("[auth]\nleeway_s = 31\n", &[], &[("t.toml:1:2", "at most 30")]);
    bad("[process]\nlog_filter = 'a=b=c'\n", &[], &[("t.toml:2:1", "is not a filter")]);
    good("[process]\ninsecure = true\n[http]\nlisten = '[::1]:8000'\n", &[]);
    good("[agents.demo]\ntokens_per_second = 0\n", &[]);
}

#[test]
fn the_namespace_called_default_is_for_channels_without_one() {
    let rules = good("[namespaces.default]\nhistory_size = 5\n[namespaces.chat]\n", &[]).namespaces();
    let of = |name: &str| rules.of(&name.parse().expect("a channel")).map(|rules| rules.history_size);
    assert_eq!(of("news"), Ok(5));
    assert_eq!(of("chat:1"), Ok(1_000));
    assert!(of("default:1").is_err());
}

#[test]
fn every_setting_has_one_path_and_one_variable() {
    let known = Known::new();
    let mut variables: Vec<String> = known.all().iter().map(known::Setting::variable).collect();
    let count = variables.len();
    variables.sort();
    variables.dedup();
    assert_eq!(variables.len(), count, "two settings share a variable");
    assert!(count > 80, "{count}");
    for setting in known.all().iter().filter(|setting| !setting.path.contains(".NAME.")) {
        assert_eq!(known.path_of_variable(&setting.variable()).as_ref(), Some(&setting.path));
    }
}

#[test]
fn no_default_shows_a_secret() {
    let mut config = Config::default();
    config.auth.hs256_secret = Some(talewire_auth::Secret::new("hunter2"));
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn the_secrets_of_our_examples_are_known_as_such() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples"));
    let mut seen = 0;
    let files = std::fs::read_dir(&folder).expect("examples").map(|entry| entry.expect("a file").path());
    for file in files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")) {
        let text = std::fs::read_to_string(file).expect("text");
        let config = load(Layers { folder: folder.clone(), ..layers(&text, &[], &[]) }).expect("good");
        let table: toml::Table = text.parse().expect("TOML");
        let set = |section: &str, name: &str| table.get(section).is_some_and(|section| section.get(name).is_some());
        let all =
            [("auth", "hs256_secret"), ("http", "api_key")].into_iter().filter(|(section, name)| set(section, name));
        let all: Vec<String> = all.map(|(section, name)| format!("{section}.{name}")).collect();
        assert_eq!(config.secrets_of_examples(), all);
        seen += all.len();
    }
    assert!(seen >= 4, "{seen}");
    assert!(good("[http]\napi_key = 'our own'\n", &[]).secrets_of_examples().is_empty());
}

#[test]
fn sources_and_webhooks_have_names_and_are_looked_at() {
    let file =
        "[sources.orders]\nurl = 'redis://x'\nfrom = 'orders'\n[webhooks.billing]\nurl = 'https://example.org/x'\n";
    let secret = "0123456789abcdef0123456789abcdef";
    let variables =
        [("TALEWIRE_WEBHOOKS_BILLING_SECRET", secret), ("TALEWIRE_SOURCES_ORDERS_URL", "redis://:hunter2@y")];
    let config = good(file, &variables);
    assert_eq!(config.sources["orders"].url.reveal(), "redis://:hunter2@y");
    assert_eq!(config.webhooks["billing"].secret.reveal(), secret);
    let shown = format!("{config:?}{}", serde_json::to_string(&config).expect("JSON"));
    assert!(!shown.contains("hunter2") && !shown.contains(secret), "{shown}");
    bad("[sources.a]\nform = 'x'\n", &[], &[("t.toml:2:1", "did you mean `from`?")]);
    bad("[sources.a]\nurl = 'redis://x'\nfrom = 'a'\nretry_ms = 0\n", &[], &[("t.toml:4:1", "greater than zero")]);
    bad(
        "[webhooks.a]\nurl = 'https://127.0.0.1/'\nsecret = 'short'\n",
        &[],
        &[("t.toml:2:1", "not a public address"), ("t.toml:3:1", "this has 5")],
    );
    bad("[webhooks.a]\nevents = ['everything']\n", &[], &[("t.toml:2:10", "unknown variant")]);
}
