//! What is known of one request while it is in flight.

use std::sync::Arc;

use super::access::Asker;
use super::body::Body;
use super::client::Connection;
use super::cors::Cors;
use super::first_token::Opening;
use super::form::Form;
use super::head::Head;
use super::record::Record;
use crate::api::usage::UsageReader;
use crate::api::{Api, Kind};
use crate::core::{Ask, Millis, Patience, Selection, SessionKey, Tried, Verdict};
use crate::gateway::Gateway;
use crate::gauge::Share;
use crate::link::{Cut, Link, Seat};
use crate::metrics::BrokenCause;
use crate::snapshot::Snapshot;

/// One request.
pub(super) struct Ctx {
    /// The snapshot it started with, and keeps from its first attempt on.
    pub(super) snapshot: Arc<Snapshot>,
    /// The connection it came on.
    pub(super) connection: Arc<Connection>,
    /// What its head says.
    pub(super) form: Form,
    /// Its head, ready for backends.
    pub(super) head: Head,
    /// The page of another origin that sent it, if the gateway serves such pages.
    pub(super) cors: Option<Box<Cors>>,
    /// Who sent it.
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
    /// The API that was called.
    pub(super) api: Api,
    /// What it asks of a backend.
    pub(super) kind: Kind,
    /// Whether the response is an error, which shows nothing of the backend's speed.
    pub(super) is_error: bool,
    /// Whether the response is a stream of events, whose first bytes are the first token.
    pub(super) streams: bool,
    /// How much of a stream has reached the client.
    pub(super) opening: Opening,
    /// Whether its session is away from home, at a backend that has started to answer it.
    pub(super) landed: bool,
    /// The last answer of a backend that made another attempt necessary.
    pub(super) turned_away: Option<TurnedAway>,
    /// Why the last attempt was cut, if it was.
    pub(super) cut: Option<Cut>,
    /// What broke the last attempt off, if its client did not.
    pub(super) broken: Option<BrokenCause>,
    /// Reads the figures of the response, if it can have any.
    pub(super) usage: Option<UsageReader>,
    /// When it started.
    pub(super) started: Millis,
    /// Everything that is counted, when this drops.
    pub(super) record: Record,
    /// Its place at the backend.
    pub(super) seat: Option<Seat>,
    _serving: Option<Share>,
    /// That it was refused for lack of room.
    pub(super) refused: Option<Share>,
}

/// An answer of a backend that is not the request's, such as "not now".
#[derive(Clone, Debug, Default)]
pub(super) struct TurnedAway {
    pub(super) status: u16,
    pub(super) retry_after: Option<Vec<u8>>,
    /// What the backend wrote for people; may be empty.
    pub(super) message: String,
}

impl Ctx {
    pub(super) fn new(gateway: &Arc<Gateway>, connection: &Arc<Connection>) -> Ctx {
        let snapshot = gateway.snapshot.load_full();
        Ctx {
            connection: Arc::clone(connection),
            form: Form::default(),
            head: Head::default(),
            cors: None,
            asker: Asker::default(),
            key: None,
            bytes: 0,
            body: Body::Empty,
            selection: None,
            tried: Tried::default(),
            waited: false,
            api: Api::default(),
            kind: Kind::default(),
            is_error: false,
            streams: false,
            opening: Opening::default(),
            landed: false,
            turned_away: None,
            cut: None,
            broken: None,
            usage: None,
            started: gateway.clock.now(),
            record: Record::new(Arc::clone(gateway), Arc::clone(&snapshot), connection.streams.clone()),
            seat: None,
            _serving: gateway.requests.take(1, usize::MAX),
            refused: None,
            snapshot,
        }
    }

    /// Whether it is a preflight of a browser.
    pub(super) fn is_preflight(&self) -> bool {
        self.cors.as_ref().is_some_and(|cors| cors.is_preflight())
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

    /// Selects a backend.
    pub(super) fn select(&self, patience: Patience) -> Verdict {
        self.snapshot.pool.select(&self.ask(patience), &self.tried, self.now())
    }

    /// Goes on with the snapshot that new requests get, while it waits: the backend that it waits for can have been added by
    /// a reload. It is still the same session, and has still been where it was.
    pub(super) fn renew(&mut self) {
        let new = self.gateway().snapshot.load_full();
        let old = &self.snapshot;
        let is_same =
            new.config.pool().name == old.config.pool().name && new.pool.settings().seed == old.pool.settings().seed;
        if Arc::ptr_eq(&new, old) || !is_same {
            return;
        }
        let id = |member: usize| old.pool.members()[member].backend.id();
        let number = |member| new.pool.members().iter().position(|other| other.backend.id() == id(member));
        self.tried = self.tried.renumbered(number);
        self.selection = None;
        self.snapshot = new;
    }

    /// The link to the backend where the request is now.
    pub(super) fn link(&self) -> Option<&Arc<Link>> {
        self.snapshot.links.get(self.selection?.member)
    }
}
