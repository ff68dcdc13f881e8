//! What operators and the makers of programs see: metrics, names of requests, the description of the interfaces.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use talewire_proto::session::Anonymous;

use crate::http::request;
use crate::stage::{DEADLINE, Settings, Stage};

/// The names in the first column of the table of metrics, without labels.
fn documented() -> BTreeSet<String> {
    let document = include_str!("../../../../docs/operations.md");
    let table = document.split("\n## Metrics\n").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("a table");
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| row.split(" | ").next().expect("a cell"));
    let names =
        cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(|name| name.split('{').next().unwrap_or(""));
    names.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_document_lists_every_metric_and_no_other() {
    let stage = Stage::new().await;
    let text = stage.node.metrics.text();
    let known: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| match line.split_once(' ').expect("a name and a type") {
            (name, "counter") => format!("{name}_total"),
            (name, _) => name.to_owned(),
        })
        .collect();
    assert_eq!(documented(), known);
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn the_process_tells_what_it_takes() {
    let stage = Stage::new().await;
    let told = async || {
        let text = request(stage.admin, "GET /metrics", &[], None).await.body.as_str().expect("text").to_owned();
        move |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse::<f64>().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
        }
    };
    let before = told().await;
    assert!(before("process_resident_memory_bytes") > 1e6 && before("process_virtual_memory_bytes") > 1e6);
    // Other tests of the process may open and close as they like.
    assert!(before("process_open_fds") > 10.0 && before("process_open_fds") < before("process_max_fds"));
    assert!(before("process_threads") >= 3.0);
    let now_s = std::time::UNIX_EPOCH.elapsed().expect("later").as_secs_f64();
    let age_s = now_s - before("process_start_time_seconds");
    assert!((-1.0..600.0).contains(&age_s), "{age_s}");
    let files: Vec<_> = (0..200).map(|_| std::fs::File::open("/dev/null").expect("a file")).collect();
    assert!(told().await("process_open_fds") >= 210.0);
    // Asking takes time of processors, too.
    let used = before("process_cpu_seconds_total");
    let deadline = std::time::Instant::now() + DEADLINE;
    while told().await("process_cpu_seconds_total") <= used {
        assert!(std::time::Instant::now() < deadline);
    }
    drop(files);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_counted_by_transport_and_deliveries_by_their_delay() {
    let stage = Stage::new().await;
    let count = |text: &str, line: &str| text.contains(&format!("{line}\n"));
    let mut reader = stage.client().await;
    reader.call(json!({"id": 2, "subscribe": {"channel": "cursor:1"}})).await;
    let mut writer = stage.client().await;
    for n in 0..3 {
        writer.call(json!({"id": 3 + n, "publish": {"channel": "cursor:1", "data": n}})).await;
        while reader.next().await["push"]["pub"]["data"] != n {}
    }
    stage
        .until("three fan-outs on one thread", |node| Stage::metric(node, "talewire_delivery_seconds_count") == 3)
        .await;
    let text = stage.node.metrics.text();
    assert!(count(&text, "talewire_connections{transport=\"websocket\"} 2"), "{text}");
    assert!(count(&text, "talewire_connections{transport=\"sse\"} 0"), "{text}");
    assert!(count(&text, "talewire_subscriptions 1"), "{text}");
    assert!(count(&text, "talewire_delivery_seconds_bucket{le=\"10.0\"} 3"), "{text}");
    drop((reader, writer));
    stage.until("they are gone", |node| Stage::metric(node, "talewire_subscriptions") == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_keeps_its_name_if_it_is_sane() {
    let stage = Stage::new().await;
    let named = |line: &'static str, id: &'static str| {
        let address = stage.address;
        async move {
            let answer = request(address, line, &[("X-Request-Id", id)], None).await;
            answer.header("x-request-id").expect("a name").to_owned()
        }
    };
    assert_eq!(named("GET /app/config", "abc-1.2_3").await, "abc-1.2_3");
    assert_eq!(named("GET /poll?channel=chat:1&wait=0", "p1").await, "p1");
    let (first, second) = (named("GET /app/config", "a b").await, named("GET /nothing", "{}").await);
    assert!(first != second && !first.contains(' ') && !second.contains('{'), "{first} {second}");
    let refused = request(stage.address, "GET /connection/nothing", &[("X-Request-Id", "r1")], None).await;
    assert_eq!((refused.status, refused.header("x-request-id")), (404, Some("r1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_description_are_understood() {
    let stage = Stage::new().await;
    let description = request(stage.address, "GET /openapi.json", &[], None).await;
    assert_eq!(description.header("content-type"), Some("application/json"));
    let bearer = async |name| format!("Bearer {}", stage.guest(name).await.1);
    let (stays, goes) = (bearer("Ana").await, bearer("Ben").await);
    let mut tried = 0;
    for (path, methods) in description.body["paths"].as_object().expect("paths") {
        let Some(example) = methods["post"].pointer("/requestBody/content/application~1json/example") else { continue };
        let path = path.replace("{method}", "story.create");
        let token = if path == "/app/logout" { &goes } else { &stays };
        let headers = [("X-API-Key", "the-key"), ("Authorization", token)];
        let answer = request(stage.address, &format!("POST {path}"), &headers, Some(example.clone())).await;
        let expected = match path.as_str() {
            // Whose session it is, is made up.
            "/emulation" => 404,
            _ => 200,
        };
        assert_eq!(answer.status, expected, "{path}: {}", answer.body);
        let code = answer.body["error"]["code"].as_u64();
        assert_eq!(code, None, "{path}: {}", answer.body);
        tried += 1;
    }
    assert!(tried >= 20, "only {tried} examples");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_the_description_is_for_development() {
    let stage = Stage::new().await;
    let page = request(stage.address, "GET /docs", &[], None).await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-security-policy").is_some_and(|policy| policy.starts_with("default-src 'self'")));
    let text = page.body.as_str().expect("text");
    let scripts: Vec<&str> = text.split("<script").skip(1).collect();
    assert!(scripts.len() == 1 && scripts[0].starts_with(" src=\"/docs.js\"></script>"), "{scripts:?}");
    assert_eq!(request(stage.address, "GET /docs.js", &[], None).await.status, 200);
    let careful = Stage::with(Settings { anonymous: Anonymous::Refused, ..Settings::default() }).await;
    assert_eq!(request(careful.address, "GET /docs", &[], None).await.status, 404);
    assert_eq!(request(careful.address, "GET /docs.js", &[], None).await.status, 404);
    let description = request(careful.address, "GET /openapi.json", &[], None).await;
    assert!(matches!(description.body, Value::Object(_)), "that is for everybody");
}
