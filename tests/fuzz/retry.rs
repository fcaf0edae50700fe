//! What is tried again and where: the decisions of the core, put together as the shell does, against the README's table.
//!
//! An input is a pool and its settings, then requests, and for each of them what becomes of each of its attempts.

use std::collections::VecDeque;

use ingle::core::answer::Answer;
use ingle::core::budget::RetryBudget;
use ingle::core::health::ErrorAnswer;
use ingle::core::pool::{
    Balance, Drain, DrainSessions, MAX_ATTEMPTS, MaxInFlight, MemberSpec, Overload, Policy, Settings,
};
use ingle::core::retry::{Again, Failure, RetryReason, Standing, is_not_now};
use ingle::core::{Ask, Cause, Millis, Observation, Patience, Pool, Seed, SessionKey, Thresholds, Tried, Verdict};
use ingle::sse::ErrorClass;

use crate::input::Input;

pub(crate) fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut world = World::new(&mut input);
    while !input.is_empty() {
        world.now += [0, 1, 300, 1000, 5000, 20_000][input.below(6)];
        match input.below(8) {
            0 => world.probe(&mut input),
            1 => world.drain(&mut input),
            _ => {
                let request = Request::new(&mut input);
                let got = world.send(&request, input);
                promises(&got, world.max_attempts);
                let order = request.key.map(|key| world.pool.order(key));
                let (expected, rest) = world.model.send(&request, order.as_deref(), world.now, &got, input);
                assert_eq!(got, expected, "{request:?}, {:?}", world.model);
                input = rest;
            }
        }
        world.same_health();
    }
}

/// What a backend does to one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Answer(u16),
    /// It begins to answer, and dies.
    Begin,
    Refuse,
    Close,
    /// It had closed the connection, if it was one from before; on a fresh one it answers with 200.
    Stale,
    /// It closes a connection from before after it has worked on the request for a while.
    CloseLate,
    /// It sends nothing until `first_byte` is over; whether others of the pool produce output meanwhile.
    Silent(bool),
    /// It sends a head and no output until `first_token` is over; whether others of the pool produce output meanwhile.
    SilentStream(bool),
    /// It sends a head, and dies before its first output.
    EndStream,
    /// Its first event is an error.
    Event(ErrorClass),
    /// It is found to be dead meanwhile.
    Dead,
    Junk,
    /// It goes on past `timeouts.total`; or its client sends too slowly.
    Over,
}

impl Does {
    fn read(input: &mut Input<'_>) -> Does {
        match input.below(20) {
            0..3 => Does::Answer(input.pick(&[429, 502, 503])),
            3..5 => Does::Answer(input.pick(&[200, 200, 400, 404, 500, 504])),
            5 => Does::Begin,
            6 | 7 => Does::Refuse,
            8 | 9 => Does::Close,
            10 => Does::Stale,
            11 => Does::CloseLate,
            12 => Does::Silent(input.flip()),
            13 => Does::Dead,
            14 => Does::Junk,
            15 => Does::SilentStream(input.flip()),
            16 => Does::EndStream,
            17 | 18 => Does::Event(input.pick(&CLASSES)),
            _ => Does::Over,
        }
    }
}

const CLASSES: [ErrorClass; 4] =
    [ErrorClass::Unavailable, ErrorClass::RateLimited, ErrorClass::Failed, ErrorClass::Answer];

#[derive(Clone, Copy, Debug)]
struct Request {
    key: Option<SessionKey>,
    /// Whether its body can be sent again after it was sent; else only if none of it was.
    held: bool,
}

impl Request {
    fn new(input: &mut Input<'_>) -> Request {
        let key = (input.below(4) > 0).then(|| SessionKey::from_bits(u64::from(input.byte())));
        Request { key, held: input.below(4) > 0 }
    }
}

/// What became of a request: each try with its backend, and the end of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Course {
    tries: Vec<(String, Does)>,
    end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The answer of the last try passes, if only its beginning.
    Passes,
    /// The gateway answers.
    Fails,
    Nobody,
}

/// What holds whatever happens.
fn promises(course: &Course, max_attempts: usize) {
    let names: Vec<&str> = course.tries.iter().map(|(name, _)| name.as_str()).collect();
    let mut places = names.clone();
    places.dedup();
    assert!(places.len() <= max_attempts, "too many attempts: {course:?}");
    for (at, place) in places.iter().enumerate() {
        assert!(!places[at + 1..].contains(place), "back at a backend that had failed: {course:?}");
        assert!(names.iter().filter(|name| *name == place).count() <= 2, "more than one fresh connection: {course:?}");
    }
    let before = &course.tries[..course.tries.len().saturating_sub(1)];
    let output =
        |does: &Does| matches!(does, Does::Begin | Does::Answer(200 | 400 | 404) | Does::Event(ErrorClass::Answer));
    let begun = before.iter().any(|(_, does)| output(does));
    assert!(!begun, "sent again after a byte had reached the client: {course:?}");
}

