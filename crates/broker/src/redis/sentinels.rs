//! Sentinels: which server is the master now.

use std::sync::Arc;
use std::time::Duration;

use redis::{Value, cmd};

use super::dial::{Address, Dialer};

/// Sentinels that watch one master.
pub(crate) struct Sentinels {
    dialer: Arc<Dialer>,
    master_name: String,
    timeout: Duration,
}

impl Sentinels {
    pub(crate) fn new(dialer: Arc<Dialer>, master_name: &str) -> Self {
        let timeout = dialer.timeout();
        Self { dialer, master_name: master_name.to_owned(), timeout }
    }

    /// Where the master is, by the first Sentinel that knows. Whoever connects there still asks the server itself what it is.
    pub(crate) async fn master(&self) -> Result<Address, String> {
        let mut reason = String::new();
        for sentinel in &self.dialer.seeds {
            match tokio::time::timeout(self.timeout, self.ask(sentinel)).await {
                Ok(Ok(master)) => return Ok(master),
                Ok(Err(error)) => reason = error,
                Err(_) => reason = format!("{sentinel}: it does not answer"),
            }
        }
        Err(format!("no Sentinel says where the master is: {reason}"))
    }

    async fn ask(&self, sentinel: &Address) -> Result<Address, String> {
        let mut connection = self.dialer.dial_sentinel(sentinel).await?;
        let mut question = cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master_name);
        let answer = connection.send_packed_command(&question).await.and_then(Value::extract_error);
        let answer = answer.map_err(|error| format!("{sentinel}: {error}"))?;
        let Value::Array(words) = &answer else {
            return Err(format!("{sentinel}: it knows no master of the name {}", self.master_name));
        };
        let word = |at: usize| match words.get(at) {
            Some(Value::BulkString(word)) => String::from_utf8(word.clone()).ok(),
            _ => None,
        };
        let address = word(0).zip(word(1).and_then(|port| port.parse().ok()));
        address
            .map(|(host, port)| Address { host, port })
            .ok_or_else(|| format!("{sentinel}: it answers in an unknown way"))
    }
}
