//! The binary as people run it: arguments, files and variables in, output and exit code out.

mod broker_restart;
mod copies;
mod degraded;
mod doctor;
mod newer;
mod restart;
mod roll;
mod sources;
mod traces;
mod workers;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The binary without what the machine's own environment says.
fn talewire(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_talewire"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TALEWIRE_")) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs it to its end; all that it said, and its exit code.
#[track_caller]
fn check(command: &mut Command, code: i32, parts: &[&str]) -> String {
    let output = command.output().expect("the binary starts");
    let said = [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat();
    assert_eq!(output.status.code(), Some(code), "{said}");
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    said
}

fn file(folder: &Path, text: &str) -> String {
    let path = folder.join("t.toml");
    std::fs::write(&path, text).expect("written");
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn check_says_line_column_and_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let bad = file(folder.path(), "[limits]\nping_intervall_ms = 1\n");
    check(&mut talewire(&["check", &bad]), 1, &["t.toml:2:1", "did you mean `ping_interval_ms`?"]);
    check(talewire(&["check"]).env("TALEWIRE_CONFIG", &bad), 1, &["t.toml:2:1"]);
    check(talewire(&["check"]).env("TALEWIRE_HTTP_LISTEN", "x"), 1, &["TALEWIRE_HTTP_LISTEN", "http.listen"]);
    let good = file(folder.path(), "[limits]\nping_interval_ms = 20_000\n");
    check(&mut talewire(&["check", &good]), 0, &["good"]);
    check(&mut talewire(&["check", "/nowhere.toml"]), 1, &["cannot read /nowhere.toml"]);
}

#[test]
fn the_examples_are_good() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    for name in ["chat.toml", "namespaces.toml", "several-nodes.toml"] {
        let example = examples.join(name);
        let said = ["good", "http.api_key is one of our examples"];
        check(&mut talewire(&["check", example.to_str().expect("UTF-8")]), 0, &said);
    }
}

#[test]
fn settings_are_listed_and_tokens_are_signed() {
    check(&mut talewire(&["settings"]), 0, &["http.listen", "TALEWIRE_HTTP_LISTEN", "127.0.0.1:8000"]);
    let token = check(talewire(&["token", "--user", "ana"]).env("TALEWIRE_AUTH_HS256_SECRET", SECRET), 0, &[]);
    assert_eq!(token.trim().split('.').count(), 3, "{token}");
    check(&mut talewire(&["token", "--user", "ana"]), 1, &["no secret is configured"]);
    let said =
        check(talewire(&["token", "--user", "ana"]).env("TALEWIRE_AUTH_HS256_SECRET", "hunter2"), 1, &["7 bytes"]);
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn the_insecure_mode_stays_on_this_machine() {
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        check(&mut talewire(&["serve", "--insecure", "--listen", listen]), 1, &["--insecure", "loopback"]);
    }
}

/// Stops the server that a test started, also when the test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(unix)]
#[test]
fn the_server_says_when_it_is_ready_and_ends_when_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let data = data.to_str().expect("UTF-8");
    let arguments = ["serve", "--insecure", "--listen", "127.0.0.1:0", "--data", data, "--log-format", "json"];
    let mut command = talewire(&arguments);
    command.env("TALEWIRE_HTTP_ADMIN_LISTEN", "127.0.0.1:0").stderr(Stdio::piped());
    let mut running = Running(command.spawn().expect("the binary starts"));
    let mut lines = BufReader::new(running.0.stderr.take().expect("piped")).lines().map(|line| line.expect("UTF-8"));
    // Ends, instead of waiting for ever, when the server does.
    let until_ready: Vec<String> = lines.by_ref().take_while(|line| !line.contains("talewire is ready")).collect();
    assert!(until_ready.iter().any(|line| line.contains("insecure: everything is allowed")), "{until_ready:?}");
    assert!(until_ready.iter().any(|line| line.contains(data)), "{until_ready:?}");
    let told = Command::new("kill").arg(running.0.id().to_string()).status().expect("kill runs");
    assert!(told.success());
    let rest: Vec<String> = lines.collect();
    assert!(rest.iter().any(|line| line.contains("talewire stops")), "{until_ready:?} {rest:?}");
    assert_eq!(running.0.wait().expect("it ends").code(), Some(0));
}

