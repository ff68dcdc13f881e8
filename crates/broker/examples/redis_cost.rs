//! What a publication costs Redis: its processor time per publication by our broker, and by `redis-benchmark` with the same script, the same
//! sizes and the same number of connections that listen.
//!
//! `cargo run -p talewire-broker --example redis_cost [publications] [nodes]`. It starts a `redis-server` of its own and prints
//! microseconds of user and system time as the kernel counts them (`/proc/PID/stat`).

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use talewire_broker::{Broker, BrokerKind, BrokerSettings, NodeId, RedisSettings};
use talewire_proto::{Channel, Namespace, Payload, Publication};
use talewire_stand::redis::Redis;

/// Publications that are under way at once, and connections of `redis-benchmark`.
const AT_ONCE: usize = 64;

/// Microseconds of a clock tick of `/proc/PID/stat`, which is the same on every Linux that we know.
const TICK_US: u64 = 10_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let count: usize = arguments.next().map_or(Ok(200_000), |text| text.parse())?;
    let nodes: usize = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let server = Redis::start();
    let redis = RedisSettings { urls: vec![server.url()], ..RedisSettings::default() };
    let settings = BrokerSettings { kind: BrokerKind::Redis, redis, ..BrokerSettings::default() };
    let channel: Channel = "chat:cost".parse()?;
    let mut brokers = Vec::new();
    for _ in 0..nodes {
        let broker = Broker::open(&settings, &NodeId::new()).await?;
        broker.deliver_to(Arc::new(drop));
        broker.listen(&channel);
        broker.listening(&channel).await?;
        brokers.push(broker);
    }
    let hash = publish_hash(&server, &brokers[0], &channel).await?;
    let ours = cost(&server, count, async {
        let mut publishers = tokio::task::JoinSet::new();
        for at in 0..AT_ONCE {
            let (broker, channel) = (brokers[at % nodes].clone(), channel.clone());
            publishers.spawn(async move {
                let rules = Namespace::default();
                let data = Some(Payload::of(&"x".repeat(198)));
                for _ in 0..count / AT_ONCE {
                    let publication = Publication { data: data.clone(), ..Publication::default() };
                    broker.publish(&channel, &rules, publication.into()).await.expect("Redis answers");
                }
            });
        }
        publishers.join_all().await;
    });
    println!("by the broker: {:.2} us of Redis per publication, {nodes} nodes listen", ours.await?);
    for pipelined in ["1", "16"] {
        let theirs = cost(&server, count, async { benchmark(&server, &hash, count, pipelined) }).await?;
        println!("by redis-benchmark -c {AT_ONCE} -P {pipelined}: {theirs:.2} us");
    }
    Ok(())
}

/// The name of the script that publishes, as the server is told it.
async fn publish_hash(
    server: &Redis,
    broker: &Broker,
    channel: &Channel,
) -> Result<String, Box<dyn std::error::Error>> {
    let mut watched = TcpStream::connect(("127.0.0.1", server.port))?;
    watched.write_all(b"MONITOR\r\n")?;
    let mut lines = BufReader::new(watched).lines();
    lines.next().ok_or("no answer")??;
    broker.publish(channel, &Namespace::default(), Publication::default().into()).await?;
    for line in lines {
        let line = line?;
        if let Some((_, rest)) = line.split_once("\"EVALSHA\" \"")
            && rest.contains("{chat:cost}:h")
        {
            return Ok(rest[..40].to_owned());
        }
    }
    Err("nothing was published".into())
}

/// Has `redis-benchmark` publish as the broker does.
fn benchmark(server: &Redis, hash: &str, count: usize, pipelined: &str) {
    let (port, at_once, count) = (server.port.to_string(), AT_ONCE.to_string(), count.to_string());
    let body = "x".repeat(205);
    let defaults = Namespace::default();
    let (size, age) = (defaults.history_size.to_string(), defaults.history_age_ms.to_string());
    let channel = "talewire:c:{chat:cost}";
    let (meta, stream) = (format!("{channel}:m"), format!("{channel}:h"));
    let mut command = Command::new("redis-benchmark");
    command.args(["-p", &port, "-c", &at_once, "-n", &count, "-P", pipelined, "-q"]);
    command.args([
        "EVALSHA",
        hash,
        "2",
        &meta,
        &stream,
        channel,
        &body,
        &size,
        &age,
        "86400000",
        "",
        "",
        "0123456789abcdef",
        "",
    ]);
    let status = command.stdout(Stdio::null()).status().expect("redis-benchmark is installed");
    assert!(status.success());
}

/// Microseconds of the server's processor time for each of `count` things done by `work`.
async fn cost(server: &Redis, count: usize, work: impl Future<Output = ()>) -> Result<f64, Box<dyn std::error::Error>> {
    let spent = || -> Result<u64, Box<dyn std::error::Error>> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.process.id()))?;
        let after_name = stat.rsplit_once(')').ok_or("no name in stat")?.1;
        let numbers: Vec<&str> = after_name.split_whitespace().collect();
        Ok((numbers[11].parse::<u64>()? + numbers[12].parse::<u64>()?) * TICK_US)
    };
    let (before, begun) = (spent()?, Instant::now());
    work.await;
    let spent = spent()? - before;
    eprintln!("{count} in {:?}", begun.elapsed());
    Ok(spent as f64 / count as f64)
}
