//! The binary: command line, configuration, and the wiring of everything in one function ([`run`]).

mod cli;
mod config;
mod data;
mod list;
mod logging;
mod run;
mod token;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command, ConfigFile};
use crate::config::{Config, Layers, Problem};

/// The system's allocator keeps much of what a burst of connections took; this one gives it back, and is faster.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(serve) => load(&serve.file, &serve.flags()).and_then(run::serve),
        Command::Check(check) => load(&check.file(), &[]).map(|config| check.print_good(&config)),
        Command::Token(token) => load(&token.file, &[]).and_then(|config| token::print(&token, &config)),
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

/// Defaults, file, environment, flags; the later goes before the earlier.
fn load(file: &ConfigFile, flags: &[(&'static str, &'static str, String)]) -> anyhow::Result<Config> {
    let file = file.read()?;
    let layers = Layers {
        file: file.as_ref().map(|(name, text)| (name.as_str(), text.as_str())),
        environment: config::environment()?,
        flags: flags.to_vec(),
        data_folder: data::default_folder(),
    };
    config::load(layers).map_err(|problems| anyhow::anyhow!(list_of(&problems)))
}

fn list_of(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    format!("the configuration cannot be used:{}", lines.concat())
}
