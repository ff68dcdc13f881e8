//! The binary: command line, configuration, and the wiring of everything in one function ([`run`]).

mod agreement;
mod cli;
mod config;
mod copies;
mod data;
mod descriptors;
mod doctor;
mod imports;
mod list;
mod logging;
mod ready;
mod reload;
mod run;
mod sweep;
mod token;
mod traces;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command, ConfigFile, WhichStore};
use crate::config::{Config, Layers, Problem};
use crate::run::Part;

/// The system's allocator keeps much of what a burst of connections took; this one gives it back, and is faster.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(serve) => {
            let source = Source { file: serve.file.clone(), flags: serve.flags() };
            load(&source).and_then(|config| run::start(config, source, Part::Server))
        }
        Command::Worker(work) => {
            let source = Source::of(work.file);
            load(&source).and_then(|config| run::start(config, source, Part::Worker))
        }
        Command::Check(check) => load(&Source::of(check.file())).map(|config| check.print_good(&config)),
        Command::Token(token) => load(&Source::of(token.file.clone())).and_then(|config| token::print(&token, &config)),
        Command::Doctor(typed) => {
            load(&Source::of(typed.file.clone())).and_then(|config| doctor::examine(&typed, &config))
        }
        Command::Ready(file) => load(&Source::of(file)).and_then(|config| ready::ask(&config)),
        Command::Move(typed) => {
            load(&Source::of_store(&typed.from)).and_then(|config| copies::move_to(&typed, &config))
        }
        Command::Backup(typed) => {
            load(&Source::of_store(&typed.from)).and_then(|config| copies::backup(&typed, &config))
        }
        Command::Restore(typed) => {
            load(&Source::of_store(&typed.to)).and_then(|config| copies::restore(&typed, &config))
        }
        Command::Settings => list::print(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("talewire: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn load(source: &Source) -> anyhow::Result<Config> {
    source.load().map_err(|problems| match problems {
        Problems::Unreadable(error) => error,
        Problems::Wrong(problems) => anyhow::anyhow!(list_of(&problems)),
    })
}

/// Where the configuration comes from beside the environment; asked again for every reload.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    file: ConfigFile,
    /// What was typed, with the setting that each flag stands for.
    flags: Vec<(&'static str, &'static str, String)>,
}

/// Why there is no configuration.
#[derive(Debug)]
pub(crate) enum Problems {
    /// It cannot be read at all.
    Unreadable(anyhow::Error),
    /// It has mistakes.
    Wrong(Vec<Problem>),
}

impl Problems {
    /// One sentence each.
    pub(crate) fn to_strings(&self) -> Vec<String> {
        match self {
            Self::Unreadable(error) => vec![format!("{error:#}")],
            Self::Wrong(problems) => problems.iter().map(ToString::to_string).collect(),
        }
    }
}

impl Source {
    fn of(file: ConfigFile) -> Self {
        Self { file, flags: Vec::new() }
    }

    fn of_store(which: &WhichStore) -> Self {
        Self { file: which.file.clone(), flags: which.flags() }
    }

    /// Defaults, file, environment, flags; the later goes before the earlier.
    pub(crate) fn load(&self) -> Result<Config, Problems> {
        let file = self.file.read().map_err(Problems::Unreadable)?;
        let layers = Layers {
            file: file.as_ref().map(|(name, text)| (name.as_str(), text.as_str())),
            folder: self.file.config.as_deref().and_then(Path::parent).map(Path::to_owned).unwrap_or_default(),
            environment: config::environment().map_err(Problems::Unreadable)?,
            flags: self.flags.clone(),
            data_folder: data::default_folder(),
        };
        config::load(layers).map_err(Problems::Wrong)
    }
}

fn list_of(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    format!("the configuration cannot be used:{}", lines.concat())
}
