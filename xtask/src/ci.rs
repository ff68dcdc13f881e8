//! Everything that CI runs, one step after the other; the first failure ends it. `make test` adds only what the machine lacks.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::bail;

/// One command with a name. All run in the workspace's folder.
struct Step {
    name: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
}

const fn step(name: &'static str, program: &'static str, arguments: &'static [&'static str]) -> Step {
    Step { name, program, arguments }
}

/// The step that is told where the binary is.
const END_TO_END: &str = "end to end";

/// Fast and local first. The web app comes before the Rust code, which embeds it.
const BEFORE_TESTS: &[Step] = &[
    step("format", "cargo", &["fmt", "--all", "--check"]),
    step("tidy", "cargo", &["xtask", "tidy"]),
    step("web: install", "npm", &["ci", "--no-audit", "--no-fund"]),
    step("web: check", "npm", &["run", "check"]),
    step("web: test", "npm", &["run", "test"]),
    step("web: build", "npm", &["run", "build"]),
    step("lint", "cargo", &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]),
];

const NEXTEST: Step = step("test", "cargo", &["nextest", "run", "--workspace", "--locked", "--no-fail-fast"]);
const CARGO_TEST: Step = step("test", "cargo", &["test", "--workspace", "--locked", "--no-fail-fast"]);

/// What is a feature of the build, and its own tests: about a minute and a half of one core for the C library of Kafka, once.
const SOURCES: &str = "kafka,rabbitmq";

const AFTER_TESTS: &[Step] = &[
    // Their own crate, and the program with both of them.
    step(
        "lint: sources",
        "cargo",
        &[
            "clippy",
            "--package",
            "talewire-sources",
            "--package",
            "talewire",
            "--features",
            SOURCES,
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ],
    ),
    step(
        "test: sources",
        "cargo",
        &[
            "test",
            "--package",
            "talewire-sources",
            "--features",
            SOURCES,
            "--test",
            "it",
            "--locked",
            "--",
            "kafka::",
            "rabbitmq::",
        ],
    ),
    // About a minute, and a quarter of one.
    step("test: valkey", "cargo", &["xtask", "valkey"]),
    step("test: postgres 18", "cargo", &["xtask", "postgres"]),
    step("doc examples", "cargo", &["test", "--workspace", "--locked", "--doc"]),
    step("end to end: check", "npm", &["run", "check", "--workspace", "e2e"]),
    // The official client over every transport, and two browsers in one story, against that binary. A missing folder
    // is a failure: nothing here is ever skipped.
    step(END_TO_END, "npm", &["run", "test", "--workspace", "e2e"]),
];

/// Runs all steps.
///
/// # Errors
/// Names the step that failed.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let test = if has_nextest() { &NEXTEST } else { &CARGO_TEST };
    let steps: Vec<&Step> = BEFORE_TESTS.iter().chain([test]).chain(AFTER_TESTS).collect();
    let began = Instant::now();
    let mut times: Vec<(&str, Duration)> = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        println!("\n== {}/{} {}: {} {}", at + 1, steps.len(), step.name, step.program, step.arguments.join(" "));
        let step_began = Instant::now();
        let mut command = Command::new(step.program);
        command.args(step.arguments).current_dir(root).stdin(Stdio::null());
        if step.name == END_TO_END {
            command.env("TALEWIRE_BIN", crate::target(root).join("debug/talewire"));
        }
        let passed = command.status().map_err(|error| error.to_string()).and_then(|status| match status.success() {
            true => Ok(()),
            false => Err(status.to_string()),
        });
        times.push((step.name, step_began.elapsed()));
        println!("== {} {} in {:.1} s", step.name, outcome(&passed), step_began.elapsed().as_secs_f64());
        if let Err(reason) = passed {
            println!("\n{}", summary(&times));
            bail!("ci failed at step {} of {}, {}: {reason}", at + 1, steps.len(), step.name);
        }
    }
    println!("\n{}", summary(&times));
    println!("ci passed: {} steps in {:.1} s", steps.len(), began.elapsed().as_secs_f64());
    Ok(())
}

fn has_nextest() -> bool {
    let version =
        Command::new("cargo").args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

fn outcome(passed: &Result<(), String>) -> &'static str {
    if passed.is_ok() { "passed" } else { "FAILED" }
}

fn summary(times: &[(&str, Duration)]) -> String {
    let one = |(name, time): &(&str, Duration)| format!("{name} {:.1} s", time.as_secs_f64());
    times.iter().map(one).collect::<Vec<_>>().join(", ")
}
