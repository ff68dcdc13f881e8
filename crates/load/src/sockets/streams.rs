//! Streams over HTTP on the loop's connections: the request, the head of the answer, and the pieces behind it. The native protocol
//! over HTTP streaming and Server-Sent Events, and plain events.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Instant;

use serde::Deserialize;

use super::http::{self, Event, Pieces};
use super::{Input, Phase, Role, Sockets, Transport};
use crate::error::LoadError;
use crate::ledger::Found;

/// The first event of a stream of plain events.
#[derive(Debug, Deserialize)]
struct Connected<'a> {
    #[serde(borrow)]
    channels: HashMap<Cow<'a, str>, Beginning>,
}

/// Where a reader begins in a channel.
#[derive(Debug, Deserialize)]
pub(super) struct Beginning {
    #[serde(default)]
    pub(super) offset: u64,
    /// Absent where no position was given.
    pub(super) recovered: Option<bool>,
}

impl Sockets {
    pub(super) fn begin_http_stream(&mut self, index: usize) {
        let Role::Reader { ledger } = self.peers[index].role else { return };
        let frame = self.first_frame(index, ledger);
        let mut request = Vec::new();
        http::post(&self.target, "/connection/http_stream", "", frame.as_bytes(), &mut request);
        self.begin_stream(index, &request);
    }

    pub(super) fn begin_event_stream(&mut self, index: usize) {
        let Role::Reader { ledger } = self.peers[index].role else { return };
        let frame = http::escaped(&self.first_frame(index, ledger));
        let path = format!("/connection/sse?cf_connect={frame}");
        self.begin_stream(index, &http::get(&self.target, &path, "Accept: text/event-stream\r\n"));
    }

    pub(super) fn begin_events(&mut self, index: usize) {
        let Role::Reader { ledger } = self.peers[index].role else { return };
        let ledger = &self.ledgers[ledger];
        let path = format!("/events?channel={}{}", http::escaped(ledger.channel()), self.token_in_query());
        let last = match self.stands_at(index) {
            Some(offset) => format!("Last-Event-ID: {offset}-{}\r\n", ledger.epoch()),
            None => String::new(),
        };
        self.begin_stream(index, &http::get(&self.target, &path, &format!("Accept: text/event-stream\r\n{last}")));
    }

    pub(super) fn token_in_query(&self) -> String {
        self.target.token.as_deref().map_or(String::new(), |token| format!("&token={}", http::escaped(token)))
    }

    fn begin_stream(&mut self, index: usize, request: &[u8]) {
        self.peers[index].input = Input::Head(Vec::new());
        self.send(index, request);
    }

    pub(super) fn take_stream_head(&mut self, index: usize, mut head: Vec<u8>, bytes: &[u8], now: Instant) {
        head.extend_from_slice(bytes);
        match http::head(&head) {
            Ok(None) => self.read_on(index, Input::Head(head)),
            Ok(Some(answer)) if answer.status == 200 => {
                self.take_pieces(index, Pieces::default(), &head[answer.bytes..], now);
            }
            Ok(Some(_)) => self.broken(index, LoadError::Refused(String::from_utf8_lossy(&head).into_owned())),
            Err(said) => self.broken(index, LoadError::Refused(said)),
        }
    }

    pub(super) fn take_pieces(&mut self, index: usize, mut pieces: Pieces, bytes: &[u8], now: Instant) {
        let transport = self.spoken_by(index);
        let end: &[u8] = if transport == Transport::HttpStream { b"\n" } else { b"\n\n" };
        pieces.feed(bytes, end, |piece| {
            // What comes behind the end of a connection is nobody's.
            if self.peers[index].socket.is_none() {
            } else if transport == Transport::Events {
                self.take_event(index, piece, now);
            } else {
                self.take_native_piece(index, piece, now);
            }
        });
        self.read_on(index, Input::Pieces(pieces));
    }

    fn take_event(&mut self, index: usize, block: &[u8], now: Instant) {
        let Role::Reader { ledger } = self.peers[index].role else { return };
        if self.took_known(index, block, now) {
            return;
        }
        let event = match Event::read(block) {
            Ok(event) => event,
            Err(error) => return self.broken(index, LoadError::Refused(format!("an event: {error}"))),
        };
        let (offset, digest) = event.id.split_once('-').unwrap_or_default();
        match event.name {
            "connected" => self.events_begin(index, ledger, &event, digest),
            "gap" => self.gap_told(index),
            "disconnect" | "error" => {
                self.broken(index, LoadError::Refused(format!("a stream ended with {}: {}", event.name, event.data)));
            }
            "" if !event.data.is_empty() => {
                let channel = self.ledgers[ledger].channel().to_owned();
                let offset = offset.parse().unwrap_or(0);
                let found = Found { channel: &channel, data: event.data.as_bytes(), offset };
                self.take_publication(index, found, Some(block), now);
            }
            // Comments, the time to come back, and ids alone.
            _ => {}
        }
    }

    fn events_begin(&mut self, index: usize, ledger: usize, event: &Event<'_>, digest: &str) {
        let beginning = serde_json::from_str::<Connected<'_>>(event.data)
            .ok()
            .and_then(|mut connected| connected.channels.remove(self.ledgers[ledger].channel()));
        let Some(beginning) = beginning else {
            let said = format!("a stream that begins without its channel: {}", event.data);
            return self.broken(index, LoadError::Refused(said));
        };
        if beginning.recovered == Some(false) {
            self.gap_told(index);
        }
        self.stands(index, beginning.offset, digest);
        if self.peers[index].phase == Phase::Connecting {
            self.became_ready(index);
        }
    }
}
