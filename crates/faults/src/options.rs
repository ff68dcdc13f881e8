//! The command line of `talewire-faults`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::checkers::Promises;
use crate::run::RunOptions;
use crate::schedule;
use crate::stage::{Ground, StageOptions};

/// Kills, pauses, fills and cuts what Talewire stands on, and says what was lost. Loopback only; ends by itself.
#[derive(Debug, Parser)]
#[command(name = "talewire-faults", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Makes a run and judges it: exit code 3 when anything was wrong
    Run(Run),
    /// Judges the log of a run again
    Check {
        /// What `run --log` has written
        log: PathBuf,
    },
    /// Lists the faults that a run would make, and makes none
    List(Run),
}

/// A run.
#[derive(Debug, Clone, clap::Args)]
pub struct Run {
    /// On what the nodes stand
    #[arg(long, value_enum, default_value_t = StageName::Alone)]
    pub stage: StageName,
    /// How long faults come, in minutes; 0 for every kind once, as short as can be
    #[arg(long, default_value_t = 0.0, value_parser = minutes)]
    pub minutes: f64,
    /// From which the faults follow
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The server; else `TALEWIRE_BIN`, or the one beside this program
    #[arg(long)]
    pub binary: Option<PathBuf>,
    /// Another version of the server, for every second node: as in a rolling upgrade
    #[arg(long)]
    pub other: Option<PathBuf>,
    /// Where to write everything that happened, as lines of JSON
    #[arg(long)]
    pub log: Option<PathBuf>,
    /// Make these faults alone, by their names in the list (as in `--only Kill,CutOff`)
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Never cut nodes off from single servers of Redis: that needs root, and is done on `sentinel` and `cluster`
    #[arg(long)]
    pub together: bool,
    /// Take nothing away from anybody during faults
    #[arg(long)]
    pub no_orders: bool,
    /// This process is in a network of its own
    #[arg(long, hide = true)]
    pub apart: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// The stages that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StageName {
    /// One node with SQLite and its own memory
    Alone,
    /// One node with PostgreSQL and its own memory
    Postgres,
    /// Two nodes that share PostgreSQL and one Redis
    Redis,
    /// The same with a Redis master, two replicas and three Sentinels
    Sentinel,
    /// The same with a Redis cluster of six
    Cluster,
    /// Four nodes that share PostgreSQL and one Redis
    Grown,
    /// Two nodes that share PostgreSQL and one NATS server
    Nats,
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(minutes) if (0.0..=600.0).contains(&minutes) => Ok(minutes),
        _ => Err("a number from 0 to 600 is needed".to_owned()),
    }
}

impl StageName {
    fn ground(self) -> (Ground, usize) {
        match self {
            Self::Alone => (Ground::Alone, 1),
            Self::Postgres => (Ground::Postgres, 1),
            Self::Redis => (Ground::Redis, 2),
            Self::Sentinel => (Ground::Sentinel, 2),
            Self::Cluster => (Ground::Cluster, 2),
            Self::Grown => (Ground::Redis, 4),
            Self::Nats => (Ground::Nats, 2),
        }
    }
}

impl Run {
    /// The faults.
    #[must_use]
    pub fn steps(&self) -> Vec<schedule::Step> {
        let (ground, nodes) = self.stage.ground();
        let apart = self.cuts_off();
        let mut steps = if self.minutes > 0.0 {
            schedule::long(self.seed, Duration::from_secs_f64(self.minutes * 60.0), ground, nodes, apart)
        } else {
            schedule::short(self.seed, ground, nodes, apart)
        };
        let is_asked_for = |step: &schedule::Step| {
            let fault = format!("{:?}", step.fault);
            self.only.iter().any(|name| fault.split(' ').next() == Some(name))
        };
        steps.retain(|step| self.only.is_empty() || is_asked_for(step));
        steps
    }

    /// Whether nodes are cut off from single servers.
    #[must_use]
    pub fn cuts_off(&self) -> bool {
        !self.together && matches!(self.stage, StageName::Sentinel | StageName::Cluster)
    }

    /// Everything.
    ///
    /// # Errors
    /// If there is no server to run.
    pub fn options(&self) -> anyhow::Result<RunOptions> {
        let (ground, nodes) = self.stage.ground();
        let binary = self.binary.clone().map_or_else(crate::stage::binary, Ok)?;
        let stage = StageOptions {
            binary,
            other: self.other.clone(),
            ground,
            nodes,
            small_disk: matches!(ground, Ground::Alone | Ground::Postgres | Ground::Redis),
            moved_clock: true,
            apart: self.cuts_off(),
            unwatched: false,
            lie: None,
        };
        Ok(RunOptions {
            stage,
            steps: self.steps(),
            seed: self.seed,
            promises: Promises::default(),
            calm_ms: 2_000,
            orders: !self.no_orders,
            stories: true,
            log: self.log.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        assert!(Cli::try_parse_from(["talewire-faults", "run", "--minutes", "-1"]).is_err());
    }
}
