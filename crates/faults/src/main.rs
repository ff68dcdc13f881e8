//! `talewire-faults`: the command line in, a report on standard output and an exit code out.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use talewire_faults::checkers::{self, Promises};
use talewire_faults::options::{Action, Cli, Run};
use talewire_faults::stage::apart;
use talewire_faults::{log, run};

/// Something was wrong with the server. (1 says that the run could not be made, 2 is for the command line.)
const WRONG: u8 = 3;

fn main() -> ExitCode {
    let done = match Cli::parse().action {
        Action::Run(options) if options.cuts_off() && !options.apart => again(),
        Action::Run(options) => make(&options),
        Action::Check { log } => check(&log),
        Action::List(options) => {
            for (number, step) in (1..).zip(options.steps()) {
                println!("{number:>3}  after {} ms: {:?}", step.rest_ms, step.fault);
            }
            Ok(true)
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(WRONG),
        Err(error) => {
            eprintln!("talewire-faults: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Where nodes are cut off from single servers, the whole run is in a network of its own.
fn again() -> anyhow::Result<bool> {
    let status = apart::again("--apart")?;
    match status.code() {
        Some(0) => Ok(true),
        Some(code) if code == i32::from(WRONG) => Ok(false),
        _ => anyhow::bail!("the run ended: {status}"),
    }
}

fn make(options: &Run) -> anyhow::Result<bool> {
    let report = run::run(&options.options()?)?;
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(report.verdict.is_green())
}

fn check(path: &Path) -> anyhow::Result<bool> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let events = log::read(BufReader::new(file)).context("this is no log of a run")?;
    let verdict = checkers::check(&events, &Promises::default());
    println!("{}", serde_json::to_string_pretty(&verdict.counts)?);
    println!("{verdict}{}", if verdict.is_green() { "GREEN" } else { "RED" });
    Ok(verdict.is_green())
}
