//! Which request is next among those that wait for the same place: the holders of API keys take turns.
//!
//! Deficit round robin (Shreedhar and Varghese, 1995), in which every request costs one: a holder whose turn it is has as
//! many requests served as its weight, then the next holder follows. So one that sends a thousand requests at once makes
//! another one wait for a turn, not for a thousand requests. Requests of one holder are served in their order, and
//! requests without a key are one holder's.

use std::collections::VecDeque;

/// Waiting requests, by who sent them. `K` is a holder, `T` what is kept of a request.
#[derive(Debug)]
pub struct Turns<K, T> {
    /// Holders with requests that wait. It is the first one's turn.
    holders: VecDeque<Waiting<K, T>>,
    len: usize,
    next_ticket: u64,
}

/// What one holder has waiting.
#[derive(Debug)]
struct Waiting<K, T> {
    holder: K,
    weight: u32,
    /// How many more are served before the next holder's turn; at least 1.
    credit: u32,
    /// By ticket, which increases; never empty.
    requests: VecDeque<(u64, T)>,
}

impl<K: PartialEq, T> Turns<K, T> {
    /// Adds a request of a holder, which has `weight` requests served in each of its turns. Returns the ticket with which
    /// the request leaves.
    pub fn join(&mut self, holder: K, weight: u32, request: T) -> u64 {
        let (ticket, weight) = (self.next_ticket, weight.max(1));
        self.next_ticket += 1;
        self.len += 1;
        match self.holders.iter_mut().find(|waiting| waiting.holder == holder) {
            Some(waiting) => {
                waiting.weight = weight;
                waiting.credit = waiting.credit.min(weight);
                waiting.requests.push_back((ticket, request));
            }
            None => {
                let requests = VecDeque::from([(ticket, request)]);
                self.holders.push_back(Waiting { holder, weight, credit: weight, requests });
            }
        }
        ticket
    }

    /// Makes room for a request of a holder where there is none: takes out the last request of the holder that has the most
    /// for its weight, if that is more than this holder would have. `None` if no room is made.
    pub fn displace(&mut self, holder: &K, weight: u32) -> Option<T> {
        let own = self.holders.iter().find(|waiting| waiting.holder == *holder).map_or(0, |own| own.requests.len());
        // Cross-multiplied, so that nothing is rounded.
        let largest = self
            .holders
            .iter_mut()
            .max_by(|a, b| (a.requests.len() * b.weight as usize).cmp(&(b.requests.len() * a.weight as usize)))?;
        // It keeps at least one, so the request that is next, and may have been called, stays.
        let is_more = largest.requests.len() * weight.max(1) as usize > (own + 1) * largest.weight as usize;
        let (_, request) = if is_more { largest.requests.pop_back() } else { None }?;
        self.len -= 1;
        Some(request)
    }

    /// The request that is next.
    #[must_use]
    pub fn first(&self) -> Option<&T> {
        self.holders.front()?.requests.front().map(|(_, request)| request)
    }

