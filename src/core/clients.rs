//! What each client uses: its connections, and how often it asks.
//!
//! The table is bounded, and who uses nothing is not in it. It is cut into shards, each with a lock, a bound, and one entry
//! that those share who find it full. So an attacker with a million addresses makes strangers share with strangers, in
//! [`SHARDS`] groups that nobody can aim at; those that are known keep their own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::Millis;
use super::rate::{Limiter, Rate};

/// Who a client is to the limits: an IPv4 address, or a network of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientId(u64);

/// All clients that use something. Clones share it.
#[derive(Clone)]
pub struct Clients(Arc<Table>);

struct Table {
    shards: [Mutex<Shard>; SHARDS],
    /// How many clients a shard knows by themselves.
    most: usize,
    hasher: ahash::RandomState,
    swept: AtomicUsize,
}

#[derive(Default)]
struct Shard {
    known: HashMap<ClientId, Usage, ahash::RandomState>,
    /// Everybody else.
    others: Usage,
}

#[derive(Default)]
struct Usage {
    connections: u32,
    limiter: Limiter,
}

/// A connection of a client; it is given back when this drops.
pub struct Guest {
    clients: Clients,
    id: ClientId,
    /// Whether it counts for everybody else.
    other: bool,
}

impl ClientId {
    /// An IPv4 address.
    #[must_use]
    pub fn v4(address: u32) -> ClientId {
        // A source address is no multicast address, so no network of IPv6 begins like this.
        ClientId(u64::MAX << 32 | u64::from(address))
    }

    /// The /64 of an IPv6 address, which is the least that a customer is given (RFC 6177).
    #[must_use]
    pub fn v6(address: u128) -> ClientId {
        ClientId(u64::try_from(address >> 64).unwrap_or_default())
    }
}

impl Clients {
    /// A table that knows `most` clients by themselves, rounded up to a multiple of [`SHARDS`].
    #[must_use]
    pub fn new(most: usize) -> Clients {
        Clients(Arc::new(Table {
            shards: std::array::from_fn(|_| Mutex::default()),
            most: most.div_ceil(SHARDS),
            hasher: ahash::RandomState::new(),
            swept: AtomicUsize::new(0),
        }))
    }

    /// A connection of this client, if it has no more than `most` then.
    #[must_use]
    pub fn connect(&self, id: ClientId, most: u32) -> Option<Guest> {
        let (connected, other) = self.with(id, |usage| {
            let fits = usage.connections < most;
            usage.connections += u32::from(fits);
            fits
        });
        connected.then(|| Guest { clients: self.clone(), id, other })
    }

    /// Whether this client may ask now; if so, it is counted.
    ///
    /// # Errors
    ///
    /// If it may not: after how many milliseconds it may.
    pub fn ask(&self, id: ClientId, rate: Rate, now: Millis) -> Result<(), Millis> {
        self.make_room(id, now);
        self.with(id, |usage| usage.limiter.allow(rate, now)).0
    }

    /// How many clients are known by themselves.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.shards.iter().map(|shard| shard.lock().known.len()).sum()
    }

    /// Whether nobody is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets who uses nothing any more, in one shard: the next one at each call.
    pub fn sweep(&self, now: Millis) {
        let next = self.0.swept.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let mut shard = self.0.shards[next].lock();
        shard.known.retain(|_, usage| usage.connections > 0 || !usage.limiter.rested(now));
    }

    /// Forgets who has rested, if the client's shard is full and does not know it: a thousand entries are looked at.
    fn make_room(&self, id: ClientId, now: Millis) {
        let mut shard = self.shard(id).lock();
        if shard.known.len() >= self.0.most && !shard.known.contains_key(&id) {
            shard.known.retain(|_, usage| usage.connections > 0 || !usage.limiter.rested(now));
        }
    }

    /// Lets a client's usage be changed; and whether that is everybody else's.
    fn with<T>(&self, id: ClientId, change: impl FnOnce(&mut Usage) -> T) -> (T, bool) {
        let mut shard = self.shard(id).lock();
        let Shard { known, others } = &mut *shard;
        let full = known.len() >= self.0.most;
        match known.get_mut(&id) {
            Some(usage) => (change(usage), false),
            None if full => (change(others), true),
            None => (change(known.entry(id).or_default()), false),
        }
    }

    fn shard(&self, id: ClientId) -> &Mutex<Shard> {
        let hash = self.0.hasher.hash_one(id);
        &self.0.shards[usize::try_from(hash % SHARDS as u64).unwrap_or_default()]
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut shard = self.clients.shard(self.id).lock();
        if self.other {
            shard.others.connections -= 1;
            return;
        }
        let Some(usage) = shard.known.get_mut(&self.id) else { return };
        usage.connections -= 1;
        // Who has a rate to recover from goes with a sweep.
        if usage.connections == 0 && usage.limiter.rested(0) {
            shard.known.remove(&self.id);
        }
    }
}

