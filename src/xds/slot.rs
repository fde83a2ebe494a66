//! A channel between two tasks that holds one thing.
//!
//! Every stream has one between its session and the body of its answer, for as long as it is open. A channel that could
//! hold more would cost each of them more memory than all else that it has to say.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Makes a channel.
pub(super) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let slot = Arc::new(Mutex::new(Slot { next: None, is_closed: false, sender: None, receiver: None }));
    (Sender(slot.clone()), Receiver(slot))
}

/// The end that gives. What it gave last still arrives when it is gone.
#[derive(Debug)]
pub(super) struct Sender<T>(Arc<Mutex<Slot<T>>>);

/// The end that takes. What it didn't take goes with it.
#[derive(Debug)]
pub(super) struct Receiver<T>(Arc<Mutex<Slot<T>>>);

#[derive(Debug)]
struct Slot<T> {
    next: Option<T>,
    /// Whether one end is gone.
    is_closed: bool,
    /// Who waits for room, or for the other to go.
    sender: Option<Waker>,
    /// Who waits for something to take.
    receiver: Option<Waker>,
}

impl<T> Sender<T> {
    /// Whether there is room now, and somebody to take what is given.
    pub(super) fn has_room(&self) -> bool {
        let slot = lock(&self.0);
        slot.next.is_none() && !slot.is_closed
    }

    /// Waits for room; whether there is some, and not nobody to take anything any more.
    ///
    /// Only one task may wait, here or for [`closed`](Self::closed).
    pub(super) async fn room(&self) -> bool {
        self.wait(|slot| (slot.is_closed || slot.next.is_none()).then_some(!slot.is_closed)).await
    }

    /// Waits until nobody is there to take anything.
    pub(super) async fn closed(&self) {
        self.wait(|slot| slot.is_closed.then_some(())).await;
    }

    /// Gives something, in place of what wasn't taken yet.
    pub(super) fn give(&self, next: T) {
        let receiver = {
            let mut slot = lock(&self.0);
            if slot.is_closed {
                return;
            }
            slot.next = Some(next);
            slot.receiver.take()
        };
        receiver.into_iter().for_each(Waker::wake);
    }

    async fn wait<R>(&self, answer: impl Fn(&Slot<T>) -> Option<R>) -> R {
        poll_fn(|task| {
            let mut slot = lock(&self.0);
            match answer(&slot) {
                Some(answer) => Poll::Ready(answer),
                None => {
                    note(&mut slot.sender, task);
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl<T> Receiver<T> {
    /// The next thing; none if whoever gives is gone and everything was taken.
    pub(super) fn poll_next(&mut self, task: &mut Context<'_>) -> Poll<Option<T>> {
        let (next, sender) = {
            let mut slot = lock(&self.0);
            if slot.next.is_none() && !slot.is_closed {
                note(&mut slot.receiver, task);
                return Poll::Pending;
            }
            (slot.next.take(), slot.sender.take())
        };
        sender.into_iter().for_each(Waker::wake);
        Poll::Ready(next)
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let receiver = {
            let mut slot = lock(&self.0);
            slot.is_closed = true;
            slot.receiver.take()
        };
        receiver.into_iter().for_each(Waker::wake);
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let (next, sender) = {
            let mut slot = lock(&self.0);
            slot.is_closed = true;
            (slot.next.take(), slot.sender.take())
        };
        drop(next);
        sender.into_iter().for_each(Waker::wake);
    }
}

fn note(waiting: &mut Option<Waker>, task: &Context<'_>) {
    match waiting {
        Some(waker) => waker.clone_from(task.waker()),
        None => *waiting = Some(task.waker().clone()),
    }
}

fn lock<T>(slot: &Mutex<Slot<T>>) -> MutexGuard<'_, Slot<T>> {
    // Nothing panics while it is held.
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn next(receiver: &mut Receiver<u32>) -> Option<u32> {
        poll_fn(|task| receiver.poll_next(task)).await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn everything_arrives_in_order_and_one_waits_at_most() {
        let (sender, mut receiver) = channel();
        let giver = tokio::spawn(async move {
            for number in 0..10_000 {
                assert!(sender.room().await);
                sender.give(number);
            }
        });
        for number in 0..10_000 {
            assert_eq!(next(&mut receiver).await, Some(number));
        }
        assert_eq!(next(&mut receiver).await, None);
        giver.await.unwrap();
    }

    #[tokio::test]
    async fn what_was_given_last_arrives_after_its_giver_is_gone() {
        let (sender, mut receiver) = channel();
        sender.give(1);
        assert!(!sender.has_room());
        drop(sender);
        assert_eq!(next(&mut receiver).await, Some(1));
        assert_eq!(next(&mut receiver).await, None);
    }

    #[tokio::test]
    async fn who_waits_hears_that_the_other_is_gone() {
        let (sender, receiver) = channel();
        let sent = Arc::new(());
        sender.give(sent.clone());
        let waiting = tokio::spawn(async move {
            let has_room = sender.room().await;
            sender.closed().await;
            (has_room, sender.has_room())
        });
        tokio::task::yield_now().await;
        drop(receiver);
        assert_eq!(waiting.await.unwrap(), (false, false));
        assert_eq!(Arc::strong_count(&sent), 1, "what nobody takes goes");
    }
}
