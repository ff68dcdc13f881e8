//! Somebody who has a story written by the demo storyteller, generation after generation, and reads along. At the end the story's
//! log says how each of them ended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{PATIENCE, Way, World, pause};
use crate::http::{self, Trouble, Who};
use crate::log::{JobEnd, Name, What};
use crate::socket::Socket;

/// How long one generation may take, faults included: three attempts, each with a lease of its own.
const GENERATION_MAX: Duration = Duration::from_secs(90);

/// Somebody with a story.
#[derive(Debug, Clone)]
pub struct Teller {
    /// Their login.
    pub token: String,
    /// Begins all keys.
    pub name: String,
    /// Through proxies or not.
    pub way: Way,
    /// For everything that is random about them.
    pub seed: u64,
}

/// How long a stream may say nothing until its reader looks whether the generation has ended without a word.
const STREAM_SILENCE_MAX: Duration = Duration::from_secs(4);

struct Telling<'a> {
    teller: Teller,
    world: &'a World,
    rng: fastrand::Rng,
}

/// What a reader of one generation has so far.
#[derive(Debug, Default)]
struct Text {
    attempt: u64,
    text: String,
    has_ended: bool,
    /// How long the whole text is, as the end said.
    at: Option<u64>,
    /// Every word of the stream in short, and every new connection.
    trail: String,
}

/// How long a trail may become.
const TRAIL_BYTES_MAX: usize = 4_096;

impl Teller {
    /// Has generations written until it is quiet, waits for the last, and gives the story that they stand in.
    #[must_use]
    pub fn run(self, world: &Arc<World>) -> Option<String> {
        let rng = fastrand::Rng::with_seed(self.seed);
        let mut telling = Telling { teller: self, world, rng };
        let name = telling.teller.name.clone();
        let params = json!({ "title": "Faults", "opening": "It was dark.", "key": format!("{name}-story") });
        let story = telling.surely("story.create", &params)?;
        let (id, branch) = (story["story"]["id"].as_str()?.to_owned(), story["story"]["branch"].as_str()?.to_owned());
        let mut n = 0;
        while !world.is_quiet() {
            n += 1;
            let params = json!({ "story": id, "branch": branch, "key": format!("{name}-{n}") });
            let Some(accepted) = telling.surely("generation.request", &params) else { continue };
            let Some(job) = accepted["generation"]["id"].as_str() else { continue };
            world.log.say(What::JobAccepted { job: job.into() });
            telling.follow(&id, job);
        }
        Some(id)
    }
}

