//! `talewire move`, `backup` and `restore`: what was typed and the configuration in, a copy of everything and its count out.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use talewire_store::{Copied, CopyProgress, Epochs, StoreSettings, StoreUrl};

use crate::cli::{Backup, Move, Restore};
use crate::config::Config;

/// Time between two lines about the same table.
const OFTEN: Duration = Duration::from_secs(1);

/// Copies the configured store into another one.
pub(crate) fn move_to(typed: &Move, config: &Config) -> anyhow::Result<()> {
    let to = if typed.to.contains("://") {
        StoreSettings { url: StoreUrl::new(&typed.to), ..config.store.clone() }
    } else {
        StoreSettings { url: StoreUrl::default(), path: PathBuf::from(&typed.to), ..config.store.clone() }
    };
    let copied = run(talewire_store::move_all(&config.store, &to, &mut tell()))?;
    let setting = if to.url.is_empty() { "empty store.url and this store.path" } else { "this store.url" };
    println!("moved {} from {} to {}", counted(&copied), config.store.place(), to.place());
    println!("start the servers with {setting}; the old place refuses to be used");
    Ok(())
}

/// Writes the configured store into a file.
pub(crate) fn backup(typed: &Backup, config: &Config) -> anyhow::Result<()> {
    let copied = run(talewire_store::backup(&config.store, &typed.backup, &mut tell()))?;
    println!("wrote {} from {} to {}", counted(&copied), config.store.place(), typed.backup.display());
    Ok(())
}

/// Reads a file into the configured store.
pub(crate) fn restore(typed: &Restore, config: &Config) -> anyhow::Result<()> {
    let epochs = if typed.nothing_is_missing { Epochs::Kept } else { Epochs::Fresh };
    let copied = run(talewire_store::restore(&typed.backup, &config.store, epochs, &mut tell()))?;
    println!("restored {} from {} to {}", counted(&copied), typed.backup.display(), config.store.place());
    if epochs == Epochs::Fresh {
        println!("readers who come back are told that their history was lost, and load it again");
    }
    Ok(())
}

fn run(copy: impl Future<Output = Result<Copied, talewire_store::StoreError>>) -> anyhow::Result<Copied> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    Ok(runtime.context("the runtime does not start")?.block_on(copy)?)
}

/// Tells how far it has come: at the end of each table, and now and then before.
fn tell() -> impl FnMut(CopyProgress) + Send {
    let mut last = Instant::now();
    move |CopyProgress { table, rows, of }| {
        if rows == of || last.elapsed() >= OFTEN {
            last = Instant::now();
            eprintln!("{table}: {rows} of {of} rows");
        }
    }
}

fn counted(copied: &Copied) -> String {
    let rows: u64 = copied.iter().map(|(_, rows)| rows).sum();
    format!("{rows} rows of {} tables", copied.len())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::cli::{Cli, Command};

    #[test]
    fn flags_stand_for_settings() {
        let typed = ["talewire", "backup", "--data", "d", "file"];
        let Command::Backup(backup) = Cli::parse_from(typed).command else { panic!("not backup") };
        let flags = backup.from.flags();
        let folder_alone = [("--data", "store.path", "d".to_owned()), ("--data", "store.url", String::new())];
        assert_eq!(flags, folder_alone, "not the database that the configuration names");
        assert!(flags.iter().all(|(_, path, _)| crate::config::Known::new().default_of(path).is_some()));
    }
}
