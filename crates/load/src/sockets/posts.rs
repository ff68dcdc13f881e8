//! Posts on the loop's connections: publications by the server API, and commands for connections that flow one way. Answers of
//! whatever is kept open for one request after the other are cut out here.

use std::time::Instant;

use super::{Input, Phase, Role, Sockets, http};
use crate::client;
use crate::error::LoadError;
use crate::frame;

impl Sockets {
    /// Publishes the next `count` publications of a channel over one connection, in as few writes as the server takes.
    pub fn publish(&mut self, index: usize, ledger: usize, count: u32) {
        /// Well below what servers take as one frame.
        const FRAME_BYTES: usize = 32_768;
        let is_api = self.peers[index].role == Role::Api;
        let mut text = Vec::new();
        for left in (0..count).rev() {
            let peer = &mut self.peers[index];
            peer.id += 1;
            peer.unacknowledged += 1;
            let id = peer.id;
            let now = Instant::now();
            let channel = self.ledgers[ledger].channel().to_owned();
            let data = self.ledgers[ledger].publish(now);
            if is_api {
                http::publish(&self.target, &channel, data, None, &mut text);
            } else {
                client::publish(id, &channel, data, &mut text);
                if left > 0 && text.len() < FRAME_BYTES {
                    text.push(b'\n');
                    continue;
                }
                self.send_frame(index, frame::TEXT, &text);
                text.clear();
            }
        }
        if is_api {
            self.send(index, &text);
        }
    }

    /// Publishes the next of a channel by the server API and a key: after every break again, until it is acknowledged.
    pub fn publish_surely(&mut self, index: usize, ledger: usize) {
        let channel = self.ledgers[ledger].channel().to_owned();
        let key = self.ledgers[ledger].published().to_string();
        let data = self.ledgers[ledger].publish(Instant::now());
        let mut request = Vec::new();
        http::publish(&self.target, &channel, data, Some(&key), &mut request);
        let peer = &mut self.peers[index];
        peer.unacknowledged = 1;
        peer.request = Some(request.as_slice().into());
        if peer.phase == Phase::Ready {
            self.send(index, &request);
        }
    }

    pub(super) fn begin_posting(&mut self, index: usize) {
        self.peers[index].input = Input::Answers(Vec::new());
        self.became_ready(index);
        if let Some(request) = self.peers[index].request.clone() {
            self.send(index, &request);
        }
        let waiting = std::mem::take(&mut self.peers[index].out);
        self.send(index, &waiting);
    }

    /// Posts what a connection has to say, over the one that posts for all of the same address.
    pub(super) fn post_for(&mut self, index: usize, request: &[u8]) {
        let source = usize::from(self.peers[index].source);
        let poster = match self.posters[source] {
            Some(poster) if self.peers[poster].phase == Phase::Gone => {
                self.gone -= 1;
                self.dial(poster);
                poster
            }
            Some(poster) => poster,
            None => {
                let poster = self.begin(Role::Poster, source);
                self.posters[source] = Some(poster);
                poster
            }
        };
        match self.peers[poster].phase {
            Phase::Ready => self.send(poster, request),
            _ => self.peers[poster].out.extend_from_slice(request),
        }
    }

    /// Cuts whole answers out of what came.
    pub(super) fn take_answers(&mut self, index: usize, mut rest: Vec<u8>, bytes: &[u8], now: Instant) {
        rest.extend_from_slice(bytes);
        let mut used = 0;
        loop {
            let (head, whole) = match http::answer(&rest[used..]) {
                Ok(Some(answer)) => answer,
                Ok(None) => break,
                Err(said) => return self.broken(index, LoadError::Refused(said)),
            };
            let answer = &rest[used..used + whole];
            if !matches!(head.status, 200 | 204) {
                return self.broken(index, LoadError::Refused(String::from_utf8_lossy(answer).into_owned()));
            }
            used += whole;
            match self.peers[index].role {
                Role::Reader { .. } => self.take_poll(index, &answer[head.bytes..], now),
                Role::Api => self.acknowledged(index, now),
                Role::Poster | Role::Speaker => {}
            }
            if self.peers[index].socket.is_none() {
                return;
            }
        }
        rest.drain(..used);
        if rest.is_empty() {
            // A reader that waits holds nothing.
            rest = Vec::new();
        }
        self.read_on(index, Input::Answers(rest));
    }

    fn acknowledged(&mut self, index: usize, now: Instant) {
        let peer = &mut self.peers[index];
        peer.unacknowledged = peer.unacknowledged.saturating_sub(1);
        peer.request = None;
        self.progress_at = now;
    }
}
