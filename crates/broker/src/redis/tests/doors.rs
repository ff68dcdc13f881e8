//! How a server is entered: TLS with certificates on both sides, and users who may do no more than they need.

use talewire_stand::redis_tls::{Certificates, start};

use super::*;
use crate::Password;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_certificates_on_both_sides() {
    let certificates = Certificates::make();
    let (_server, port) = start(&certificates);
    let mut settings = quick(vec![format!("rediss://127.0.0.1:{port}")]);
    settings.redis.tls_ca_file = Some(certificates.authority());
    settings.redis.tls_cert_file = Some(certificates.certificate());
    settings.redis.tls_key_file = Some(certificates.key());
    let mut node = node_with(&settings).await;
    node.listen("chat:a").await;
    node.publish("chat:a", "in private").await.unwrap();
    assert!(matches!(node.next().await.message, Message::Entry { .. }));

    let refused = async |change: fn(&mut RedisSettings)| {
        let mut settings = settings.clone();
        change(&mut settings.redis);
        matches!(Broker::open(&settings, &NodeId::new()).await, Err(BrokerError::Unavailable(_)))
    };
    assert!(refused(|redis| redis.tls_ca_file = None).await, "nobody vouches for the server");
    assert!(refused(|redis| (redis.tls_cert_file, redis.tls_key_file) = (None, None)).await, "nor for us");
    assert!(refused(|redis| redis.tls_key_file = None).await, "a certificate without its key");
    assert!(refused(|redis| redis.tls_ca_file = Some("/nowhere".into())).await);
    assert!(refused(|redis| redis.urls[0] = redis.urls[0].replace("127.0.0.1", "localhost")).await, "another name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_needs_no_more_than_the_document_says() {
    let server = Server::start();
    let document = include_str!("../../../../../docs/redis.md");
    let line =
        document.lines().find(|line| line.starts_with("ACL SETUSER talewire ")).expect("the document has a line");
    assert_eq!(server.say(&line.split(' ').collect::<Vec<_>>()).unwrap(), "+OK");
    assert_eq!(server.say(&["ACL", "SETUSER", "default", "off"]).unwrap(), "+OK");
    let mut settings = quick(vec![server.url()]);
    settings.redis.username = "talewire".into();
    settings.redis.password = Some(Password::new("SECRET"));
    let mut node = node_with(&settings).await;
    node.listen("chat:a").await;
    node.publish("chat:a", "x").await.unwrap();
    assert!(matches!(node.next().await.message, Message::Entry { .. }));
    assert_eq!(node.page("chat:a").await.entries.len(), 1);
    let story = talewire_proto::StoryId::from_random([1; 13]);
    let generation = talewire_proto::GenerationId::from_random([2; 13]);
    node.broker.generation_begin(&story, &generation, 1).await.unwrap();
    node.broker.generation_append(&story, &generation, 1, 0, "words").await.unwrap();
    assert!(node.broker.generation_snapshot(&story, &generation).await.unwrap().is_some());
    let info = Arc::new(talewire_proto::ClientInfo::default());
    node.broker.enter(&channel("chat:a"), &"c".parse().unwrap(), &info, crate::Tell::Nobody).await.unwrap();
    assert_eq!(node.broker.presence(&channel("chat:a")).await.unwrap().len(), 1);
    assert_eq!(node.broker.spend("mark", 1_000).await, Ok(true));
    assert_eq!(node.broker.lease("prune", 1_000).await, Ok(true));
    node.broker.release("prune").await;
    let mut wakeups = node.broker.wakeups();
    let woken = tokio::time::timeout(Duration::from_secs(20), wakeups.recv());
    assert_eq!(woken.await.unwrap().unwrap(), crate::WakeUp::Jobs);
    node.broker.depart().await;

    settings.redis.password = Some(Password::new("guessed"));
    let Err(error) = Broker::open(&settings, &NodeId::new()).await else { panic!("anybody may enter") };
    assert!(!error.to_string().contains("guessed") && !format!("{settings:?}").contains("guessed"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_user_is_enough_on_a_cluster() {
    let cluster = talewire_stand::redis_cluster::RedisCluster::start(3, 0);
    let document = include_str!("../../../../../docs/redis.md");
    let line =
        document.lines().find(|line| line.starts_with("ACL SETUSER talewire ")).expect("the document has a line");
    for server in &cluster.servers {
        assert_eq!(server.say(&line.split(' ').collect::<Vec<_>>()).unwrap(), "+OK");
        assert_eq!(server.say(&["ACL", "SETUSER", "default", "off"]).unwrap(), "+OK");
    }
    let mut settings = clusters::settings(&cluster);
    settings.redis.username = "talewire".into();
    settings.redis.password = Some(Password::new("SECRET"));
    let mut node = node_with(&settings).await;
    // Some for each of the servers.
    for name in (0..12).map(|n| format!("chat:{n}")) {
        node.listen(&name).await;
        node.publish(&name, "x").await.unwrap();
        assert!(matches!(node.next().await.message, Message::Entry { .. }));
        assert_eq!(node.page(&name).await.entries.len(), 1);
        let info = Arc::new(talewire_proto::ClientInfo::default());
        node.broker.enter(&channel(&name), &"c".parse().unwrap(), &info, crate::Tell::Nobody).await.unwrap();
        assert_eq!(node.broker.presence(&channel(&name)).await.unwrap().len(), 1);
    }
    assert_eq!(node.broker.spend("mark", 1_000).await, Ok(true));
    assert_eq!(node.broker.lease("prune", 1_000).await, Ok(true));
    node.broker.depart().await;
    settings.redis.password = Some(Password::new("guessed"));
    assert!(Broker::open(&settings, &NodeId::new()).await.is_err(), "anybody may enter");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_say_how_they_are_set() {
    let server = Server::lasting();
    let mut settings = quick(vec![server.url()]).redis;
    let facts = crate::redis_facts(&settings).await.unwrap();
    let [Ok(one)] = &facts[..] else { panic!("one server: {facts:?}") };
    assert!(
        one.version.starts_with(|c: char| c.is_ascii_digit()) && one.is_master && one.ahead_ms.abs() < 10_000,
        "{one:?}"
    );
    assert_eq!((&*one.eviction, one.memory_bytes_max, one.replicas, one.appends), ("noeviction", 0, 0, true));
    assert_eq!((one.append_sync.as_deref(), one.replicas_min, one.needs_all_slots), (Some("always"), Some(0), None));
    server.say(&["ACL", "SETUSER", "default", "-config"]).unwrap();
    let facts = crate::redis_facts(&settings).await.unwrap();
    let [Ok(one)] = &facts[..] else { panic!("one server: {facts:?}") };
    assert_eq!((&one.append_sync, one.appends), (&None, true));
    let mut cluster = talewire_stand::redis_cluster::RedisCluster::start(3, 0);
    (settings.mode, settings.urls) = (RedisMode::Cluster, cluster.urls());
    let facts = crate::redis_facts(&settings).await.unwrap();
    let coverage: Vec<_> = facts.iter().map(|facts| facts.as_ref().unwrap().needs_all_slots).collect();
    assert_eq!(coverage, [Some(false); 3]);
    cluster.servers[0].kill();
    let facts = crate::redis_facts(&settings).await.unwrap();
    let lost: Vec<&String> = facts.iter().filter_map(|facts| facts.as_ref().err()).collect();
    assert!(facts.len() == 3 && lost.len() == 1 && lost[0].contains("5461 of 16384 slots"), "{facts:?}");
    drop(cluster);
    assert!(crate::redis_facts(&settings).await.is_err());
}
