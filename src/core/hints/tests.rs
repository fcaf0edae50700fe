//! Each hint where it should be, and none where it should not.

use proptest::prelude::*;

use super::*;
use crate::core::BackendId;
use crate::core::usage::Usage;

const SECOND: Millis = 1000;

/// Requests as tests say them: a good first turn of some session, unless said otherwise.
struct Requests {
    hints: Hints,
    backends: [Arc<Backend>; 2],
    now: Millis,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    key: Option<u64>,
    turn: u32,
    moved: Option<Move>,
    backend: usize,
    whole: bool,
    usage: Option<(u64, Option<u64>)>,
    invalid: bool,
}

const GOOD: Request = Request {
    key: Some(1),
    turn: 2,
    moved: None,
    backend: 0,
    whole: true,
    usage: Some((1000, Some(900))),
    invalid: false,
};

impl Requests {
    fn new() -> Requests {
        let backends = ["a", "b"].map(|name| Arc::new(Backend::new(BackendId(0), name, false)));
        Requests { hints: Hints::default(), backends, now: 0 }
    }

    fn send(&mut self, request: Request) {
        let Request { key, turn, moved, backend, whole, usage, invalid } = request;
        let (key, usage) = (key.map(SessionKey::from_bits), usage.map(|(prompt, cached)| Usage { prompt, cached }));
        let backend = &self.backends[backend];
        self.hints.request(&Seen { key, invalid, chat: true, turn, moved, backend, whole, usage }, self.now);
    }

    fn judge(&mut self) -> Vec<News> {
        self.hints.judge(2, self.now)
    }

    fn found(&mut self) -> Vec<String> {
        self.judge();
        self.hints.findings().map(|(finding, _)| format!("{}: {finding}", finding.hint.as_str())).collect()
    }

    #[track_caller]
    fn says(&mut self, expected: &str) {
        assert_eq!(self.found(), [format!("{expected}, in the last 5 minutes")]);
    }
}

/// 100 sessions with six turns each, a title without a session for each turn, and one failure of one in four.
#[test]
fn healthy_traffic_gives_none() {
    let mut requests = Requests::new();
    for turn in 1..=6 {
        for key in 0..100 {
            let moved = (turn == 4 && key < 25).then_some(Move::Unhealthy);
            let usage = if turn == 1 { (800, Some(0)) } else { (800 + 100 * u64::from(turn), Some(700)) };
            requests.send(Request { key: Some(key), turn, moved, usage: Some(usage), ..GOOD });
            requests.send(Request { key: None, turn: 0, usage: Some((100, Some(0))), ..GOOD });
        }
        assert_eq!(requests.found(), [""; 0]);
        requests.now += 40 * SECOND;
    }
}

#[test]
fn chats_without_a_session() {
    let mut requests = Requests::new();
    let keyless = Request { key: None, turn: 0, ..GOOD };
    (0..49).for_each(|_| requests.send(keyless));
    assert_eq!(requests.found(), [""; 0], "49 may be a few chats' titles");
    requests.send(keyless);
    requests.says("no_session: 50 of 50 chat requests (100 %) had no session");
    (0..50).for_each(|key| requests.send(Request { key: Some(key), ..GOOD }));
    assert_eq!(requests.found(), [""; 0], "half of them are titles");
}

#[test]
fn invalid_session_is_told_from_none() {
    let mut requests = Requests::new();
    let advice = |requests: &mut Requests| {
        requests.judge();
        let (finding, _) = requests.hints.findings().next().unwrap();
        finding.advice(Servers::default())
    };
    let keyless = Request { key: None, turn: 0, ..GOOD };
    (0..50).for_each(|_| requests.send(keyless));
    assert!(advice(&mut requests).contains("Let the clients send"));
    (0..60).for_each(|_| requests.send(Request { invalid: true, ..keyless }));
    requests.says("no_session: 110 of 110 chat requests (100 %) had no session, 60 of them one that is not valid");
    assert!(advice(&mut requests).contains("affinity.max_length"));
}