/// An attempt of a request.
struct Sent<'a> {
    fresh: bool,
    held: bool,
    attempts: usize,
    tried: &'a Tried,
    /// Whether the server has failed with an error event in an earlier attempt.
    failed_before: bool,
}

/// The code, as the shell uses it.
struct World {
    pool: Pool,
    budget: RetryBudget,
    max_attempts: usize,
    now: Millis,
    model: Model,
}

const THRESHOLDS: Thresholds = Thresholds { healthy: 2, unhealthy: 3, errors: 4 };

impl World {
    fn new(input: &mut Input<'_>) -> World {
        let specs: Vec<MemberSpec> = (0..1 + input.below(6))
            .map(|n| MemberSpec {
                name: format!("b{n}"),
                weight: input.pick(&[1, 1, 2, 1000]),
                priority: input.pick(&[0, 0, 0, 1]),
                draining: false,
            })
            .collect();
        let fail_open = input.flip();
        let (max_attempts, share) = (1 + input.below(MAX_ATTEMPTS), input.pick(&[0.0, 0.2, 1.0]));
        let pool = Pool::new(&specs, settings(fail_open));
        for member in pool.members() {
            member.backend.observe(Observation::ProbeOk, THRESHOLDS, 0);
        }
        let tiers =
            specs.into_iter().map(|spec| Backend { name: spec.name, tier: spec.priority, ..Backend::default() });
        let model = Model { backends: tiers.collect(), fail_open, max_attempts, share, ..Model::default() };
        World { pool, budget: RetryBudget::new(share), max_attempts, now: 100_000, model }
    }

    fn probe(&mut self, input: &mut Input<'_>) {
        let (at, ok) = (input.below(self.pool.members().len()), input.flip());
        let seen = if ok { Observation::ProbeOk } else { Observation::ProbeFailed };
        self.pool.members()[at].backend.observe(seen, THRESHOLDS, self.now);
        self.model.backends[at].probe(ok, self.now);
    }

    fn drain(&mut self, input: &mut Input<'_>) {
        let (at, draining) = (input.below(self.pool.members().len()), input.flip());
        self.pool.members()[at].backend.set_draining(draining, self.now);
        self.model.backends[at].draining = draining;
    }

    /// One request, from `proxy/attempt.rs` to `proxy/retry.rs` and back, until it has ended.
    fn send(&mut self, request: &Request, mut input: Input<'_>) -> Course {
        self.budget.request(self.now);
        let (mut tried, mut attempts, mut course) = (Tried::default(), 0, Course::default());
        let (mut selection, mut again, mut failed_before) = (None, Again::Elsewhere, false);
        loop {
            if again == Again::Elsewhere {
                let ask = Ask { key: request.key, bytes: 0, patience: Patience::Spills };
                let Verdict::Go(next) = self.pool.select(&ask, &tried, self.now) else {
                    course.end = Some(End::Nobody);
                    return course;
                };
                tried.push(next.member);
                attempts += 1;
                selection = Some(next);
            }
            let selection = selection.unwrap();
            let here = self.pool.enter(&selection, self.now);
            // A body that can be sent only once goes over a fresh connection from the start.
            let fresh = again == Again::There || !request.held;
            let does = Does::read(&mut input);
            course.tries.push((self.pool.members()[selection.member].backend.name().to_owned(), does));
            assert!(course.tries.len() <= 2 * self.max_attempts, "the tries have no end: {course:?}");
            let sent = Sent { fresh, held: request.held, attempts, tried: &tried, failed_before };
            again = self.after(selection.member, does, &sent);
            failed_before |= does == Does::Event(ErrorClass::Failed);
            drop(here);
            if again == Again::No {
                let answers = [Does::Begin, Does::Event(ErrorClass::Answer)];
                let begun = matches!(does, Does::Answer(_)) || answers.contains(&does) || does == Does::Stale && fresh;
                course.end = Some(if begun { End::Passes } else { End::Fails });
                return course;
            }
        }
    }

