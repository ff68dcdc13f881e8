//! The settings of agents, with units in their names. The binary reads them from configuration; the worker uses them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::BadSettings;
use crate::openai;

/// How agents are run. What happens beyond a limit stands in its doc.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentSettings {
    /// Who writes: `demo` (the built-in storyteller, no AI) or `openai` (any OpenAI-compatible endpoint).
    pub provider: ProviderKind,
    /// The demo storyteller.
    pub demo: DemoSettings,
    /// The OpenAI-compatible endpoint.
    pub openai: OpenAiSettings,
    /// Whether agents work in the processes that `serve`; off where `talewire worker` does it elsewhere.
    pub run_here: bool,
    /// Generations that this worker runs at once, 1 to 256; more jobs wait in the store.
    pub concurrency: usize,
    /// How long a job is this worker's without a renewal, in milliseconds (it renews after a third); then others may take it.
    pub lease_ms: u64,
    /// Time between two looks at the store for jobs that no wake-up told of, in milliseconds.
    pub sweep_ms: u64,
    /// Attempts at one job, crashes included; a job that used them up has failed.
    pub attempts_max: u32,
    /// How long running generations may go on after shutdown began, in milliseconds; then they are handed back.
    pub drain_ms: u64,
    /// Requests to the provider in one attempt, as long as no reader has seen a word; then the generation has failed.
    pub tries_max: u32,
    /// First pause between two requests, in milliseconds; doubled each time and jittered by half.
    pub backoff_ms: u64,
    /// Longest pause between two requests, in milliseconds, also when the server's Retry-After asks for more: then it fails at once.
    pub backoff_ms_max: u64,
    /// How long text is gathered into one delta, in milliseconds; 25 to 40 is good.
    pub delta_ms: u64,
    /// Gathered characters that are sent at once, before `delta_ms` has passed.
    pub delta_chars: usize,
    /// Longest text of one generation, in characters; it ends there, and what was written is its turn.
    pub text_chars_max: usize,
    /// Longest answer that a model is asked for, in tokens; it then ends where it stands, and what was written is its turn.
    pub tokens_max: u32,
    /// Story text in one prompt, in characters; older turns are left out, and the report says how many.
    pub context_chars_max: usize,
    /// Turns in one prompt; older ones are left out.
    pub context_turns_max: usize,
    /// Choices kept from one reply; further ones are dropped.
    pub choices_max: usize,
    /// Longest label of a choice, in characters; longer ones are cut at a word.
    pub choice_chars_max: usize,
    /// Mixed into everything random that the demo storyteller does, and sent to a model as its seed if not 0.
    pub seed: u64,
}

impl Default for AgentSettings {
    fn default() -> Self {
        Self {
            provider: ProviderKind::Demo,
            demo: DemoSettings::default(),
            openai: OpenAiSettings::default(),
            run_here: true,
            concurrency: 8,
            lease_ms: 15_000,
            sweep_ms: 5_000,
            attempts_max: 3,
            drain_ms: 10_000,
            tries_max: 3,
            backoff_ms: 500,
            backoff_ms_max: 30_000,
            delta_ms: 30,
            delta_chars: 64,
            text_chars_max: 12_000,
            tokens_max: 700,
            context_chars_max: 24_000,
            context_turns_max: 60,
            choices_max: 4,
            choice_chars_max: 120,
            seed: 0,
        }
    }
}

/// Which provider writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderKind {
    /// The built-in storyteller, which is no AI.
    Demo,
    /// Any endpoint that speaks OpenAI's chat completions.
    OpenAi,
}

/// How the demo storyteller speaks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DemoSettings {
    /// Tokens (short pieces of words) per second; 0 writes everything at once.
    pub tokens_per_second: u32,
    /// Whether directives such as `@stall 10s` in people's words are honoured. They can only disturb the demo storyteller itself.
    pub directives: bool,
}

impl Default for DemoSettings {
    fn default() -> Self {
        Self { tokens_per_second: 30, directives: true }
    }
}

/// Where an OpenAI-compatible model is, and how long it may take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpenAiSettings {
    /// The address before `/chat/completions`, for example `http://localhost:11434/v1`.
    pub base_url: String,
    /// The model's name at that endpoint.
    pub model: String,
    /// The environment variable that holds the key; unset or empty means that no key is sent.
    pub key_variable: String,
    /// Randomness of the model, 0 to 2; absent leaves it to the endpoint.
    pub temperature: Option<f32>,
    /// Time for connecting and the answer's head, in milliseconds; beyond it the request has failed.
    pub headers_ms_max: u64,
    /// Time from the request to the first word or sign of thought, in milliseconds; beyond it the request has failed.
    pub first_token_ms_max: u64,
    /// Time without a single byte, in milliseconds; beyond it the request has failed.
    pub idle_ms_max: u64,
    /// Time for the whole answer, in milliseconds; beyond it the request has failed, and is not made again.
    pub total_ms_max: u64,
    /// Longest line of an answer, in bytes; a longer one ends the answer as broken.
    pub line_bytes_max: usize,
    /// All bytes of one answer; more end it as broken.
    pub answer_bytes_max: usize,
}

