//! The rules about files, one function each.

use super::{File, Finding, Tree};

/// The longest file in lines.
const FILE_LINES_MAX: usize = 1_200;

/// The longest ARCHITECTURE.md in lines.
const MAP_LINES_MAX: usize = 299;

/// Names that cannot answer "where is X?".
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc", "manager", "managers"];

/// Rust test files that may sleep, with the reason.
const MAY_SLEEP: &[(&str, &str)] = &[("crates/agents/tests/it/fake.rs", "plays an endpoint that answers slowly")];

/// A sleep so few lines after the word `deadline` is a pause between two looks at a condition.
const DEADLINE_LINES: usize = 6;

/// Everything that the rules find.
pub(super) fn all(tree: &Tree) -> Vec<Finding> {
    let rules = [opening, names, left_out_tests, sleeps, lengths];
    rules.iter().flat_map(|rule| tree.files.iter().flat_map(rule)).collect()
}

fn finding(file: &File, line: usize, reason: impl Into<String>) -> Finding {
    Finding { path: file.path.clone(), line, reason: reason.into() }
}

/// Every source file says first what flows in, what flows out and who calls it.
fn opening(file: &File) -> Vec<Finding> {
    let wanted = match extension(file) {
        "rs" => "//!",
        "ts" | "tsx" | "mts" if !is_generated(file) => "/**",
        _ => return Vec::new(),
    };
    if file.text.starts_with(wanted) {
        return Vec::new();
    }
    vec![finding(file, 1, format!("opens without `{wanted}`: say what the file is for"))]
}

/// No file or folder has a name that means nothing.
fn names(file: &File) -> Vec<Finding> {
    let stem = |part: &str| part.split('.').find(|word| !word.is_empty()).unwrap_or_default().to_ascii_lowercase();
    let empty = file.path.split('/').find(|part| EMPTY_NAMES.contains(&stem(part).as_str()));
    let reason = |part: &str| format!("`{part}` says nothing: a shared thing goes to the room that owns its meaning");
    empty.map(|part| finding(file, 0, reason(part))).into_iter().collect()
}

/// A test that does not run is no test.
fn left_out_tests(file: &File) -> Vec<Finding> {
    let is_left_out = |line: &str| match extension(file) {
        "rs" => line.starts_with("#[ignore"),
        "ts" | "tsx" | "mts" => ["it", "test", "describe"].iter().any(|word| {
            let after = line.strip_prefix(word).unwrap_or_default();
            [".skip(", ".only(", ".todo("].iter().any(|left_out| after.starts_with(left_out))
        }),
        _ => false,
    };
    let lines = file.text.lines().enumerate().filter(|(_, line)| is_left_out(line.trim_start()));
    lines.map(|(at, _)| finding(file, at + 1, "a test that is left out: fix it or delete it")).collect()
}

/// Pure tests pass or pause time; process tests wait for a named condition with a deadline.
fn sleeps(file: &File) -> Vec<Finding> {
    if extension(file) != "rs" || MAY_SLEEP.iter().any(|(path, _)| *path == file.path) {
        return Vec::new();
    }
    let all_tests = file.path.split('/').any(|part| part == "tests" || part == "tests.rs" || part == "benches");
    let mut in_tests = all_tests;
    let mut after_cfg = false;
    let mut deadline_at = None;
    let mut findings = Vec::new();
    for (at, line) in file.text.lines().enumerate() {
        let code = line.trim_start();
        // A module, to the end of the file; a single item for tests is none.
        in_tests |= after_cfg && code.starts_with("mod ");
        after_cfg = code.starts_with("#[cfg(test)]");
        if code.contains("deadline") {
            deadline_at = Some(at);
        }
        let waits = deadline_at.is_some_and(|deadline_at| at - deadline_at <= DEADLINE_LINES);
        let sleeps = ["sleep(", "sleep_until(", "sleep_ms("].iter().any(|call| code.contains(call));
        if in_tests && sleeps && !waits && !code.starts_with("//") && !code.contains('"') {
            findings.push(finding(
                file,
                at + 1,
                "a test sleeps: wait for a named condition with a deadline, or pause time",
            ));
        }
    }
    findings
}

/// What does not fit a head is two things.
fn lengths(file: &File) -> Vec<Finding> {
    let lines = file.text.lines().count();
    let written = ["rs", "ts", "tsx", "mts", "js", "mjs", "css", "py", "md", "sql", "toml"].contains(&extension(file));
    if file.path == "ARCHITECTURE.md" && lines > MAP_LINES_MAX {
        return vec![finding(file, 0, format!("{lines} lines; a map has at most {MAP_LINES_MAX}"))];
    }
    if written && !is_generated(file) && lines > FILE_LINES_MAX {
        return vec![finding(file, 0, format!("{lines} lines; at most {FILE_LINES_MAX}: ask what two things it is"))];
    }
    Vec::new()
}

fn extension(file: &File) -> &str {
    file.path.rsplit_once('.').map_or("", |(_, extension)| extension)
}

/// Generated code lies in a folder called `generated`, or says so in its name.
fn is_generated(file: &File) -> bool {
    file.path.split('/').any(|part| part == "generated") || file.path.contains(".gen.")
}