#[test]
fn advice_is_for_the_servers_at_hand() {
    let of = |llama_server, vllm, other| Servers { llama_server, vllm, other };
    let advice = |servers| Hint::NoCachedFigures.advice(servers, false) + &Hint::LowReuse.advice(servers, false);
    for (servers, is_llama, is_vllm) in [
        (of(true, false, false), true, false),
        (of(false, true, false), false, true),
        (of(true, true, true), true, true),
    ] {
        let advice = advice(servers);
        assert_eq!(
            (advice.contains("llama-server"), advice.contains("--no-cache-prompt")),
            (is_llama, is_llama),
            "{advice}"
        );
        assert_eq!((advice.contains("vLLM"), advice.contains("prefix-caching")), (is_vllm, is_vllm), "{advice}");
    }
    let generic = advice(of(false, false, true));
    assert!(!generic.contains("vLLM") && !generic.contains("llama") && !generic.contains("--"), "{generic}");
}

#[test]
fn ids_that_are_used_once() {
    let mut requests = Requests::new();
    let first = Request { turn: 1, ..GOOD };
    (0..250).for_each(|key| requests.send(Request { key: Some(key), ..first }));
    assert_eq!(requests.found(), [""; 0], "their second turn may come yet");
    requests.now = 89 * SECOND;
    assert_eq!(requests.found(), [""; 0], "who came in the first half minute may have come less than a minute ago");
    (0..50).for_each(|key| requests.send(Request { key: Some(key), turn: 2, ..GOOD }));
    assert_eq!(requests.found(), [""; 0]);
    requests.now = 90 * SECOND;
    assert_eq!(requests.found(), [""; 0], "50 of 250 were used again: a fifth");
    requests.now = 0;
    (250..260).for_each(|key| requests.send(Request { key: Some(key), ..first }));
    requests.now = 200 * SECOND;
    requests.says("single_use_ids: 210 of 260 session ids (80 %) were used only once");
    requests.now = 600 * SECOND;
    assert_eq!(requests.found(), [""; 0], "it was long ago");
}

#[test]
fn an_id_that_carries_a_third_of_the_traffic() {
    let mut requests = Requests::new();
    for i in 0..300 {
        requests.send(Request { key: Some(if i % 3 == 0 { 0xaaaa_0000 } else { i }), ..GOOD });
        requests.now += SECOND / 2;
    }
    requests.says("hot_session: 100 of 300 requests (33 %) had the same session id (hash 00000000aaaa)");
    assert_eq!(requests.hints.judge(1, requests.now), [News::Over(Hint::HotSession)]);
    assert_eq!(requests.hints.findings().count(), 0, "one backend gets all of it anyway");
}

#[test]
fn sessions_that_move_and_why() {
    let mut requests = Requests::new();
    for i in 0..200 {
        let moved = match i % 20 {
            0 => Some(Move::Unhealthy),
            1 => Some(Move::Balance),
            2 if i < 20 => Some(Move::Balance),
            _ => None,
        };
        requests.send(Request { key: Some(i), moved, ..GOOD });
    }
    requests.says(
        "sessions_move: 21 of 200 later turns (10 %) were not on the backend of the turn before: unhealthy 10, balance 11",
    );
}

#[test]
fn a_backend_that_does_not_tell_what_it_had_cached() {
    let mut requests = Requests::new();
    for i in 0..30 {
        requests.send(Request { key: Some(i), ..GOOD });
        requests.send(Request { key: Some(i), backend: 1, usage: Some((1000, None)), ..GOOD });
    }
    requests.says("no_cached_figures: 30 of 30 later turns came without a word on what was cached: b");
    (0..5).for_each(|key| requests.send(Request { key: Some(key), backend: 1, usage: None, ..GOOD }));
    (0..5).for_each(|key| requests.send(Request { key: Some(key), backend: 1, usage: None, whole: false, ..GOOD }));
    requests.says(
        "no_cached_figures: 35 of 35 later turns came without a word on what was cached: b (5 without any usage figures)",
    );
    requests.send(Request { backend: 1, ..GOOD });
    assert_eq!(requests.found(), [""; 0], "vLLM leaves the figure out where it is 0: now it told");
}

#[test]
fn first_turns_and_moved_ones_need_no_cached_figure() {
    let mut requests = Requests::new();
    for key in 0..199 {
        requests.send(Request { key: Some(key), turn: 1, usage: Some((1000, None)), ..GOOD });
        requests.send(Request { key: None, turn: 0, usage: Some((1000, None)), ..GOOD });
    }
    for key in 0..40 {
        requests.send(Request { key: Some(key), moved: Some(Move::Draining), usage: Some((1000, None)), ..GOOD });
    }
    assert_eq!(requests.found(), [""; 0]);
}

