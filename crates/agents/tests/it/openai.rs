//! What the client makes of good answers, and of every fault of section F20 of the reliability facts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use talewire_agents::context::{Budget, Tale, assemble};
use talewire_agents::openai::OpenAi;
use talewire_agents::provider::{Finish, Next, Piece, Request, Tokens};
use talewire_agents::settings::OpenAiSettings;
use talewire_agents::{ProviderError, Wait};

use crate::fake::{Act, Fake, SSE_HEAD};

const HELLO: &str = r#"{"id":"1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":"Hello"},"finish_reason":null}]}"#;
const WORLD: &str = r#"{"choices":[{"index":0,"delta":{"content":", wörld 🦊"}}],"obfuscation":"xxxx"}"#;
const STOP: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
const USAGE: &str = r#"{"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":3,"total_tokens":14}}"#;
const DONE: &str = "[DONE]";

struct Told {
    text: String,
    usage: Option<Tokens>,
    end: Result<Finish, ProviderError>,
}

fn settings(fake: &Fake) -> OpenAiSettings {
    OpenAiSettings { base_url: fake.base_url.clone(), model: "m1".into(), ..OpenAiSettings::default() }
}

fn request() -> Request {
    let tale = Tale { story: "s".into(), title: "The lamp".into(), ..Tale::default() };
    let (prompt, _) = assemble(Arc::new(tale), Budget { story_chars_max: 1_000, turns_max: 9 });
    Request { prompt, tokens_max: 321, seed: 0, try_number: 1 }
}

async fn tell_with(settings: OpenAiSettings, key: &str) -> Told {
    let mut reply = OpenAi::with_key(settings, key).unwrap().ask(&request());
    let (mut text, mut usage) = (String::new(), None);
    loop {
        match reply.next().await {
            Ok(Next::Piece(Piece::Text(piece))) => text.push_str(&piece),
            Ok(Next::Piece(Piece::Usage(tokens))) => usage = Some(tokens),
            Ok(Next::End(finish)) => return Told { text, usage, end: Ok(finish) },
            Err(error) => return Told { text, usage, end: Err(error) },
        }
    }
}

async fn tell(fake: &Fake) -> Told {
    tell_with(settings(fake), "").await
}

fn sse(events: &[&str]) -> Vec<u8> {
    (SSE_HEAD.to_owned() + &events.iter().map(|event| format!("data: {event}\n\n")).collect::<String>()).into_bytes()
}

#[tokio::test]
async fn a_good_answer_is_told_and_the_request_is_what_was_agreed() {
    let fake = Fake::events(&[HELLO, WORLD, STOP, USAGE, DONE]).await;
    let told = tell_with(settings(&fake), "sk-test").await;
    assert_eq!((told.text.as_str(), told.end), ("Hello, wörld 🦊", Ok(Finish::Stop)));
    assert_eq!(told.usage, Some(Tokens { prompt: 11, output: 3 }));
    let noted = fake.requests.lock().unwrap()[0].clone();
    assert!(noted.head.starts_with("post /v1/chat/completions http/1.1"), "{}", noted.head);
    for header in [
        "authorization: bearer sk-test",
        "accept: text/event-stream",
        "content-type: application/json",
        "accept-encoding: identity",
    ] {
        assert!(noted.head.contains(header), "{header} in {}", noted.head);
    }
    let prompt = request().prompt;
    let body = json!({
        "model": "m1",
        "messages": [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}],
        "stream": true,
        "stream_options": {"include_usage": true},
        "max_tokens": 321,
    });
    assert_eq!(noted.body, body);
}

#[tokio::test]
async fn without_a_key_none_is_sent() {
    let fake = Fake::events(&[HELLO, STOP, DONE]).await;
    assert!(tell(&fake).await.end.is_ok());
    assert!(!fake.requests.lock().unwrap()[0].head.contains("authorization"));
}

