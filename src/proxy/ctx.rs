//! What is known of one request while it is under way.

use std::sync::Arc;

use http::StatusCode;

use super::body::Body;
use super::connections::Busy;
use super::form::Form;
use super::http2::Streams;
use super::record::Record;
use crate::core::usage::Tail;
use crate::core::{InFlight, Millis, Selection, SessionKey, Tried};
use crate::gateway::{Gateway, Share};
use crate::link::{Attempt, Cut, Link};
use crate::snapshot::Snapshot;

/// One request.
pub struct Ctx {
    /// The snapshot it began with, and keeps.
    pub(super) snapshot: Arc<Snapshot>,
    /// What its head says.
    pub(super) form: Form,
    /// Its session, if it has one.
    pub(super) key: Option<SessionKey>,
    /// Its body, as far as it is held.
    pub(super) body: Body,
    /// Where it is now.
    pub(super) selection: Option<Selection>,
    /// Where it has been.
    pub(super) tried: Tried,
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
    pub(super) in_flight: Option<InFlight>,
    _serving: Option<Share>,
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
            key: None,
            body: Body::Empty,
            selection: None,
            tried: Tried::default(),
            landed: false,
            again: None,
            turned_away: None,
            cut: None,
            tail: None,
            begun: gateway.clock.now(),
            record: Record::new(Arc::clone(gateway), Arc::clone(&snapshot), Streams::of_this()),
            attempt: None,
            in_flight: None,
            _serving: gateway.requests.take(1, usize::MAX),
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

    /// The link to the backend where the request is now.
    pub(super) fn link(&self) -> Option<&Arc<Link>> {
        self.snapshot.links.get(self.selection?.member)
    }

    /// The request is no longer at its backend.
    pub(super) fn leave(&mut self) {
        self.cut = self.attempt.take().and_then(|attempt| attempt.cut());
        self.in_flight = None;
    }
}
