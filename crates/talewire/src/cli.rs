//! What can be typed: commands and flags, before anything is read or checked.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use crate::config::Config;

/// People and AI agents write stories together, live.
///
/// Settings come from defaults, then the file, then the environment (TALEWIRE_<SECTION>_<FIELD>), then flags.
/// `talewire settings` lists them all.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the server.
    Serve(Serve),
    /// Run agents without taking connections, beside servers over the same PostgreSQL and the same broker.
    Worker(Work),
    /// Check a configuration without starting anything.
    Check(Check),
    /// Sign a token with the configured secret and print it.
    Token(Token),
    /// Look at the machine, the services and what stands in front, and say what to change.
    Doctor(Doctor),
    /// Say whether the server with this configuration can serve: exit code 0 if /ready says so.
    Ready(ConfigFile),
    /// Copy everything into another, empty store: from SQLite to PostgreSQL, or back. The server must not run.
    Move(Move),
    /// Write everything into a file. The server may run.
    Backup(Backup),
    /// Read a backup into an empty store.
    Restore(Restore),
    /// List every setting: path in the file, environment variable, unit, default.
    Settings,
}

/// The file to read, if any.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigFile {
    /// Configuration file (TOML).
    #[arg(long, env = "TALEWIRE_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

impl ConfigFile {
    /// The file's name and text.
    pub(crate) fn read(&self) -> anyhow::Result<Option<(String, String)>> {
        let Some(path) = &self.config else { return Ok(None) };
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Some((path.display().to_string(), text)))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// Address and port for people and programs [http.listen].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Folder for everything that is kept [store.path].
    #[arg(long, value_name = "FOLDER")]
    data: Option<String>,
    /// Development: everything is allowed in configured namespaces, without tokens. Loopback only [process.insecure].
    #[arg(long)]
    insecure: bool,
    /// How log lines look: `auto` (plain on a terminal, else JSON), `plain` or `json` [process.log_format].
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl Serve {
    /// The flags that were typed, with the settings that they stand for.
    pub(crate) fn flags(&self) -> Vec<(&'static str, &'static str, String)> {
        let insecure = self.insecure.then(|| "true".to_owned());
        let flags = [
            ("--listen", "http.listen", &self.listen),
            ("--data", "store.path", &self.data),
            ("--insecure", "process.insecure", &insecure),
            ("--log-format", "process.log_format", &self.log_format),
        ];
        flags.into_iter().filter_map(|(flag, path, text)| Some((flag, path, text.clone()?))).collect()
    }
}

#[derive(Debug, Args)]
pub(crate) struct Work {
    #[command(flatten)]
    pub(crate) file: ConfigFile,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Configuration file (TOML); without one, the file of TALEWIRE_CONFIG, or the environment alone.
    file: Option<PathBuf>,
}

impl Check {
    pub(crate) fn file(&self) -> ConfigFile {
        let named = std::env::var_os("TALEWIRE_CONFIG").filter(|name| !name.is_empty()).map(PathBuf::from);
        ConfigFile { config: self.file.clone().or(named) }
    }

    pub(crate) fn print_good(&self, config: &Config) {
        let from = self.file().config.map_or_else(|| "the environment".to_owned(), |file| file.display().to_string());
        println!("{from}: good ({} namespaces, data in {})", config.namespaces.len(), config.store.place());
        for setting in config.secrets_of_examples() {
            println!("{setting} is one of our examples, which everybody knows: set your own (openssl rand -hex 32)");
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// Address under which clients reach the server: whether streams and WebSockets come through what stands in front.
    #[arg(long, value_name = "URL")]
    pub(crate) through: Option<String>,
    /// Token of somebody who may read the channel, for --through.
    #[arg(long, env = "TALEWIRE_DOCTOR_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Channel to listen to, for --through.
    #[arg(long, default_value = "doctor")]
    pub(crate) channel: String,
    /// Certificates (PEM) of an authority of your own, for --through.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
}

/// Which store is meant.
#[derive(Debug, Args)]
pub(crate) struct WhichStore {
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// Folder for everything that is kept [store.path]; whatever database the configuration names is not meant then.
    #[arg(long, value_name = "FOLDER")]
    data: Option<String>,
}

impl WhichStore {
    /// The flags that were typed, with the settings that they stand for.
    pub(crate) fn flags(&self) -> Vec<(&'static str, &'static str, String)> {
        let of = |folder: &String| [("--data", "store.path", folder.clone()), ("--data", "store.url", String::new())];
        self.data.iter().flat_map(of).collect()
    }
}

#[derive(Debug, Args)]
pub(crate) struct Move {
    #[command(flatten)]
    pub(crate) from: WhichStore,
    /// Where to: `postgres://user:password@host/database`, or a folder for SQLite.
    #[arg(long, value_name = "URL|FOLDER")]
    pub(crate) to: String,
}

#[derive(Debug, Args)]
pub(crate) struct Backup {
    #[command(flatten)]
    pub(crate) from: WhichStore,
    /// The file to write; it must not be there yet. It holds secrets and everybody's words.
    pub(crate) backup: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    pub(crate) to: WhichStore,
    /// The file to read.
    pub(crate) backup: PathBuf,
    /// Nothing was written after the backup was made: readers may go on where they are. Else they are told to load again.
    #[arg(long)]
    pub(crate) nothing_is_missing: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Token {
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// Whom the token is for; empty for the anonymous.
    #[arg(long, value_name = "ID")]
    pub(crate) user: String,
    /// The name that others see.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Make it a subscription token for this channel.
    #[arg(long)]
    pub(crate) channel: Option<String>,
    /// How long it is good: a number with s, m, h or d; `never` for a token without an end.
    #[arg(long, default_value = "1h", value_name = "TIME")]
    pub(crate) ttl: String,
    /// A further claim; the value is JSON, or else text. May be given several times.
    #[arg(long = "claim", value_name = "NAME=VALUE")]
    pub(crate) claims: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_stands_for_a_setting() {
        let typed = ["talewire", "serve", "--listen=a", "--data=b", "--insecure", "--log-format=c"];
        let Command::Serve(serve) = Cli::parse_from(typed).command else { panic!("not serve") };
        let flags = serve.flags();
        assert_eq!(flags.len(), 4);
        for (flag, path, _) in flags {
            assert!(crate::config::Known::new().default_of(path).is_some(), "{flag} stands for {path}");
        }
    }
}
