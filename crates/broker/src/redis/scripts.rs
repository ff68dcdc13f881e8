//! The steps that the server takes as one: Lua scripts, named by their hashes.
//!
//! Links load them into every server that they connect to; `history`, `presence`, `generations` and `nodes` call them.

use std::sync::Arc;

use parking_lot::RwLock;

use super::mending::Kind;

macro_rules! scripts {
    ($($name:ident = $file:literal of $($kind:ident)*;)+) => {
        /// One of the scripts.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Script {
            $($name,)+
        }

        const TEXTS: &[(Script, &str)] = &[$((Script::$name, include_str!($file)),)+];

        impl Script {
            /// What its keys are; the last counts for all that follow.
            pub(crate) fn kinds(self) -> &'static [Kind] {
                match self {
                    $(Self::$name => &[$(Kind::$kind),*],)+
                }
            }
        }
    };
}

scripts! {
    Publish = "lua/publish.lua" of Hash Stream Hash List;
    Read = "lua/read.lua" of Hash Stream;
    Tops = "lua/tops.lua" of Hash;
    Remove = "lua/remove.lua" of Hash Stream;
    Enter = "lua/enter.lua" of Hash;
    Leave = "lua/leave.lua" of Hash;
    Settle = "lua/settle.lua" of Hash;
    Count = "lua/count.lua" of Hash;
    Beat = "lua/beat.lua" of SortedSet Hash;
    Nodes = "lua/nodes.lua" of SortedSet Hash;
    Bury = "lua/bury.lua" of SortedSet Hash;
    Hold = "lua/hold.lua" of Hash Set Set;
    Holdings = "lua/holdings.lua" of Hash Set;
    Forget = "lua/forget.lua" of Hash Set Set;
    GiveUp = "lua/give_up.lua" of Hash Set Set;
    Lease = "lua/lease.lua" of Text;
    Release = "lua/release.lua" of Text;
    Mend = "lua/mend.lua" of;
    Weed = "lua/weed.lua" of Hash;
    GenerationBegin = "lua/generation_begin.lua" of Hash Text;
    GenerationAppend = "lua/generation_append.lua" of Hash Text;
    GenerationEnd = "lua/generation_end.lua" of Hash Text;
    GenerationSnapshot = "lua/generation_snapshot.lua" of Hash Text;
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
        // A full server still takes a sign of life, whose bytes are there already.
        let flags = if *script == Script::Beat { "#!lua flags=allow-oom\n" } else { "" };
        let text = format!("{flags}{}", without_comments(&text));
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
