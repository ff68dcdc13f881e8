//! Generation streams: one text, one writer at a time, and every reader able to tell what it missed.

use talewire_proto::generation::{GenerationFrame, GenerationStatus, utf16_len};
use talewire_proto::{Channel, GenerationId, StoryId};

use super::{Make, Stand};
use crate::{BrokerSettings, Message, StreamError};
use GenerationStatus::{Cancelled, Done, Failed, Running};

fn story() -> StoryId {
    StoryId::from_random([7; 13])
}

fn id(n: u8) -> GenerationId {
    GenerationId::from_random([n; 13])
}

async fn begin(stand: &Stand, n: u8, attempt: u32) -> Result<(), StreamError> {
    stand.broker.generation_begin(&story(), &id(n), attempt).await
}

async fn append(stand: &Stand, n: u8, attempt: u32, text: &str) -> Result<(), StreamError> {
    match append_at(stand, n, attempt, 0, text).await {
        Err(StreamError::Elsewhere { at }) => append_at(stand, n, attempt, at, text).await,
        other => other,
    }
}

async fn append_at(stand: &Stand, n: u8, attempt: u32, at: u64, text: &str) -> Result<(), StreamError> {
    stand.broker.generation_append(&story(), &id(n), attempt, at, text).await
}

async fn end(stand: &Stand, n: u8, attempt: u32, status: GenerationStatus) -> Result<(), StreamError> {
    stand.broker.generation_end(&story(), &id(n), attempt, status, None).await
}

async fn snapshot(stand: &Stand, n: u8) -> Option<(u32, String, GenerationStatus)> {
    let found = stand.broker.generation_snapshot(&story(), &id(n)).await.unwrap()?;
    assert!(found.text.len() < 3 || !format!("{found:?}").contains(&found.text), "a debug line shows no text");
    Some((found.attempt, found.text, found.status))
}

async fn frame(stand: &mut Stand) -> GenerationFrame {
    let delivery = stand.next().await;
    match delivery.message {
        Message::Generation(frame) => {
            assert_eq!(delivery.channel.story_id(), Some(story()));
            (*frame).clone()
        }
        other => panic!("not a frame: {other:?}"),
    }
}

fn reset(n: u8, attempt: u32) -> GenerationFrame {
    GenerationFrame::Reset { generation: id(n), attempt }
}

fn delta(n: u8, attempt: u32, at: u64, text: &str) -> GenerationFrame {
    GenerationFrame::Delta { generation: id(n), attempt, at, text: text.into() }
}

fn ended(n: u8, attempt: u32, at: u64, status: GenerationStatus) -> GenerationFrame {
    GenerationFrame::End { generation: id(n), attempt, at: Some(at), status }
}

pub(super) async fn a_text_grows_and_ends(make: Make) {
    let mut stand = make(BrokerSettings::default());
    let foreign = StoryId::from_random([9; 13]);
    assert_eq!(snapshot(&stand, 1).await, None);
    begin(&stand, 1, 1).await.unwrap();
    assert_eq!(snapshot(&stand, 1).await, Some((1, String::new(), Running)));
    append(&stand, 1, 1, "Once").await.unwrap();
    append(&stand, 1, 1, "").await.unwrap();
    append(&stand, 1, 1, " upon").await.unwrap();
    assert_eq!(snapshot(&stand, 1).await, Some((1, "Once upon".into(), Running)));
    // Whoever may read another story's streams finds nothing there by this generation's id, and can write nothing.
    assert_eq!(stand.broker.generation_snapshot(&foreign, &id(1)).await.unwrap(), None);
    assert_eq!(stand.broker.generation_append(&foreign, &id(1), 1, 0, "x").await, Err(StreamError::Fenced));
    end(&stand, 1, 1, Done).await.unwrap();
    assert_eq!(snapshot(&stand, 1).await, Some((1, "Once upon".into(), Done)));
    for expected in [reset(1, 1), delta(1, 1, 0, "Once"), delta(1, 1, 4, " upon"), ended(1, 1, 9, Done)] {
        assert_eq!(frame(&mut stand).await, expected);
    }
    stand.nothing_more(&Channel::generation(&story(), &id(1))).await;
}

pub(super) async fn places_are_counted_in_utf16_units(make: Make) {
    let mut stand = make(BrokerSettings::default());
    begin(&stand, 1, 1).await.unwrap();
    let pieces = ["🦊", "é", "👩‍👩‍👧", "x", "\u{10FFFF}", "日本", "e\u{301}"];
    for piece in pieces {
        append(&stand, 1, 1, piece).await.unwrap();
    }
    assert_eq!(frame(&mut stand).await, reset(1, 1));
    let mut at = 0;
    for piece in pieces {
        assert_eq!(frame(&mut stand).await, delta(1, 1, at, piece));
        at += piece.encode_utf16().count() as u64;
        assert_eq!(utf16_len(piece), piece.encode_utf16().count() as u64);
    }
    assert_eq!(snapshot(&stand, 1).await.unwrap().1, pieces.concat());
}

