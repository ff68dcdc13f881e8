//! `talewire-load`: the command line in, a report on standard output and an exit code out.

use std::process::ExitCode;

use clap::Parser as _;
use talewire_load::error::LoadError;
use talewire_load::options::{Cli, Scenario};
use talewire_load::{baseline, report, run};

fn main() -> ExitCode {
    match perform(&Cli::parse().scenario) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("talewire-load: {error}");
            error.exit_code()
        }
    }
}

fn perform(scenario: &Scenario) -> Result<(), LoadError> {
    match scenario {
        Scenario::Fanout(options) => report::print(options.common.json, &run::fanout::run(options)?),
        Scenario::Idle(options) => report::print(options.common.json, &run::idle::run(options)?),
        Scenario::Connect(options) => report::print(options.common.json, &run::connect::run(options)?),
        Scenario::Rooms(options) => report::print(options.common.json, &run::rooms::run(options)?),
        Scenario::Restart(options) => {
            let report = run::restart::run(options)?;
            report::print(options.common.json, &report);
            report.verdict()?;
        }
        Scenario::Roll(options) => {
            let report = run::roll::run(options)?;
            report::print(options.common.json, &report);
            report.verdict()?;
        }
        Scenario::Baseline => baseline::serve().map_err(LoadError::io("the baseline server"))?,
    }
    Ok(())
}
