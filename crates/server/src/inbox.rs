//! What the rest of the process has for a thread and its connections: frames of emulated sessions, orders, and questions.
//!
//! One bounded inbox per thread. Who finds one full is told, and nothing has been done then. The other end is
//! [`Reactor::take_inbound`].

use std::rc::Rc;

use talewire_broker::Control;
use talewire_proto::ErrorCode;
use tokio::sync::{mpsc, oneshot};

use crate::reactor::Reactor;
use crate::transport::emulation::Inbound;

/// Something for a thread.
pub(crate) enum Message {
    /// A frame for one of its connections.
    Frame(Inbound),
    /// An order to some of them.
    Control(Control),
    /// A question to be answered on the spot.
    Ask(Question),
}

/// Shows no frame and no word.
impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Message")
    }
}

type Question = Box<dyn FnOnce(&Rc<Reactor>) + Send>;

/// The ways into all threads, by index.
#[derive(Debug, Clone)]
pub(crate) struct Inboxes(Vec<mpsc::Sender<Message>>);

impl Inboxes {
    /// An inbox of so many messages for each thread, and what the threads read them from.
    pub(crate) fn new(threads: usize, max: usize) -> (Self, Vec<mpsc::Receiver<Message>>) {
        let (senders, receivers) = (0..threads).map(|_| mpsc::channel(max.max(1))).unzip();
        (Self(senders), receivers)
    }

    pub(crate) fn of(&self, thread: usize) -> &mpsc::Sender<Message> {
        &self.0[thread]
    }

    pub(crate) fn threads(&self) -> usize {
        self.0.len()
    }

    /// Messages that wait in all of them.
    pub(crate) fn depth(&self) -> usize {
        self.0.iter().map(|inbox| inbox.max_capacity() - inbox.capacity()).sum()
    }

    /// Gives an order to all threads, or to none if one has no room. Says whether they took it.
    pub(crate) fn control(&self, control: &Control) -> bool {
        let places: Result<Vec<_>, _> = self.0.iter().map(mpsc::Sender::try_reserve).collect();
        let Ok(places) = places else { return false };
        places.into_iter().for_each(|place| place.send(Message::Control(control.clone())));
        true
    }

    /// Asks one thread.
    ///
    /// # Errors
    /// [`ErrorCode::Unavailable`] when it has no room, or has ended.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        thread: usize,
        question: impl FnOnce(&Rc<Reactor>) -> T + Send + 'static,
    ) -> Result<T, ErrorCode> {
        let (sender, answer) = oneshot::channel();
        let question: Question = Box::new(move |reactor| drop(sender.send(question(reactor))));
        self.0[thread].try_send(Message::Ask(question)).map_err(|_| ErrorCode::Unavailable)?;
        answer.await.map_err(|_| ErrorCode::Unavailable)
    }
}

#[cfg(test)]
mod tests {
    use talewire_broker::{Order, Whom};
    use talewire_proto::Payload;

    use super::*;

    #[test]
    fn an_order_goes_to_all_threads_or_to_none() {
        let (inboxes, mut threads) = Inboxes::new(2, 1);
        let order = Control { whom: Whom::Everyone, order: Order::Message(Payload::of(&1)) };
        assert!(inboxes.control(&order));
        assert_eq!(inboxes.depth(), 2);
        assert!(threads[0].try_recv().is_ok());
        assert!(!inboxes.control(&order), "the second has no room");
        assert!(threads[0].try_recv().is_err(), "and the first has got nothing");
        assert!(threads[1].try_recv().is_ok());
        assert!(inboxes.control(&order), "there is room again");
    }
}
