//! A call for one task of this thread: to look again at what has changed. Costs a waker and a flag, since a server keeps one for each
//! connection.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

/// Wakes the one task that waits here. A call before anybody waits is not lost; several are one.
#[derive(Default)]
pub(crate) struct Wake {
    called: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Wake {
    /// Calls.
    pub(crate) fn call(&self) {
        self.called.set(true);
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    /// Whether somebody has called since this was last ready.
    pub(crate) fn poll_called(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.called.take() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *waiting = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// Waits for a call.
    pub(crate) async fn called(&self) {
        poll_fn(|context| self.poll_called(context)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[tokio::test(flavor = "local")]
    async fn a_call_is_heard_before_and_while_somebody_waits() {
        let wake = Rc::new(Wake::default());
        wake.call();
        wake.call();
        wake.called().await;
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(wake.poll_called(&mut context), Poll::Pending, "two calls are one");
        let caller = wake.clone();
        let calling = tokio::task::spawn_local(async move { caller.call() });
        wake.called().await;
        calling.await.expect("it called");
    }
}
