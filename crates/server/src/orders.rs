//! Orders of server programs to connections, wherever these are: kept in the database, and carried out by every node in the order in which
//! they were given. A node that is deaf, paused or cut off finds those that it missed when it looks again.
//!
//! The server API gives them ([`Node::order`]). The binary calls [`Node::join_orders`] before the doors open, and spawns
//! [`Node::follow_orders`]. Where one node is alone there is nothing to keep: it carries orders out as they come. Messages are no orders
//! in this sense: they are told once, by the broker.

use std::sync::Arc;
use std::time::Duration;

use talewire_broker::{BrokerError, Control, Order, WakeUp, Whom};
use talewire_proto::{CloseCode, ErrorCode};
use talewire_store::StoreError;
use tokio::sync::Mutex;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use crate::node::Node;

/// Orders that are read at once.
const PAGE: u32 = 1_000;

/// How far orders have been carried out here. Whoever carries some out holds it: they go to the threads in one order.
#[derive(Debug)]
pub(crate) struct OrdersRead(Mutex<Place>);

#[derive(Debug)]
struct Place {
    /// The last one.
    after: i64,
    /// When the database was last asked for more, and answered.
    looked: Instant,
    /// For how long it keeps them.
    age: Duration,
}

impl OrdersRead {
    /// Nothing was read yet of orders that are kept for so long.
    pub(crate) fn new(age: Duration) -> Self {
        Self(Mutex::new(Place { after: 0, looked: Instant::now(), age }))
    }
}

impl Node {
    /// Goes on from the newest order: there are no connections here yet, whom an older one could mean.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn join_orders(&self) -> Result<(), StoreError> {
        let mut place = self.orders_read.0.lock().await;
        place.after = self.store.newest_order().await?;
        place.looked = Instant::now();
        Ok(())
    }

    /// Carries an order out at every node, also at those that cannot hear of it now: as soon as they can read the database again.
    ///
    /// # Errors
    /// [`ErrorCode::Unavailable`] when it was not kept. Nodes that heard of it may have carried it out.
    pub(crate) async fn order(&self, whom: Whom, order: Order) -> Result<(), ErrorCode> {
        let control = Control { whom, order };
        if !self.broker.is_shared() {
            return self.broker.control(control).await.map_err(|_| ErrorCode::Unavailable);
        }
        let packed = control.packed(self.id()).ok_or(ErrorCode::BadRequest)?;
        let place = match self.store.keep_order(packed.clone()).await {
            Ok(place) => place,
            Err(error) => {
                tracing::warn!(%error, "an order to connections was not kept: who hears it carries it out");
                let _: Result<(), BrokerError> = self.broker.control(control).await;
                return Err(ErrorCode::Unavailable);
            }
        };
        self.metrics.orders_kept.inc();
        self.broker.wake(WakeUp::Order(packed));
        if let Err(error) = self.carry_out(place).await {
            tracing::warn!(%error, "an order that was kept is carried out here when the database can be read again");
        }
        Ok(())
    }

    /// Carries out what was ordered since the last look.
    ///
    /// # Errors
    /// When the store does not answer: what was not read is read next time.
    pub async fn learn_orders(&self) -> Result<(), StoreError> {
        self.carry_out(i64::MAX).await
    }

    /// Looks, unless the order at `wanted` was carried out meanwhile: who waited for the same look needs none.
    async fn carry_out(&self, wanted: i64) -> Result<(), StoreError> {
        let Some(inboxes) = self.inboxes() else { return Ok(()) };
        let mut place = self.orders_read.0.lock().await;
        while place.after < wanted {
            let asked = Instant::now();
            let orders = self.store.orders(place.after, PAGE).await?;
            if place.looked.elapsed() >= place.age {
                let away_s = place.looked.elapsed().as_secs();
                tracing::warn!(away_s, "orders may have been forgotten unread: everybody here is asked to come again");
                if !inboxes.control(&coming_again()) {
                    return Ok(());
                }
            }
            place.looked = asked;
            // Long ones come in smaller pages: only an empty one is the end.
            if orders.is_empty() {
                break;
            }
            for order in orders {
                // One of a newer version is for nodes that know it.
                if let Some(control) = Control::unpacked(order.body) {
                    if !inboxes.control(&control) {
                        tracing::warn!("a thread has no room for an order: it is carried out with the next look");
                        return Ok(());
                    }
                    self.metrics.orders_carried_out.inc();
                }
                place.after = order.seq;
            }
        }
        Ok(())
    }

    /// Looks again and again, for ever, and at once when another node has given an order.
    pub async fn follow_orders(self: Arc<Self>, every: Duration) {
        let mut wakeups = self.broker.wakeups();
        let mut is_told = false;
        let mut ticks = tokio::time::interval(every.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                wake = wakeups.recv() => match wake {
                    Ok(WakeUp::Order(_)) | Err(RecvError::Lagged(_)) => {}
                    Ok(WakeUp::Jobs | WakeUp::Cancel(_)) => continue,
                    // Cannot be while this node holds the broker; the looks would do alone.
                    Err(RecvError::Closed) => drop(ticks.tick().await),
                },
            }
            // One look is for all of them.
            while wakeups.try_recv().is_ok() {}
            match self.learn_orders().await {
                Ok(()) => is_told = false,
                Err(error) if !is_told => {
                    is_told = true;
                    tracing::warn!(%error, "orders of other nodes cannot be read: they are carried out when they can");
                }
                Err(error) => tracing::debug!(%error, "orders of other nodes still cannot be read"),
            }
        }
    }
}

/// Whoever comes again is let in, or not, by what holds then.
fn coming_again() -> Control {
    Control { whom: Whom::Everyone, order: Order::Disconnect { code: CloseCode::ForceReconnect, keep: Vec::new() } }
}
