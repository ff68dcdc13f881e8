//! The native protocol on the loop's connections: lines in, whatever carried them; commands out.

use std::time::Instant;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Phase, Role, Sockets, Transport, http};
use crate::client::{self, Line, PushedPublication};
use crate::error::LoadError;
use crate::frame;
use crate::ledger::Found;

/// What the answer to `connect` gives to connections that flow one way.
#[derive(Debug, Deserialize)]
struct Connected<'a> {
    #[serde(borrow)]
    session: Option<&'a RawValue>,
    #[serde(borrow)]
    node: Option<&'a RawValue>,
}

/// The answer to `subscribe`, as far as it is about recovery.
#[derive(Debug, Deserialize)]
struct Subscribed<'a> {
    #[serde(default)]
    offset: u64,
    #[serde(borrow, default)]
    epoch: std::borrow::Cow<'a, str>,
    #[serde(default)]
    recovered: bool,
    #[serde(default)]
    was_recovering: bool,
    #[serde(borrow, default)]
    publications: Vec<PushedPublication<'a>>,
}

impl Sockets {
    /// The first frame on transports whose request carries one: who we are, and the subscription.
    pub(super) fn first_frame(&mut self, index: usize, ledger: usize) -> String {
        self.peers[index].id = 2;
        let connect = client::connect(1, self.target.token.as_deref());
        connect + "\n" + &self.subscribe(index, ledger)
    }

    /// Subscribes from where the reader stands, if it ever stood anywhere.
    fn subscribe(&self, index: usize, ledger: usize) -> String {
        let channel = self.ledgers[ledger].channel();
        match self.stands_at(index) {
            Some(offset) => client::resume(2, channel, offset, self.ledgers[ledger].epoch()),
            None => client::subscribe(2, channel),
        }
    }

    pub(super) fn take_lines(&mut self, index: usize, text: &[u8], now: Instant) {
        let mut lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).peekable();
        let mut is_first = true;
        while let Some(line) = lines.next() {
            // Only a message with nothing else in it can be compared as a whole.
            let alone = is_first && lines.peek().is_none();
            is_first = false;
            match serde_json::from_slice::<Line<'_>>(line) {
                Ok(read) if read.is_ping() => self.pong(index),
                Ok(read) => self.take_line(index, &read, alone.then_some(text), now),
                Err(error) => {
                    self.broken(index, LoadError::Refused(format!("a line that is not as expected: {error}")));
                }
            }
            if self.peers[index].socket.is_none() {
                return;
            }
        }
    }

    fn pong(&mut self, index: usize) {
        if self.spoken_by(index) == Transport::WebSocketJson {
            self.send_frame(index, frame::TEXT, b"{}");
        } else if let Some(session) = self.peers[index].given.clone() {
            let mut request = Vec::new();
            http::post(
                &self.target,
                "/emulation",
                "",
                format!("{{{session},\"data\":\"{{}}\"}}").as_bytes(),
                &mut request,
            );
            self.post_for(index, &request);
        }
    }

    fn take_line(&mut self, index: usize, line: &Line<'_>, message: Option<&[u8]>, now: Instant) {
        if let Some(refusal) = &line.error {
            let said = format!("a command: {} {}", refusal.code, refusal.message);
            return self.broken(index, LoadError::Refused(said));
        }
        if let Some(push) = &line.push {
            let end = match (&push.unsubscribe, &push.disconnect) {
                (Some(end), _) => Some(("a subscription ended", end)),
                (None, Some(end)) => Some(("a connection was ended", end)),
                (None, None) => None,
            };
            if let Some((what, end)) = end {
                return self.broken(index, LoadError::Refused(format!("{what}: {} {}", end.code, end.message)));
            }
            let Some(publication) = &push.publication else { return };
            let data = publication.data.get().as_bytes();
            let found = Found { channel: &push.channel, data, offset: publication.offset };
            return self.take_publication(index, found, message, now);
        }
        let peer = &mut self.peers[index];
        if line.publish.is_some() {
            peer.unacknowledged = peer.unacknowledged.saturating_sub(1);
            self.progress_at = now;
        } else if let Some(connected) = line.connect {
            self.connected(index, connected);
        } else if let Some(subscribed) = line.subscribe {
            self.subscribed(index, subscribed, now);
        }
    }

    fn connected(&mut self, index: usize, connected: &RawValue) {
        let transport = self.spoken_by(index);
        let peer = &mut self.peers[index];
        let Role::Reader { ledger } = peer.role else {
            peer.id = 1;
            return self.became_ready(index);
        };
        peer.phase = Phase::Subscribing;
        if transport == Transport::WebSocketJson {
            peer.id = 2;
            let subscribe = self.subscribe(index, ledger);
            self.send_frame(index, frame::TEXT, subscribe.as_bytes());
        } else if let Ok(Connected { session: Some(session), node: Some(node) }) = serde_json::from_str(connected.get())
        {
            peer.given = Some(format!("\"session\":{session},\"node\":{node}").into());
        }
    }

    fn subscribed(&mut self, index: usize, subscribed: &RawValue, now: Instant) {
        let Role::Reader { ledger } = self.peers[index].role else { return };
        if self.returning.is_some() {
            let result = match serde_json::from_str::<Subscribed<'_>>(subscribed.get()) {
                Ok(result) => result,
                Err(error) => {
                    let said = format!("an answer to subscribe that is not as expected: {error}");
                    return self.broken(index, LoadError::Refused(said));
                }
            };
            self.stands(index, result.offset, &result.epoch);
            if result.was_recovering && !result.recovered {
                self.gap_told(index);
            }
            let channel = self.ledgers[ledger].channel().to_owned();
            for publication in &result.publications {
                let data = publication.data.get().as_bytes();
                let found = Found { channel: &channel, data, offset: publication.offset };
                self.take_publication(index, found, None, now);
            }
        }
        self.became_ready(index);
    }

    /// Takes the pieces of a stream: each a line, or an event that holds one.
    pub(super) fn take_native_piece(&mut self, index: usize, piece: &[u8], now: Instant) {
        let piece = piece.trim_ascii_start();
        let line = piece.strip_prefix(b"data: ").unwrap_or(piece);
        if !self.took_known(index, line, now) {
            self.take_lines(index, line, now);
        }
    }
}
