//! A fake endpoint: takes one request per connection, notes it, and acts by a script of raw bytes and pauses, so that every
//! fault of the wire can be had exactly. How to extend: add an [`Act`].

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// One act of the fake after it has read the request.
#[derive(Clone)]
pub(crate) enum Act {
    /// Writes these bytes as they are.
    Send(Vec<u8>),
    /// Writes bytes one by one, with a pause after each.
    Drip(Vec<u8>, Duration),
    /// Waits.
    Pause(Duration),
    /// Says nothing more, and notes when the client closes.
    Hang,
    /// Resets the connection.
    Reset,
}

/// What a client sent.
#[derive(Clone)]
pub(crate) struct Noted {
    pub(crate) head: String,
    pub(crate) body: serde_json::Value,
}

/// A fake on a port of its own.
pub(crate) struct Fake {
    pub(crate) base_url: String,
    pub(crate) requests: Arc<Mutex<Vec<Noted>>>,
    pub(crate) closed_by_client: Arc<tokio::sync::Notify>,
}

pub(crate) const SSE_HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nconnection: close\r\n\r\n";

impl Fake {
    /// Starts a fake that acts in the same way on every connection.
    pub(crate) async fn start(acts: Vec<Act>) -> Self {
        Self::in_turn(vec![acts]).await
    }

    /// Starts a fake that acts by one list after the other, and by the last one from then on.
    pub(crate) async fn in_turn(lists: Vec<Vec<Act>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self {
            base_url: format!("http://{}/v1", listener.local_addr().unwrap()),
            requests: Arc::default(),
            closed_by_client: Arc::default(),
        };
        let (requests, closed) = (fake.requests.clone(), fake.closed_by_client.clone());
        tokio::spawn(async move {
            let mut number = 0;
            while let Ok((socket, _)) = listener.accept().await {
                let acts = lists[number.min(lists.len() - 1)].clone();
                number += 1;
                tokio::spawn(serve(socket, acts, requests.clone(), closed.clone()));
            }
        });
        fake
    }

    /// A fake that answers with an event stream of these events, each as `data:`.
    pub(crate) async fn events(events: &[&str]) -> Self {
        let body: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
        Self::start(vec![Act::Send((SSE_HEAD.to_owned() + &body).into_bytes())]).await
    }

    /// A fake that answers with this head (status line and headers) and body.
    pub(crate) async fn answer(head: &str, body: &[u8]) -> Self {
        let head = format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        Self::start(vec![Act::Send([head.as_bytes(), body].concat())]).await
    }
}

async fn serve(
    mut socket: TcpStream,
    acts: Vec<Act>,
    requests: Arc<Mutex<Vec<Noted>>>,
    closed: Arc<tokio::sync::Notify>,
) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let (head, body_at) = loop {
        if socket.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break (String::from_utf8_lossy(&bytes[..end]).to_lowercase(), end + 4);
        }
    };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse::<usize>().unwrap();
    while bytes.len() < body_at + length {
        socket.read_buf(&mut bytes).await?;
    }
    let body = serde_json::from_slice(&bytes[body_at..]).unwrap();
    requests.lock().unwrap().push(Noted { head, body });
    for act in acts {
        match act {
            Act::Send(bytes) => socket.write_all(&bytes).await?,
            Act::Drip(bytes, pause) => {
                for byte in bytes {
                    socket.write_all(&[byte]).await?;
                    tokio::time::sleep(pause).await;
                }
            }
            Act::Pause(pause) => tokio::time::sleep(pause).await,
            Act::Hang => {
                let _ = socket.read_buf(&mut Vec::new()).await;
                closed.notify_one();
            }
            Act::Reset => {
                socket.set_zero_linger()?;
                return Ok(());
            }
        }
    }
    socket.shutdown().await
}
