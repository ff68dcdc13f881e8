//! `talewire doctor` before a real Redis and a real PostgreSQL, set well, set badly, and gone.

use std::process::Command;

use talewire_stand::postgres::Postgres;
use talewire_stand::redis::Redis;

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
    redis.kill();
    postgres.kill();
    check(&mut doctor, 1, &["correct the section [broker]", "correct store.url"]);
}
