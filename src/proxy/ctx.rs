//! What is known of one request while it is under way.

use std::sync::Arc;

use http::StatusCode;

use super::access::Asker;
use super::body::Body;
use super::connections::Busy;
use super::form::Form;
use super::http2::Streams;
use super::record::Record;
use crate::core::usage::Tail;
use crate::core::{Ask, Millis, Patience, Selection, SessionKey, Tried, Verdict};
use crate::gateway::Gateway;
use crate::gauge::Share;
use crate::link::{Attempt, Cut, Link, Seat};
use crate::snapshot::Snapshot;

/// One request.
pub struct Ctx {
    /// The snapshot it began with, and keeps.
    pub(super) snapshot: Arc<Snapshot>,
    /// What its head says.
    pub(super) form: Form,
    /// Who asks.
    pub(super) asker: Asker,
    /// Its session, if it has one.
    pub(super) key: Option<SessionKey>,
    /// The length of its body, or 0 if that is not known before a backend is selected.
    pub(super) bytes: u64,
    /// Its body, as far as it is held.
    pub(super) body: Body,
    /// Where it is now.
    pub(super) selection: Option<Selection>,
    /// Where it has been.
    pub(super) tried: Tried,
    /// Whether it has waited for room, which it does once.
    pub(super) waited: bool,
    /// Whether the response is a stream of events, whose first bytes are the first token.
    pub(super) streams: bool,
    /// Whether its session is away from home, on a backend that has begun to answer it.
    pub(super) landed: bool,
    /// A member that is to be tried again at once, on a fresh connection.
    pub(super) again: Option<usize>,
    /// What the last backend answered, if that made another attempt necessary.
    pub(super) turned_away: Option<TurnedAway>,
    /// Why the last attempt was cut, if it was.
    pub(super) cut: Option<Cut>,
    /// The end of the response, if it may have usage figures.
    pub(super) tail: Option<Tail>,
    /// When it began.
    pub(super) begun: Millis,
    /// Everything that is counted, when this drops.
    pub(super) record: Record,
    pub(super) attempt: Option<Attempt>,
    pub(super) seat: Option<Seat>,
    _serving: Option<Share>,
    /// That it was refused for want of room.
    pub(super) refused: Option<Share>,
    pub(super) busy: Busy,
}

/// A backend said: not now.
#[derive(Clone, Debug)]
pub(super) struct TurnedAway {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<http::HeaderValue>,
}

impl Ctx {
    pub(super) fn new(gateway: &Arc<Gateway>) -> Ctx {
        let snapshot = gateway.snapshot.load_full();
        Ctx {
            form: Form::default(),
            asker: Asker::default(),
            key: None,
            bytes: 0,
            body: Body::Empty,
            selection: None,
            tried: Tried::default(),
            waited: false,
            streams: false,
            landed: false,
            again: None,
            turned_away: None,
            cut: None,
            tail: None,
            begun: gateway.clock.now(),
            record: Record::new(Arc::clone(gateway), Arc::clone(&snapshot), Streams::of_this()),
            attempt: None,
            seat: None,
            _serving: gateway.requests.take(1, usize::MAX),
            refused: None,
            busy: Busy::default(),
            snapshot,
        }
    }

    pub(super) fn gateway(&self) -> &Arc<Gateway> {
        self.record.gateway()
    }

    pub(super) fn now(&self) -> Millis {
        self.gateway().clock.now()
    }

    /// What a backend is selected for.
    pub(super) fn ask(&self, patience: Patience) -> Ask {
        Ask { key: self.key, bytes: self.bytes, patience }
    }

    /// Asks the pool where to go.
    pub(super) fn select(&self, patience: Patience) -> Verdict {
        self.snapshot.pool.select(&self.ask(patience), &self.tried, self.now())
    }

    /// The link to the backend where the request is now.
    pub(super) fn link(&self) -> Option<&Arc<Link>> {
        self.snapshot.links.get(self.selection?.member)
    }

    /// The request is no longer at its backend.
    pub(super) fn leave(&mut self) {
        self.cut = self.attempt.take().and_then(|attempt| attempt.cut());
        self.seat = None;
    }
}
