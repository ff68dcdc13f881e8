//! That what tests stand on stands: servers start, pause, die and come back with what they kept.

use talewire_stand::postgres::Postgres;
use talewire_stand::redis::Redis;

#[test]
fn redis_comes_back_with_what_it_kept() {
    let mut redis = Redis::lasting();
    assert_eq!(redis.say(&["SET", "a", "1"]).expect("it answers"), "+OK");
    redis.restart();
    assert_eq!(redis.say(&["GET", "a"]).expect("it answers"), "1");
    redis.kill();
    assert!(redis.say(&["PING"]).is_err());
}

#[test]
fn postgres_comes_back() {
    let mut postgres = Postgres::start();
    assert!(postgres.url().contains(&postgres.port.to_string()));
    postgres.restart();
    assert!(postgres.process.is_running());
}
