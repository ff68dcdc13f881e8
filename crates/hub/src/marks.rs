//! Where a reader that speaks no protocol stands: what its event ids and cursors say.
//!
//! A native client keeps its positions itself. A bare `EventSource` keeps one id, and a poll one cursor: the shard moves them with
//! every entry that it puts into the reader's outbox or, by a filter, keeps from it.

use bytes::Bytes;
use talewire_proto::wire::Wire;
use talewire_proto::{ByChannel, Channel, Epoch, Position, events};

/// Writes the id of a reader of several channels from where it stands in each.
pub type IdWriter = Box<dyn Fn(&[(Channel, Position)]) -> String>;

/// Positions by channel, in the order of their names.
#[derive(Debug, Default)]
pub struct Marks {
    positions: ByChannel<Position>,
    /// An entry was kept from the reader since the last id that it was given.
    moved: bool,
}

impl Marks {
    /// Where the reader stands in each channel. A channel without positions has an empty epoch.
    #[must_use]
    pub fn positions(&self) -> &[(Channel, Position)] {
        self.positions.as_slice()
    }

    pub(crate) fn has_moved(&self) -> bool {
        self.moved
    }

    pub(crate) fn position(&self, channel: &Channel) -> Option<&Position> {
        self.positions.get(channel)
    }

    pub(crate) fn epoch(&self, channel: &Channel) -> Option<Epoch> {
        self.position(channel).map(|position| position.epoch.clone())
    }

    pub(crate) fn begin(&mut self, channel: &Channel, position: Position) {
        self.positions.insert(channel.clone(), position);
    }

    pub(crate) fn advance(&mut self, channel: &Channel, offset: u64) {
        if let Some(position) = self.positions.get_mut(channel) {
            position.offset = offset;
        }
        self.moved = false;
    }

    pub(crate) fn hide(&mut self, channel: &Channel, offset: u64) {
        self.advance(channel, offset);
        self.moved = true;
    }

    /// The line that names the position, without the empty line that would end the event.
    pub(crate) fn id_line(&mut self, wire: Wire, ids: &IdWriter) -> Bytes {
        self.moved = false;
        let id = match (wire, self.positions()) {
            (Wire::Events(_), [(_, position)]) if !position.epoch.is_empty() => {
                events::id(position.offset, &position.epoch)
            }
            (Wire::EventsOfMany(_), positions) if positions.iter().any(|(_, position)| !position.epoch.is_empty()) => {
                ids(positions)
            }
            _ => String::new(),
        };
        if id.is_empty() { Bytes::new() } else { events::id_line(&id).into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use talewire_proto::events::Form;

    #[test]
    fn an_id_says_where_the_reader_stands() {
        let at = |offset, epoch: &str| Position { offset, epoch: Epoch::new(epoch) };
        let channel = |name: &str| name.parse::<Channel>().expect("a name");
        let ids: IdWriter = Box::new(|positions| {
            positions.iter().map(|(channel, position)| format!("{channel}={};", position.offset)).collect()
        });
        let mut marks = Marks::default();
        assert_eq!(marks.id_line(Wire::Events(Form::Payload), &ids), "");
        marks.begin(&channel("b"), at(4, "e"));
        assert_eq!(marks.id_line(Wire::Events(Form::Payload), &ids), "id: 4-af63d84c8601e5c0\n".as_bytes());
        marks.begin(&channel("a"), at(0, ""));
        marks.advance(&channel("b"), 5);
        assert!(!marks.has_moved());
        marks.hide(&channel("b"), 6);
        assert!(marks.has_moved());
        assert_eq!(marks.id_line(Wire::EventsOfMany(Form::Payload), &ids), "id: a=0;b=6;\n");
        assert!(!marks.has_moved());
    }
}