    /// All requests, those of the holder whose turn it is first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.holders.iter().flat_map(|waiting| waiting.requests.iter().map(|(_, request)| request))
    }

    /// Takes a request out. One that is `served` takes a part of its holder's turn. Returns whether another request is next
    /// now.
    pub fn leave(&mut self, ticket: u64, served: bool) -> bool {
        let find = |waiting: &Waiting<K, T>| waiting.requests.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok();
        let found = self.holders.iter().enumerate().find_map(|(index, waiting)| Some((index, find(waiting)?)));
        let Some((index, at)) = found else { return false };
        let waiting = &mut self.holders[index];
        waiting.requests.remove(at);
        waiting.credit -= u32::from(served);
        self.len -= 1;
        if waiting.requests.is_empty() {
            self.holders.remove(index);
        } else if waiting.credit == 0 {
            waiting.credit = waiting.weight;
            if let Some(waiting) = self.holders.remove(index) {
                self.holders.push_back(waiting);
            }
        }
        index == 0 && at == 0 && self.len > 0
    }

    /// How many requests wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no request waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<K, T> Default for Turns<K, T> {
    fn default() -> Turns<K, T> {
        Turns { holders: VecDeque::new(), len: 0, next_ticket: 0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Serves the next request and returns its name.
    fn serve(turns: &mut Turns<u32, (u64, &'static str)>) -> Option<&'static str> {
        let (ticket, name) = *turns.first()?;
        turns.leave(ticket, true);
        Some(name)
    }

    fn join(turns: &mut Turns<u32, (u64, &'static str)>, holder: u32, weight: u32, name: &'static str) {
        let ticket = turns.next_ticket;
        assert_eq!(turns.join(holder, weight, (ticket, name)), ticket);
    }

    fn served(mut turns: Turns<u32, (u64, &'static str)>) -> String {
        std::iter::from_fn(|| serve(&mut turns)).collect()
    }

    #[test]
    fn holders_take_turns() {
        let mut turns = Turns::default();
        for (holder, name) in [(1, "a"), (1, "b"), (1, "c"), (2, "x"), (1, "d"), (3, "o"), (2, "y")] {
            join(&mut turns, holder, 1, name);
        }
        assert_eq!(served(turns), "axobycd");
    }

    #[test]
    fn weight_is_requests_of_a_turn() {
        let mut turns = Turns::default();
        for name in ["a", "b", "c", "d", "e"] {
            join(&mut turns, 1, 3, name);
        }
        for name in ["x", "y", "z"] {
            join(&mut turns, 2, 1, name);
        }
        assert_eq!(served(turns), "abcxdeyz");
    }

    #[test]
    fn request_that_is_not_served_takes_no_turn() {
        let mut turns: Turns<u32, &str> = Turns::default();
        let [first, _, last] = ["a", "b", "c"].map(|name| turns.join(1, 1, name));
        turns.join(2, 1, "x");
        assert!(!turns.leave(last, false), "the first is still next");
        assert!(turns.leave(first, false));
        assert_eq!((turns.first(), turns.len()), (Some(&"b"), 2));
        assert!(!turns.leave(first, true), "it has left already");
        assert_eq!(turns.len(), 2);
    }

    #[test]
    fn holder_with_the_most_makes_room() {
        let mut turns = Turns::default();
        for name in ["a", "b", "c"] {
            join(&mut turns, 1, 1, name);
        }
        join(&mut turns, 2, 3, "x");
        assert_eq!(turns.displace(&1, 1), None, "it has the most");
        assert_eq!(turns.displace(&3, 1).map(|(_, name)| name), Some("c"));
        assert_eq!(turns.displace(&2, 3).map(|(_, name)| name), Some("b"));
        assert_eq!(turns.displace(&3, 1), None, "one each");
        assert_eq!((turns.len(), served(turns).as_str()), (2, "ax"));
    }

    proptest! {
        /// While all wait, what each had served is its weight for each round, to one turn.
        #[test]
        fn service_is_proportional_to_weights(weights in prop::collection::vec(1u32..9, 1..6), rounds in 1u32..5, more in 0u32..9) {
            let total: u32 = weights.iter().sum();
            let mut turns = Turns::default();
            for (holder, weight) in weights.iter().enumerate() {
                for _ in 0..weight * (rounds + 10) {
                    let ticket = turns.next_ticket;
                    turns.join(holder, *weight, (ticket, holder));
                }
            }
            let mut counts = vec![0; weights.len()];
            for _ in 0..total * rounds + more {
                let (ticket, holder) = *turns.first().unwrap();
                turns.leave(ticket, true);
                counts[holder] += 1;
            }
            let partial = more.div_ceil(total) + rounds;
            for (count, weight) in counts.into_iter().zip(&weights) {
                prop_assert!((rounds * weight..=partial * weight).contains(&count), "{count} of {weight} in {rounds}");
            }
        }

        /// Whatever happens: nothing is lost, a holder's requests keep their order, a holder is next within a round of the
        /// others, and `leave` reports when the next one changes.
        #[test]
        fn no_request_is_lost_or_passed_over(steps in prop::collection::vec((0u8..4, 0u32..5, 1u32..4, any::<prop::sample::Index>()), 1..200)) {
            let mut turns: Turns<u32, u64> = Turns::default();
            let mut model: Vec<(u64, u32)> = Vec::new();
            for (action, holder, weight, which) in steps {
                let first = turns.first().copied();
                match action {
                    0 | 1 => {
                        let ticket = turns.next_ticket;
                        turns.join(holder, weight, ticket);
                        model.push((ticket, holder));
                        prop_assert!(first.is_none() || turns.first().copied() == first, "a new one changes nothing");
                    }
                    _ if model.is_empty() => {}
                    2 => {
                        let (ticket, _) = model.remove(which.index(model.len()));
                        let changed = turns.leave(ticket, false);
                        prop_assert_eq!(changed, first == Some(ticket) && !model.is_empty());
                    }
                    _ => {
                        let ticket = first.unwrap();
                        let at = model.iter().position(|(other, _)| *other == ticket).unwrap();
                        let (_, holder) = model.remove(at);
                        prop_assert!(!model[..at].iter().any(|(_, other)| *other == holder), "out of order");
                        prop_assert_eq!(turns.leave(ticket, true), !model.is_empty());
                    }
                }
                prop_assert_eq!(turns.len(), model.len());
            }
        }
    }
}