#[test]
fn reuse_near_zero_although_sessions_stay() {
    let mut requests = Requests::new();
    let volatile = Request { usage: Some((1000, Some(16))), ..GOOD };
    (0..49).for_each(|key| requests.send(Request { key: Some(key), ..volatile }));
    (0..200).for_each(|key| requests.send(Request { key: Some(key), usage: Some((499, Some(0))), ..GOOD }));
    assert_eq!(requests.found(), [""; 0], "short prompts do not count");
    requests.send(volatile);
    requests.says(
        "low_reuse: 800 of 50000 prompt tokens (1 %) of later turns were in a cache, although their sessions stayed",
    );
    (0..10).for_each(|key| requests.send(Request { key: Some(key), ..GOOD }));
    assert_eq!(requests.found(), [""; 0], "16 %: some sessions' prompts are steady");
}

#[test]
fn a_hint_is_said_when_it_begins_then_once_an_hour_and_so_is_its_end() {
    let mut requests = Requests::new();
    let (mut said, mut over) = (Vec::new(), Vec::new());
    for minute in 0..200 {
        if !(100..130).contains(&minute) {
            (0..50).for_each(|_| requests.send(Request { key: None, turn: 0, ..GOOD }));
        }
        for news in requests.judge() {
            match news {
                News::Say(finding) => said.push((minute, finding.hint)),
                News::Over(hint) => over.push((minute, hint)),
            }
        }
        requests.now += 60 * SECOND;
    }
    let hint = Hint::NoSession;
    assert_eq!(said, [(0, hint), (60, hint), (130, hint), (190, hint)]);
    assert_eq!(over, [(104, hint)]);
    assert_eq!(requests.hints.findings().map(|(_, since)| since).collect::<Vec<_>>(), [130 * 60 * SECOND]);
}

fn requests() -> impl Strategy<Value = Vec<(Request, Millis)>> {
    let reason = prop::option::weighted(0.2, prop::sample::select(Move::ALL.to_vec()));
    let usage = prop::option::weighted(0.9, (0u64..2000, prop::option::weighted(0.5, 0u64..1000)));
    let request = (prop::option::weighted(0.8, 0u64..40), 1u32..4, reason, 0usize..2, any::<bool>(), usage);
    let request = request.prop_map(|(key, turn, moved, backend, whole, usage)| {
        let moved = moved.filter(|_| turn > 1);
        Request { key, turn, moved, backend, whole, usage, invalid: false }
    });
    prop::collection::vec((request, prop::sample::select(vec![0, 0, 300, 900, 40_000])), 0..600)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What is said is what a list of all requests of the window would say.
    #[test]
    fn figures_are_those_of_the_requests_in_the_window(all in requests()) {
        let mut told = Requests::new();
        let mut list = Vec::new();
        for (request, pause) in all {
            told.now += pause;
            told.send(request);
            list.push((told.now / PIECE, request));
        }
        let recent: Vec<Request> =
            list.iter().filter(|(piece, _)| told.now / PIECE - piece < PIECES as u64).map(|(_, one)| *one).collect();
        let count = |holds: &dyn Fn(&Request) -> bool| recent.iter().filter(|one| holds(one)).count() as u64;
        told.judge();
        let find = |hint| told.hints.findings().find(|(finding, _)| finding.hint == hint).map(|(f, _)| (f.part, f.of));

        let (without, chats) = (count(&|one| one.key.is_none()), recent.len() as u64);
        prop_assert_eq!(find(Hint::NoSession), (chats >= 50 && without * 2 > chats).then_some((without, chats)));
        let later = |one: &Request| one.key.is_some() && one.turn > 1;
        let (turns, moves) = (count(&later), count(&|one| later(one) && one.moved.is_some()));
        prop_assert_eq!(find(Hint::SessionsMove), (turns >= 50 && moves * 10 > turns).then_some((moves, turns)));
        if let Some((part, of)) = find(Hint::HotSession) {
            let most = (0..40).map(|key| count(&|one| one.key == Some(key))).max().unwrap();
            prop_assert!(of == chats && part <= most && part * 10 > of * 3, "{part} of {of}, {most}");
        }
        let told_on = |backend| count(&|one| {
            later(one) && one.moved.is_none() && one.whole && one.backend == backend
                && one.usage.is_some_and(|(_, cached)| cached.is_some())
        });
        prop_assert!(find(Hint::NoCachedFigures).is_none() || told_on(0) == 0 || told_on(1) == 0);
    }
}
