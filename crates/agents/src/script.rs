//! A provider for tests: answers by a script, one list of steps for each request, the last one for all further requests.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::error::ProviderError;
use crate::provider::{Finish, Next, Piece, Request, Tokens};

/// One step of an answer.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Text(&'static str),
    Pieces(Vec<String>),
    Pause(Duration),
    Fail(ProviderError),
    Hang,
    Panic,
}

/// Prepared answers.
#[derive(Debug, Clone)]
pub struct Script {
    answers: Arc<Vec<Vec<Step>>>,
    pub(crate) asked: Arc<AtomicUsize>,
}

impl Script {
    pub(crate) fn new(answers: Vec<Vec<Step>>) -> Self {
        Self { answers: Arc::new(answers), asked: Arc::default() }
    }

    pub(crate) fn ask(&self, _request: &Request) -> ScriptReply {
        let number = self.asked.fetch_add(1, Ordering::SeqCst).min(self.answers.len() - 1);
        ScriptReply { steps: self.answers[number].clone().into(), told_usage: false }
    }
}

/// A prepared answer under way.
#[derive(Debug)]
pub struct ScriptReply {
    steps: VecDeque<Step>,
    told_usage: bool,
}

impl ScriptReply {
    pub(crate) async fn next(&mut self) -> Result<Next, ProviderError> {
        loop {
            // A pause is taken out only when it is over, so that the call is cancel safe (it then starts again).
            match self.steps.front_mut() {
                Some(Step::Pause(pause)) => tokio::time::sleep(*pause).await,
                Some(Step::Hang) => std::future::pending().await,
                Some(Step::Panic) => panic!("as the script says"),
                Some(Step::Pieces(pieces)) if !pieces.is_empty() => {
                    return Ok(Next::Piece(Piece::Text(pieces.remove(0))));
                }
                _ => {}
            }
            match self.steps.pop_front() {
                Some(Step::Text(text)) => return Ok(Next::Piece(Piece::Text(text.into()))),
                Some(Step::Fail(error)) => return Err(error),
                Some(_) => {}
                None if !self.told_usage => {
                    self.told_usage = true;
                    return Ok(Next::Piece(Piece::Usage(Tokens { prompt: 10, output: 5 })));
                }
                None => return Ok(Next::End(Finish::Stop)),
            }
        }
    }
}
