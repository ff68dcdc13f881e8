//! Which crate may depend on which: DESIGN.md, section 2, word for word.

use anyhow::Context as _;
use serde_json::Value;

use super::Finding;

/// Normal and build dependencies on crates of ours. Tests may use any; the compiler refuses circles.
const ALLOWED: &[(&str, &[&str])] = &[
    ("talewire-proto", &[]),
    ("talewire-auth", &["proto"]),
    ("talewire-store", &["proto"]),
    ("talewire-broker", &["proto"]),
    ("talewire-hub", &["proto", "store", "broker"]),
    ("talewire-story", &["proto", "store", "broker"]),
    ("talewire-documents", &["proto", "store", "broker"]),
    ("talewire-agents", &["proto", "store", "broker", "story", "documents"]),
    ("talewire-server", &["proto", "auth", "store", "broker", "hub", "story", "documents", "agents"]),
    ("talewire-sources", &["proto"]),
    ("talewire", &["proto", "auth", "store", "broker", "hub", "story", "documents", "agents", "server", "sources"]),
    ("talewire-load", &["proto"]),
    // Real servers for tests, and the suite that kills them.
    ("talewire-stand", &[]),
    ("talewire-faults", &["proto", "load", "stand"]),
    ("xtask", &[]),
];

/// Reads the answer of `cargo metadata` and compares its edges with the allowed ones.
pub(super) fn check(metadata: &Value) -> anyhow::Result<Vec<Finding>> {
    let packages = metadata["packages"].as_array().context("cargo metadata has packages")?;
    let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let ours: Vec<String> = packages.iter().map(name).collect();
    let mut findings = Vec::new();
    for package in packages {
        let from = name(package);
        let path = format!("{from}/Cargo.toml");
        let Some((_, allowed)) = ALLOWED.iter().find(|(crate_name, _)| *crate_name == from) else {
            let reason = "this crate stands neither in DESIGN.md, section 2, nor in xtask/src/tidy/edges.rs".to_owned();
            findings.push(Finding { path, line: 0, reason });
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = name(dependency);
            let for_tests = dependency["kind"].as_str() == Some("dev");
            let short = to.strip_prefix("talewire-").unwrap_or(&to);
            if !for_tests && ours.contains(&to) && !allowed.contains(&short) {
                let reason = format!("{from} must not depend on {to} (DESIGN.md, section 2)");
                findings.push(Finding { path: path.clone(), line: 0, reason });
            }
        }
    }
    Ok(findings)
}
