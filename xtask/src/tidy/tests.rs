//! Made-up trees that break one rule each.

use serde_json::json;

use super::*;

#[track_caller]
fn check(path: &str, text: &str, expected: &[(usize, &str)]) {
    let tree = Tree { files: vec![File { path: path.to_owned(), text: text.to_owned() }] };
    let found = rules::all(&tree);
    let seen: Vec<_> = found.iter().map(|f| (f.line, f.reason.as_str())).collect();
    assert_eq!(seen.len(), expected.len(), "{path}: {seen:?}");
    for ((line, reason), (line_wanted, part)) in seen.iter().zip(expected) {
        assert_eq!(line, line_wanted, "{path}: {reason}");
        assert!(reason.contains(part), "{path}: {reason}");
    }
}

#[test]
fn a_source_file_opens_with_what_it_is_for() {
    check("crates/x/src/lib.rs", "//! Words.\n", &[]);
    check("crates/x/src/lib.rs", "// Words.\n", &[(1, "opens without `//!`")]);
    check("crates/x/src/lib.rs", "", &[(1, "opens without")]);
    check("crates/x/src/lib.rs", "\n//! Late.\n", &[(1, "opens without")]);
    check("apps/web/src/app.tsx", "/** Words. */\n", &[]);
    check("apps/web/src/app.tsx", "import x from 'x'\n", &[(1, "opens without `/**`")]);
    check("apps/web/src/app.mts", "// x\n", &[(1, "opens without `/**`")]);
    check("apps/web/src/generated/api.ts", "export {}\n", &[]);
    check("apps/web/src/api.gen.ts", "export {}\n", &[]);
    check("apps/web/app.css", "a {}\n", &[]);
}

#[test]
fn names_that_say_nothing_are_found_in_files_and_folders() {
    for path in
        ["crates/x/src/utils.rs", "crates/common/src/lib.rs", "apps/web/src/helpers/a.rs", "crates/x/src/Manager.rs"]
    {
        check(path, "//! x\n", &[(0, "says nothing")]);
    }
    check("apps/web/src/utils.test.ts", "/** x */\n", &[(0, "`utils.test.ts` says nothing")]);
    check("docs/misc.md", "x\n", &[(0, "says nothing")]);
    check("crates/x/src/commons_license.rs", "//! x\n", &[]);
}

#[test]
fn tests_that_are_left_out_are_found() {
    check("crates/x/src/a.rs", "//! x\n#[test]\n    #[ignore = \"slow\"]\nfn a() {}\n", &[(3, "left out")]);
    check(
        "e2e/a.test.ts",
        "/** x */\n  it.skip('a', () => {})\ntest.only('b')\nit('c')\n",
        &[(2, "left out"), (3, "left out")],
    );
    check("crates/x/src/a.rs", "//! Do not write #[ignore].\n", &[]);
}

#[test]
fn tests_that_sleep_are_found() {
    let call = "    tokio::time::sleep(PAUSE).await;\n";
    check("crates/x/tests/it.rs", &format!("//! x\n{call}"), &[(2, "a test sleeps")]);
    check("crates/x/src/a/tests.rs", &format!("//! x\n{call}"), &[(2, "a test sleeps")]);
    check(
        "crates/x/src/a.rs",
        &format!("//! x\n{call}#[cfg(test)]\nmod tests {{\n{call}}}\n"),
        &[(5, "a test sleeps")],
    );
    check("crates/x/src/a.rs", &format!("//! x\n{call}"), &[]);
    check("crates/x/tests/it.rs", "//! x\n// never sleep(1)\n", &[]);
    let waiting = "assert!(now < deadline, \"waited in vain for a word\");\n";
    check("crates/x/tests/it.rs", &format!("//! x\n{waiting}{call}"), &[]);
    check("crates/x/tests/it.rs", &format!("//! x\n{waiting}{}{call}", "x();\n".repeat(6)), &[(9, "a test sleeps")]);
}

#[test]
fn long_files_are_found() {
    check("crates/x/src/a.rs", &"//! x\n".repeat(1_200), &[]);
    check("crates/x/src/a.rs", &"//! x\n".repeat(1_201), &[(0, "1201 lines")]);
    check("package-lock.json", &"x\n".repeat(5_000), &[]);
    check("ARCHITECTURE.md", &"x\n".repeat(299), &[]);
    check("ARCHITECTURE.md", &"x\n".repeat(300), &[(0, "300 lines; a map")]);
}

#[test]
fn edges_that_the_design_does_not_allow_are_found() {
    let package =
        |name: &str, to: &str, kind: Option<&str>| json!({"name": name, "dependencies": [{"name": to, "kind": kind}]});
    let findings = |package: serde_json::Value| {
        let others =
            ["talewire-proto", "talewire-hub", "talewire-store"].map(|name| json!({"name": name, "dependencies": []}));
        let packages: Vec<_> = others.into_iter().chain([package]).collect();
        edges::check(&json!({ "packages": packages }))
            .expect("metadata")
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(findings(package("talewire-story", "talewire-store", None)), [""; 0]);
    assert_eq!(
        findings(package("talewire-story", "talewire-hub", None)),
        ["talewire-story/Cargo.toml: talewire-story must not depend on talewire-hub (DESIGN.md, section 2)"]
    );
    assert_eq!(findings(package("talewire-story", "talewire-hub", Some("build"))).len(), 1);
    assert_eq!(findings(package("talewire-story", "talewire-hub", Some("dev"))), [""; 0]);
    assert_eq!(findings(package("talewire-load", "talewire-store", None)).len(), 1);
    assert_eq!(findings(package("talewire-story", "serde", None)), [""; 0]);
    assert_eq!(findings(package("talewire-extra", "serde", None)).len(), 1);
}