    /// What the shell asks and notes after what a backend did.
    fn after(&self, at: usize, does: Does, sent: &Sent<'_>) -> Again {
        let Sent { fresh, failed_before, .. } = *sent;
        let backend = &self.pool.members()[at].backend;
        let observe = |seen| backend.observe(seen, THRESHOLDS, self.now);
        let failure = match does {
            Does::Answer(status) if is_not_now(status) || status >= 500 && !backend.state().serves() => {
                Failure::TurnedAway(status)
            }
            Does::Answer(_) | Does::Begin | Does::Event(ErrorClass::Answer) => return self.passes(at, does),
            Does::Stale if fresh => return self.passes(at, Does::Answer(200)),
            Does::Refuse => Failure::Connect,
            Does::Close => Failure::Closed { reused: false, after: 0 },
            Does::Stale => Failure::Closed { reused: true, after: 999 },
            Does::CloseLate => Failure::Closed { reused: !fresh, after: 1000 },
            Does::Silent(_) => Failure::FirstByte,
            Does::SilentStream(_) => Failure::FirstToken,
            Does::EndStream => Failure::DiedBeforeToken,
            Does::Event(class) => {
                self.answered(at, [429, 503, 500, 400][class as usize]);
                Failure::ErrorEvent { class, again: failed_before }
            }
            Does::Dead => {
                for _ in 0..THRESHOLDS.unhealthy {
                    observe(Observation::ProbeFailed);
                }
                Failure::Unhealthy
            }
            Does::Junk => Failure::Malformed,
            Does::Over => Failure::Over,
        };
        let turned_away = failure.reason() == Some(RetryReason::Status);
        let cause = failure.cause(|| matches!(does, Does::Silent(true) | Does::SilentStream(true)));
        // An answer is given up only after that was allowed, and counts against its backend after it was given up.
        if !turned_away && let Some(cause) = cause {
            observe(Observation::TrafficFailed(cause));
        }
        let standing = Standing {
            replayable: sent.held || does == Does::Refuse,
            another: sent.attempts < self.max_attempts && self.pool.has_another(Patience::Spills, sent.tried),
        };
        let again = failure.reason().map(|reason| reason.again(standing, || self.budget.retry(self.now)));
        match again.unwrap_or(Again::No) {
            Again::No if turned_away => self.passes(at, does),
            again => {
                if let Failure::TurnedAway(status) = failure {
                    self.answered(at, status);
                }
                again
            }
        }
    }

    /// The head of an answer passes.
    fn passes(&self, at: usize, does: Does) -> Again {
        let status = match does {
            Does::Answer(status) => status,
            Does::Event(_) => 400,
            _ => 200,
        };
        self.answered(at, status);
        Again::No
    }

    /// All errors are of one session, and nothing has produced anything.
    fn answered(&self, at: usize, status: u16) {
        let seen = match Answer::of(status, true) {
            Answer::Good => Observation::TrafficOk,
            Answer::Neutral => Observation::TrafficAnswered,
            Answer::BadGateway => Observation::TrafficFailed(Cause::BadGateway),
            Answer::Error => Observation::TrafficError(ErrorAnswer { origin: 0, has_alternative: false }),
            Answer::Busy => return,
        };
        self.pool.members()[at].backend.observe(seen, THRESHOLDS, self.now);
    }

    fn same_health(&self) {
        for (member, expected) in self.pool.members().iter().zip(&self.model.backends) {
            assert_eq!(member.backend.state().serves(), expected.serves(), "{expected:?}");
            assert_eq!(member.backend.in_flight(), 0);
        }
    }
}

/// No bounds and no memory of sessions: what is tried again is all that there is to see.
fn settings(fail_open: bool) -> Settings {
    Settings {
        seed: Seed::new("fuzz"),
        policy: Policy::ConsistentHash,
        gateways: 1,
        balance: Balance::RoundRobin,
        fail_open,
        stay_put: false,
        idle_ttl: 600_000,
        max_displaced: 10,
        max_sessions: 10,
        thresholds: THRESHOLDS,
        overload: Overload { max_in_flight: MaxInFlight::Off, ..Overload::OFF },
        slow_start: 0,
        drain: Drain { sessions: DrainSessions::AtOnce, deadline: None },
    }
}

/// The README's words, as simply as they can be put.
#[derive(Debug, Default)]
struct Model {
    backends: Vec<Backend>,
    fail_open: bool,
    max_attempts: usize,
    share: f64,
    requests: VecDeque<Millis>,
    retries: VecDeque<Millis>,
}

