//! The demo storyteller as a provider: repeatable, at its pace, and misbehaving when asked.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::*;
use crate::context::{Budget, TaleTurn, assemble};

async fn tell(
    text: &str,
    tokens_per_second: u32,
    try_number: u32,
) -> (String, Result<Finish, ProviderError>, Duration) {
    let turn = TaleTurn { number: 7, author: "Ana".into(), by_agent: false, is_choice: false, text: text.into() };
    let tale =
        Tale { story: "s1".into(), title: "T".into(), cast: vec!["Ana".into()], turns: vec![turn], instruction: None };
    let (prompt, _) = assemble(Arc::new(tale), Budget { story_chars_max: 9_000, turns_max: 9 });
    let settings = DemoSettings { tokens_per_second, directives: true };
    let mut reply =
        DemoStoryteller::new(settings, 45_000).ask(&Request { prompt, tokens_max: 700, seed: 1, try_number });
    let (begun, mut told) = (Instant::now(), String::new());
    loop {
        match reply.next().await {
            Ok(Next::Piece(Piece::Text(text))) => told.push_str(&text),
            Ok(Next::Piece(Piece::Usage(usage))) => assert!(usage.output > 0),
            Ok(Next::End(finish)) => return (told, Ok(finish), begun.elapsed()),
            Err(error) => return (told, Err(error), begun.elapsed()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_request_is_answered_with_the_same_text() {
    let (first, end, _) = tell("The fox found a lamp.", 0, 1).await;
    assert_eq!(end, Ok(Finish::Stop));
    assert_eq!(tell("The fox found a lamp.", 30, 2).await.0, first);
    assert_ne!(tell("The fox found a boat.", 0, 1).await.0, first);
}

#[tokio::test(start_paused = true)]
async fn it_speaks_at_its_pace() {
    let (text, _, took) = tell("The fox found a lamp.", 30, 1).await;
    let per_second = tokens_of(&text).len() as f64 / took.as_secs_f64();
    assert!((20.0..=40.0).contains(&per_second), "{per_second} tokens per second");
    assert!(tell("The fox found a lamp. @slow", 0, 1).await.2 > took * 4);
}

#[tokio::test(start_paused = true)]
async fn directives_are_honoured() {
    let (text, end, took) = tell("@stall 10s Hello.", 0, 1).await;
    assert!(end.is_ok() && took >= Duration::from_secs(10) && !text.contains('@'));
    let (text, end, took) = tell("@stall 2m", 0, 1).await;
    assert_eq!((end, took.as_secs()), (Err(ProviderError::TimedOut(Wait::Idle)), 45));
    assert!(!text.is_empty());
    assert_eq!(tell("@refuse", 0, 1).await.1, Err(ProviderError::Refused));
    assert_eq!(tell("@error 529 x1", 0, 1).await.1, Err(ProviderError::Busy { status: 529, retry_after: None }));
    assert!(tell("@error 529 x1", 0, 2).await.1.is_ok());
    let (text, end, _) = tell("@disconnect", 0, 1).await;
    assert!(matches!(end, Err(ProviderError::Broken { .. })) && text.len() > 50);
    assert!(tell("@long", 0, 1).await.0.split_whitespace().count() >= 1_500);
}

#[test]
fn tokens_make_up_the_text() {
    let text = "Hello, extraordinary 👩‍🚀 wörld!\n\n>> go\n";
    assert_eq!(tokens_of(text).concat(), text);
    assert!(tokens_of(text).len() > 7);
}
