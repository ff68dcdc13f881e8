//! How things are written for Redis: publications, who is present, announcements and orders, each as bytes that every node of this
//! version and its neighbours reads.
//!
//! A thing is a row of records: a tag, a length, and the value. Whoever reads passes over tags that it does not know, so that a newer node
//! may say more than an older one understands. A publication begins with its version and the length of its payload, which scripts read.

use bytes::{BufMut as _, Bytes, BytesMut};
use talewire_proto::trace::Trace;
use talewire_proto::{ClientInfo, Payload, Publication};

/// Bytes that are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// The version of a publication's outer shape: the payload's length stands where scripts look for it.
const VERSION: u8 = 1;

/// The length of a payload that is not there.
const NO_DATA: u32 = u32::MAX;

/// Writes records.
#[derive(Default)]
pub(crate) struct Writer(BytesMut);

impl Writer {
    pub(crate) fn put(&mut self, tag: u8, value: &[u8]) {
        self.0.put_u8(tag);
        self.0.put_u32_le(u32::try_from(value.len()).expect("values are far shorter than 4 GiB"));
        self.0.put_slice(value);
    }

    pub(crate) fn nested(&mut self, tag: u8, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.put(tag, &inner.0);
    }

    pub(crate) fn done(self) -> Bytes {
        self.0.freeze()
    }
}

/// Reads records.
pub(crate) struct Reader(Bytes);

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The next record, or nothing at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(u8, Bytes)>, Unreadable> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.0.split_to(1)[0];
        let length = take(&mut self.0, 4)?;
        let length = u32::from_le_bytes(length[..].try_into().map_err(|_| Unreadable)?);
        let value = take(&mut self.0, usize::try_from(length).map_err(|_| Unreadable)?)?;
        Ok(Some((tag, value)))
    }
}

fn take(bytes: &mut Bytes, length: usize) -> Result<Bytes, Unreadable> {
    if length > bytes.len() {
        return Err(Unreadable);
    }
    Ok(bytes.split_to(length))
}

pub(crate) fn text(bytes: &[u8]) -> Result<&str, Unreadable> {
    std::str::from_utf8(bytes).map_err(|_| Unreadable)
}

mod tag {
    pub(super) const TIME: u8 = 1;
    pub(super) const INFO: u8 = 2;
    pub(super) const LABEL: u8 = 3;
    pub(super) const TRACE: u8 = 4;
    pub(super) const CLIENT: u8 = 11;
    pub(super) const CONN_INFO: u8 = 12;
    pub(super) const CHAN_INFO: u8 = 13;
}

/// A publication as the body of an entry or of a signal.
pub(crate) fn publication(publication: &Publication) -> Bytes {
    let data = publication.data.as_ref();
    let mut writer = Writer(BytesMut::with_capacity(64 + data.map_or(0, Payload::len)));
    writer.0.put_u8(VERSION);
    let length = data.map_or(NO_DATA, |data| u32::try_from(data.len()).unwrap_or(NO_DATA));
    writer.0.put_u32_le(length);
    if let Some(data) = data {
        writer.0.put_slice(data.as_bytes());
    }
    if publication.time_ms != 0 {
        writer.put(tag::TIME, &publication.time_ms.to_le_bytes());
    }
    if let Some(who) = &publication.info {
        writer.put(tag::INFO, &info(who));
    }
    if let Some(trace) = publication.trace {
        writer.put(tag::TRACE, &[&trace.id.to_le_bytes()[..], &trace.span.to_le_bytes()[..]].concat());
    }
    for (name, value) in &publication.tags {
        writer.nested(tag::LABEL, |label| {
            label.put(0, name.as_bytes());
            label.put(1, value.as_bytes());
        });
    }
    writer.done()
}

/// Reads what [`publication`] has written.
pub(crate) fn read_publication(mut body: Bytes) -> Result<Publication, Unreadable> {
    let head = take(&mut body, 5)?;
    if head[0] != VERSION {
        return Err(Unreadable);
    }
    let length = u32::from_le_bytes(head[1..].try_into().map_err(|_| Unreadable)?);
    let mut publication = Publication::default();
    if length != NO_DATA {
        let data = take(&mut body, usize::try_from(length).map_err(|_| Unreadable)?)?;
        publication.data = Some(Payload::checked(data).map_err(|_| Unreadable)?);
    }
    let mut reader = Reader::new(body);
    while let Some((kind, value)) = reader.next()? {
        match kind {
            tag::TIME => publication.time_ms = i64::from_le_bytes(value[..].try_into().map_err(|_| Unreadable)?),
            tag::INFO => publication.info = Some(read_info(value)?),
            tag::TRACE => publication.trace = Some(read_trace(&value)?),
            tag::LABEL => {
                let mut label = Reader::new(value);
                let (Some((0, name)), Some((1, value))) = (label.next()?, label.next()?) else {
                    return Err(Unreadable);
                };
                publication.tags.insert(text(&name)?.to_owned(), text(&value)?.to_owned());
            }
            _ => {}
        }
    }
    Ok(publication)
}

