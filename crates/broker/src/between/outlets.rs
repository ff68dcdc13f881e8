//! Where things go that came from other nodes: the hub's sink, the server's sinks for orders and letters, and those who run jobs.
//!
//! Called on the task of the connection that heard them, one after the other: what comes by one name is passed on in its order, and
//! there is no queue between the socket and the hub. A hub that is slow lets the server's own queue grow, which ends the
//! connection; that is a doubt of everything that it heard.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use talewire_proto::generation::GenerationFrame;
use talewire_proto::generation::GenerationStatus;
use talewire_proto::{Channel, Entry, Epoch};
use tokio::sync::broadcast;

use super::packing::Unreadable;
use super::{orders, packing};
use crate::{ControlSink, Delivery, LetterSink, Message, NodeId, Sink, WakeUp};

/// Whom something that is announced by a name is for.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// The subscribers of a channel.
    Channel(Channel),
    /// This node.
    Letters,
    /// Every node.
    Everybody,
}

/// The sinks of this node.
pub(crate) struct Outlets {
    node: NodeId,
    sink: OnceLock<Sink>,
    controls: OnceLock<ControlSink>,
    letters: OnceLock<LetterSink>,
    pub(crate) wakeups: broadcast::Sender<WakeUp>,
}

impl Outlets {
    pub(crate) fn new(node: NodeId, wakeups_waiting_max: usize) -> Self {
        let (wakeups, _) = broadcast::channel(wakeups_waiting_max.max(1));
        Self { node, sink: OnceLock::new(), controls: OnceLock::new(), letters: OnceLock::new(), wakeups }
    }

    pub(crate) fn deliver_to(&self, sink: Sink) {
        assert!(self.sink.set(sink).is_ok(), "a node has one hub, which attaches once");
    }

    pub(crate) fn control_with(&self, sink: ControlSink) {
        assert!(self.controls.set(sink).is_ok(), "a node has one server, which attaches once");
    }

    pub(crate) fn letters_to(&self, sink: LetterSink) {
        assert!(self.letters.set(sink).is_ok(), "a node has one server, which attaches once");
    }

    /// The server's sink for orders, if there is a server.
    pub(crate) fn controls(&self) -> Option<&ControlSink> {
        self.controls.get()
    }

    /// Tells that something may have been missed.
    pub(crate) fn doubt(&self, target: &Target) {
        if let (Target::Channel(channel), Some(sink)) = (target, self.sink.get()) {
            sink(Delivery { channel: channel.clone(), message: Message::Doubt });
        }
    }

    /// Passes on what was announced. What cannot be read is a doubt, where there is something to be read instead.
    pub(crate) fn take(&self, target: &Target, bytes: Bytes) {
        let length = bytes.len();
        let taken = match target {
            Target::Channel(channel) => self.take_message(channel, bytes),
            Target::Letters => {
                if let Some(letters) = self.letters.get() {
                    letters(bytes);
                }
                Ok(())
            }
            Target::Everybody => self.take_order(bytes),
        };
        if taken.is_err() {
            tracing::warn!(?target, length, "an announcement cannot be read: a newer version may have made it");
            self.doubt(target);
        }
    }

    fn take_message(&self, channel: &Channel, bytes: Bytes) -> Result<(), Unreadable> {
        let Some(sink) = self.sink.get() else { return Ok(()) };
        let message = read_message(channel, bytes)?;
        sink(Delivery { channel: channel.clone(), message });
        Ok(())
    }

    fn take_order(&self, bytes: Bytes) -> Result<(), Unreadable> {
        match orders::read(bytes.clone())? {
            // This node has taken its own orders before it sent them.
            orders::Told::Control { from, kept: true, .. } if from != self.node => {
                drop(self.wakeups.send(WakeUp::Order(bytes)));
            }
            orders::Told::Control { from, control, kept: false } if from != self.node => {
                if let Some(sink) = self.controls.get()
                    && !sink(control)
                {
                    tracing::warn!("an order of another node found no room here and is lost");
                }
            }
            orders::Told::Cancel(generation) => drop(self.wakeups.send(WakeUp::Cancel(generation))),
            orders::Told::Control { .. } | orders::Told::Unknown => {}
        }
        Ok(())
    }
}

/// An entry as it is announced; `publish.lua` writes the same.
pub(crate) fn entry_message(epoch: &Epoch, entry: &Entry) -> Vec<u8> {
    let mut bytes = format!("E{} {} ", entry.offset, epoch.as_str()).into_bytes();
    bytes.extend_from_slice(&packing::publication(&entry.publication));
    bytes
}

/// A signal as it is announced.
pub(crate) fn signal_message(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 1);
    bytes.push(b'S');
    bytes.extend_from_slice(body);
    bytes
}

/// Reads what [`entry_message`], [`signal_message`] and the scripts have written. A letter says what it is.
pub(crate) fn read_message(channel: &Channel, mut bytes: Bytes) -> Result<Message, Unreadable> {
    if bytes.is_empty() {
        return Err(Unreadable);
    }
    let kind = bytes.split_to(1)[0];
    match kind {
        b'E' => {
            let offset = number(&word(&mut bytes)?)?;
            let epoch = Epoch::new(packing::text(&word(&mut bytes)?)?);
            let publication = packing::read_publication(bytes)?;
            Ok(Message::Entry { epoch, entry: Arc::new(Entry { offset, publication }) })
        }
        b'S' => Ok(Message::Signal(Arc::new(packing::read_publication(bytes)?))),
        b'J' => Ok(Message::Join(Arc::new(packing::read_info(bytes)?))),
        b'L' => Ok(Message::Leave(Arc::new(packing::read_info(bytes)?))),
        b'R' | b'D' | b'X' => Ok(Message::Generation(Arc::new(frame(channel, kind, bytes)?))),
        _ => Err(Unreadable),
    }
}

fn frame(channel: &Channel, kind: u8, mut bytes: Bytes) -> Result<GenerationFrame, Unreadable> {
    let generation = channel.generation_id().ok_or(Unreadable)?;
    let attempt = |word: &[u8]| u32::try_from(number(word)?).map_err(|_| Unreadable);
    if kind == b'R' {
        return Ok(GenerationFrame::Reset { generation, attempt: attempt(&bytes)? });
    }
    let attempt = attempt(&word(&mut bytes)?)?;
    if kind == b'X' {
        // Nodes of an earlier version say no length.
        let (status, at) = match word(&mut bytes) {
            Ok(status) => (status, Some(number(&bytes)?)),
            Err(Unreadable) => (bytes, None),
        };
        let status = GenerationStatus::from_word(packing::text(&status)?).ok_or(Unreadable)?;
        return Ok(GenerationFrame::End { generation, attempt, at, status });
    }
    let at = number(&word(&mut bytes)?)?;
    Ok(GenerationFrame::Delta { generation, attempt, at, text: packing::text(&bytes)?.to_owned() })
}

/// Takes what stands before the next space, and the space.
fn word(bytes: &mut Bytes) -> Result<Bytes, Unreadable> {
    let end = bytes.iter().position(|byte| *byte == b' ').ok_or(Unreadable)?;
    let word = bytes.split_to(end);
    let _ = bytes.split_to(1);
    Ok(word)
}

pub(crate) fn number(word: &[u8]) -> Result<u64, Unreadable> {
    packing::text(word)?.parse().map_err(|_| Unreadable)
}
