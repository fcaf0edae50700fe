//! The requests that wait for room at one backend: first come, first served.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::core::InFlight;

/// A line of waiting requests. Only who stands first is called, and looks for room by itself: there may be none, or room
/// for several, in which case each who leaves the line calls the next.
#[derive(Default)]
pub struct Queue {
    line: Mutex<VecDeque<Arc<Notify>>>,
    len: AtomicUsize,
}

/// A place in the line; it is left when this drops.
pub struct Place {
    queue: Arc<Queue>,
    bell: Arc<Notify>,
}

/// A request at its backend. When it leaves, who waits for room there is called.
pub struct Seat {
    /// The request's count; it ends before the bell rings, for fields drop in this order.
    pub there: InFlight,
    _bell: Bell,
}

struct Bell(Arc<Queue>);

impl Queue {
    /// The seat of a request that goes to the backend.
    #[must_use]
    pub fn seat(self: &Arc<Self>, there: InFlight) -> Seat {
        Seat { there, _bell: Bell(Arc::clone(self)) }
    }

    /// Takes the last place in the line.
    #[must_use]
    pub fn join(self: &Arc<Self>) -> Place {
        let bell = Arc::new(Notify::new());
        let mut line = self.line.lock();
        line.push_back(Arc::clone(&bell));
        self.len.store(line.len(), Ordering::SeqCst);
        if line.len() == 1 {
            // Room may have been made since this request found none, when nobody was here to be called.
            bell.notify_one();
        }
        drop(line);
        Place { queue: Arc::clone(self), bell }
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len.load(Ordering::SeqCst)
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// There may be room now: calls who stands first.
    pub fn call(&self) {
        if !self.is_empty()
            && let Some(first) = self.line.lock().front()
        {
            first.notify_one();
        }
    }

    /// There may be room elsewhere: calls all, in their order.
    pub fn call_all(&self) {
        if !self.is_empty() {
            self.line.lock().iter().for_each(|bell| bell.notify_one());
        }
    }
}

impl Place {
    /// Whether nobody stands before it.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.queue.line.lock().front().is_some_and(|first| Arc::ptr_eq(first, &self.bell))
    }

    /// Resolves when it is this place's turn to look for room; as often as there may be some.
    pub async fn called(&self) {
        self.bell.notified().await;
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.0.call();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut line = self.queue.line.lock();
        if let Some(at) = line.iter().position(|bell| Arc::ptr_eq(bell, &self.bell)) {
            line.remove(at);
            self.queue.len.store(line.len(), Ordering::SeqCst);
            if at == 0
                && let Some(first) = line.front()
            {
                first.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn is_called(place: &Place) -> bool {
        pin!(place.called()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_first_is_called_and_the_next_when_it_has_left() {
        let queue = Arc::new(Queue::default());
        let (first, second) = (queue.join(), queue.join());
        assert!(is_called(&first), "nobody is before it: it looks at once");
        assert!(!is_called(&second));
        queue.call();
        assert!(is_called(&first) && !is_called(&second));
        drop(first);
        assert!(is_called(&second), "there may be room for two");
        drop(second);
        assert!(queue.is_empty());
    }

    #[test]
    fn who_leaves_from_the_middle_leaves_no_trace() {
        let queue = Arc::new(Queue::default());
        let (first, second, third) = (queue.join(), queue.join(), queue.join());
        drop(second);
        assert_eq!(queue.len(), 2);
        assert!(!is_called(&third), "the first still stands before it");
        drop(first);
        assert!(is_called(&third));
    }

    #[test]
    fn a_call_before_the_place_is_awaited_is_not_lost() {
        let queue = Arc::new(Queue::default());
        let first = queue.join();
        assert!(is_called(&first));
        queue.call();
        assert!(is_called(&first));
        assert!(!is_called(&first), "a call is one call");
    }
}