/// What a row of the table depends on, besides what the backend did.
struct Held {
    fresh: bool,
    held: bool,
    /// Whether the server has failed with an error event in an earlier attempt.
    failed_before: bool,
}

/// What the table says.
enum Row {
    There,
    Next,
    End(End),
}

#[derive(Debug, Default)]
struct Backend {
    name: String,
    tier: u32,
    draining: bool,
    down: bool,
    probation: bool,
    good: u32,
    failed_probes: u32,
    failed_requests: u32,
    /// When its next trial is due, and the interval, if it was down because of its answers.
    trial: Option<(Millis, Millis)>,
}

impl Model {
    /// The course that the request should have taken, and what is left of the input. `order` is its session's preference;
    /// of requests without one, whose turn it is is not what this is about.
    fn send<'a>(
        &mut self,
        request: &Request,
        order: Option<&[usize]>,
        now: Millis,
        got: &Course,
        mut input: Input<'a>,
    ) -> (Course, Input<'a>) {
        self.requests.push_back(now);
        let (mut tried, mut course, mut at_once, mut failed_before) = (Vec::new(), Course::default(), false, false);
        loop {
            let fresh = at_once || !request.held;
            if !at_once {
                let open = self.open(&tried);
                let theirs = got.tries.get(course.tries.len()).map(|(name, _)| name);
                let trial = self.trial(order, &tried, now);
                let wanted = match order {
                    _ if trial.is_some() => trial.as_ref(),
                    Some(order) => order.iter().find(|at| open.contains(at)),
                    None => open.iter().find(|at| Some(&self.backends[**at].name) == theirs).or(open.first()),
                };
                let Some(at) = wanted else {
                    course.end = Some(End::Nobody);
                    return (course, input);
                };
                if trial.is_some() {
                    self.backends[*at].start_trial(now);
                }
                tried.push(*at);
            }
            let does = Does::read(&mut input);
            course.tries.push((self.backends[tried[tried.len() - 1]].name.clone(), does));
            let again = failed_before;
            failed_before |= does == Does::Event(ErrorClass::Failed);
            match self.judge(&tried, does, Held { fresh, held: request.held, failed_before: again }, now) {
                Row::There => at_once = true,
                Row::Next => at_once = false,
                Row::End(end) => {
                    course.end = Some(end);
                    return (course, input);
                }
            }
        }
    }

    /// Who gets this request to show whether it answers well by now.
    fn trial(&self, order: Option<&[usize]>, tried: &[usize], now: Millis) -> Option<usize> {
        let is_due = |at: &usize| {
            let backend = &self.backends[*at];
            let due = backend.trial.filter(|_| backend.on_trial()).is_some_and(|(due, _)| now >= due);
            due && !backend.draining && !tried.contains(at)
        };
        let available = self.backends.iter().filter(|backend| backend.serves() && !backend.draining);
        let lowest = if self.has_tiers() { available.map(|backend| backend.tier).min() } else { None };
        match order {
            Some(order) => order.first().copied().filter(is_due),
            None => (0..self.backends.len())
                .find(|at| is_due(at) && lowest.is_none_or(|tier| self.backends[*at].tier <= tier)),
        }
    }

    fn has_tiers(&self) -> bool {
        self.backends.iter().any(|backend| backend.tier != self.backends[0].tier)
    }

    fn more(&self, tried: &[usize]) -> bool {
        tried.len() < self.max_attempts && !self.open(tried).is_empty()
    }

    /// Who may take a request that was at these: the available ones of the lowest tier, or who is not drained, if there is
    /// nobody and `fail_open`.
    fn open(&self, tried: &[usize]) -> Vec<usize> {
        let all = || (0..self.backends.len()).filter(|at| !tried.contains(at));
        let available = |backend: &Backend| backend.serves() && !backend.draining;
        let mut open: Vec<usize> = all().filter(|at| available(&self.backends[*at])).collect();
        if !self.backends.iter().any(available) {
            let may = |at: &usize| self.fail_open || self.backends[*at].on_trial();
            open = all().filter(|at| !self.backends[*at].draining && may(at)).collect();
        }
        let lowest = open.iter().map(|at| self.backends[*at].tier).min();
        open.retain(|at| Some(self.backends[*at].tier) == lowest);
        open
    }

    /// A row of the table, for the last of the backends that were tried.
    fn judge(&mut self, tried: &[usize], does: Does, so_far: Held, now: Millis) -> Row {
        let Held { fresh, held, failed_before } = so_far;
        let at = tried[tried.len() - 1];
        let next_if = |yes: bool| if yes { Row::Next } else { Row::End(End::Fails) };
        match does {
            Does::Answer(status) => {
                let is_lost = matches!(status, 429 | 502 | 503) || status >= 500 && !self.backends[at].serves();
                let again = is_lost && held && self.more(tried) && self.budget(now);
                self.backends[at].answers(status, now);
                if again { Row::Next } else { Row::End(End::Passes) }
            }
            Does::Stale if !fresh => Row::There,
            Does::Begin | Does::Stale => {
                self.backends[at].answers(200, now);
                Row::End(End::Passes)
            }
            Does::Event(ErrorClass::Answer) => {
                self.backends[at].answers(400, now);
                Row::End(End::Passes)
            }
            Does::Over => Row::End(End::Fails),
            Does::Refuse => {
                self.backends[at].fails(false, now);
                next_if(self.more(tried))
            }
            Does::Dead => {
                (0..3).for_each(|_| self.backends[at].probe(false, now));
                next_if(held && self.more(tried))
            }
            Does::Close | Does::CloseLate | Does::EndStream | Does::Junk => {
                self.backends[at].fails(false, now);
                next_if(held && self.more(tried))
            }
            Does::Silent(others_produce) | Does::SilentStream(others_produce) => {
                if others_produce {
                    self.backends[at].fails(false, now);
                }
                next_if(held && self.more(tried) && self.budget(now))
            }
            Does::Event(class) => {
                self.backends[at].answers([429, 503, 500][class as usize], now);
                let once = class == ErrorClass::Failed && failed_before;
                next_if(!once && held && self.more(tried) && self.budget(now))
            }
        }
    }

    /// Takes one from the budget: a share of the requests of the last 10 s, by whole seconds, and at least 10.
    fn budget(&mut self, now: Millis) -> bool {
        for times in [&mut self.requests, &mut self.retries] {
            times.retain(|time| time / 1000 + 10 > now / 1000);
        }
        let allowed = (self.share * self.requests.len() as f64).max(10.0);
        let yes = self.retries.len() as f64 + 1.0 <= allowed;
        if yes {
            self.retries.push_back(now);
        }
        yes
    }
}

