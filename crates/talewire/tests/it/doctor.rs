//! `talewire doctor` before a real Redis, a real PostgreSQL and a real proxy, set well, set badly, and gone.

use std::process::Command;

use talewire_stand::postgres::Postgres;
use talewire_stand::process::Process;
use talewire_stand::redis::Redis;

use super::traces::serve;
use super::{check, talewire};

fn doctor(redis: &Redis, postgres: &Postgres) -> Command {
    let mut command = talewire(&["doctor"]);
    command.env("TALEWIRE_HTTP_SOCKETS_MAX", "100").env("TALEWIRE_STORE_URL", postgres.url());
    command.env("TALEWIRE_BROKER_KIND", "redis").env("TALEWIRE_BROKER_REDIS_URLS", format!("[\"{}\"]", redis.url()));
    command
}

#[test]
fn the_doctor_looks_at_redis_and_postgresql() {
    let (mut redis, mut postgres) = (Redis::lasting(), Postgres::start());
    let mut doctor = doctor(&redis, &postgres);
    let good =
        ["syncs every write", "forgets nothing", "fsync on", "the clock of Redis 7", "clock of PostgreSQL is right"];
    check(&mut doctor, 0, &good);
    let set = |name, value| assert_eq!(redis.say(&["CONFIG", "SET", name, value]).expect("it answers"), "+OK");
    set("maxmemory-policy", "allkeys-lru");
    check(&mut doctor, 1, &["WRONG", "maxmemory-policy allkeys-lru", "CONFIG SET maxmemory-policy noeviction"]);
    set("maxmemory-policy", "noeviction");
    set("appendfsync", "no");
    // What loses history is told, and not called wrong: history channels may be meant to be lost.
    check(&mut doctor, 0, &["better", "on disk (appendfsync no)", "appendfsync everysec"]);
    set("appendonly", "no");
    check(&mut doctor, 0, &["better", "keeps nothing when it ends (appendonly no)", "appendonly yes"]);
    doctor.env("TALEWIRE_HTTP_API_KEY", "change-me-please");
    check(&mut doctor, 1, &["WRONG   http.api_key is one of our examples", "set your own"]);
    redis.kill();
    postgres.kill();
    check(&mut doctor, 1, &["correct the section [broker]", "correct store.url"]);
}

#[test]
fn the_doctor_finds_a_postgresql_that_does_not_sync() {
    let (redis, postgres) = (Redis::lasting(), Postgres::with(&["fsync=off", "full_page_writes=off"]));
    let parts = ["WRONG   PostgreSQL has fsync off", "WRONG   PostgreSQL has full_page_writes off", "set it on"];
    check(&mut doctor(&redis, &postgres), 1, &parts);
}

/// nginx before a server, with or without holding back what it says.
fn nginx(folder: &std::path::Path, to: &str, buffering: &str) -> (Process, u16) {
    let port = talewire_stand::free_port();
    // One process: a worker would outlive the end of a test.
    let config = format!(
        "daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log; events {{}}
         http {{ access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
           uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
           server {{ listen 127.0.0.1:{port};
             location / {{ proxy_pass http://{to}; proxy_http_version 1.1; proxy_set_header Host $http_host;
               proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; {buffering} }} }} }}",
        folder = folder.display()
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, config).expect("written");
    let mut command = Command::new("/usr/sbin/nginx");
    command.arg("-p").arg(folder).arg("-c").arg(&file);
    let mut process = Process::start(&mut command, "nginx", &folder.join("log"));
    process.wait_until("nginx", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    (process, port)
}

#[test]
fn the_doctor_finds_an_nginx_that_holds_streams_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_running, address) = serve(folder.path(), &[]);
    let diagnose = |buffering: &str, code, parts: &[&str]| {
        let folder = tempfile::tempdir().expect("a folder");
        let (_nginx, port) = nginx(folder.path(), &address, buffering);
        let url = format!("http://127.0.0.1:{port}");
        let mut command = talewire(&["doctor", "--through", &url, "--channel", "chat:doctor"]);
        check(command.env("TALEWIRE_HTTP_SOCKETS_MAX", "100"), code, parts)
    };
    // Talewire asks for it by a header, which a proxy may be told not to believe.
    let good = diagnose("proxy_buffering on;", 0, &[]);
    let held = "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;";
    let bad = diagnose(held, 1, &["WRONG", "proxy_buffering off (nginx)"]);
    assert!(!good.contains("proxy_buffering") && good != bad, "{good}");
}