impl Telling<'_> {
    /// Calls until there is an answer; nothing when it is refused for good.
    fn surely(&mut self, method: &str, params: &Value) -> Option<Value> {
        while !self.world.is_over() {
            let picked = self.world.pick(&mut self.rng, self.teller.way);
            if let Some((_, address)) = picked {
                let who = Who::Token(&self.teller.token);
                match http::post(address, &format!("/app/rpc/{method}"), who, params, PATIENCE) {
                    Ok(answer) => return Some(answer),
                    Err(Trouble::Refused { code: 111 | 429, .. } | Trouble::Unknown(_) | Trouble::NotSent(_)) => {}
                    Err(Trouble::Refused { .. }) => {
                        pause(&mut self.rng);
                        return None;
                    }
                }
            }
            pause(&mut self.rng);
        }
        None
    }

    /// Reads one generation to its end, over as many connections as it takes.
    fn follow(&mut self, story: &str, job: &str) {
        let deadline = Instant::now() + GENERATION_MAX;
        let mut text = Text::default();
        while !text.has_ended && Instant::now() < deadline && !self.world.is_over() {
            if let Some((_, address)) = self.world.pick(&mut self.rng, self.teller.way) {
                // However the connection ended, the next one begins with a snapshot.
                let ended = self.read(address, story, job, &mut text, deadline);
                // A stream lives in memory; the log of the story knows of an end that the stream has forgotten.
                let log = ends(address, &self.world.api_key, story).unwrap_or_default();
                if ended.is_err() && log.iter().any(|(of, _)| **of == *job) {
                    break;
                }
            }
            if !text.has_ended {
                pause(&mut self.rng);
            }
        }
        let Text { attempt, text, has_ended, at, trail } = text;
        self.world.log.say(What::JobText { job: job.into(), attempt, text, ended: has_ended, at, trail });
    }

    fn read(
        &mut self,
        address: SocketAddr,
        story: &str,
        job: &str,
        text: &mut Text,
        deadline: Instant,
    ) -> Result<(), Trouble> {
        let mut socket = Socket::open(address, PATIENCE)?;
        socket.connect(&self.teller.token, PATIENCE)?;
        let channel = format!("generation:{story}.{job}");
        let subscribed = socket.call("subscribe", json!({ "channel": channel }), PATIENCE)?;
        text.trail.push_str("subscribed: ");
        Self::take(&subscribed["data"], text);
        let (mut heard, mut ended_by_stream) = (Instant::now(), false);
        while !text.has_ended && Instant::now() < deadline && !self.world.is_over() {
            if heard.elapsed() > STREAM_SILENCE_MAX {
                return Err(Trouble::Unknown("no word of the generation".to_owned()));
            }
            if let Some(push) = socket.next_push()? {
                heard = Instant::now();
                let data = &push["pub"]["data"];
                let at = usize::try_from(data["at"].as_u64().unwrap_or(0)).unwrap_or(usize::MAX);
                let kind = data["type"].as_str();
                let is_ours = data["attempt"].as_u64() >= Some(text.attempt);
                let names = is_ours && matches!(kind, Some("delta" | "end"));
                ended_by_stream |= names && kind == Some("end");
                let is_missing = names && at > text.text.encode_utf16().count();
                if !is_missing || kind == Some("end") {
                    Self::take(data, text);
                }
                if is_missing {
                    let params =
                        json!({ "method": "generation.snapshot", "data": { "story": story, "generation": job } });
                    let answer = socket.call("rpc", params, PATIENCE)?;
                    Self::take(&answer["data"], text);
                }
            }
        }
        // Whoever writes behind the end is found by staying for a moment. A snapshot that was asked for overtakes what is on its way already: behind one that
        // has the end, only what it does not have is late.
        let until = Instant::now() + Duration::from_millis(100);
        while text.has_ended && Instant::now() < until {
            if let Some(push) = socket.next_push()? {
                let data = &push["pub"]["data"];
                let (attempt, is_delta) = (data["attempt"].as_u64(), data["type"] == "delta");
                let is_known = data["at"].as_u64() < Some(text.text.encode_utf16().count() as u64);
                if is_delta && (ended_by_stream || !is_known) && attempt.is_some_and(|attempt| attempt >= text.attempt)
                {
                    self.world.log.say(What::JobLate { job: job.into(), attempt: text.attempt });
                }
            }
        }
        socket.close();
        Ok(())
    }

    /// The rule of PROTOCOL.md, section 4.
    fn take(data: &Value, text: &mut Text) {
        let attempt = data["attempt"].as_u64().unwrap_or(0);
        if text.trail.len() < TRAIL_BYTES_MAX {
            let kind = data["type"].as_str().unwrap_or("?");
            let length = data["text"].as_str().unwrap_or_default().len();
            text.trail.push_str(&format!("{kind} {attempt} {} +{length} {}; ", data["at"], data["status"]));
        }
        if attempt < text.attempt {
            return;
        }
        if attempt > text.attempt {
            *text = Text { attempt, trail: std::mem::take(&mut text.trail), ..Text::default() };
        }
        let new = data["text"].as_str().unwrap_or_default();
        let at = usize::try_from(data["at"].as_u64().unwrap_or(0)).unwrap_or(usize::MAX);
        match data["type"].as_str() {
            Some("delta") if at == text.text.encode_utf16().count() => text.text.push_str(new),
            Some("snapshot") => {
                if new.len() >= text.text.len() {
                    text.text = new.to_owned();
                }
                text.has_ended |= !matches!(data["status"].as_str(), Some("queued" | "running"));
            }
            Some("end") => {
                text.has_ended = true;
                text.at = data["at"].as_u64();
            }
            _ => {}
        }
    }
}

/// Reads how everything in a story's log ended.
///
/// # Errors
/// [`Trouble`].
pub fn ends(address: SocketAddr, api_key: &str, story: &str) -> Result<Vec<(Name, JobEnd)>, Trouble> {
    let mut ends = Vec::new();
    for data in crate::history::page_all(address, api_key, &format!("story:{story}"))?.entries {
        let data = data.1;
        if data["type"] == "generation.ended" {
            let job = data["generation"]["id"].as_str().unwrap_or_default().into();
            let status = data["generation"]["status"].as_str().unwrap_or_default().to_owned();
            let turn = data["turn"]["text"].as_str().map(str::to_owned);
            ends.push((job, JobEnd { status, turn }));
        }
    }
    Ok(ends)
}