impl Default for OpenAiSettings {
    fn default() -> Self {
        Self {
            base_url: String::new(),
            model: String::new(),
            key_variable: "TALEWIRE_MODEL_KEY".into(),
            temperature: None,
            headers_ms_max: 30_000,
            first_token_ms_max: 60_000,
            idle_ms_max: 45_000,
            total_ms_max: 300_000,
            line_bytes_max: 262_144,
            answer_bytes_max: 16_777_216,
        }
    }
}

/// What the demo storyteller is called wherever a reader could take it for a model.
pub const DEMO_LABEL: &str = "demo storyteller, no AI model";

impl AgentSettings {
    /// Who writes, as readers are told: [`DEMO_LABEL`], or the model and the host that it runs at.
    #[must_use]
    pub fn label(&self) -> String {
        match self.provider {
            ProviderKind::Demo => DEMO_LABEL.into(),
            ProviderKind::OpenAi => {
                let url = reqwest::Url::parse(&self.openai.base_url).ok();
                let host = url.as_ref().and_then(reqwest::Url::host_str).unwrap_or("an unknown host");
                format!("model {} at {host}", self.openai.model)
            }
        }
    }

    /// Checks what the worker relies on.
    ///
    /// # Errors
    /// Names the first setting that is out of its bounds.
    pub fn check(&self) -> Result<(), BadSettings> {
        self.problems().into_iter().next().map_or(Ok(()), Err)
    }

    /// Everything that [`AgentSettings::check`] could name.
    #[must_use]
    pub fn problems(&self) -> Vec<BadSettings> {
        let bounds = [
            ("concurrency", self.concurrency as u64, 1, 256),
            ("lease_ms", self.lease_ms, 300, 600_000),
            ("sweep_ms", self.sweep_ms, 10, 600_000),
            ("attempts_max", self.attempts_max.into(), 1, 100),
            ("tries_max", self.tries_max.into(), 1, 20),
            ("delta_ms", self.delta_ms, 1, 1_000),
            ("delta_chars", self.delta_chars as u64, 1, 4_096),
            ("text_chars_max", self.text_chars_max as u64, 100, 60_000),
            ("context_chars_max", self.context_chars_max as u64, 500, 4_000_000),
            ("context_turns_max", self.context_turns_max as u64, 1, 10_000),
            ("choice_chars_max", self.choice_chars_max as u64, 8, 1_000),
            ("openai.line_bytes_max", self.openai.line_bytes_max as u64, 1_024, 16_777_216),
        ];
        let outside = bounds.into_iter().filter(|(_, value, min, max)| !(min..=max).contains(&value));
        let mut problems: Vec<_> = outside
            .map(|(setting, value, min, max)| BadSettings {
                setting,
                message: format!("{value} is not between {min} and {max}"),
            })
            .collect();
        if self.provider == ProviderKind::OpenAi {
            problems.extend(openai::endpoint(&self.openai).err());
            problems.extend(openai::check_model(&self.openai).err());
        }
        problems
    }
}

/// A setting in milliseconds as a duration.
pub(crate) fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_never_lets_the_demo_pass_for_a_model() {
        let mut settings = AgentSettings::default();
        assert_eq!(settings.label(), "demo storyteller, no AI model");
        settings.provider = ProviderKind::OpenAi;
        settings.openai.model = "llama3".into();
        settings.openai.base_url = "http://ana:pw@localhost:11434/v1".into();
        assert_eq!(settings.label(), "model llama3 at localhost");
    }

    #[test]
    fn settings_out_of_bounds_are_named() {
        let settings = AgentSettings { concurrency: 0, ..AgentSettings::default() };
        assert_eq!(settings.check().map_err(|e| e.setting), Err("concurrency"));
        assert!(AgentSettings::default().check().is_ok());
        let nowhere = AgentSettings { provider: ProviderKind::OpenAi, delta_ms: 0, ..AgentSettings::default() };
        let named: Vec<_> = nowhere.problems().into_iter().map(|problem| problem.setting).collect();
        assert_eq!(named, ["delta_ms", "openai.base_url", "openai.model"]);
        assert!(serde_json::from_str::<AgentSettings>(r#"{"concurency":3}"#).is_err());
    }
}
