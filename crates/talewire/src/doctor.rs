//! `talewire doctor`: the configuration and the machine in, on standard output what is right, what could be better and what is wrong,
//! each with what to change. It starts nothing and changes nothing.

mod proxy;
mod services;
mod system;

use std::fmt;
use std::time::Duration;

use crate::cli::Doctor;
use crate::config::Config;

/// How long one look may take; what takes longer is a finding.
const PATIENCE: Duration = Duration::from_secs(10);

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    verdict: Verdict,
    /// What was looked at, and how it is.
    what: String,
    /// What to change, unless it is good.
    change: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Good,
    /// It works, but not as well as it could.
    Better,
    /// Something that was promised does not hold.
    Wrong,
}

impl Finding {
    fn good(what: impl Into<String>) -> Self {
        Self { verdict: Verdict::Good, what: what.into(), change: String::new() }
    }

    fn better(what: impl Into<String>, change: impl Into<String>) -> Self {
        Self { verdict: Verdict::Better, what: what.into(), change: change.into() }
    }

    fn wrong(what: impl Into<String>, change: impl Into<String>) -> Self {
        Self { verdict: Verdict::Wrong, what: what.into(), change: change.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.verdict {
            Verdict::Good => "good  ",
            Verdict::Better => "better",
            Verdict::Wrong => "WRONG ",
        };
        write!(f, "{mark}  {}", self.what)?;
        if self.change.is_empty() { Ok(()) } else { write!(f, "\n        {}", self.change) }
    }
}

/// Looks at everything, and says what it found.
///
/// # Errors
/// When something is wrong: scripts see it by the exit code.
pub(crate) fn examine(typed: &Doctor, config: &Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let findings = runtime.block_on(look(typed, config));
    findings.iter().for_each(|finding| println!("{finding}"));
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (wrong, better) = (count(Verdict::Wrong), count(Verdict::Better));
    println!("{} looked at: {wrong} wrong, {better} could be better", findings.len());
    anyhow::ensure!(wrong == 0, "{wrong} of {} are wrong", findings.len());
    Ok(())
}

fn secrets(config: &Config) -> Vec<Finding> {
    let known = |setting| {
        let what = format!("{setting} is one of our examples: whoever has read them can do all that it allows");
        Finding::wrong(what, "set your own: openssl rand -hex 32")
    };
    config.secrets_of_examples().into_iter().map(known).collect()
}

async fn look(typed: &Doctor, config: &Config) -> Vec<Finding> {
    let mut findings = secrets(config);
    findings.extend(system::look(config));
    findings.extend(services::broker(config, PATIENCE).await);
    findings.extend(services::store(config, PATIENCE).await);
    if let Some(url) = &typed.through {
        findings.extend(proxy::look(url, typed, PATIENCE).await);
    }
    findings
}
