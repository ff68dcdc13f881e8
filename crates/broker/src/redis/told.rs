//! What a server tells of how it is set, for whoever examines it.

use redis::cmd;

use super::answers;
use super::servers::{Lost, Servers};
use crate::{BrokerError, ServerTold};

/// Settings on which promises rest.
const ASKED: [&str; 8] = [
    "maxmemory",
    "maxmemory-policy",
    "appendonly",
    "appendfsync",
    "save",
    "min-replicas-to-write",
    "client-output-buffer-limit",
    "cluster-require-full-coverage",
];

impl Servers {
    /// Asks one server: of a cluster the one that has slot 0.
    pub(crate) async fn told(&self) -> Result<ServerTold, BrokerError> {
        let mut settings = Vec::new();
        // One at a time: servers before 7 take no more, and one that a rule of the user forbids is left out.
        for name in ASKED {
            let mut command = cmd("CONFIG");
            command.arg("GET").arg(name);
            let Ok(answer) = self.ask(0, &command, Lost::Repeat).await else { continue };
            let mut parts = answers::list(answer.value)?.into_iter();
            if let (Some(name), Some(value)) = (parts.next(), parts.next()) {
                settings.push((answers::text(name)?, answers::text(value)?));
            }
        }
        let time = answers::list(self.ask(0, &cmd("TIME"), Lost::Repeat).await?.value)?;
        let mut parts = time.into_iter().map(answers::number);
        let (Some(seconds), Some(micros)) = (parts.next(), parts.next()) else { return Err(answers::unknown()) };
        let now_ms = i64::try_from(seconds? * 1_000 + micros? / 1_000).unwrap_or(i64::MAX);
        Ok(ServerTold { settings, now_ms })
    }
}
