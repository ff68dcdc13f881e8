//! Who publishes: several connections in turn, so that no limit of one connection or address is in the way; or the
//! baseline's control.

use std::time::Instant;

use talewire_proto::wire::Wire;
use talewire_proto::{Channel, Payload, Publication, json};

use crate::baseline::Baseline;
use crate::error::LoadError;
use crate::sockets::{Role, Sockets};

/// Whoever publishes.
#[derive(Debug)]
pub enum Speakers {
    /// Connections to the server, by index. The next has its turn when everything the last one said is acknowledged, so
    /// that the server knows one order.
    Connections {
        /// All of them.
        indexes: Vec<usize>,
        /// Whose turn it is.
        turn: usize,
    },
    /// The baseline server, which is given whole frames.
    Baseline {
        /// The server.
        server: Box<Baseline>,
        /// The length to which messages are filled up with spaces, so that they are as long as the real server's.
        message_bytes: usize,
    },
}

impl Speakers {
    /// Opens connections to speak on.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn open(sockets: &mut Sockets, role: Role, count: usize) -> Result<Self, LoadError> {
        let first = sockets.open(&vec![role; count], count)?;
        Ok(Self::Connections { indexes: (first..first + count).collect(), turn: 0 })
    }

    /// Publishes the next `count` publications of a channel.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn publish(&mut self, sockets: &mut Sockets, ledger: usize, count: u32) -> Result<(), LoadError> {
        match self {
            Self::Connections { indexes, turn } => {
                if sockets.unacknowledged(indexes[*turn]) == 0 {
                    *turn = (*turn + 1) % indexes.len();
                }
                sockets.publish(indexes[*turn], ledger, count);
                Ok(())
            }
            Self::Baseline { server, message_bytes } => {
                let ledger = &mut sockets.ledgers[ledger];
                let channel: Channel = ledger
                    .channel()
                    .parse()
                    .map_err(|_| LoadError::Options(format!("{} is no name of a channel", ledger.channel())))?;
                let frames: Vec<_> = (0..count)
                    .map(|_| {
                        let data = Payload::trusted(ledger.publish(Instant::now()).to_vec().into());
                        let publication = Publication { data: Some(data), ..Publication::default() };
                        let mut message = json::encode_publication(&channel, 0, &publication);
                        message.resize(message.len().max(*message_bytes), b' ');
                        Wire::WebSocketJson.frame(&message)
                    })
                    .collect();
                server.publish(frames.iter().map(|frame| &frame[..]))
            }
        }
    }
}