#[tokio::test]
async fn answers_that_end_differently_are_complete_all_the_same() {
    for (events, finish) in [
        (vec![HELLO, STOP], Finish::Stop),                    // no [DONE], no usage
        (vec![HELLO, DONE], Finish::Stop),                    // no finish reason
        (vec![HELLO, STOP, HELLO, STOP, DONE], Finish::Stop), // doubled final
        (vec![HELLO, r#"{"choices":[{"delta":{},"finish_reason":"length"}],"usage":null}"#], Finish::Length),
        (vec![r#"{"choices":[{"index":1,"delta":{"content":"no"}}]}"#, HELLO, STOP, DONE], Finish::Stop),
    ] {
        let told = tell(&Fake::events(&events).await).await;
        assert_eq!((told.text.as_str(), told.end), ("Hello", Ok(finish)), "{events:?}");
    }
    let mut unfinished_line = sse(&[HELLO, STOP]);
    unfinished_line.extend_from_slice(b"data: [DONE]");
    let told = tell(&Fake::start(vec![Act::Send(unfinished_line)]).await).await;
    assert_eq!((told.text.as_str(), told.end), ("Hello", Ok(Finish::Stop)));
}

#[tokio::test]
async fn a_complete_text_does_not_wait_for_its_count() {
    let fake = Fake::start(vec![Act::Send(sse(&[HELLO, STOP])), Act::Reset]).await;
    assert_eq!(tell(&fake).await.end, Ok(Finish::Stop));
    let fake = Fake::start(vec![Act::Send(sse(&[HELLO, STOP])), Act::Hang]).await;
    assert_eq!(tell(&fake).await.end, Ok(Finish::Stop));
}

#[tokio::test]
async fn half_an_answer_is_never_a_success() {
    let half = |more: Act| Fake::start(vec![Act::Send(sse(&[HELLO])), more]);
    let broken = |told: &Told| matches!(told.end, Err(ProviderError::Broken { .. }));
    let told = tell(&Fake::events(&[HELLO]).await).await;
    assert!(broken(&told) && told.text == "Hello", "EOF: {:?}", told.end);
    let told = tell(&half(Act::Send(b"data: {\"choices\":[{\"del".to_vec())).await).await;
    assert!(broken(&told), "EOF inside a line: {:?}", told.end);
    let told = tell(&half(Act::Reset).await).await;
    assert!(broken(&told), "RST: {:?}", told.end);
    let chunked =
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n5\r\ndata:".to_vec();
    let told = tell(&Fake::start(vec![Act::Send(chunked)]).await).await;
    assert!(broken(&told), "EOF inside a chunk: {:?}", told.end);
    for bad in ["{not json", r#"{"choices":7}"#, "null"] {
        let told = tell(&Fake::events(&[HELLO, bad, STOP, DONE]).await).await;
        assert!(broken(&told), "{bad}: {:?}", told.end);
    }
    let told = tell(&half(Act::Send(b"data: \xff\xfe\n\n".to_vec())).await).await;
    assert!(broken(&told), "not UTF-8: {:?}", told.end);
}

#[tokio::test]
async fn error_frames_inside_a_good_answer_are_errors() {
    let overloaded = r#"{"error":{"type":"overloaded_error","message":"the prompt was: secret"}}"#;
    let told = tell(&Fake::events(&[HELLO, overloaded, STOP, DONE]).await).await;
    assert_eq!(told.end, Err(ProviderError::Busy { status: 529, retry_after: None }));
    let told =
        tell(&Fake::start(vec![Act::Send(sse(&[HELLO])), Act::Send(b"{\"error\":\"boom\"}\n".to_vec())]).await).await;
    assert!(matches!(told.end, Err(ProviderError::Broken { .. })), "a bare line");
    let filtered = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"content_filter"}]}"#;
    assert_eq!(tell(&Fake::events(&[HELLO, filtered, DONE]).await).await.end, Err(ProviderError::Refused));
    let refusal = r#"{"choices":[{"index":0,"delta":{"refusal":"I cannot"}}]}"#;
    assert_eq!(tell(&Fake::events(&[refusal, STOP, DONE]).await).await.end, Err(ProviderError::Refused));
}

#[tokio::test]
async fn lines_and_answers_have_limits() {
    let huge = [SSE_HEAD.as_bytes(), b"data: ", &vec![b'x'; 10_000_000]].concat();
    let told = tell(&Fake::start(vec![Act::Send(huge)]).await).await;
    assert!(matches!(told.end, Err(ProviderError::Broken { message }) if message.contains("line_bytes_max")));
    let fake = Fake::events(&vec![HELLO; 1_000]).await;
    let told = tell_with(OpenAiSettings { answer_bytes_max: 20_000, ..settings(&fake) }, "").await;
    assert!(matches!(told.end, Err(ProviderError::Broken { message }) if message.contains("answer_bytes_max")));
}

#[tokio::test]
async fn bytes_may_come_one_by_one() {
    let events = format!("data: {WORLD}\r\n\r\ndata: {STOP}\r\n\r\n").into_bytes();
    let fake = Fake::start(vec![Act::Send(SSE_HEAD.into()), Act::Drip(events, Duration::from_millis(1))]).await;
    let told = tell(&fake).await;
    assert_eq!((told.text.as_str(), told.end), (", wörld 🦊", Ok(Finish::Stop)));
}

#[tokio::test]
async fn every_wait_has_an_end() {
    let pings = || vec![Act::Send(b": ping\n\n".to_vec()), Act::Pause(Duration::from_millis(100))];
    let many = |n: usize, of: Vec<Act>| std::iter::repeat_n(of, n).flatten().collect::<Vec<_>>();
    let wait = async |acts: Vec<Act>| {
        let fake = Fake::start(acts).await;
        let settings = OpenAiSettings {
            headers_ms_max: 500,
            idle_ms_max: 500,
            first_token_ms_max: 1_000,
            total_ms_max: 2_000,
            ..settings(&fake)
        };
        let begun = Instant::now();
        (tell_with(settings, "").await.end, begun.elapsed())
    };
    let (end, took) = wait(vec![Act::Hang]).await;
    assert_eq!(end, Err(ProviderError::TimedOut(Wait::Headers)));
    assert!(took < Duration::from_millis(1_500), "{took:?}");
    let (end, _) = wait(vec![Act::Send(SSE_HEAD.into()), Act::Hang]).await;
    assert_eq!(end, Err(ProviderError::TimedOut(Wait::Idle)));
    let (end, _) = wait([vec![Act::Send(SSE_HEAD.into())], many(30, pings())].concat()).await;
    assert_eq!(end, Err(ProviderError::TimedOut(Wait::FirstToken)), "pings keep it alive, but are no words");
    let thoughts = vec![
        Act::Send(b"data: {\"choices\":[{\"delta\":{\"reasoning\":\"hm\"}}]}\n\n".to_vec()),
        Act::Pause(Duration::from_millis(100)),
    ];
    let (end, _) = wait([vec![Act::Send(SSE_HEAD.into())], many(30, thoughts)].concat()).await;
    assert_eq!(end, Err(ProviderError::TimedOut(Wait::Total)), "thoughts are signs of life");
    let (end, _) = wait(vec![Act::Send(sse(&[HELLO])), Act::Hang]).await;
    assert_eq!(end, Err(ProviderError::TimedOut(Wait::Idle)));
}

#[tokio::test]
async fn statuses_become_what_can_be_done() {
    let status = async |head: &str, body: &str| tell(&Fake::answer(head, body.as_bytes()).await).await.end.unwrap_err();
    for code in [500, 502, 503, 529] {
        assert_eq!(
            status(&format!("{code} Oops"), "<html>").await,
            ProviderError::Busy { status: code, retry_after: None }
        );
    }
    let retry_after = Some(Duration::from_secs(7));
    assert_eq!(status("429 Slow\r\nretry-after: 7", "{}").await, ProviderError::RateLimited { retry_after });
    let configuration = async |head: &str, body: &str, word: &str| match status(head, body).await {
        ProviderError::Configuration { message } => assert!(message.contains(word), "{message}"),
        other => panic!("{head}: {other:?}"),
    };
    configuration(
        "401 No",
        r#"{"error":{"code":"invalid_api_key","message":"sk-secret"}}"#,
        "key (status 401, invalid_api_key)",
    )
    .await;
    configuration("404 No", r#"{"error":{"code":"model_not_found"}}"#, "model_not_found").await;
    configuration("302 Found\r\nlocation: http://127.0.0.1:1/", "", "redirects").await;
    configuration("200 OK\r\ncontent-type: text/html", "<html>", "event stream").await;
    configuration("200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip", "x", "compresses").await;
    let overloaded = r#"{"error":{"type":"server_error"}}"#;
    assert!(matches!(status("200 OK\r\ncontent-type: application/json", overloaded).await, ProviderError::Busy { .. }));
    let nobody =
        OpenAiSettings { base_url: "http://127.0.0.1:1/v1".into(), model: "m".into(), ..OpenAiSettings::default() };
    assert_eq!(tell_with(nobody, "").await.end, Err(ProviderError::Unreachable));
}

#[tokio::test]
async fn dropping_an_answer_closes_the_connection() {
    let fake = Fake::start(vec![Act::Send(sse(&[HELLO])), Act::Hang]).await;
    let mut reply = OpenAi::with_key(settings(&fake), "").unwrap().ask(&request());
    assert_eq!(reply.next().await, Ok(Next::Piece(Piece::Text("Hello".into()))));
    drop(reply);
    tokio::time::timeout(Duration::from_secs(5), fake.closed_by_client.notified())
        .await
        .expect("the upstream was closed");
}

#[tokio::test]
async fn a_dropped_call_loses_nothing() {
    let body = [HELLO, WORLD, STOP, DONE].map(|event| format!("data: {event}\n\n")).concat().into_bytes();
    let fake = Fake::start(vec![Act::Send(SSE_HEAD.into()), Act::Drip(body, Duration::from_millis(1))]).await;
    let mut reply = OpenAi::with_key(settings(&fake), "").unwrap().ask(&request());
    let mut text = String::new();
    loop {
        match tokio::time::timeout(Duration::from_millis(3), reply.next()).await {
            Err(_) | Ok(Ok(Next::Piece(Piece::Usage(_)))) => {}
            Ok(Ok(Next::Piece(Piece::Text(piece)))) => text.push_str(&piece),
            Ok(Ok(Next::End(_))) => break,
            Ok(Err(error)) => panic!("{error}"),
        }
    }
    assert_eq!(text, "Hello, wörld 🦊");
}
