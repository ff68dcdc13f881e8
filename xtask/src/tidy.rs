//! The rules of the house that a machine can check: the tree and `cargo metadata` in, findings out.
//!
//! Each rule is a function from a [`Tree`] to findings, and each is shown to fail on a made-up tree in `tidy/tests.rs`.

mod edges;
mod rules;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

/// Text files of the repository by path, with `/` between folders whatever the system.
pub(crate) struct Tree {
    files: Vec<File>,
}

/// One file; `text` is empty for what is not text.
pub(crate) struct File {
    path: String,
    text: String,
}

/// Something that is not as it should be. `line` counts from 1; 0 means the file as a whole.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    reason: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, reason } = self;
        if *line == 0 { write!(f, "{path}: {reason}") } else { write!(f, "{path}:{line}: {reason}") }
    }
}

/// Folders that hold nothing we wrote.
const NOT_OURS: &[&str] = &["node_modules", "dist", "target", ".git", "data", "test-results", ".venv", "__pycache__"];

/// Checks everything and prints what it finds.
///
/// # Errors
/// If there is a finding, or the tree cannot be read.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let mut tree = Tree { files: Vec::new() };
    read_folder(root, "", &mut tree)?;
    let mut findings = rules::all(&tree);
    findings.extend(edges::check(&metadata(root)?)?);
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy: {} findings in {} files", findings.len(), tree.files.len());
    }
    println!("tidy: {} files, nothing to say", tree.files.len());
    Ok(())
}

fn metadata(root: &Path) -> anyhow::Result<serde_json::Value> {
    let mut command = Command::new("cargo");
    command.args(["metadata", "--format-version", "1", "--no-deps", "--locked"]).current_dir(root);
    let output = command.output().context("cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("cargo metadata")
}

fn read_folder(root: &Path, inside: &str, tree: &mut Tree) -> anyhow::Result<()> {
    let folder = root.join(inside);
    let mut entries = std::fs::read_dir(&folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if inside.is_empty() { name.clone() } else { format!("{inside}/{name}") };
        let kind = entry.file_type()?;
        if kind.is_dir() && !NOT_OURS.contains(&name.as_str()) {
            read_folder(root, &path, tree)?;
        } else if kind.is_file() {
            let bytes = std::fs::read(entry.path()).with_context(|| path.clone())?;
            tree.files.push(File { path, text: String::from_utf8(bytes).unwrap_or_default() });
        }
    }
    Ok(())
}
