//! Orders to the connections of every node, and wishes to stop a generation: written as records, and read again on each node.

use bytes::Bytes;
use talewire_proto::command::{Recover, Token, Wanted};
use talewire_proto::{Channel, ClientId, CloseCode, Epoch, GenerationId, Payload, Position, UserId};

use super::packing::{Reader, Unreadable, Writer, text};
use crate::{Control, NodeId, Order, Whom};

/// What a node tells every node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// An order of this node's server programs.
    Control {
        /// Which node it comes from.
        from: NodeId,
        /// The order.
        control: Control,
        /// Whether it stands in the database, where whoever knows of that finds it in its order.
        kept: bool,
    },
    /// Somebody asked to stop this generation.
    Cancel(GenerationId),
    /// Something that newer versions say.
    Unknown,
}

mod tag {
    pub(super) const FROM: u8 = 1;
    pub(super) const EVERYONE: u8 = 2;
    pub(super) const USER: u8 = 3;
    pub(super) const CLIENT: u8 = 4;
    pub(super) const SESSION: u8 = 5;
    pub(super) const KEPT: u8 = 6;
    pub(super) const MESSAGE: u8 = 10;
    pub(super) const DISCONNECT: u8 = 11;
    pub(super) const KEEP: u8 = 12;
    pub(super) const SUBSCRIBE: u8 = 13;
    pub(super) const UNSUBSCRIBE: u8 = 14;
    pub(super) const LASTING: u8 = 15;
    pub(super) const CANCEL: u8 = 20;
    pub(super) const CHANNEL: u8 = 30;
    pub(super) const AFTER: u8 = 31;
    pub(super) const PAGES_AFTER: u8 = 32;
    pub(super) const PAGES_FROM_OLDEST: u8 = 33;
    pub(super) const JOIN_LEAVE: u8 = 34;
    pub(super) const INFO: u8 = 35;
    pub(super) const DATA: u8 = 36;
}

/// An order as it is told; nothing when it holds what orders do not carry (a filter). Nodes of versions that keep no orders carry out
/// one that says that it is kept as any other.
pub(crate) fn write(from: &NodeId, control: &Control, kept: bool) -> Option<Bytes> {
    let mut writer = Writer::default();
    writer.put(tag::FROM, from.as_str().as_bytes());
    if kept {
        writer.put(tag::KEPT, b"");
    }
    match &control.whom {
        Whom::Everyone => writer.put(tag::EVERYONE, b""),
        Whom::Of { user, client, session } => {
            user.iter().for_each(|user| writer.put(tag::USER, user.as_str().as_bytes()));
            client.iter().for_each(|client| writer.put(tag::CLIENT, client.as_str().as_bytes()));
            session.iter().for_each(|session| writer.put(tag::SESSION, session.0.as_bytes()));
        }
    }
    match &control.order {
        Order::Message(payload) => writer.put(tag::MESSAGE, payload.as_bytes()),
        Order::Disconnect { code, keep } => {
            writer.put(tag::DISCONNECT, &code.code().to_le_bytes());
            keep.iter().for_each(|client| writer.put(tag::KEEP, client.as_str().as_bytes()));
        }
        Order::Subscribe(wanted) if wanted.filter.is_some() => return None,
        Order::Subscribe(wanted) => writer.nested(tag::SUBSCRIBE, |inner| write_wanted(inner, wanted)),
        Order::Unsubscribe(channel) => writer.put(tag::UNSUBSCRIBE, channel.as_str().as_bytes()),
        Order::Lasting(until_ms) => {
            let until_ms = until_ms.map(i64::to_le_bytes);
            writer.put(tag::LASTING, until_ms.as_ref().map_or(&[], |bytes| &bytes[..]));
        }
    }
    Some(writer.done())
}

/// A wish to stop a generation as it is told.
pub(crate) fn write_cancel(generation: &GenerationId) -> Bytes {
    let mut writer = Writer::default();
    writer.put(tag::CANCEL, generation.as_str().as_bytes());
    writer.done()
}

fn write_wanted(writer: &mut Writer, wanted: &Wanted) {
    writer.put(tag::CHANNEL, wanted.channel.as_str().as_bytes());
    let position = |position: &Position| {
        let mut bytes = position.offset.to_le_bytes().to_vec();
        bytes.extend_from_slice(position.epoch.as_str().as_bytes());
        bytes
    };
    match &wanted.recover {
        None => {}
        Some(Recover::After(asked)) => writer.put(tag::AFTER, &position(asked)),
        Some(Recover::PagesAfter(asked)) => writer.put(tag::PAGES_AFTER, &position(asked)),
        Some(Recover::PagesFromOldest) => writer.put(tag::PAGES_FROM_OLDEST, b""),
    }
    if wanted.join_leave {
        writer.put(tag::JOIN_LEAVE, b"");
    }
    wanted.info.iter().for_each(|info| writer.put(tag::INFO, info.as_bytes()));
    wanted.data.iter().for_each(|data| writer.put(tag::DATA, data.as_bytes()));
}

