//! The requests that wait for room at one backend. [`Turns`] decides which one is next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::core::InFlight;
use crate::core::turns::Turns;

/// Waiting requests. Only the next one is called, and looks for room: there may be none, or room for several, in which case
/// each request that leaves calls the next.
#[derive(Default)]
pub struct Queue {
    turns: Mutex<Turns<Option<Arc<str>>, Arc<Call>>>,
    len: AtomicUsize,
}

/// A place in the queue; it is left when this drops.
pub struct Place {
    queue: Arc<Queue>,
    ticket: u64,
    call: Arc<Call>,
    is_served: bool,
}

/// How a request that waits is called.
#[derive(Default)]
struct Call {
    bell: Notify,
    /// Whether its place was given to another request.
    is_displaced: AtomicBool,
}

/// The holder of the API key of a request that waits.
#[derive(Clone, Debug)]
pub struct Waiter {
    /// The holder's name; `None` without a key.
    pub holder: Option<Arc<str>>,
    /// How many of the holder's requests are served in one turn.
    pub weight: u32,
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

    /// Takes the last place among those of this holder. If `max` requests wait already, another holder that has more than
    /// its share loses one; `None` if there is no such holder.
    #[must_use]
    pub fn join(self: &Arc<Self>, waiter: Waiter, max: usize) -> Option<Place> {
        let call = Arc::<Call>::default();
        let mut turns = self.turns.lock();
        if turns.len() >= max {
            let displaced = turns.displace(&waiter.holder, waiter.weight)?;
            displaced.is_displaced.store(true, Ordering::Release);
            displaced.bell.notify_one();
        }
        let ticket = turns.join(waiter.holder, waiter.weight, Arc::clone(&call));
        self.len.store(turns.len(), Ordering::SeqCst);
        if turns.len() == 1 {
            // Room may have been made since this request found none, when no request was here to be called.
            call.bell.notify_one();
        }
        drop(turns);
        Some(Place { queue: Arc::clone(self), ticket, call, is_served: false })
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

    /// There may be room now: calls the next request.
    pub fn call(&self) {
        if !self.is_empty()
            && let Some(first) = self.turns.lock().first()
        {
            first.bell.notify_one();
        }
    }

    /// There may be room elsewhere: calls all.
    pub fn call_all(&self) {
        if !self.is_empty() {
            self.turns.lock().iter().for_each(|call| call.bell.notify_one());
        }
    }
}

impl Place {
    /// Whether it is the next one.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.queue.turns.lock().first().is_some_and(|first| Arc::ptr_eq(first, &self.call))
    }

    /// Resolves when it is this place's turn to look for room; as often as there may be some.
    pub async fn called(&self) {
        self.call.bell.notified().await;
    }

    /// Whether another request has got the place, so that this one waits no more.
    #[must_use]
    pub fn is_displaced(&self) -> bool {
        self.call.is_displaced.load(Ordering::Acquire)
    }

    /// Leaves with the room that was waited for, which takes a part of the holder's turn.
    pub fn take_room(&mut self) {
        self.is_served = true;
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.0.call();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut turns = self.queue.turns.lock();
        let is_other_next = turns.leave(self.ticket, self.is_served);
        self.queue.len.store(turns.len(), Ordering::SeqCst);
        if is_other_next && let Some(first) = turns.first() {
            first.bell.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn join(queue: &Arc<Queue>, holder: Option<&str>) -> Place {
        queue.join(Waiter { holder: holder.map(Arc::from), weight: 1 }, 4).unwrap()
    }

    fn is_called(place: &Place) -> bool {
        pin!(place.called()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_first_is_called_and_the_next_when_it_has_left() {
        let queue = Arc::new(Queue::default());
        let (first, second) = (join(&queue, None), join(&queue, None));
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
        let (first, second, third) = (join(&queue, None), join(&queue, None), join(&queue, None));
        drop(second);
        assert_eq!(queue.len(), 2);
        assert!(!is_called(&third), "the first still stands before it");
        drop(first);
        assert!(is_called(&third));
    }

    #[test]
    fn a_call_before_the_place_is_awaited_is_not_lost() {
        let queue = Arc::new(Queue::default());
        let first = join(&queue, None);
        assert!(is_called(&first));
        queue.call();
        assert!(is_called(&first));
        assert!(!is_called(&first), "a call is one call");
    }

    #[test]
    fn holders_are_called_in_turns() {
        let queue = Arc::new(Queue::default());
        let [first, second, third] = [(); 3].map(|()| join(&queue, Some("batch")));
        let person = join(&queue, Some("person"));
        assert!(is_called(&first) && !is_called(&person));
        let mut first = first;
        first.take_room();
        drop(first);
        assert!(is_called(&person) && !is_called(&second));
        drop(person);
        assert!(is_called(&second));
        drop(second);
        assert!(is_called(&third));
    }

    #[test]
    fn full_queue_displaces_the_last_of_the_largest_holder() {
        let queue = Arc::new(Queue::default());
        let [first, second, third, last] = [(); 4].map(|()| join(&queue, Some("batch")));
        let batch = Waiter { holder: Some("batch".into()), weight: 1 };
        assert!(queue.join(batch, 4).is_none(), "its own");
        let person = join(&queue, Some("person"));
        assert!(is_called(&last) && last.is_displaced() && !person.is_displaced());
        assert_eq!(queue.len(), 4);
        drop(last);
        assert_eq!(queue.len(), 4, "it has left already");
        drop((first, second, third));
        assert!(is_called(&person));
    }
}
