//! Orders to connections.

use std::sync::atomic::{AtomicBool, Ordering};

use talewire_proto::CloseCode;

use super::{Make, client};
use crate::{BrokerError, BrokerSettings, Control, Order, Whom};

pub(super) async fn orders_reach_the_node_or_the_caller_hears_of_it(make: Make) {
    let stand = make(BrokerSettings::default());
    let order = |name: &str| Control {
        whom: Whom::client(client(name)),
        order: Order::Disconnect { code: CloseCode::ForceDisconnect, keep: Vec::new() },
    };
    assert_eq!(stand.broker.control(order("nobody")).await, Ok(()), "no server, no connections");
    let (sender, mut taken) = tokio::sync::mpsc::unbounded_channel();
    let has_room = std::sync::Arc::new(AtomicBool::new(true));
    let room = has_room.clone();
    stand.broker.control_with(std::sync::Arc::new(move |control| {
        let takes = room.load(Ordering::Relaxed);
        takes && sender.send(control).is_ok()
    }));
    stand.broker.control(order("a")).await.unwrap();
    assert_eq!(taken.recv().await, Some(order("a")));
    has_room.store(false, Ordering::Relaxed);
    assert!(matches!(stand.broker.control(order("b")).await, Err(BrokerError::Unavailable(_))));
    assert!(taken.try_recv().is_err());
}
