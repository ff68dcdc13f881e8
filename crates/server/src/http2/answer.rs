//! One request on an HTTP/2 stream: the router's answer sent through the stream's window, or a connection begun on it.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use axum::body::Body;
use bytes::Bytes;
use h2::ext::Protocol;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;

use super::{OpenStream, Shared, Stream};
use crate::accept::{self, Decision, plain};
use crate::connection::{self, Taken};
use crate::reactor::Reactor;
use crate::socket::Socket;
use crate::transport::opening::is_transport;

/// Begins to answer a request, in a task of its own.
pub(super) fn begin(
    reactor: &Rc<Reactor>,
    shared: &Rc<Shared>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    // The protocol's own count forgets a stream when it is reset; ours, when its task has noticed.
    if shared.open.get() >= 2 * reactor.node.settings.streams_max as usize {
        respond.send_reset(Reason::REFUSED_STREAM);
        return;
    }
    tokio::task::spawn_local(answer(reactor.clone(), request, respond, OpenStream::new(shared)));
}

async fn answer(
    reactor: Rc<Reactor>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    place: OpenStream,
) {
    let bodiless = request.method() == Method::HEAD;
    let (request, receive) = translate(request);
    let decision = tokio::select! {
        biased;
        decision = decide(&reactor, &place, request) => decision,
        // Nobody waits for this answer any more.
        _ = poll_fn(|context| respond.poll_reset(context)) => return place.was_reset(),
    };
    let settings = &reactor.node.settings;
    match decision {
        Decision::Answer(response) => {
            let patience = Duration::from_millis(settings.request_ms);
            if send(&mut respond, response, bodiless, patience).await.is_none() {
                respond.send_reset(Reason::CANCEL);
                place.was_reset();
            }
        }
        Decision::Open(opening) => {
            let stream = Stream::new(respond, receive, settings.stream_buffer_bytes, place);
            let taken =
                Taken { socket: Socket::Stream(Box::new(stream)), early: Bytes::new(), permit: None, back: None };
            connection::start(reactor.clone(), taken, opening);
        }
    }
}

async fn decide(reactor: &Rc<Reactor>, place: &OpenStream, request: Request<Body>) -> Decision {
    if request.method() == Method::CONNECT {
        let text = "nothing is connected to here but WebSocket";
        match request.extensions().get::<Protocol>().map(Protocol::as_str) {
            None => return Decision::Answer(plain(StatusCode::METHOD_NOT_ALLOWED, text)),
            Some("websocket") if is_transport(request.uri().path()) => {}
            Some("websocket") => return Decision::Answer(plain(StatusCode::NOT_FOUND, text)),
            Some(_) => return Decision::Answer(plain(StatusCode::NOT_IMPLEMENTED, text)),
        }
    }
    // Boxed: what the routes do is larger than the wait for it.
    Box::pin(accept::decide(reactor, &place.0.door, request, place.0.peer)).await
}

/// The request as the routes know requests, and for CONNECT what the peer will send apart from it.
fn translate(request: Request<RecvStream>) -> (Request<Body>, Option<RecvStream>) {
    let (mut head, receive) = request.into_parts();
    // Whoever asks where a request is meant to go looks at one place; `:authority` is that of HTTP/2.
    let authority = head.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(authority) = authority {
        head.headers.insert(header::HOST, authority);
    }
    if head.method == Method::CONNECT {
        return (Request::from_parts(head, Body::empty()), Some(receive));
    }
    let body = if receive.is_end_stream() { Body::empty() } else { Body::new(Received(receive)) };
    (Request::from_parts(head, body), None)
}

/// The body of a request. What was taken makes room for more.
struct Received(RecvStream);

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        self.0.poll_data(context).map(|data| {
            let data = data?;
            Some(data.map(|bytes| {
                let _ = self.0.flow_control().release_capacity(bytes.len());
                Frame::data(bytes)
            }))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

/// Sends an answer, as fast as the peer makes room. Nothing comes back when it did not go out.
async fn send(
    respond: &mut SendResponse<Bytes>,
    response: Response<Body>,
    bodiless: bool,
    patience: Duration,
) -> Option<()> {
    let (mut head, mut body) = response.into_parts();
    complete(&mut head.headers, &body);
    let ends = bodiless || body.is_end_stream();
    let mut stream = respond.send_response(Response::from_parts(head, ()), ends).ok()?;
    if ends {
        return Some(());
    }
    while let Some(frame) = body.frame().await {
        // A body that breaks off is told by a reset, or it would look whole.
        let Ok(mut data) = frame.ok()?.into_data() else { continue };
        while !data.is_empty() {
            stream.reserve_capacity(data.len());
            let room = tokio::time::timeout(patience, room(&mut stream)).await.ok()??;
            stream.send_data(data.split_to(room.min(data.len())), false).ok()?;
        }
    }
    stream.send_data(Bytes::new(), true).ok()
}

/// Waits until something may be sent.
async fn room(stream: &mut SendStream<Bytes>) -> Option<usize> {
    poll_fn(|context| match stream.capacity() {
        0 => stream.poll_capacity(context).map(|room| room?.ok()),
        room => Poll::Ready(Some(room)),
    })
    .await
}

/// Adds what HTTP/1.1's library would have added, and takes away what speaks of a socket.
fn complete(headers: &mut HeaderMap, body: &Body) {
    for name in [header::CONNECTION, header::UPGRADE, header::TRANSFER_ENCODING] {
        headers.remove(name);
    }
    if let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(SystemTime::now())) {
        headers.entry(header::DATE).or_insert(date);
    }
    if let Some(bytes) = body.size_hint().exact().filter(|bytes| *bytes > 0) {
        headers.entry(header::CONTENT_LENGTH).or_insert(bytes.into());
    }
}