impl Backend {
    fn serves(&self) -> bool {
        !self.down
    }

    fn fails(&mut self, by_answer: bool, now: Millis) {
        self.failed_requests += 1;
        self.good = 0;
        self.failed(by_answer, now);
    }

    fn answers(&mut self, status: u16, now: Millis) {
        match status {
            503 => {}
            502 | 504 => self.fails(true, now),
            _ => {
                self.failed_requests = 0;
                match self.trial {
                    Some((_, interval)) if status < 400 => {
                        self.trial = Some((now, interval));
                        self.well();
                    }
                    Some(_) if status >= 500 => self.good = 0,
                    None if self.probation && status < 500 => self.well(),
                    _ => {}
                }
            }
        }
    }

    fn probe(&mut self, ok: bool, now: Millis) {
        if ok {
            self.failed_probes = 0;
            if self.trial.is_none() {
                self.well();
            }
        } else {
            self.failed_probes += 1;
            self.good = 0;
            self.trial = self.trial.map(|_| (now + 1000, 1000));
            self.failed(false, now);
        }
    }

    /// Three in a row, or the first one in probation.
    fn failed(&mut self, by_answer: bool, now: Millis) {
        if !self.down && (self.probation || self.failed_probes.max(self.failed_requests) >= 3) {
            let interval = self.trial.map_or(1000, |(_, interval)| interval);
            let trial = by_answer.then_some((now + interval, interval));
            *self = Backend { name: std::mem::take(&mut self.name), down: true, trial, ..Backend::kept(self) };
        }
    }

    /// While it is down because of its answers, and its probes are good.
    fn on_trial(&self) -> bool {
        self.down && self.trial.is_some() && self.failed_probes == 0
    }

    fn start_trial(&mut self, now: Millis) {
        self.trial =
            self.trial.map(|(_, interval)| (2 * interval).min(60_000)).map(|interval| (now + interval, interval));
    }

    /// Two good ones in a row lead from unhealthy to probation, two more to healthy.
    fn well(&mut self) {
        self.good += 1;
        if (self.down || self.probation) && self.good >= 2 {
            let probation = self.down;
            let trial = self.trial.filter(|_| probation);
            *self = Backend { name: std::mem::take(&mut self.name), probation, trial, ..Backend::kept(self) };
        }
    }

    fn kept(of: &Backend) -> Backend {
        Backend { tier: of.tier, draining: of.draining, ..Backend::default() }
    }
}
