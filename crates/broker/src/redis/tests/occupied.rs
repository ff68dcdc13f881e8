//! Occupied channels of several nodes over real servers: nodes that die or stand still, and servers that do or forget.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use talewire_proto::{Notice, NoticeKind};
use talewire_stand::redis_cluster::RedisCluster;

use super::*;

/// A serial, whether the channel is occupied, and which node says so.
type Word = (u64, bool, &'static str);

/// What was told of each channel, in the order of serials.
#[derive(Default)]
struct Heard(parking_lot::Mutex<BTreeMap<String, Vec<Word>>>);

impl Heard {
    fn take(&self, name: &'static str, notice: Notice) {
        let (channel, serial, is_occupied) = match notice {
            Notice::ChannelOccupied { channel, serial } => (channel, serial, true),
            Notice::ChannelVacated { channel, serial } => (channel, serial, false),
            other => panic!("nobody told {other:?}"),
        };
        let mut all = self.0.lock();
        let of = all.entry(channel.to_string()).or_default();
        of.push((serial, is_occupied, name));
        of.sort_unstable();
    }

    fn of(&self, channel: &str) -> Vec<(bool, &'static str)> {
        let all = self.0.lock();
        all.get(channel).into_iter().flatten().map(|(_, is_occupied, name)| (*is_occupied, *name)).collect()
    }

    fn is_occupied(&self, channel: &str) -> bool {
        self.of(channel).last().is_some_and(|(is_occupied, _)| *is_occupied)
    }
}

async fn telling(settings: &BrokerSettings, name: &'static str, heard: &Arc<Heard>) -> Node {
    let node = node_with(settings).await;
    let heard = heard.clone();
    let wanted = [NoticeKind::ChannelOccupied, NoticeKind::ChannelVacated];
    node.broker.notices_to(Arc::new(move |notice| heard.take(name, notice)), &wanted, settings);
    node
}

/// Two nodes over one server.
async fn two(server: &Server) -> (Node, Node, Arc<Heard>) {
    let (heard, settings) = (Arc::default(), quick(vec![server.url()]));
    (telling(&settings, "a", &heard).await, telling(&settings, "b", &heard).await, heard)
}

fn hold(node: &Node, name: &str, holds: bool) {
    if holds { node.broker.listen(&channel(name)) } else { node.broker.unlisten(&channel(name)) }
}

async fn settled(node: &Node) {
    wait_until(|| node.broker.occupancy_is_settled()).await;
}

/// Keys of channels that somebody holds, or held.
fn records(server: &Server) -> u64 {
    let count = "local count = 0 for _, key in ipairs(redis.call('KEYS', '*:n:{held-*}')) do \
                 count = count + redis.call('HLEN', key) - 1 end return count";
    server.say(&["EVAL", count, "0"]).unwrap().trim_start_matches(':').parse().unwrap()
}

/// Names that hold channels, or held some.
fn names(server: &Server) -> Vec<String> {
    let names = "local names = {} for _, key in ipairs(redis.call('KEYS', '*:n:{held-*}:names')) do \
                 for _, name in ipairs(redis.call('SMEMBERS', key)) do names[#names + 1] = name end end \
                 return table.concat(names, ' ')";
    let mut names: Vec<String> =
        server.say(&["EVAL", names, "0"]).unwrap().split_whitespace().map(str::to_owned).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_node_alone_held_is_vacated_once() {
    let server = Server::start();
    let (a, b, heard) = two(&server).await;
    let third = telling(&quick(vec![server.url()]), "c", &heard).await;
    for n in 0..100 {
        hold(&a, &format!("own:{n}"), true);
    }
    for node in [&a, &b] {
        hold(node, "both:1", true);
        settled(node).await;
    }
    let clears = || (0..100).all(|n| heard.of(&format!("own:{n}")).len() == 2);
    // As a kill -9 does it: nothing is said, and everything stands still.
    drop(a);
    wait_until(clears).await;
    wait_until(|| records(&server) == 1).await;
    for n in 0..100 {
        let told = heard.of(&format!("own:{n}"));
        assert_eq!((told[0], told[1].0), ((true, "a"), false), "{told:?}");
    }
    assert!(heard.of("both:1").iter().all(|(is_occupied, _)| *is_occupied), "{:?}", heard.of("both:1"));
    wait_until(|| names(&server).len() == 1).await;
    assert!(names(&server)[0].starts_with(&stamp_of(&b)), "the dead one is struck off, and whoever holds nothing");
    hold(&b, "both:1", false);
    wait_until(|| !heard.is_occupied("both:1")).await;
    wait_until(|| names(&server).is_empty()).await;
    drop(third);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_after_all_are_dead_vacates_for_them() {
    let server = Server::start();
    let (a, b, heard) = two(&server).await;
    hold(&a, "chat:a", true);
    hold(&b, "chat:b", true);
    settled(&a).await;
    settled(&b).await;
    drop((a, b));
    let late = telling(&quick(vec![server.url()]), "late", &heard).await;
    hold(&late, "chat:b", true);
    wait_until(|| heard.of("chat:a") == [(true, "a"), (false, "late")]).await;
    wait_until(|| records(&server) == 1).await;
    assert!(heard.is_occupied("chat:b"), "{:?}", heard.of("chat:b"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_forgets_is_said_again_and_ends_in_the_truth() {
    let mut server = Server::start();
    let (a, b, heard) = two(&server).await;
    for name in ["chat:1", "chat:2", "chat:3"] {
        hold(&a, name, true);
        hold(&b, name, true);
    }
    settled(&a).await;
    settled(&b).await;
    server.say(&["FLUSHALL"]).unwrap();
    wait_until(|| records(&server) == 3).await;
    // While it is away everybody leaves one channel, one leaves another, and a fourth is new.
    server.kill();
    for (node, name, holds) in
        [(&a, "chat:1", false), (&b, "chat:1", false), (&a, "chat:2", false), (&a, "chat:4", true)]
    {
        hold(node, name, holds);
    }
    server.restart();
    // Whoever leaves before the other has said again what it holds tells so, and the other puts it right.
    let truth =
        || [false, true, true, true] == ["chat:1", "chat:2", "chat:3", "chat:4"].map(|name| heard.is_occupied(name));
    wait_until(|| truth() && records(&server) == 3).await;
    settled(&a).await;
    settled(&b).await;
    assert!(truth());
    for (node, name) in [(&b, "chat:2"), (&a, "chat:3"), (&b, "chat:3"), (&a, "chat:4")] {
        hold(node, name, false);
    }
    wait_until(|| ["chat:2", "chat:3", "chat:4"].iter().all(|name| !heard.is_occupied(name))).await;
    wait_until(|| records(&server) == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_lost_do_not_lose_what_is_to_be_told() {
    let server = Server::start();
    let (a, b, heard) = two(&server).await;
    hold(&b, "chat:stays", true);
    settled(&b).await;
    for round in 0..3 {
        server.process.pause();
        hold(&a, &format!("chat:{round}"), true);
        // One has been written to the socket, and is carried out later, when nobody waits for its answer any more.
        let counts = a.broker.occupancy_counts().unwrap();
        let before = counts.failed.load(Ordering::Relaxed);
        wait_until(|| counts.failed.load(Ordering::Relaxed) > before).await;
        server.process.go_on();
        wait_until(|| heard.is_occupied(&format!("chat:{round}"))).await;
    }
    assert!(heard.is_occupied("chat:stays"));
    wait_until(|| records(&server) == 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_taken_for_dead_holds_again_what_it_held() {
    let server = Server::start();
    let (a, _b, heard) = two(&server).await;
    hold(&a, "chat:a", true);
    settled(&a).await;
    // As if it had stood still for longer than its lease: the other clears it away.
    server.say(&["ZREM", "talewire:n:{nodes}", &stamp_of(&a)]).unwrap();
    wait_until(|| heard.of("chat:a").len() >= 2).await;
    settled(&a).await;
    wait_until(|| records(&server) == 1).await;
    wait_until(|| heard.is_occupied("chat:a")).await;
    hold(&a, "chat:a", false);
    wait_until(|| !heard.is_occupied("chat:a")).await;
}

fn stamp_of(node: &Node) -> String {
    crate::occupancy::stamp_of(&node.id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_that_find_no_room_are_found_later() {
    let server = Server::start();
    let heard: Arc<Heard> = Arc::default();
    let settings = BrokerSettings { occupancy_waiting_max: 3, ..quick(vec![server.url()]) };
    let a = telling(&settings, "a", &heard).await;
    settled(&a).await;
    let names: Vec<String> = (0..20).map(|n| format!("chat:{n}")).collect();
    server.process.pause();
    names.iter().for_each(|name| hold(&a, name, true));
    server.process.go_on();
    let counts = a.broker.occupancy_counts().unwrap();
    assert!(counts.crowded_out.load(Ordering::Relaxed) > 0);
    wait_until(|| names.iter().all(|name| heard.is_occupied(name))).await;
    settled(&a).await;
    server.process.pause();
    names.iter().for_each(|name| hold(&a, name, false));
    server.process.go_on();
    wait_until(|| names.iter().all(|name| !heard.is_occupied(name))).await;
    wait_until(|| records(&server) == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_comes_and_goes_has_one_step_under_way() {
    let server = Server::start();
    let (a, _b, heard) = two(&server).await;
    settled(&a).await;
    let steps = || a.broker.occupancy_counts().unwrap().steps.load(Ordering::Relaxed);
    let before = steps();
    server.process.pause();
    for _ in 0..500 {
        hold(&a, "chat:a", true);
        hold(&a, "chat:a", false);
    }
    hold(&a, "chat:a", true);
    server.process.go_on();
    wait_until(|| heard.is_occupied("chat:a")).await;
    settled(&a).await;
    assert!(heard.of("chat:a").len() <= 3, "{:?}", heard.of("chat:a"));
    assert!(steps() - before <= 4, "{} steps", steps() - before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_keeps_what_a_step_needs_in_one_slot() {
    let cluster = RedisCluster::start(3, 0);
    let settings = clusters::settings(&cluster);
    let heard: Arc<Heard> = Arc::default();
    let (a, b) = (telling(&settings, "a", &heard).await, telling(&settings, "b", &heard).await);
    let names: Vec<String> = (0..200).map(|n| format!("chat:{n}")).collect();
    for node in [&a, &b] {
        names.iter().for_each(|name| hold(node, name, true));
        settled(node).await;
    }
    assert!(names.iter().all(|name| heard.of(name).len() == 1), "each is told once");
    names[..100].iter().for_each(|name| hold(&b, name, false));
    settled(&b).await;
    drop(a);
    wait_until(|| names[..100].iter().all(|name| !heard.is_occupied(name))).await;
    assert!(names[100..].iter().all(|name| heard.is_occupied(name)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_the_last_word_is_true() {
    let server = Server::start();
    let proxy = super::proxy::Proxy::before(server.port);
    let (heard, settings) = (Arc::default(), quick(vec![proxy.url()]));
    let nodes = [telling(&settings, "a", &heard).await, telling(&settings, "b", &heard).await];
    let doomed = telling(&settings, "doomed", &heard).await;
    let names: Vec<String> = (0..6).map(|n| format!("chat:{n}")).collect();
    let mut random = fastrand::Rng::with_seed(5);
    let mut held = [[false; 6]; 2];
    let mut doomed = Some(doomed);
    for round in 0..60 {
        for _ in 0..10 {
            let (at, n) = (random.usize(..2), random.usize(..6));
            held[at][n] = !held[at][n];
            hold(&nodes[at], &names[n], held[at][n]);
            if let Some(doomed) = &doomed {
                hold(doomed, &names[random.usize(..6)], random.bool());
            }
            tokio::task::yield_now().await;
        }
        match random.u8(..4) {
            0 => proxy.lose_the_next_answer(),
            1 => drop(server.say(&["CLIENT", "KILL", "TYPE", "normal"])),
            _ => settled(&nodes[round % 2]).await,
        }
        match round {
            20 => drop(doomed.take()),
            30 => drop(server.say(&["FLUSHALL"])),
            40 => drop(server.say(&["SET", "talewire:n:{nodes}", "garbage"])),
            50 => drop(server.say(&["DEL", "talewire:n:{held-7}", "talewire:n:{held-8}"])),
            _ => {}
        }
    }
    let is_true = || {
        (0..6).all(|n| heard.is_occupied(&names[n]) == (held[0][n] || held[1][n]))
            && nodes.iter().all(|node| node.broker.occupancy_is_settled())
    };
    let occupied = (0..6).filter(|n| held[0][*n] || held[1][*n]).count() as u64;
    wait_until(|| is_true() && records(&server) == occupied).await;
    for (node, held) in nodes.iter().zip(held) {
        (0..6).filter(|n| held[*n]).for_each(|n| hold(node, &names[n], false));
    }
    wait_until(|| names.iter().all(|name| !heard.is_occupied(name))).await;
    wait_until(|| records(&server) == 0).await;
}

/// The set that is found to be none when the record has been changed: the change was told by nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_told_also_where_a_key_is_of_another_type() {
    let server = Server::start();
    let (a, b, heard) = two(&server).await;
    let name = "chat:a";
    let part = crate::redis::Ledger::part_of(&channel(name));
    let spoil = |node: &Node, life: &str| {
        let holder = format!("{}{life}", stamp_of(node));
        let hex: String = holder.bytes().map(|byte| format!("{byte:02x}")).collect();
        let key = format!("talewire:n:{{held-{part}}}:{hex}");
        server.say(&["EVAL", "redis.call('DEL', KEYS[1]) redis.call('SET', KEYS[1], 'garbage')", "1", &key]).unwrap();
    };
    spoil(&a, "0000");
    hold(&a, name, true);
    wait_until(|| heard.is_occupied(name)).await;
    settled(&a).await;
    spoil(&a, "0000");
    hold(&a, name, false);
    wait_until(|| !heard.is_occupied(name)).await;
    hold(&a, name, true);
    wait_until(|| heard.is_occupied(name)).await;
    settled(&a).await;
    settled(&b).await;
    // Whoever gives up what it held finds that its own set is none.
    spoil(&b, "0000");
    drop(a);
    wait_until(|| !heard.is_occupied(name)).await;
    wait_until(|| records(&server) == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serials_that_are_none_silence_nobody() {
    let server = Server::start();
    let (a, _b, heard) = two(&server).await;
    let name = "chat:a";
    let key = format!("talewire:n:{{held-{}}}", crate::redis::Ledger::part_of(&channel(name)));
    for field in ["", name] {
        for bad in ["99999999999999999999999", "9100000000000000", "1e400", "nan", "-5", "1.5", "{}"] {
            let bad = if field.is_empty() { bad.to_owned() } else { format!("{bad} teller name") };
            let spoil = || server.say(&["HSET", &key, field, &bad]).unwrap();
            spoil();
            hold(&a, name, true);
            wait_until(|| heard.is_occupied(name)).await;
            settled(&a).await;
            spoil();
            hold(&a, name, false);
            wait_until(|| !heard.is_occupied(name)).await;
            settled(&a).await;
        }
    }
    let highest = heard.0.lock()[name].iter().map(|(serial, ..)| *serial).max();
    assert!(highest < Some(9_000_000_000_000_000), "{highest:?}");
}

/// Whether what is known of a channel is with a server of a cluster.
fn lies_with(cluster: &RedisCluster, at: usize, name: &str) -> bool {
    let part = crate::redis::Ledger::part_of(&channel(name));
    cluster.owner(cluster.slot(&format!("held-{part}"))) == Some(at)
}

/// Neither what others come to hold, nor what is vacated, nor the dead wait for one of the servers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_lost_master_of_three_leaves_the_others_channels() {
    let mut cluster = RedisCluster::start(3, 0);
    let settings = clusters::settings(&cluster);
    let heard: Arc<Heard> = Arc::default();
    let (a, b) = (telling(&settings, "a", &heard).await, telling(&settings, "b", &heard).await);
    // Who lives is known by another.
    let nodes = cluster.owner(cluster.slot("nodes")).unwrap();
    let lost = (nodes + 1) % 3;
    let (gone, there): (Vec<String>, Vec<String>) =
        (0..60).map(|n| format!("chat:{n}")).partition(|name| lies_with(&cluster, lost, name));
    assert!(gone.len() > 5 && there.len() > 20);
    let mut new: Vec<String> =
        (0..60).map(|n| format!("new:{n}")).filter(|name| !lies_with(&cluster, lost, name)).collect();
    let first = new.pop().unwrap();
    gone.iter().chain(&there).for_each(|name| hold(&a, name, true));
    settled(&a).await;
    settled(&b).await;
    cluster.servers[lost].say(&["SAVE"]).unwrap();
    cluster.servers[lost].kill();
    wait_until(|| matches!(b.broker.health(), BrokerHealth::Partly { .. })).await;
    // One that is there goes and comes back, so that what every node holds is compared.
    let other = (0..3).find(|at| *at != lost).unwrap();
    cluster.servers[other].say(&["CLIENT", "KILL", "TYPE", "normal"]).unwrap();
    new.iter().for_each(|name| hold(&b, name, true));
    wait_until(|| new.iter().all(|name| heard.is_occupied(name))).await;
    let late = telling(&settings, "late", &heard).await;
    hold(&late, &there[0], true);
    new.iter().for_each(|name| hold(&b, name, false));
    hold(&late, &first, true);
    wait_until(|| heard.is_occupied(&first) && new.iter().all(|name| !heard.is_occupied(name))).await;
    drop(a);
    wait_until(|| there[1..].iter().all(|name| !heard.is_occupied(name))).await;
    assert!(heard.is_occupied(&there[0]));
    assert!(gone.iter().all(|name| heard.is_occupied(name)), "nobody can know");
    let of_servers = |at: &usize| records(&cluster.servers[*at]);
    wait_until(|| (0..3).filter(|at| *at != lost).map(|at| of_servers(&at)).sum::<u64>() <= 3).await;
    cluster.servers[lost].restart();
    wait_until(|| gone.iter().all(|name| !heard.is_occupied(name))).await;
}

/// A dead node that held much keeps nobody's channels waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_go_on_while_much_is_given_up() {
    const MUCH: usize = 20_000;
    let server = Server::start();
    let node = node(&server).await;
    let dead = "d".repeat(24);
    let hex: String = dead.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut parts = BTreeMap::<usize, Vec<String>>::new();
    for n in 0..MUCH {
        let name = format!("left:{n}");
        parts.entry(crate::redis::Ledger::part_of(&channel(&name))).or_default().push(name);
    }
    for (part, names) in parts {
        let key = format!("talewire:n:{{held-{part}}}");
        let record = format!("5 {dead} {dead}");
        let (mut records, mut held) =
            (vec!["HSET".to_owned(), key.clone()], vec!["SADD".to_owned(), format!("{key}:{hex}")]);
        for name in names {
            records.extend([name.clone(), record.clone()]);
            held.push(name);
        }
        for command in [records, held, vec!["SADD".to_owned(), format!("{key}:names"), dead.clone()]] {
            server.say(&command.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        }
    }
    let (told, mut heard) = mpsc::unbounded_channel();
    let begun = std::sync::Once::new();
    let broker = node.broker.clone();
    let runtime = tokio::runtime::Handle::current();
    let sink = move |notice| {
        // Whoever tells must not be kept.
        begun.call_once(|| {
            let broker = broker.clone();
            runtime.spawn(async move { broker.listen(&channel("chat:new")) });
        });
        drop(told.send(notice));
    };
    let wanted = [NoticeKind::ChannelOccupied, NoticeKind::ChannelVacated];
    node.broker.notices_to(Arc::new(sink), &wanted, &quick(vec![server.url()]));
    let (mut vacated, mut before) = (0, None);
    while vacated < MUCH || before.is_none() {
        match tokio::time::timeout(Duration::from_secs(60), heard.recv()).await.unwrap().unwrap() {
            Notice::ChannelVacated { .. } => vacated += 1,
            Notice::ChannelOccupied { .. } => before = Some(vacated),
            other => panic!("nobody told {other:?}"),
        }
    }
    assert!(before.unwrap() < MUCH / 2, "{before:?} of {MUCH} went before");
    wait_until(|| records(&server) == 1).await;
}

/// A name that was taken for dead gives up what it held also where there is no moment without a channel that comes or goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_name_holds_is_given_up_while_channels_come_and_go() {
    let server = Server::start();
    let heard = Arc::default();
    let a = telling(&quick(vec![server.url()]), "a", &heard).await;
    hold(&a, "chat:stays", true);
    settled(&a).await;
    let is_over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flipping = tokio::spawn({
        let (broker, is_over) = (a.broker.clone(), is_over.clone());
        let names: Vec<Channel> = (0..300).map(|n| channel(&format!("flip:{n}"))).collect();
        async move {
            while !is_over.load(Ordering::Relaxed) {
                for name in &names {
                    broker.listen(name);
                    tokio::task::yield_now().await;
                }
                names.iter().for_each(|name| broker.unlisten(name));
            }
        }
    });
    let part = crate::redis::Ledger::part_of(&channel("chat:stays"));
    let record = || server.say(&["HGET", &format!("talewire:n:{{held-{part}}}"), "chat:stays"]).unwrap();
    let before = format!("{}0000", stamp_of(&a));
    assert!(record().contains(&format!(" {before}")));
    server.say(&["ZREM", "talewire:n:{nodes}", &stamp_of(&a)]).unwrap();
    // On a busy machine it may lapse once more, and have a third name.
    let names = || -> Vec<String> { record().split_whitespace().skip(2).map(str::to_owned).collect() };
    wait_until(|| names().last().is_some_and(|last| *last != before)).await;
    wait_until(|| names().len() == 1 && names()[0] != before).await;
    let told = heard.of("chat:stays");
    assert!(told.iter().all(|(is_occupied, _)| *is_occupied), "nothing is vacated on the way: {told:?}");
    is_over.store(true, Ordering::Relaxed);
    flipping.await.unwrap();
    settled(&a).await;
    wait_until(|| records(&server) == 1).await;
}
