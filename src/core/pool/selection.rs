//! What a pool is asked, and what it answers.

use super::super::session::SessionKey;
use super::super::ttft::Expected;

/// What a backend is selected for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The request's session, if it has one.
    pub key: Option<SessionKey>,
    /// The length of its body, which stands for the length of its prompt; 0 if that is not known.
    pub bytes: u64,
    /// Whether it would wait for room.
    pub patience: Patience,
}

/// Whether a request waits for room, or goes elsewhere at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// It would wait, if there is a place in the queue.
    Waits,
    /// It would wait, and another request may have to leave the queue for it.
    Displaces,
    /// It has waited at this member, which has called it: those who wait there are behind it.
    Called(usize),
    /// It waits at this member, behind others.
    InLine(usize),
    /// It does not wait, or has waited for long enough and counts no longer as waiting.
    Spills,
    /// It takes no slot, so it needs no room, and no limit is about it.
    NeedsNoRoom,
}

impl Ask {
    /// A request that waits for nobody.
    #[must_use]
    pub fn new(key: Option<SessionKey>, bytes: u64) -> Ask {
        Ask { key, bytes, patience: Patience::Spills }
    }
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There.
    Go(Selection),
    /// It should wait for room: all that is wrong with where its cache is known to be is that it is full or has too much to
    /// do; or all are full. Only for those that wait already or have [`Patience::Waits`] or [`Patience::Displaces`].
    Wait {
        /// The member's index in [`Pool::members`](super::Pool::members).
        member: usize,
        /// What it waits for: the end of [`Reason::MaxInFlight`] or [`Reason::Balance`].
        reason: Reason,
    },
    /// Nowhere: whoever could take it has as many requests as it may have.
    Full,
    /// Nowhere: nobody is available.
    Nobody,
}

impl Verdict {
    /// The backend that was selected, if one was.
    #[must_use]
    pub fn selection(self) -> Option<Selection> {
        match self {
            Verdict::Go(selection) => Some(selection),
            Verdict::Wait { .. } | Verdict::Full | Verdict::Nobody => None,
        }
    }
}

/// A backend was selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The member's index in [`Pool::members`](super::Pool::members).
    pub member: usize,
    /// What became of the affinity.
    pub affinity: Affinity,
    /// Why it is not at home, or not where it was; with [`Affinity::Failover`], [`Affinity::Spilled`],
    /// [`Affinity::FailOpen`], and when it leaves the place where it stayed for home.
    pub reason: Option<Reason>,
    /// What is expected of it there: with [`Policy::LeastTtft`](super::Policy::LeastTtft) from what is known of the
    /// session, else only from its length.
    pub expected: Expected,
    /// Whether it is to show whether the backend answers well by now; see [`Trials`](crate::core::health::Trials).
    pub is_trial: bool,
}

/// What became of a request's affinity; the label and header value of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Affinity {
    /// At home.
    Home,
    /// Away from home, where its cache is.
    Stayed,
    /// Sent elsewhere because home is not available.
    Failover,
    /// Sent elsewhere because home is too busy.
    Spilled,
    /// No session: balanced.
    Balanced,
    /// Nobody is healthy: tried all the same.
    FailOpen,
}

impl Affinity {
    /// All outcomes, in the order in which metrics list them.
    pub const ALL: [Affinity; 6] = [
        Affinity::Home,
        Affinity::Stayed,
        Affinity::Failover,
        Affinity::Spilled,
        Affinity::Balanced,
        Affinity::FailOpen,
    ];

    /// The name in metrics, headers and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Affinity::Home => "home",
            Affinity::Stayed => "stayed",
            Affinity::Failover => "failover",
            Affinity::Spilled => "spilled",
            Affinity::Balanced => "balanced",
            Affinity::FailOpen => "fail_open",
        }
    }
}

/// Why a request is not at home, or not where its session was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// That backend does not serve.
    Unhealthy,
    /// It drains, and the session has no cache there worth going for.
    Draining,
    /// This request has been there already.
    Tried,
    /// It has as many requests as it may have.
    MaxInFlight,
    /// It has too much of what there is to do.
    Balance,
    /// It has begun to serve a short while ago, and this session is new there.
    SlowStart,
    /// Another one will probably have the first token sooner.
    Faster,
    /// It leaves requests without output for far longer than others do, and this session has no cache there.
    Stalled,
}

impl Reason {
    /// All reasons, in the order in which metrics list them.
    pub const ALL: [Reason; 8] = [
        Reason::Unhealthy,
        Reason::Draining,
        Reason::Tried,
        Reason::MaxInFlight,
        Reason::Balance,
        Reason::SlowStart,
        Reason::Faster,
        Reason::Stalled,
    ];

    /// The name in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Unhealthy => "unhealthy",
            Reason::Draining => "draining",
            Reason::Tried => "tried",
            Reason::MaxInFlight => "max_in_flight",
            Reason::Balance => "balance",
            Reason::SlowStart => "slow_start",
            Reason::Faster => "faster",
            Reason::Stalled => "stalled",
        }
    }

    /// The outcome of a request that is elsewhere for this reason: the backend could not have taken it, or was too busy.
    #[must_use]
    pub fn affinity(self) -> Affinity {
        match self {
            Reason::Unhealthy | Reason::Draining | Reason::Tried => Affinity::Failover,
            Reason::MaxInFlight | Reason::Balance | Reason::SlowStart | Reason::Faster | Reason::Stalled => {
                Affinity::Spilled
            }
        }
    }
}

/// The members that a request has been to, which it does not go to again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    len: usize,
    members: [usize; MAX_ATTEMPTS],
}

impl Tried {
    /// Notes an attempt at a member. Beyond [`MAX_ATTEMPTS`] nothing more is noted: nobody makes more.
    pub fn push(&mut self, member: usize) {
        if self.len < MAX_ATTEMPTS {
            self.members[self.len] = member;
            self.len += 1;
        }
    }

    /// The same in a pool where members have other numbers, or are gone.
    #[must_use]
    pub fn renumbered(&self, number: impl Fn(usize) -> Option<usize>) -> Tried {
        let mut tried = Tried::default();
        self.members[..self.len].iter().filter_map(|member| number(*member)).for_each(|member| tried.push(member));
        tried
    }

    /// Whether the request has been to this member.
    #[must_use]
    pub fn contains(&self, member: usize) -> bool {
        self.members[..self.len].contains(&member)
    }
}

/// The most attempts that `retry.max_attempts` allows.
pub const MAX_ATTEMPTS: usize = 16;
