//! The retry table with random backends, bodies and sessions: what each attempt was sent, and what the client got.
//!
//! The decisions alone are fuzzed in `tests/fuzz/retry.rs`, far more often; here they are made over sockets.
//! `INGLE_FUZZ_CASES` says how many (150), `INGLE_FUZZ_SEED` which ones.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::client::{Answer, Req};
use crate::harness::{Gateway, Setup, noise};
use crate::rng::Rng;
use crate::scripted::{Scripted, Seen, Step, answer, chunk, event_head, stream_head};

/// What a backend does to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Answer(u16),
    /// It begins a stream, and dies.
    Begin,
    /// It sends the head of a stream of events, and dies.
    Head,
    /// Its first event is an error with this code.
    Event(u16),
    Close,
    Reset,
    /// It dies in the head of its answer.
    HalfAHead,
    Junk,
    /// It closes a connection that has served before, and serves on a fresh one.
    Stale,
}

impl Does {
    fn any(rng: &mut Rng) -> Does {
        match rng.below(16) {
            0..3 => Does::Answer(rng.pick(&[429, 502, 503])),
            3..5 => Does::Answer(rng.pick(&[200, 200, 404, 500, 504])),
            5 => Does::Begin,
            6 => Does::Reset,
            7 => Does::HalfAHead,
            8 => Does::Junk,
            9 => Does::Stale,
            10 | 11 => Does::Head,
            12 | 13 => Does::Event(rng.pick(&[400, 429, 503])),
            _ => Does::Close,
        }
    }

    fn steps(self, seen: &Seen, name: &str) -> Vec<Step> {
        match self {
            Does::Stale if seen.reused > 0 => vec![Step::Close],
            Does::Stale => vec![Step::Send(answer(200, "", name.as_bytes()))],
            Does::Answer(status) => vec![Step::Send(answer(status, "", name.as_bytes()))],
            Does::Begin => vec![Step::Send(stream_head()), Step::Send(chunk(name.as_bytes())), Step::Close],
            Does::Head => vec![Step::Send(event_head()), Step::Send(chunk(b": ping\n\n")), Step::Close],
            Does::Event(code) => {
                let event = format!("data: {{\"error\":{{\"code\":{code},\"message\":\"{name}\"}}}}\n\n");
                vec![Step::Send([event_head(), chunk(event.as_bytes()), chunk(b"")].concat())]
            }
            Does::Close => vec![Step::Close],
            Does::Reset => vec![Step::Reset],
            Does::HalfAHead => vec![Step::Send(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()), Step::Close],
            Does::Junk => vec![Step::Send(b"what?\r\n\r\n".to_vec()), Step::Close],
        }
    }

    /// Whether it looks like the race with a server that closes idle connections, if the connection was not fresh.
    fn closes(self) -> bool {
        matches!(self, Does::Close | Does::Reset | Does::Stale)
    }
}

