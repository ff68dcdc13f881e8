//! `talewire token`: what was typed and the configured secret in, a signed token on standard output.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};

use crate::cli::Token;
use crate::config::Config;

/// Signs and prints.
pub(crate) fn print(typed: &Token, config: &Config) -> anyhow::Result<()> {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs();
    println!("{}", issue(typed, config, now_s)?);
    Ok(())
}

/// Signs, and verifies what was signed, so that nobody is handed a token that the server would refuse.
fn issue(typed: &Token, config: &Config, now_s: u64) -> anyhow::Result<String> {
    let secret = config.auth.hs256_secret.as_ref();
    let secret = secret.context("no secret is configured: set auth.hs256_secret or TALEWIRE_AUTH_HS256_SECRET")?;
    let token = talewire_auth::tokens::issue(&claims(typed, config, now_s)?, secret)?;
    let tokens = talewire_auth::Tokens::new(config.auth.clone())?;
    let now_ms = i64::try_from(now_s)? * 1_000;
    let verified = match typed.channel {
        Some(_) => tokens.subscription_grant(&token, now_ms).map(drop),
        None => tokens.connect_grant(&token, now_ms).map(drop),
    };
    verified.context("the server would refuse such a token")?;
    Ok(token)
}

fn claims(typed: &Token, config: &Config, now_s: u64) -> anyhow::Result<Map<String, Value>> {
    let mut claims = Map::from_iter([("sub".to_owned(), json!(typed.user)), ("iat".to_owned(), json!(now_s))]);
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            claims.insert(name.to_owned(), value);
        }
    };
    let name = typed.name.as_deref().map(talewire_auth::display_name).transpose().context("--name")?;
    set("exp", seconds(&typed.ttl)?.map(|ttl_s| json!(now_s.saturating_add(ttl_s))));
    set("info", name.map(|name| json!({ "name": name })));
    set("channel", typed.channel.as_ref().map(|channel| json!(channel)));
    set("aud", config.auth.audience.as_ref().map(|audience| json!(audience)));
    set("iss", config.auth.issuer.as_ref().map(|issuer| json!(issuer)));
    for claim in &typed.claims {
        let (name, value) = claim.split_once('=').with_context(|| format!("--claim {claim}: NAME=VALUE is needed"))?;
        set(name, Some(serde_json::from_str(value).unwrap_or_else(|_| json!(value))));
    }
    Ok(claims)
}

/// `90s`, `15m`, `1h`, `30d`, or nothing for `never`.
fn seconds(text: &str) -> anyhow::Result<Option<u64>> {
    if text == "never" {
        return Ok(None);
    }
    let (digits, unit) = text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
    let unit_s = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => bail!("--ttl {text}: a number with s, m, h or d is needed, or never"),
    };
    let count: u64 = digits.parse().with_context(|| format!("--ttl {text}"))?;
    Ok(Some(count.checked_mul(unit_s).with_context(|| format!("--ttl {text}: too long"))?))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    const NOW_S: u64 = 1_800_000_000;

    fn config() -> Config {
        let mut config = Config::default();
        config.auth.hs256_secret = Some(talewire_auth::Secret::new("0123456789abcdef0123456789abcdef"));
        config.auth.audience = Some("tales".into());
        config
    }

    fn run(arguments: &[&str]) -> anyhow::Result<String> {
        let typed = ["talewire", "token"].iter().chain(arguments).copied();
        let Command::Token(token) = Cli::parse_from(typed).command else { panic!("not token") };
        issue(&token, &config(), NOW_S)
    }

    #[test]
    fn issued_tokens_say_what_was_typed() {
        let token = run(&["--user", "ana", "--name", " Ana ", "--ttl", "2m", "--claim", r#"channels=["news"]"#])
            .expect("signed");
        let tokens = talewire_auth::Tokens::new(config().auth).expect("safe");
        let grant = tokens.connect_grant(&token, 1_800_000_000_000).expect("good");
        assert_eq!(grant.user.as_str(), "ana");
        assert_eq!(grant.info.expect("named").as_bytes(), br#"{"name":"Ana"}"#);
        assert_eq!(grant.expires_at_ms, Some(1_800_000_120_000));
        assert_eq!(grant.channels.len(), 1);
        let token = run(&["--user", "", "--channel", "chat:1", "--ttl", "never"]).expect("signed");
        let grant = tokens.subscription_grant(&token, 1_800_000_000_000).expect("good");
        assert_eq!((grant.channel.as_str(), grant.expires_at_ms), ("chat:1", None));
    }

    #[test]
    fn what_the_server_would_refuse_is_not_issued() {
        for arguments in [
            &["--user", "a\nb"][..],
            &["--user", "ana", "--ttl", "0s"],
            &["--user", "ana", "--ttl", "1w"],
            &["--user", "ana", "--ttl", ""],
            &["--user", "ana", "--ttl", "99999999999999999d"],
            &["--user", "ana", "--name", "admin"],
            &["--user", "ana", "--channel", "a b"],
            &["--user", "ana", "--claim", "aud=others"],
            &["--user", "ana", "--claim", "nothing"],
        ] {
            assert!(run(arguments).is_err(), "{arguments:?}");
        }
    }
}
