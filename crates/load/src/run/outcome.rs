//! What the scenarios share in which servers end: connections that come back, and what they found when all is over.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::descriptors;
use crate::error::LoadError;
use crate::latency::Percentiles;
use crate::ledger::Ledger;
use crate::options::{Common, Ending, readers};
use crate::publishing::Publishing;
use crate::server::API_KEY;
use crate::sockets::returning::{Returning, Tally};
use crate::sockets::{Role, Sockets};

/// What came of the entries.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    transport: String,
    readers: u32,
    /// Entries that were acknowledged: all that were published.
    acknowledged: u64,
    /// Deliveries that were right.
    deliveries: u64,
    /// Deliveries of acknowledged entries that never came.
    lost: u64,
    tally: Tally,
    /// From publishing to receiving; outages are in it.
    latency: Percentiles,
    wall_s: f64,
}

/// Connects the readers of one channel, and one who publishes in it.
pub(super) fn open(common: &Common, ending: &Ending, server: SocketAddr) -> Result<(Sockets, Publishing), LoadError> {
    let count = ending.readers;
    descriptors::make_room(count as usize + usize::from(common.sources) + 1)?;
    let mut target = common.target(Some(API_KEY));
    target.server = server;
    let ledger = Ledger::new(common.channel(0), count, ending.payload as usize);
    let mut sockets = Sockets::new(target, common.patience(), vec![ledger])?;
    let [base, max] = [ending.backoff_ms, ending.backoff_max_ms].map(Duration::from_millis);
    sockets.returning = Some(Returning::new(base, max));
    sockets.open(&readers(count, 1), common.opening as usize)?;
    let publisher = sockets.open(&[Role::Api], 1)?;
    Ok((sockets, Publishing::new(publisher, ending.rate)))
}

impl Outcome {
    /// Waits for the last deliveries, and looks back.
    pub(super) fn of(
        common: &Common,
        mut sockets: Sockets,
        mut publishing: Publishing,
        began: Instant,
    ) -> Result<Self, LoadError> {
        let lost = publishing.finish(&mut sockets)?;
        let tally = sockets.returning.take().map(|returning| returning.tally).unwrap_or_default();
        Ok(Self {
            transport: format!("{:?}", common.transport).to_lowercase(),
            readers: sockets.ledgers[0].readers(),
            acknowledged: sockets.ledgers[0].published(),
            deliveries: sockets.deliveries,
            lost: lost + tally.skipped(),
            tally,
            latency: sockets.latencies.percentiles(),
            wall_s: began.elapsed().as_secs_f64(),
        })
    }

    /// Whether all was right; `bad_ends` are servers that ended as they should not.
    ///
    /// # Errors
    /// [`LoadError::Wrong`] with everything that was not.
    pub(super) fn verdict(&self, bad_ends: u64) -> Result<(), LoadError> {
        let Tally { doubled, swapped, lies, told, changed, first_wrong, .. } = &self.tally;
        let count = self.lost + doubled + swapped + lies + told + changed + bad_ends;
        if count == 0 {
            return Ok(());
        }
        let first = first_wrong.clone().unwrap_or_else(|| {
            if self.lost == 0 { "a server ended with a bad exit code" } else { "deliveries that never came" }.to_owned()
        });
        Err(LoadError::Wrong { count, first })
    }

    /// The first line of a report.
    pub(super) fn title(&self, f: &mut fmt::Formatter<'_>, kind: &str, ends: &str) -> fmt::Result {
        let Self { transport, readers, wall_s, .. } = self;
        writeln!(f, "{readers} readers of a {kind} channel over {transport}, {ends} in {wall_s:.0} s")
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { readers, acknowledged, deliveries, lost, tally, .. } = self;
        let Tally { doubled, swapped, lies, told, changed, breaks, last_refusal, .. } = tally;
        writeln!(f, "{acknowledged} entries acknowledged; {deliveries} deliveries to {readers} readers were right")?;
        writeln!(
            f,
            "lost {lost}, doubled {doubled}, out of order {swapped}, lies {lies}; gaps that were told {told}, changed {changed}"
        )?;
        write!(f, "{breaks} connections broken or attempts failed; latency with outages {}", self.latency)?;
        if let Some(said) = last_refusal {
            write!(f, "\nthe last refusal: {said}")?;
        }
        tally.first_wrong.as_ref().map_or(Ok(()), |wrong| write!(f, "\nthe first thing that was wrong: {wrong}"))
    }
}
