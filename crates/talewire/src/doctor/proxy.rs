//! What stands in front, as a client sees it: whether a stream comes through at once and unchanged, and whether a WebSocket does.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use reqwest::{Certificate, Client, Response, StatusCode, Url};

use super::Finding;
use crate::cli::Doctor;

/// A first event that takes longer has been held back by somebody, in milliseconds.
const FIRST_EVENT_MS: u128 = 1_000;

pub(super) async fn look(url: &str, typed: &Doctor, patience: Duration) -> Vec<Finding> {
    let base = match Url::parse(url) {
        Ok(base) if base.has_host() && matches!(base.scheme(), "http" | "https") => base,
        _ => return vec![Finding::wrong(format!("--through {url} is no address"), "say https://stories.example")],
    };
    // As a browser: no proxy of this machine's environment, HTTP/1.1 so that a WebSocket can be asked for.
    let client = match client(typed, patience) {
        Ok(client) => client,
        Err(error) => return vec![Finding::wrong(format!("{error:#}"), "name certificates in PEM by --ca")],
    };
    vec![stream(&client, &base, typed, patience).await, websocket(&client, &base, patience).await]
}

fn client(typed: &Doctor, patience: Duration) -> anyhow::Result<Client> {
    let mut client = Client::builder().no_proxy().http1_only().connect_timeout(patience);
    if let Some(file) = &typed.ca {
        let pem = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let certificates = Certificate::from_pem_bundle(&pem).with_context(|| format!("{}", file.display()))?;
        client = client.tls_certs_merge(certificates);
    }
    client.build().context("no HTTP client")
}

/// Opens a stream and waits for its first event. It stays open, so that a proxy which waits for its end or for a full buffer is found.
async fn stream(client: &Client, base: &Url, typed: &Doctor, patience: Duration) -> Finding {
    let mut url = base.clone();
    url.set_path("/events");
    url.query_pairs_mut().append_pair("channel", &typed.channel);
    let mut request = client.get(url.clone()).header("accept", "text/event-stream").header("accept-encoding", "gzip");
    if let Some(token) = &typed.token {
        request = request.bearer_auth(token);
    }
    let began = Instant::now();
    let mut response = match tokio::time::timeout(patience, request.send()).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            return unanswered(&url, error);
        }
        Err(_) => {
            let what = format!("the head of a stream at {base} did not come within {} s", patience.as_secs());
            return Finding::wrong(what, BUFFERING);
        }
    };
    if response.status() != StatusCode::OK {
        return Finding::wrong(format!("{url} answers {}", response.status()), "send /events to talewire");
    }
    if let Some(finding) = head(response.headers()) {
        return finding;
    }
    let text = first_event(&mut response, patience).await;
    let took_ms = began.elapsed().as_millis();
    match text {
        None => Finding::wrong(format!("the first event of a stream through {base} did not come"), BUFFERING),
        Some(text) if text.contains("event: error") || text.contains("event: disconnect") => Finding::wrong(
            format!(
                "the stream was refused, so that nothing can be said of buffering: {}",
                text.trim().replace('\n', " ")
            ),
            "give --token and --channel of somebody who may read it",
        ),
        Some(_) if took_ms > FIRST_EVENT_MS => {
            Finding::better(format!("the first event of a stream through {base} took {took_ms} ms"), BUFFERING)
        }
        Some(_) => Finding::good(format!("the first event of a stream through {base} came after {took_ms} ms")),
    }
}

fn unanswered(url: &Url, error: reqwest::Error) -> Finding {
    // With its causes: the first alone says nothing but that there was one.
    let why = format!("{:#}", anyhow::Error::new(error.without_url()));
    let change = if why.contains("certificate") {
        "name its authority by --ca, or give it a certificate of a public one"
    } else {
        "is it up?"
    };
    Finding::wrong(format!("{url} does not answer: {why}"), change)
}

const BUFFERING: &str = "switch buffering off for streams: proxy_buffering off (nginx), option http-no-delay (HAProxy), no encode (Caddy); see deploy/";