fn read_trace(bytes: &[u8]) -> Result<Trace, Unreadable> {
    let (id, span) = bytes.split_at_checked(16).ok_or(Unreadable)?;
    let id = u128::from_le_bytes(id.try_into().map_err(|_| Unreadable)?);
    Ok(Trace { id, span: u64::from_le_bytes(span.try_into().map_err(|_| Unreadable)?) })
}

/// Who somebody is. It begins with the length of the user's id in two bytes and the id, where a script looks for it.
pub(crate) fn info(info: &ClientInfo) -> Bytes {
    let user = info.user.as_str().as_bytes();
    let mut writer = Writer::default();
    writer.0.put_u16_le(u16::try_from(user.len()).expect("ids of users have at most 255 bytes"));
    writer.0.put_slice(user);
    if let Some(client) = &info.client {
        writer.put(tag::CLIENT, client.as_str().as_bytes());
    }
    if let Some(info) = &info.conn_info {
        writer.put(tag::CONN_INFO, info.as_bytes());
    }
    if let Some(info) = &info.chan_info {
        writer.put(tag::CHAN_INFO, info.as_bytes());
    }
    writer.done()
}

/// Reads what [`info`] has written.
pub(crate) fn read_info(mut bytes: Bytes) -> Result<ClientInfo, Unreadable> {
    let length = take(&mut bytes, 2)?;
    let user = take(&mut bytes, usize::from(u16::from_le_bytes([length[0], length[1]])))?;
    let mut info = ClientInfo { user: text(&user)?.parse().map_err(|_| Unreadable)?, ..ClientInfo::default() };
    let mut reader = Reader::new(bytes);
    while let Some((kind, value)) = reader.next()? {
        match kind {
            tag::CLIENT => info.client = Some(text(&value)?.parse().map_err(|_| Unreadable)?),
            tag::CONN_INFO => info.conn_info = Some(Payload::checked(value).map_err(|_| Unreadable)?),
            tag::CHAN_INFO => info.chan_info = Some(Payload::checked(value).map_err(|_| Unreadable)?),
            _ => {}
        }
    }
    Ok(info)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn a_publication() -> impl Strategy<Value = Publication> {
        let words = proptest::option::of("[a-z\u{e9}\u{1f98a} ]{0,40}");
        let labels = proptest::collection::btree_map("[a-z]{1,8}", "[a-z\u{e9}]{0,8}", 0..4);
        (words.clone(), words, labels, any::<i64>(), "[a-z\u{e9}]{0,9}").prop_map(
            |(data, more, tags, time_ms, user)| {
                let info = more.map(|words| ClientInfo {
                    user: user.parse().expect("a plain id"),
                    client: (words.len() > 3).then(|| "c-1".parse().expect("a plain id")),
                    conn_info: (words.len() > 5).then(|| Payload::of(&words)),
                    chan_info: (words.len() > 7).then(|| Payload::of(&words)),
                });
                let trace = (time_ms % 2 == 0).then_some(Trace { id: time_ms.unsigned_abs().into(), span: 7 });
                Publication { data: data.map(|words| Payload::of(&words)), info, tags, time_ms, trace }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(sent in a_publication()) {
            prop_assert_eq!(read_publication(publication(&sent)), Ok(sent));
        }

        #[test]
        fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), cut in 0_usize..80) {
            let _ = read_publication(Bytes::from(bytes.clone()));
            let _ = read_info(Bytes::from(bytes));
            let whole = publication(&Publication { time_ms: 5, ..Publication::default() });
            let cut = cut.min(whole.len());
            let _ = read_publication(whole.slice(..cut));
        }
    }

    #[test]
    fn what_is_no_json_is_no_publication() {
        let sent = Publication { data: Some(Payload::of(&"words")), ..Publication::default() };
        let mut bytes = BytesMut::from(&publication(&sent)[..]);
        let quote = bytes.iter().position(|b| *b == b'"').expect("a string begins so");
        bytes[quote] = b'x';
        assert_eq!(read_publication(bytes.freeze()), Err(Unreadable));
    }

    #[test]
    fn records_of_newer_nodes_are_passed_over() {
        let sent = Publication { data: Some(Payload::of(&"x")), time_ms: 7, ..Publication::default() };
        let mut bytes = BytesMut::from(&publication(&sent)[..]);
        bytes.extend_from_slice(&[200, 2, 0, 0, 0, 1, 2]);
        assert_eq!(read_publication(bytes.freeze()), Ok(sent));
    }
}