/// What happens to the requests of all cases, and what did.
#[derive(Default)]
struct Plan {
    does: Mutex<HashMap<(String, &'static str), Does>>,
    /// Case, backend, and what it got, in order.
    seen: Mutex<Vec<(String, &'static str, Seen)>>,
}

const BACKENDS: [&str; 3] = ["a", "b", "c"];
/// It refuses connections.
const GONE: &str = "gone";
const MAX_ATTEMPTS: usize = 3;
/// Of a body, in bytes.
const HELD: usize = 200 << 10;
/// Cases of one gateway: none of its backends fails often enough to become unhealthy.
const ROUND: u32 = 150;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_backends_bodies_and_sessions_agree_with_the_table() {
    let setting = |name, default| std::env::var(name).map_or(default, |text| text.parse::<u32>().unwrap());
    let (cases, seed) = (setting("INGLE_FUZZ_CASES", ROUND), setting("INGLE_FUZZ_SEED", 1));
    println!("INGLE_FUZZ_SEED={seed} INGLE_FUZZ_CASES={cases}");
    let mut rng = Rng::new(seed.into());
    let mut retried = 0;
    for round in 0..cases.div_ceil(ROUND) {
        let world = World::start().await;
        for case in round * ROUND..cases.min((round + 1) * ROUND) {
            retried += u32::from(world.case(&mut rng, case).await > 1);
        }
        world.gateway.until_idle().await;
    }
    assert!(cases < ROUND || retried * 5 > cases, "only {retried} of {cases} were sent more than once");
}

struct World {
    gateway: Gateway,
    plan: Arc<Plan>,
    _backends: Vec<Scripted>,
}

impl World {
    /// Nobody becomes unhealthy, and the budget allows what `max_attempts` does.
    async fn start() -> World {
        let plan = Arc::<Plan>::default();
        let mut backends = Vec::new();
        let mut setup = Setup::new().health("interval: 1h, unhealthy_threshold: 1000").unbounded();
        setup = setup.pool(&format!("retry: {{ max_attempts: {MAX_ATTEMPTS}, max_body: {HELD}B, budget: 100% }}"));
        for name in BACKENDS {
            let plan = Arc::clone(&plan);
            let backend = Scripted::start(move |seen| {
                let Some(case) = seen.header("X-Case").map(str::to_owned) else {
                    return vec![Step::Send(answer(200, "", b""))];
                };
                let does = plan.does.lock()[&(case.clone(), name)];
                plan.seen.lock().push((case, name, seen.clone()));
                does.steps(seen, name)
            });
            backends.push(backend.await);
            setup = setup.backend(name, &backends[backends.len() - 1].url());
        }
        let gone = Scripted::ok("").await;
        let gateway = setup.backend(GONE, &gone.url()).start().await;
        drop(gone);
        World { gateway, plan, _backends: backends }
    }

    /// One request; how often it was sent.
    async fn case(&self, rng: &mut Rng, case: u32) -> usize {
        // Requests that go well, for the budget's share, and so that there are connections that have served before.
        for name in BACKENDS {
            self.gateway.send(&Req::get("/").session(&self.gateway.session_of(name))).await;
        }
        let id = case.to_string();
        let does: HashMap<&str, Does> = BACKENDS.map(|name| (name, Does::any(rng))).into();
        self.plan.does.lock().extend(does.iter().map(|(name, does)| ((id.clone(), BACKENDS[place(name)]), *does)));
        let body = noise(rng.pick(&[0, 1, 5000, 65_536, 65_537, HELD, HELD + 1]));
        let mut req = match rng.below(4) {
            0 => Req::get("/case"),
            _ => Req::post("/case", &body),
        };
        if req.method == "POST" && rng.below(3) == 0 {
            req = req.chunked(1 + rng.below(20_000));
        }
        // A session of its own: where those before it went is not what this is about.
        let session = format!("session-{case}-{}", rng.next());
        let got = self.gateway.send(&req.clone().session(&session).header("X-Case", &id)).await;
        let seen: Vec<(&str, Seen)> = std::mem::take(&mut *self.plan.seen.lock())
            .into_iter()
            .map(|(of, name, seen)| {
                assert_eq!(of, id, "a request was sent after its client had got an answer");
                (name, seen)
            })
            .collect();
        let shown = || format!("case {case}: {does:?}, {} bytes, {:?}", req.body.len(), req.chunk);
        let expected = Expected::new(&self.order(&session), &does, &seen, &req);
        let names: Vec<&str> = seen.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, expected.sent, "{}", shown());
        let body = if req.method == "POST" { &body[..] } else { b"" };
        assert!(seen.iter().all(|(_, seen)| seen.body == body), "another body: {}", shown());
        expected.check(&got, &shown());
        seen.len()
    }

    fn order(&self, session: &str) -> Vec<String> {
        let snapshot = self.gateway.inner.snapshot.load();
        let seed = snapshot.pool.settings().seed;
        let key = ingle::core::SessionKey::parse(session.as_bytes(), 256, seed).unwrap().unwrap();
        let members = snapshot.pool.members();
        snapshot.pool.order(key).into_iter().map(|member| members[member].backend.name().to_owned()).collect()
    }
}

fn place(name: &str) -> usize {
    BACKENDS.iter().position(|other| *other == name).unwrap()
}

/// What the table says, given which connections had served before.
struct Expected {
    /// The backends that got the request.
    sent: Vec<&'static str>,
    /// The status, and whose answer it is; nobody's is the gateway's own.
    status: u16,
    whose: Option<&'static str>,
    whole: bool,
}

impl Expected {
    fn new(order: &[String], does: &HashMap<&str, Does>, seen: &[(&str, Seen)], req: &Req) -> Expected {
        let mut expected = Expected { sent: Vec::new(), status: 502, whose: None, whole: true };
        let (mut turned_away, mut answered) = (None, false);
        let held = req.method == "GET" || req.body.len() <= HELD;
        let passes =
            |status, name, whole, expected: Expected| Expected { status, whose: Some(name), whole, ..expected };
        for (attempt, name) in order.iter().take(MAX_ATTEMPTS).enumerate() {
            if name == GONE {
                continue;
            }
            let (name, does) = (BACKENDS[place(name)], does[name.as_str()]);
            let fresh = seen.get(expected.sent.len()).is_none_or(|(_, seen)| seen.reused == 0);
            expected.sent.push(name);
            if does.closes() && !fresh {
                expected.sent.push(name);
            }
            let more = held && attempt + 1 < MAX_ATTEMPTS;
            match does {
                Does::Answer(status @ (429 | 502 | 503)) if more => turned_away = Some(status),
                Does::Answer(status) => return passes(status, name, true, expected),
                Does::Stale => return passes(200, name, true, expected),
                Does::Begin => return passes(200, name, false, expected),
                Does::Event(400) => return passes(200, name, true, expected),
                Does::Event(code) => (turned_away, answered) = (Some(code), true),
                Does::Head => answered = true,
                _ => {}
            }
            if !held {
                break;
            }
        }
        expected.status = match turned_away {
            Some(status @ (429 | 503)) => status,
            _ if answered => 503,
            _ => 502,
        };
        expected
    }

    fn check(&self, got: &Answer, shown: &str) {
        let backend = got.header("X-Ingle-Backend");
        assert_eq!((got.status, got.whole), (self.status, self.whole), "{shown}: {got:?}");
        match self.whose {
            Some(name) if self.whole => {
                assert!(backend == Some(name) && got.text().contains(name), "{shown}: {got:?}");
            }
            Some(name) => assert_eq!(backend, Some(name), "{shown}"),
            None => assert_eq!(backend, None, "{shown}"),
        }
    }
}