/// Into how many parts the table is cut.
pub const SHARDS: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sweep_all(clients: &Clients, now: Millis) {
        (0..SHARDS).for_each(|_| clients.sweep(now));
    }

    #[test]
    fn who_is_who() {
        let network = 0x2001_0db8_0001_0002_u128 << 64;
        assert_eq!(ClientId::v6(network | 1), ClientId::v6(network | u128::from(u64::MAX)));
        assert_ne!(ClientId::v6(network), ClientId::v6(network + (1 << 64)));
        assert_ne!(ClientId::v4(1), ClientId::v4(2));
        assert_ne!(ClientId::v4(1), ClientId::v6(1), "::1 is not 0.0.0.1");
    }

    #[test]
    fn a_client_has_no_more_connections_than_it_may_and_gives_them_back() {
        let clients = Clients::new(1000);
        let (a, b) = (ClientId::v4(1), ClientId::v4(2));
        let first = clients.connect(a, 2).unwrap();
        let second = clients.connect(a, 2).unwrap();
        assert!(clients.connect(a, 2).is_none());
        let other = clients.connect(b, 2).unwrap();
        drop(first);
        assert!(clients.connect(a, 2).is_some());
        drop((second, other));
        assert!(clients.is_empty(), "who uses nothing is not in the table");
    }

    #[test]
    fn a_client_asks_as_often_as_it_may_and_is_forgotten_when_it_has_rested() {
        let clients = Clients::new(1000);
        let (a, b, rate) = (ClientId::v4(1), ClientId::v4(2), Rate::new(1, 1000, 2));
        assert_eq!(
            [clients.ask(a, rate, 0), clients.ask(a, rate, 0), clients.ask(a, rate, 0)],
            [Ok(()), Ok(()), Err(1000)]
        );
        assert_eq!(clients.ask(b, rate, 0), Ok(()));
        drop(clients.connect(b, 1));
        assert_eq!(clients.len(), 2, "a new connection is no new rate");
        sweep_all(&clients, 999);
        assert_eq!(clients.len(), 2);
        sweep_all(&clients, 1000);
        assert_eq!(clients.len(), 1);
        sweep_all(&clients, 2000);
        assert!(clients.is_empty());
    }

    #[test]
    fn who_finds_the_table_full_shares_and_who_was_there_does_not() {
        let clients = Clients::new(SHARDS);
        let rate = Rate::new(1, 1000, 1);
        let ids: Vec<ClientId> = (0..10_000).map(ClientId::v4).collect();
        let allowed = ids.iter().filter(|id| clients.ask(**id, rate, 0).is_ok()).count();
        assert_eq!(clients.len(), SHARDS);
        assert_eq!(allowed, 2 * SHARDS, "each shard's own, and one for all others of it");
        let guests: Vec<Guest> = ids.iter().filter_map(|id| clients.connect(*id, 3)).collect();
        assert_eq!(
            guests.len(),
            SHARDS + 3 * SHARDS,
            "each of the known has one, the others of a shard have three together"
        );
        drop(guests);
        sweep_all(&clients, 1000);
        assert!(clients.is_empty());
        assert_eq!(clients.ask(ids[0], rate, 1000), Ok(()));
    }

    #[test]
    fn who_has_rested_makes_room_for_who_comes() {
        let clients = Clients::new(SHARDS);
        let rate = Rate::new(1, 1000, 1);
        let allowed = |ids: std::ops::Range<u32>, now| {
            ids.map(ClientId::v4).filter(|id| clients.ask(*id, rate, now).is_ok()).count()
        };
        assert_eq!(allowed(0..10_000, 0), 2 * SHARDS);
        assert_eq!(allowed(10_000..20_000, 999), 0, "nobody has rested");
        assert_eq!(
            allowed(20_000..30_000, 1000),
            2 * SHARDS,
            "one of each shard by itself, not only as one of the others"
        );
        assert_eq!(clients.len(), SHARDS);
    }

    proptest! {
        /// Whatever comes and goes: nobody has more than it may, and in the end nothing is left.
        #[test]
        fn everything_that_was_taken_is_given_back(
            most in 1_usize..200,
            steps in prop::collection::vec((0_u32..300, 0_usize..50, 1_u32..4), 1..400),
        ) {
            let clients = Clients::new(most);
            let mut guests: Vec<Guest> = Vec::new();
            for (address, leaves, limit) in steps {
                guests.extend(clients.connect(ClientId::v4(address), limit));
                if leaves < guests.len() {
                    guests.swap_remove(leaves);
                }
                prop_assert!(clients.len() <= most.div_ceil(SHARDS) * SHARDS);
                prop_assert!(clients.len() <= guests.len());
            }
            drop(guests);
            prop_assert!(clients.is_empty());
            prop_assert!(clients.0.shards.iter().all(|shard| shard.lock().others.connections == 0));
        }
    }
}
