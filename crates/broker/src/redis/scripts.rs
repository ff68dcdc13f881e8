//! The steps that the server takes as one: Lua scripts, named by their hashes.
//!
//! Links load them into every server that they connect to; `history`, `presence`, `generations` and `nodes` call them.

use std::sync::Arc;

use parking_lot::RwLock;

macro_rules! scripts {
    ($($name:ident = $file:literal;)+) => {
        /// One of the scripts.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Script {
            $($name,)+
        }

        const TEXTS: &[(Script, &str)] = &[$((Script::$name, include_str!($file)),)+];
    };
}

scripts! {
    Publish = "lua/publish.lua";
    Read = "lua/read.lua";
    Tops = "lua/tops.lua";
    Remove = "lua/remove.lua";
    Enter = "lua/enter.lua";
    Leave = "lua/leave.lua";
    Settle = "lua/settle.lua";
    Count = "lua/count.lua";
    Beat = "lua/beat.lua";
    Nodes = "lua/nodes.lua";
    Bury = "lua/bury.lua";
    Hold = "lua/hold.lua";
    Holdings = "lua/holdings.lua";
    Forget = "lua/forget.lua";
    GiveUp = "lua/give_up.lua";
    Lease = "lua/lease.lua";
    Release = "lua/release.lua";
    GenerationBegin = "lua/generation_begin.lua";
    GenerationAppend = "lua/generation_append.lua";
    GenerationEnd = "lua/generation_end.lua";
    GenerationSnapshot = "lua/generation_snapshot.lua";
}

/// All scripts as they are now, by their place in [`Script`].
pub(crate) type Loaded = Arc<Vec<Ready>>;

/// A script that can be called.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) text: String,
    pub(crate) hash: String,
}

/// The scripts of one broker.
pub(crate) struct Scripts {
    sharded: bool,
    ready: RwLock<Loaded>,
}

impl Scripts {
    /// Those for one server, or, `sharded`, for a cluster.
    pub(crate) fn new(sharded: bool) -> Self {
        Self { sharded, ready: RwLock::new(prepared(sharded, 0)) }
    }

    pub(crate) fn all(&self) -> Loaded {
        self.ready.read().clone()
    }

    /// For tests: the clock by which scripts forget goes before the server's by so much.
    pub(crate) fn shift(&self, by_ms: u64) {
        *self.ready.write() = prepared(self.sharded, by_ms);
    }
}

fn prepared(sharded: bool, shift_ms: u64) -> Loaded {
    let publish = if sharded { "'SPUBLISH'" } else { "'PUBLISH'" };
    let common = include_str!("lua/prelude.lua").replace("SHIFT_MS\n", &format!("{shift_ms}\n"));
    let ready = |(script, text): &(Script, &str)| {
        let shared = match script {
            Script::Publish | Script::Read | Script::Tops => include_str!("lua/history.lua"),
            Script::Hold | Script::Holdings | Script::Forget | Script::GiveUp => include_str!("lua/records.lua"),
            _ => "",
        };
        let text =
            format!("{common}\n{shared}\n{}", text.replace("redis.call(PUBLISH", &format!("redis.call({publish}")));
        let text = without_comments(&text);
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Ready { text, hash }
    };
    Arc::new(TEXTS.iter().map(ready).collect())
}

/// Comments are for us; the server keeps the text.
fn without_comments(text: &str) -> String {
    let kept = text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with("--"));
    kept.collect::<Vec<_>>().join("\n")
}
