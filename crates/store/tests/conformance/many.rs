//! Many nodes on one database: what each may rely on while the others do the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use talewire_proto::{Channel, GenerationId, Payload};
use talewire_store::{About, Append, Decision, Effect, Finished, Key, LogMark, Rule, Store, StoreError, StoreSettings};

use crate::server::{Server, ask};
use crate::world::{
    WHOLE, accepted, add_turn, append, begin, channel, decide, done, events, main_branch, request, story_id, texts,
    user,
};

/// Nodes on a new database.
async fn nodes(server: &Server, count: usize) -> (StoreSettings, Vec<Store>) {
    let settings = server.settings().await;
    let mut nodes = Vec::new();
    for _ in 0..count {
        nodes.push(Store::open(&settings).await.unwrap());
    }
    (settings, nodes)
}

/// What looks at growth have told, by channel.
async fn look(node: &Store, mark: &mut LogMark, told: &mut HashMap<Channel, u64>) {
    loop {
        let (next, grown) = node.grown(mark.clone()).await.unwrap();
        *mark = next;
        if grown.is_empty() {
            return;
        }
        for (channel, top) in grown {
            let known = told.entry(channel).or_default();
            *known = top.max(*known);
        }
    }
}

/// Logouts of many nodes come by their places, so that whoever reads on from the last one misses none.
pub(crate) async fn logouts_of_many_nodes_are_read_once(server: &Server) {
    const EACH: i64 = 200;
    let (_, nodes) = nodes(server, 3).await;
    let reading = nodes[2].clone();
    let reader = tokio::spawn(async move {
        let (mut after, mut read) = (0, BTreeSet::new());
        while read.len() < 2 * EACH as usize {
            for logout in reading.logouts(after, 1_000).await.unwrap() {
                after = logout.seq;
                assert!(read.insert((logout.user, logout.issued_at)));
            }
        }
    });
    let writers = (0..2).flat_map(|node| (0..EACH).map(move |number| (node, number))).map(|(node, number)| {
        let (store, user) = (nodes[node as usize].clone(), user(&format!("guest-{node}")));
        tokio::spawn(async move { store.log_out(&user, number, i64::MAX).await.unwrap() })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    tokio::time::timeout(Duration::from_secs(10), reader).await.expect("a logout was missed").unwrap();
}

/// Offsets are dense and everything acknowledged is told by the next look at growth, whatever others have open.
pub(crate) async fn writers_of_many_nodes_keep_one_order(server: &Server) {
    const TASKS: usize = 8;
    const EACH: usize = 30;
    let (_, nodes) = nodes(server, 2).await;
    let acked: Arc<Mutex<BTreeMap<Channel, BTreeMap<u64, String>>>> = Arc::default();
    let over = Arc::new(AtomicBool::new(false));
    let mut lookers = Vec::new();
    for node in &nodes {
        let (node, acked, over) = (node.clone(), acked.clone(), over.clone());
        lookers.push(tokio::spawn(async move {
            let mut mark = LogMark::default();
            let mut told = HashMap::new();
            let mut looks = 0;
            loop {
                let last = over.load(Ordering::Acquire);
                let before: Vec<(Channel, u64)> =
                    acked.lock().iter().map(|(c, entries)| (c.clone(), *entries.last_key_value().unwrap().0)).collect();
                look(&node, &mut mark, &mut told).await;
                for (channel, top) in before {
                    assert!(
                        told.get(&channel) >= Some(&top),
                        "{channel} {top} was acknowledged and not told: {told:?}"
                    );
                }
                looks += 1;
                if last {
                    return (looks, told);
                }
            }
        }));
    }
    let mut writers = Vec::new();
    for task in 0..TASKS * nodes.len() {
        let (node, acked) = (nodes[task % nodes.len()].clone(), acked.clone());
        writers.push(tokio::spawn(async move {
            for number in 0..EACH {
                // Every other one into a channel that all write to.
                let to = if number % 2 == 0 { channel("shared:1") } else { channel(&format!("own:{task}")) };
                let text = format!("{task}-{number}");
                let done = node.append(append(&to, &text)).await.unwrap();
                let before = acked.lock().entry(to).or_default().insert(done.position.offset, text);
                assert_eq!(before, None, "two entries at one offset");
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    over.store(true, Ordering::Release);
    for looker in lookers {
        let (looks, told) = looker.await.unwrap();
        assert!(looks > 2, "looks went on beside the writers");
        let tops: HashMap<Channel, u64> = acked.lock().iter().map(|(c, all)| (c.clone(), all.len() as u64)).collect();
        assert_eq!(told, tops);
    }
    let acked = acked.lock().clone();
    for (channel, entries) in acked {
        for node in &nodes {
            assert_eq!(texts(node, &channel).await, entries.values().cloned().collect::<Vec<_>>());
        }
    }
}

/// A transaction that began first and commits last: a mark by rising numbers would pass it by.
pub(crate) async fn what_commits_late_is_told_late_but_told(server: &Server) {
    let (settings, nodes) = nodes(server, 1).await;
    let node = &nodes[0];
    let (slow, quick) = (channel("slow:1"), channel("quick:1"));
    node.append(append(&slow, "one")).await.unwrap();
    let mut mark = node.log_mark().await.unwrap();
    let url = database_of(&settings);
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let late = "BEGIN; UPDATE talewire.channels SET top = 2 WHERE name = 'slow:1';
        INSERT INTO talewire.log (channel, \"offset\", time_ms, data) SELECT id, 2, 1, '\"two\"' FROM talewire.channels WHERE name = 'slow:1'";
    client.batch_execute(late).await.unwrap();
    for _ in 0..3 {
        let top = node.append(append(&quick, "x")).await.unwrap().position.offset;
        let mut told = HashMap::new();
        look(node, &mut mark, &mut told).await;
        assert_eq!(told, HashMap::from([(quick.clone(), top)]), "once, and at once");
    }
    assert_eq!(node.top(&slow).await.unwrap().offset, 1);
    client.batch_execute("COMMIT").await.unwrap();
    let mut told = HashMap::new();
    look(node, &mut mark, &mut told).await;
    assert_eq!(told, HashMap::from([(slow.clone(), 2)]));
    look(node, &mut mark, &mut told).await;
    assert_eq!(told.len(), 1);
    assert_eq!(texts(node, &slow).await, ["one", "two"]);
}

fn database_of(settings: &StoreSettings) -> String {
    settings.url.to_string()
}

/// More than one look passes at a time: it comes in parts, and a transaction is never cut.
pub(crate) async fn much_growth_is_told_in_parts(server: &Server) {
    let (settings, nodes) = nodes(server, 1).await;
    let node = &nodes[0];
    let many =
        "INSERT INTO talewire.channels (name, epoch, top) SELECT 'many:' || n, 'e', 100 FROM generate_series(1, 60) n;";
    ask(&database_of(&settings), many).await;
    for part in 0..12 {
        let sql = format!(
            "INSERT INTO talewire.log (channel, \"offset\", time_ms) SELECT id, o, 1 FROM talewire.channels, generate_series(1, 300) o
             WHERE name = ANY(ARRAY(SELECT 'many:' || n FROM generate_series({0}, {0} + 4) n))",
            part * 5 + 1
        );
        ask(&database_of(&settings), &sql).await;
    }
    let (mut mark, first) = node.grown(LogMark::default()).await.unwrap();
    assert!(!first.is_empty() && first.len() < 60, "{} of 60 channels", first.len());
    let mut told: HashMap<Channel, u64> = first.into_iter().collect();
    look(node, &mut mark, &mut told).await;
    assert_eq!(told.len(), 60);
    assert!(told.values().all(|top| *top == 300));
}

pub(crate) async fn a_key_used_by_two_nodes_at_once_is_one_entry(server: &Server) {
    const KEYS: usize = 40;
    let (_, nodes) = nodes(server, 2).await;
    let mut tries = Vec::new();
    for key in 0..KEYS {
        for node in nodes.iter().cycle().take(4) {
            let node = node.clone();
            tries.push(tokio::spawn(async move {
                let key = Key { user: user("ana"), key: format!("k{key}") };
                let append = Append { key: Some(key.clone()), ..append(&channel("once:1"), "x") };
                let done = node.append(append).await.unwrap();
                (key.key, done.position.offset, done.repeated)
            }));
        }
    }
    let mut offsets: HashMap<String, BTreeSet<u64>> = HashMap::new();
    let mut new = 0;
    for one in tries {
        let (key, offset, repeated) = one.await.unwrap();
        offsets.entry(key).or_default().insert(offset);
        new += usize::from(!repeated);
    }
    assert_eq!((new, offsets.len()), (KEYS, KEYS));
    assert!(offsets.values().all(|offsets| offsets.len() == 1), "{offsets:?}");
    assert_eq!(texts(&nodes[1], &channel("once:1")).await.len(), KEYS);
}

pub(crate) async fn a_job_is_claimed_by_one_node(server: &Server) {
    const JOBS: usize = 12;
    let (_, nodes) = nodes(server, 3).await;
    for job in 0..JOBS {
        begin(&nodes[0], &format!("claim{job}")).await;
        request(&nodes[0], &format!("claim{job}"), &format!("claim-g{job}")).await.unwrap();
    }
    let mut workers = Vec::new();
    for worker in 0..JOBS * 2 {
        let node = nodes[worker % nodes.len()].clone();
        workers.push(tokio::spawn(async move {
            let owner = format!("w{worker}").parse().unwrap();
            node.claim(&owner, 30_000).await.unwrap().map(|job| (job.generation.id.clone(), job.generation.attempt))
        }));
    }
    let mut claimed = Vec::new();
    for worker in workers {
        claimed.extend(worker.await.unwrap());
    }
    let ids: BTreeSet<&GenerationId> = claimed.iter().map(|(id, _)| id).collect();
    assert_eq!((claimed.len(), ids.len()), (JOBS, JOBS));
    assert!(claimed.iter().all(|(_, attempt)| *attempt == 1));
    // And its end is written by one, whoever tries.
    let mut ends = Vec::new();
    for (place, (id, _)) in claimed.iter().enumerate().cycle().take(JOBS * 3) {
        let (node, id) = (nodes[place % 3].clone(), id.clone());
        ends.push(tokio::spawn(async move {
            matches!(node.finish(done(&id, 1, "x")).await.unwrap(), Finished::Committed { .. })
        }));
    }
    let mut committed = 0;
    for end in ends {
        committed += usize::from(end.await.unwrap());
    }
    assert_eq!(committed, JOBS);
}

/// Turns, requests to stop, claims and ends of the same stories from every node: nobody waits in a circle.
pub(crate) async fn everything_at_once_ends(server: &Server) {
    let (_, nodes) = nodes(server, 3).await;
    for story in 0..2 {
        begin(&nodes[0], &format!("all{story}")).await;
    }
    let mut tasks = Vec::new();
    for task in 0..12 {
        let node = nodes[task % nodes.len()].clone();
        tasks.push(tokio::spawn(async move {
            for round in 0..10 {
                let name = format!("all{}", (task + round) % 2);
                let story = story_id(&name);
                match task % 4 {
                    0 => {
                        add_turn(&node, &story, &main_branch(&name), &format!("all-t{task}-{round}"), None).await;
                    }
                    // One generation may be open at a time: the second request is refused by the database.
                    1 => match request(&node, &name, &format!("all-g{task}-{round}")).await {
                        Ok(_) | Err(StoreError::Broken(_)) => {}
                        Err(error) => panic!("{error}"),
                    },
                    2 => {
                        let owner = format!("w{task}").parse().unwrap();
                        if let Some(job) = node.claim(&owner, 60_000).await.unwrap() {
                            stop(&node, &job.story, &job.generation.id).await;
                            node.finish(done(&job.generation.id, job.generation.attempt, "y")).await.unwrap();
                        }
                    }
                    _ => {
                        node.renew(&"nobodys".parse().unwrap(), 1, 5).await.unwrap();
                        let key = Some("same");
                        add_turn(&node, &story, &main_branch(&name), &format!("all-k{task}-{round}"), key).await;
                    }
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    for story in 0..2 {
        let view = nodes[1].story_view(&story_id(&format!("all{story}")), None, WHOLE).await.unwrap().unwrap();
        let numbers: Vec<u64> = view.page.turns.iter().map(|turn| turn.number).collect();
        assert_eq!(numbers, (1..=view.story.turns).collect::<Vec<_>>());
        let log = events(&nodes[2], &view.story.id).await;
        assert_eq!(log.len() as u64, view.position.offset);
    }
}

async fn stop(node: &Store, story: &talewire_proto::StoryId, generation: &GenerationId) {
    let (made_in, wanted) = (story.clone(), generation.clone());
    let rule: Rule = Box::new(move |_| {
        Ok(Decision { story: made_in, effects: vec![Effect::Cancel(wanted)], answer: Payload::of(&()) })
    });
    accepted(decide(node, "ana", About::Generation(story.clone(), generation.clone()), None, rule).await);
}

pub(crate) async fn nodes_may_start_at_once(server: &Server) {
    let settings = server.settings().await;
    let opening: Vec<_> = (0..6)
        .map(|_| {
            let settings = settings.clone();
            tokio::spawn(async move {
                let node = Store::open(&settings).await.unwrap();
                node.secret("logins").await.unwrap()
            })
        })
        .collect();
    let mut secrets = BTreeSet::new();
    for one in opening {
        secrets.insert(one.await.unwrap());
    }
    assert_eq!(secrets.len(), 1, "all have the same secret");
}

pub(crate) async fn a_newer_schema_is_left_alone_but_for_a_neighbour(server: &Server) {
    let (settings, nodes) = nodes(server, 1).await;
    nodes[0].close().await;
    let url = database_of(&settings);
    let known = ask(&url, "SELECT MAX(number) FROM talewire.steps").await.unwrap();
    ask(&url, &format!("INSERT INTO talewire.steps (number, since) VALUES ({known} + 1, {known})")).await;
    let neighbour = Store::open(&settings).await.unwrap();
    assert_eq!(neighbour.append(append(&channel("next:1"), "x")).await.unwrap().position.offset, 1);
    neighbour.close().await;
    ask(&url, "INSERT INTO talewire.steps (number, since) VALUES (99, 98)").await;
    let error = Store::open(&settings).await.err().unwrap();
    assert_eq!(error, StoreError::NewerSchema { found: 99, known: known.parse().unwrap() });
    assert!(error.to_string().contains("use that version or newer"));
}

/// A dump that was read into another server brings numbers of transactions along that are far ahead.
pub(crate) async fn a_database_from_another_server_tells_its_growth(server: &Server) {
    let (settings, nodes) = nodes(server, 1).await;
    nodes[0].append(append(&channel("moved:1"), "x")).await.unwrap();
    nodes[0].close().await;
    ask(&database_of(&settings), "UPDATE talewire.log SET tx = 1000000000000").await;
    let node = Store::open(&settings).await.unwrap();
    let mut mark = node.log_mark().await.unwrap();
    node.append(append(&channel("moved:1"), "y")).await.unwrap();
    let mut told = HashMap::new();
    look(&node, &mut mark, &mut told).await;
    assert_eq!(told, HashMap::from([(channel("moved:1"), 2)]));
}

/// Somebody outside of our order of locks: the database breaks the circle, and the use case is tried again by itself, with
/// the answer that its rule gave.
pub(crate) async fn a_deadlock_is_tried_again(server: &Server) {
    let (settings, nodes) = nodes(server, 1).await;
    let node = &nodes[0];
    let story = begin(node, "circle").await;
    let (client, connection) = tokio_postgres::connect(&database_of(&settings), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let lock = "BEGIN; UPDATE talewire.channels SET top = top WHERE name = 'story:circle'";
    client.batch_execute(lock).await.unwrap();
    let before = node.figures();
    let turn = {
        let (node, story) = (node.clone(), story.clone());
        tokio::spawn(async move { add_turn(&node, &story, &main_branch("circle"), "circle-t1", Some("k")).await })
    };
    // It holds the story and waits for the channel.
    let waits = "SELECT COUNT(*) FROM pg_locks WHERE NOT granted";
    while ask(&database_of(&settings), waits).await.as_deref() == Some("0") {
        tokio::task::yield_now().await;
    }
    client.batch_execute("UPDATE talewire.stories SET turns = turns; COMMIT").await.unwrap();
    let added = turn.await.unwrap();
    assert_eq!((added.repeated, added.log.len()), (false, 1));
    assert!(node.figures().groups_failed > before.groups_failed, "nobody was in a circle");
    assert_eq!(node.story_view(&story, None, WHOLE).await.unwrap().unwrap().story.turns, 1);
}

/// A node that was frozen in the middle of a transaction: others are told in time, and go on when its session is ended.
pub(crate) async fn a_frozen_node_holds_nobody_for_ever(server: &Server) {
    let settings = StoreSettings { operation_ms_max: 1_000, ..server.settings().await };
    let node = Store::open(&settings).await.unwrap();
    let (held, free) = (channel("held:1"), channel("free:1"));
    node.append(append(&held, "one")).await.unwrap();
    let (client, connection) = tokio_postgres::connect(&database_of(&settings), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("BEGIN; UPDATE talewire.channels SET top = top WHERE name = 'held:1'").await.unwrap();
    let error = node.append(append(&held, "waits")).await.err().unwrap();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert_eq!(node.top(&held).await.unwrap().offset, 1, "reading goes on");
    assert_eq!(node.append(append(&free, "x")).await.unwrap().position.offset, 1, "and so do others");
    // As a session of ours is ended by the server after that time.
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()";
    ask(&database_of(&settings), end).await;
    assert_eq!(node.append(append(&held, "two")).await.unwrap().position.offset, 2);
    assert_eq!(texts(&node, &held).await, ["one", "two"]);
}

/// A story that somebody else holds, and whoever waits for it, leave the connections of a node to all others.
pub(crate) async fn a_held_story_holds_up_itself_alone(server: &Server) {
    let settings = StoreSettings { connections_max: 3, ..server.settings().await };
    let node = Store::open(&settings).await.unwrap();
    let (held, free) = (begin(&node, "held").await, begin(&node, "free").await);
    let (client, connection) = tokio_postgres::connect(&database_of(&settings), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("BEGIN; UPDATE talewire.stories SET title = title WHERE id = 'held'").await.unwrap();
    let asks = |who: String, story: &talewire_proto::StoryId| {
        let (node, story) = (node.clone(), story.clone());
        let answer = Decision { story: story.clone(), effects: Vec::new(), answer: Payload::of(&()) };
        let rule: Rule = Box::new(move |_| Ok(answer));
        async move { accepted(decide(&node, &who, About::Story(story), None, rule).await) }
    };
    // Many, and one of them many times.
    let waiting: Vec<_> =
        (0..40).map(|number| tokio::spawn(asks(format!("user-{}", number / 2 * (number % 2)), &held))).collect();
    let sql = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    while ask(&database_of(&settings), sql).await.as_deref() == Some("0") {}
    for number in 0..20 {
        asks(format!("other-{number}"), &free).await;
        node.append(append(&channel("free:1"), "x")).await.unwrap();
        node.top(&channel("free:1")).await.unwrap();
    }
    assert_eq!(ask(&database_of(&settings), sql).await.as_deref(), Some("1"), "one of this node waits there");
    client.batch_execute("ROLLBACK").await.unwrap();
    for one in waiting {
        one.await.unwrap();
    }
}

/// Whoever has used a shared database is found there by name, as long as it is open.
pub(crate) async fn users_are_found_by_name(server: &Server) {
    let settings = server.settings().await;
    let [one, two] = ["one", "two"].map(|name| Store::open_as(&settings, name));
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    let nameless = Store::open(&settings).await.unwrap();
    // Who has asked for nothing yet may have no session.
    assert!(one.users().await.unwrap().contains(&"one".to_owned()));
    assert!(two.users().await.unwrap().contains(&"two".to_owned()));
    let mut users = nameless.users().await.unwrap();
    users.sort();
    assert_eq!(users, ["one", "two"]);
    two.close().await;
    drop(two);
    while one.users().await.unwrap() != ["one"] {
        tokio::task::yield_now().await;
    }
}