pub(super) async fn a_text_has_no_holes(make: Make) {
    let mut stand = make(BrokerSettings::default());
    begin(&stand, 1, 1).await.unwrap();
    append_at(&stand, 1, 1, 0, "🦊 ran").await.unwrap();
    // A piece that was lost, and one that comes again.
    assert_eq!(append_at(&stand, 1, 1, 9, "far").await, Err(StreamError::Elsewhere { at: 6 }));
    assert_eq!(append_at(&stand, 1, 1, 0, "🦊 ran").await, Err(StreamError::Elsewhere { at: 6 }));
    append_at(&stand, 1, 1, 6, " far").await.unwrap();
    assert_eq!(append_at(&stand, 1, 2, 10, "x").await, Err(StreamError::Fenced));
    // Its writer knows of more than has come here, and says so.
    stand.broker.generation_end(&story(), &id(1), 1, Done, Some(14)).await.unwrap();
    assert_eq!(snapshot(&stand, 1).await, Some((1, "🦊 ran far".into(), Done)));
    end(&stand, 1, 1, Done).await.unwrap();
    let told = [reset(1, 1), delta(1, 1, 0, "🦊 ran"), delta(1, 1, 6, " far"), ended(1, 1, 14, Done)];
    for expected in told.into_iter().chain([ended(1, 1, 10, Done)]) {
        assert_eq!(frame(&mut stand).await, expected);
    }
}

pub(super) async fn older_attempts_are_fenced(make: Make) {
    let mut stand = make(BrokerSettings::default());
    assert_eq!(append(&stand, 1, 1, "x").await, Err(StreamError::Fenced), "nothing has begun");
    begin(&stand, 1, 2).await.unwrap();
    append(&stand, 1, 2, "second").await.unwrap();
    assert_eq!(begin(&stand, 1, 1).await, Err(StreamError::Fenced));
    assert_eq!(begin(&stand, 1, 2).await, Err(StreamError::Fenced), "an attempt begins once");
    assert_eq!(append(&stand, 1, 1, "x").await, Err(StreamError::Fenced));
    assert_eq!(end(&stand, 1, 1, Failed).await, Err(StreamError::Fenced));
    assert_eq!(append(&stand, 1, 3, "x").await, Err(StreamError::Fenced), "an attempt that has not begun");
    begin(&stand, 1, 3).await.unwrap();
    assert_eq!(snapshot(&stand, 1).await, Some((3, String::new(), Running)), "a newer attempt starts from nothing");
    assert_eq!(append(&stand, 1, 2, "x").await, Err(StreamError::Fenced));
    append(&stand, 1, 3, "third").await.unwrap();
    assert_eq!(snapshot(&stand, 1).await, Some((3, "third".into(), Running)));
    for expected in [reset(1, 2), delta(1, 2, 0, "second"), reset(1, 3), delta(1, 3, 0, "third")] {
        assert_eq!(frame(&mut stand).await, expected, "and what was refused told nobody");
    }
    stand.nothing_more(&Channel::generation(&story(), &id(1))).await;
}

pub(super) async fn an_ended_generation_is_fenced(make: Make) {
    let mut stand = make(BrokerSettings::default());
    begin(&stand, 1, 1).await.unwrap();
    append(&stand, 1, 1, "all").await.unwrap();
    end(&stand, 1, 1, Done).await.unwrap();
    assert_eq!(append(&stand, 1, 1, "x").await, Err(StreamError::Fenced));
    assert_eq!(begin(&stand, 1, 2).await, Err(StreamError::Fenced));
    assert_eq!(end(&stand, 1, 1, Failed).await, Err(StreamError::Fenced), "it has ended otherwise");
    assert_eq!(end(&stand, 1, 2, Done).await, Err(StreamError::Fenced), "and by another attempt");
    end(&stand, 1, 1, Done).await.unwrap();
    assert_eq!(snapshot(&stand, 1).await, Some((1, "all".into(), Done)));
    for expected in [reset(1, 1), delta(1, 1, 0, "all"), ended(1, 1, 3, Done), ended(1, 1, 3, Done)] {
        assert_eq!(frame(&mut stand).await, expected);
    }
}

