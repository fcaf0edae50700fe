//! What a pool is built from.

use super::super::Millis;
use super::super::hash::Seed;
use super::super::health::Thresholds;

/// One of a pool's backends: names are their identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSpec {
    /// The backend's name, unique in the pool.
    pub name: String,
    /// 1 to 1000.
    pub weight: u32,
    /// 0 first.
    pub priority: u32,
    /// Whether it begins out of rotation.
    pub draining: bool,
}

/// How a pool selects.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The seed of the placement hash.
    pub seed: Seed,
    /// How requests with a session are placed.
    pub policy: Policy,
    /// How many gateways with this config share the backends, at least 1.
    pub gateways: u32,
    /// How requests without a session are spread.
    pub balance: Balance,
    /// Whether to try backends that are not healthy when nobody is.
    pub fail_open: bool,
    /// Whether a session that was displaced stays where its cache is, until it has been idle.
    pub stay_put: bool,
    /// After how long a silent session's cache counts as cold.
    pub idle_ttl: Millis,
    /// The bound of the table of displaced sessions.
    pub max_displaced: usize,
    /// The bound of the table of known sessions.
    pub max_sessions: usize,
    /// When backends change their state of health.
    pub thresholds: Thresholds,
    /// How much a backend may have to do.
    pub overload: Overload,
    /// For how long a backend that recovered or joined gets less than its share of what is new; 0: not at all.
    pub slow_start: Millis,
    /// What becomes of the sessions of a backend that drains.
    pub drain: Drain,
}

/// How requests with a session are placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// At the first of the preference order that has room.
    ConsistentHash,
    /// Where the first token is expected soonest.
    LeastTtft,
}

/// How requests without a session are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// By turns, in proportion to the weights.
    RoundRobin,
    /// To whoever has the fewest requests for its weight.
    LeastRequests,
}

/// How much a backend may have to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Overload {
    /// The most requests that may be at one backend, whatever its weight.
    pub max_in_flight: MaxInFlight,
    /// A session leaves a backend that has more than this many times its weight's share of all requests; above 1.
    /// Only with [`Policy::ConsistentHash`]: the other policy weighs load by itself.
    pub balance_factor: Option<f64>,
    /// So many requests a backend may have whatever its share is.
    pub balance_floor: u32,
    /// The most requests that may wait for room at one backend; 0: none waits.
    pub max_waiting: u32,
}

impl Overload {
    /// No limit of any kind.
    pub const OFF: Overload =
        Overload { max_in_flight: MaxInFlight::Off, balance_factor: None, balance_floor: 1, max_waiting: 0 };
}

/// The most requests that may be at one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxInFlight {
    /// No limit.
    Off,
    /// This many.
    Fixed(u32),
    /// As many as the backend says it works on at once; no limit while it has not said so.
    Auto,
}

/// What becomes of the sessions of a backend that drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long they may go on there.
    pub sessions: DrainSessions,
    /// After how long even they leave; `None`: they need not.
    pub deadline: Option<Millis>,
}

/// How long the sessions of a backend that drains may go on there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainSessions {
    /// Each until it has been idle.
    UntilIdle,
    /// Not at all: what runs there finishes, nothing begins.
    AtOnce,
}
