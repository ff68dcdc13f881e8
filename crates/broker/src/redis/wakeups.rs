//! Wake-ups for those who run jobs: a stream with one group of readers, so that a job wakes one node and not all of them.
//!
//! They may all be lost: whoever connects looks at the jobs anyway, and sweeps find what nobody was woken for. Only the store says who has a
//! job.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Value, cmd};

use super::names::slot;
use super::servers::Servers;
use crate::WakeUp;
use crate::between::outlets::Outlets;

/// How long a read waits for something to come; no longer, so that a dead connection is found.
const WAIT: Duration = Duration::from_millis(2_000);

/// The group, and the one name under which all nodes read in it: what a node has read is not kept for it.
const GROUP: &str = "nodes";

/// Between two looks whether anybody here runs jobs.
const NOBODY: Duration = Duration::from_millis(100);

/// Puts a wake-up for jobs into the stream.
pub(crate) fn wake(servers: &Servers) {
    let stream = servers.names.jobs();
    let mut command = cmd("XADD");
    command.arg(&stream).arg("MAXLEN").arg("~").arg(servers.settings().wakeups_kept_max).arg("*").arg("w").arg("");
    servers.tell_now(slot(&stream), command);
}

/// Reads wake-ups while somebody here runs jobs, until the future is dropped.
pub(crate) async fn read(servers: Arc<Servers>, outlets: Arc<Outlets>) {
    loop {
        if outlets.wakeups.receiver_count() > 0
            && let Err(reason) = read_by_one_connection(&servers, &outlets).await
        {
            tracing::debug!(reason, "wake-ups for jobs are not heard");
        }
        tokio::time::sleep(NOBODY).await;
    }
}

async fn read_by_one_connection(servers: &Servers, outlets: &Outlets) -> Result<(), String> {
    let stream = servers.names.jobs();
    let address = servers.address_of(slot(&stream)).ok_or("Redis is not connected")?;
    let mut connection = servers.dialer().dial(&address, None).await?;
    let mut create = cmd("XGROUP");
    create.arg("CREATE").arg(&stream).arg(GROUP).arg("$").arg("MKSTREAM");
    match say(&mut connection, &create).await {
        Err(error) if !error.contains("BUSYGROUP") => return Err(error),
        _ => {}
    }
    // Some may have gone by while nobody read.
    let _ = outlets.wakeups.send(WakeUp::Jobs);
    let mut next = cmd("XREADGROUP");
    next.arg("GROUP").arg(GROUP).arg(GROUP).arg("COUNT").arg(1_000).arg("BLOCK").arg(WAIT.as_millis() as u64);
    next.arg("NOACK").arg("STREAMS").arg(&stream).arg(">");
    while outlets.wakeups.receiver_count() > 0 {
        if !matches!(say(&mut connection, &next).await?, Value::Nil) {
            // Nobody listening is no fault: the sweep finds the work.
            let _ = outlets.wakeups.send(WakeUp::Jobs);
        }
    }
    Ok(())
}

async fn say(connection: &mut MultiplexedConnection, command: &redis::Cmd) -> Result<Value, String> {
    let saying = connection.send_packed_command(command);
    let said = tokio::time::timeout(WAIT * 2, saying).await.map_err(|_| "it does not answer".to_owned())?;
    said.and_then(Value::extract_error).map_err(|error| error.to_string())
}