/// Reads what a node has told.
pub(crate) fn read(bytes: Bytes) -> Result<Told, Unreadable> {
    let mut reader = Reader::new(bytes);
    let (mut from, mut everyone, mut user, mut client, mut session) = (None, false, None, None, None);
    let (mut order, mut kept) = (None, false);
    while let Some((kind, value)) = reader.next()? {
        match kind {
            tag::FROM => from = Some(NodeId::named(text(&value)?)),
            tag::EVERYONE => everyone = true,
            tag::KEPT => kept = true,
            tag::USER => user = Some(text(&value)?.parse::<UserId>().map_err(|_| Unreadable)?),
            tag::CLIENT => client = Some(read_client(&value)?),
            tag::SESSION => session = Some(Token(text(&value)?.to_owned())),
            tag::MESSAGE => order = Some(Order::Message(Payload::checked(value).map_err(|_| Unreadable)?)),
            tag::DISCONNECT => order = Some(Order::Disconnect { code: read_code(&value)?, keep: Vec::new() }),
            tag::KEEP => {
                if let Some(Order::Disconnect { keep, .. }) = &mut order {
                    keep.push(read_client(&value)?);
                }
            }
            tag::SUBSCRIBE => order = Some(Order::Subscribe(Box::new(read_wanted(value)?))),
            tag::UNSUBSCRIBE => order = Some(Order::Unsubscribe(read_channel(&value)?)),
            tag::LASTING if value.is_empty() => order = Some(Order::Lasting(None)),
            tag::LASTING => order = Some(Order::Lasting(Some(i64::from_le_bytes(eight(&value)?)))),
            tag::CANCEL => return Ok(Told::Cancel(text(&value)?.parse().map_err(|_| Unreadable)?)),
            _ => {}
        }
    }
    let (Some(from), Some(order)) = (from, order) else { return Ok(Told::Unknown) };
    let whom = if everyone { Whom::Everyone } else { Whom::Of { user, client, session } };
    Ok(Told::Control { from, control: Control { whom, order }, kept })
}

fn read_wanted(bytes: Bytes) -> Result<Wanted, Unreadable> {
    let mut reader = Reader::new(bytes);
    let Some((tag::CHANNEL, channel)) = reader.next()? else { return Err(Unreadable) };
    let mut wanted = Wanted::new(read_channel(&channel)?);
    while let Some((kind, value)) = reader.next()? {
        match kind {
            tag::AFTER => wanted.recover = Some(Recover::After(read_position(&value)?)),
            tag::PAGES_AFTER => wanted.recover = Some(Recover::PagesAfter(read_position(&value)?)),
            tag::PAGES_FROM_OLDEST => wanted.recover = Some(Recover::PagesFromOldest),
            tag::JOIN_LEAVE => wanted.join_leave = true,
            tag::INFO => wanted.info = Some(Payload::checked(value).map_err(|_| Unreadable)?),
            tag::DATA => wanted.data = Some(Payload::checked(value).map_err(|_| Unreadable)?),
            _ => {}
        }
    }
    Ok(wanted)
}

fn read_position(bytes: &[u8]) -> Result<Position, Unreadable> {
    let (offset, epoch) = bytes.split_at_checked(8).ok_or(Unreadable)?;
    Ok(Position { offset: u64::from_le_bytes(eight(offset)?), epoch: Epoch::new(text(epoch)?) })
}

fn read_channel(bytes: &[u8]) -> Result<Channel, Unreadable> {
    text(bytes)?.parse().map_err(|_| Unreadable)
}

fn read_client(bytes: &[u8]) -> Result<ClientId, Unreadable> {
    text(bytes)?.parse().map_err(|_| Unreadable)
}

fn read_code(bytes: &[u8]) -> Result<CloseCode, Unreadable> {
    let code = u32::from_le_bytes(bytes.try_into().map_err(|_| Unreadable)?);
    CloseCode::ALL.iter().copied().find(|known| known.code() == code).ok_or(Unreadable)
}

fn eight(bytes: &[u8]) -> Result<[u8; 8], Unreadable> {
    bytes.try_into().map_err(|_| Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_is_read_as_it_was_written() {
        let client: ClientId = "c-1".parse().expect("a plain id");
        let everything = Wanted {
            recover: Some(Recover::PagesAfter(Position { offset: 7, epoch: Epoch::new("e.g") })),
            join_leave: true,
            info: Some(Payload::of(&1)),
            data: Some(Payload::of(&"\u{e9}")),
            ..Wanted::new("chat:a".parse().expect("a plain name"))
        };
        let orders = [
            Order::Message(Payload::of(&"words")),
            Order::Disconnect { code: CloseCode::ForceDisconnect, keep: vec![client.clone(), client.clone()] },
            Order::Subscribe(Box::new(everything)),
            Order::Subscribe(Box::new(Wanted {
                recover: Some(Recover::PagesFromOldest),
                ..Wanted::new("news".parse().expect("a plain name"))
            })),
            Order::Unsubscribe("chat:b".parse().expect("a plain name")),
            Order::Lasting(None),
            Order::Lasting(Some(-5)),
        ];
        let user: UserId = "\u{e9} b".parse().expect("an id");
        let session = Some(Token("secret".into()));
        let from = NodeId::named("n");
        for order in orders {
            for whom in [
                Whom::Everyone,
                Whom::user(user.clone()),
                Whom::client(client.clone()),
                Whom::Of { user: None, client: None, session: session.clone() },
            ] {
                let control = Control { whom, order: order.clone() };
                for kept in [false, true] {
                    let bytes = write(&from, &control, kept).expect("it holds no filter");
                    let told = Told::Control { from: from.clone(), control: control.clone(), kept };
                    assert_eq!(read(bytes), Ok(told));
                }
                assert_eq!(control.packed(&from).and_then(Control::unpacked), Some(control));
            }
        }
        let generation = GenerationId::from_random([1; 13]);
        assert_eq!(read(write_cancel(&generation)), Ok(Told::Cancel(generation)));
        assert_eq!(read(Bytes::from_static(&[99, 0, 0, 0, 0])), Ok(Told::Unknown));
        assert_eq!(Control::unpacked(Bytes::from_static(&[99, 0, 0, 0, 0])), None);
        assert_eq!(read(Bytes::from_static(b"\x01\xff\xff\xff\xffx")), Err(Unreadable));
    }
}