#[cfg(unix)]
#[test]
fn one_wish_to_stop_may_come_as_two_signals_and_a_later_one_is_another() {
    // As by a program that tells its child and then all of its group; and as by somebody who does not want to wait.
    for (between, drain_wait_ms, code) in [("0.02", "1_000", 0), ("2", "8_000", 130)] {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        let mut command = talewire(&["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().expect("UTF-8")]);
        command.env("TALEWIRE_HTTP_ADMIN_LISTEN", "127.0.0.1:0").env("TALEWIRE_HTTP_DRAIN_WAIT_MS", drain_wait_ms);
        let mut running = Running(command.stderr(Stdio::piped()).spawn().expect("the binary starts"));
        let mut lines =
            BufReader::new(running.0.stderr.take().expect("piped")).lines().map(|line| line.expect("UTF-8"));
        assert!(lines.any(|line| line.contains("talewire is ready")));
        let signals = format!("kill -TERM {0} && sleep {between} && kill -INT {0}", running.0.id());
        assert!(Command::new("sh").args(["-c", &signals]).status().expect("sh runs").success());
        assert!(lines.count() > 0, "it says that it stops");
        assert_eq!(running.0.wait().expect("it ends").code(), Some(code), "{between} s");
    }
}

/// One request to the admin listener; status line and body.
#[cfg(unix)]
fn ask(address: &str, line: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut socket = std::net::TcpStream::connect(address).expect("the admin listener");
    write!(socket, "{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("an open socket");
    let mut said = String::new();
    socket.read_to_string(&mut said).expect("an answer");
    said
}

#[cfg(unix)]
#[test]
fn the_configuration_is_read_again_by_signal_and_by_request() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = file(folder.path(), "[namespaces.chat]\n[process]\nlog_filter = 'info'\n");
    let data = folder.path().join("data");
    let data = data.to_str().expect("UTF-8");
    let arguments = ["serve", "--config", &path, "--listen", "127.0.0.1:0", "--data", data, "--log-format", "json"];
    let mut command = talewire(&arguments);
    command.env("TALEWIRE_HTTP_ADMIN_LISTEN", "127.0.0.1:0").stderr(Stdio::piped());
    let mut running = Running(command.spawn().expect("the binary starts"));
    let mut lines = BufReader::new(running.0.stderr.take().expect("piped")).lines().map(|line| line.expect("UTF-8"));
    let ready = lines.find(|line| line.contains("talewire is ready")).expect("it gets ready");
    let ready: serde_json::Value = serde_json::from_str(&ready).expect("JSON");
    let admin = ready["admin"].as_str().expect("an address");

    file(folder.path(), "[namespaces.chat]\nhistory_size = 5\n[hub]\ngap_wait_ms = 5\n");
    let said = ask(admin, "POST /admin/reload");
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    assert!(said.ends_with(r#"{"result":{"changed":["namespaces.chat"],"waiting":["hub.gap_wait_ms"]}}"#), "{said}");
    file(folder.path(), "[namespaces.chat]\nhistory_size = 'x'\nkind = 1\n");
    let said = ask(admin, "POST /admin/reload");
    assert!(said.starts_with("HTTP/1.1 422") && said.contains("t.toml:2:16") && said.contains("t.toml:3:8"), "{said}");

    file(folder.path(), "[namespaces.chat]\nhistory_size = 5\n[namespaces.more]\n[process]\nlog_filter = 'warn'\n");
    let told = Command::new("kill").args(["-HUP", &running.0.id().to_string()]).status().expect("kill runs");
    assert!(told.success());
    let metric = |line: &str| ask(admin, "GET /metrics").lines().any(|candidate| candidate == line);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !metric(r#"talewire_reloads_total{outcome="done"} 2"#) {
        assert!(std::time::Instant::now() < deadline, "the signal is not heard");
        std::thread::yield_now();
    }
    assert!(metric(r#"talewire_reloads_total{outcome="refused"} 1"#));
    let told = Command::new("kill").arg(running.0.id().to_string()).status().expect("kill runs");
    assert!(told.success());
    let rest: Vec<String> = lines.collect();
    assert!(rest.iter().any(|line| line.contains("nothing has changed") && line.contains("t.toml:2:16")), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("wait for the next start") && line.contains("hub.gap_wait_ms")));
    assert!(!rest.iter().any(|line| line.contains("talewire stops")), "the new filter leaves it out: {rest:?}");
    assert_eq!(running.0.wait().expect("it ends").code(), Some(0));
}