fn head(headers: &HeaderMap) -> Option<Finding> {
    let is = |name, part: &str| {
        headers.get(name).is_some_and(|value| value.as_bytes().windows(part.len()).any(|w| w == part.as_bytes()))
    };
    if !is(CONTENT_TYPE, "text/event-stream") {
        return Some(Finding::wrong("what answers at /events is no stream of events", "send /events to talewire"));
    }
    // Ours says so with a vary of its own; a proxy that compresses holds events back until it has enough.
    is(CONTENT_ENCODING, "gzip").then(|| {
        Finding::better(
            "streams are compressed on the way",
            "unless http.compress_streams is on: gzip off for text/event-stream",
        )
    })
}

/// The text up to the first empty line, if it comes in time.
async fn first_event(response: &mut Response, patience: Duration) -> Option<String> {
    let mut text = String::new();
    let until = tokio::time::Instant::now() + patience;
    while !text.contains("data:") || !text.ends_with("\n\n") {
        let chunk = tokio::time::timeout_at(until, response.chunk()).await.ok()?.ok()??;
        text.push_str(&String::from_utf8_lossy(&chunk));
        if text.len() > 65_536 {
            return None;
        }
    }
    Some(text)
}

async fn websocket(client: &Client, base: &Url, patience: Duration) -> Finding {
    let mut url = base.clone();
    url.set_path("/connection/websocket");
    let request = client
        .get(url.clone())
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        // The example of RFC 6455, section 1.3.
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("origin", base.origin().ascii_serialization());
    match tokio::time::timeout(patience, request.send()).await {
        Ok(Ok(response)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            Finding::good(format!("a WebSocket through {base} opens"))
        }
        Ok(Ok(response)) => Finding::wrong(
            format!("a WebSocket through {base} is answered {}", response.status()),
            "pass Upgrade and Connection on, by HTTP/1.1; and allow the page's origin (auth.allowed_origins)",
        ),
        Ok(Err(error)) => unanswered(&url, error),
        Err(_) => Finding::wrong(format!("a WebSocket through {base} is not answered"), "is it up?"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::super::Verdict;
    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";

    /// What is found in front of a server that gives every request this answer and then stays silent.
    fn found(answer: &'static str) -> Vec<Finding> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for mut socket in listener.incoming().flatten() {
                let _ = socket.read(&mut [0; 4_096]);
                let _ = socket.write_all(answer.as_bytes());
                open.push(socket);
            }
        });
        let typed = Doctor {
            file: crate::cli::ConfigFile { config: None },
            ca: None,
            through: None,
            token: None,
            channel: "a".to_owned(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(look(&url, &typed, Duration::from_millis(300)))
    }

    #[track_caller]
    fn says(finding: &Finding, verdict: Verdict, words: &str) {
        assert!(finding.verdict == verdict && finding.to_string().contains(words), "{finding}");
    }

    #[test]
    fn a_stream_that_comes_through_is_good() {
        let answer = format!("{HEAD}\r\nretry: 3000\n\nevent: connected\ndata: {{}}\n\n");
        let found = found(answer.leak());
        says(&found[0], Verdict::Good, "came after");
        says(&found[1], Verdict::Wrong, "answered 200");
    }

    #[test]
    fn a_stream_that_is_held_back_is_found() {
        says(&found(format!("{HEAD}\r\n").leak())[0], Verdict::Wrong, "proxy_buffering off");
        says(&found("HTTP/1.1 200 OK\r\n")[0], Verdict::Wrong, "did not come within");
        says(&found(format!("{HEAD}Content-Encoding: gzip\r\n\r\n").leak())[0], Verdict::Better, "gzip off");
    }

    #[test]
    fn somebody_else_in_the_place_is_found() {
        says(&found("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")[0], Verdict::Wrong, "502");
        let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n";
        says(&found(page)[0], Verdict::Wrong, "no stream of events");
        let refused = format!("{HEAD}\r\nevent: error\ndata: {{\"code\":103}}\n\n");
        says(&found(refused.leak())[0], Verdict::Wrong, "give --token");
    }

    #[test]
    fn an_upgrade_that_comes_through_is_good() {
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        says(&found(answer)[1], Verdict::Good, "opens");
    }
}