pub(super) async fn an_end_without_a_beginning(make: Make) {
    let mut stand = make(BrokerSettings::default());
    end(&stand, 1, 2, Cancelled).await.unwrap();
    assert_eq!(frame(&mut stand).await, ended(1, 2, 0, Cancelled));
    assert_eq!(snapshot(&stand, 1).await, Some((2, String::new(), Cancelled)));
    assert_eq!(begin(&stand, 1, 1).await, Err(StreamError::Fenced), "a late worker writes nothing after the end");
    assert_eq!(begin(&stand, 1, 3).await, Err(StreamError::Fenced));
}

pub(super) async fn an_end_by_an_attempt_that_never_began(make: Make) {
    let mut stand = make(BrokerSettings::default());
    begin(&stand, 1, 1).await.unwrap();
    append(&stand, 1, 1, "left by a crash").await.unwrap();
    end(&stand, 1, 2, Failed).await.unwrap();
    assert_eq!(
        snapshot(&stand, 1).await,
        Some((2, String::new(), Failed)),
        "what an older attempt wrote is not its text"
    );
    for expected in [reset(1, 1), delta(1, 1, 0, "left by a crash"), ended(1, 2, 0, Failed)] {
        assert_eq!(frame(&mut stand).await, expected);
    }
}

pub(super) async fn a_text_too_long_is_refused_whole(make: Make) {
    let mut stand = make(BrokerSettings { generation_bytes_max: 10, ..BrokerSettings::default() });
    begin(&stand, 1, 1).await.unwrap();
    append(&stand, 1, 1, "12345").await.unwrap();
    assert_eq!(append(&stand, 1, 1, "🦊🦊").await, Err(StreamError::TooLong));
    append(&stand, 1, 1, "67890").await.unwrap();
    assert_eq!(append(&stand, 1, 1, "1").await, Err(StreamError::TooLong));
    end(&stand, 1, 1, Done).await.unwrap();
    assert_eq!(snapshot(&stand, 1).await, Some((1, "1234567890".into(), Done)));
    for expected in [reset(1, 1), delta(1, 1, 0, "12345"), delta(1, 1, 5, "67890"), ended(1, 1, 10, Done)] {
        assert_eq!(frame(&mut stand).await, expected);
    }
}

pub(super) async fn an_ended_text_is_forgotten_by_age(make: Make) {
    let stand = make(BrokerSettings { generation_age_ms: 10_000, ..BrokerSettings::default() });
    begin(&stand, 1, 1).await.unwrap();
    end(&stand, 1, 1, Done).await.unwrap();
    (stand.pass_ms)(8_000);
    end(&stand, 1, 1, Done).await.unwrap();
    stand.broker.sweep();
    assert!(snapshot(&stand, 1).await.is_some());
    (stand.pass_ms)(3_000);
    stand.broker.sweep();
    assert_eq!(snapshot(&stand, 1).await, None, "telling the end again does not prolong it");
}

pub(super) async fn a_text_that_nobody_ends_is_forgotten_by_age(make: Make) {
    let stand = make(BrokerSettings { generation_age_ms: 10_000, ..BrokerSettings::default() });
    begin(&stand, 1, 1).await.unwrap();
    for _ in 0..3 {
        (stand.pass_ms)(8_000);
        append(&stand, 1, 1, "x").await.unwrap();
        stand.broker.sweep();
    }
    assert_eq!(snapshot(&stand, 1).await, Some((1, "xxx".into(), Running)), "one that is written stays");
    (stand.pass_ms)(11_000);
    stand.broker.sweep();
    assert_eq!(snapshot(&stand, 1).await, None);
    assert_eq!(append(&stand, 1, 1, "x").await, Err(StreamError::Fenced));
}

pub(super) async fn only_so_many_are_kept(make: Make) {
    let stand = make(BrokerSettings { generations_max: 2, ..BrokerSettings::default() });
    begin(&stand, 1, 1).await.unwrap();
    begin(&stand, 2, 1).await.unwrap();
    assert_eq!(begin(&stand, 3, 1).await, Err(StreamError::Unavailable));
    begin(&stand, 2, 2).await.unwrap();
    end(&stand, 3, 1, Cancelled).await.unwrap();
    assert_eq!(snapshot(&stand, 3).await, None, "an end without room is told, not kept");
    end(&stand, 1, 1, Done).await.unwrap();
    (stand.pass_ms)(1);
    end(&stand, 2, 2, Done).await.unwrap();
    begin(&stand, 3, 1).await.unwrap();
    assert_eq!(snapshot(&stand, 1).await, None, "the one that ended longest ago went");
    assert!(snapshot(&stand, 2).await.is_some());
}
