//! Uneven sessions, a server that dies and comes back: what holds whatever the clock says. `make bench-real` measures
//! how long clients wait meanwhile.

use crate::harness::Gateway;
use crate::llama::{Real, setup};
use crate::played::{Phase, Played, Reuse, Step, sum, ttft};
use crate::promtool;
use crate::reuse::even_prefix;
use crate::scenario::{SLOTS, Scenario, play};
use crate::servers::{Fleet, Llama, NAMES};

/// With the long session no more in flight than `balance_floor`: nobody is spilled.
const SCENARIO: Scenario = Scenario { sessions: 6, turns: 5, long_turns: 6, concurrency: 3, seed: 1 };

/// Reuse may differ by this much between two ways to the same cache: where a random answer is cut into tokens decides
/// how much of its prompt's end is found again.
const TOLERANCE: f64 = 0.03;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hash_reuses_all_there_is_and_displaced_sessions_stay() {
    let Some(real) = Real::take("uneven, consistent_hash").await else { return };
    let direct = directly(&real).await;
    let (gateway, played) = through(&real, "consistent_hash").await;
    only_begun_answers_failed(&played);

    // Who was not moved by the kill finds what a session finds whose client knows its server.
    let (moved, stayed): (Vec<Step<'_>>, Vec<Step<'_>>) =
        played.steps().filter(|step| step.before.is_some()).partition(Step::moved);
    let [pinned, affine] =
        [sum(direct.steps().filter(|step| step.before.is_some())), sum(stayed)].map(|r| r.of_known());
    println!("of what there was to reuse: {pinned:.3} directly, {affine:.3} through the gateway, moves apart");
    assert!(affine > pinned - TOLERANCE, "{affine} through the gateway, {pinned} directly");

    let killed = &played.kill.as_ref().unwrap().backend;
    for step in &moved {
        let lost = step.before.unwrap().backend.as_ref() == Some(killed);
        assert!(lost && step.turn.affinity.as_deref() == Some("failover"), "moved for another reason: {:?}", step.turn);
    }
    let back = played.first_turns_back();
    assert!(back.iter().all(|step| step.turn.affinity.as_deref() == Some("stayed") && !step.moved()));
    assert!(!back.is_empty(), "sessions that lost their server go on after its return");
    let (cold, warm) = (sum(moved), sum(back));
    assert!(
        warm.recomputed() < cold.recomputed() / 2.0,
        "{} back, {} when it fell",
        warm.recomputed(),
        cold.recomputed()
    );
    agree(&gateway, &played).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_least_ttft_nobody_fails_but_who_had_begun() {
    let Some(real) = Real::take("uneven, least_ttft").await else { return };
    let (gateway, played) = through(&real, "least_ttft").await;
    only_begun_answers_failed(&played);
    let killed = &played.kill.as_ref().unwrap().backend;
    let left = |step: &Step<'_>| step.moved() && step.before.unwrap().backend.as_ref() == Some(killed);
    assert!(played.steps().any(|step| left(&step)), "sessions that lost their server go on elsewhere");
    agree(&gateway, &played).await;
}

/// No gateway, no kill: each session has a server of its client's choice.
async fn directly(real: &Real) -> Played {
    let fleet = Fleet::start(&real.launcher, 2, SLOTS).await;
    let urls: Vec<String> = fleet.servers.iter().map(Llama::url).collect();
    let played = play([SCENARIO.long("long"), SCENARIO.short("short")], &urls, None).await;
    assert_eq!(played.failed(), 0);
    tell("direct", &played);
    played
}

/// The same through a gateway with this policy, and the long session's server dies on the way.
async fn through(real: &Real, policy: &str) -> (Gateway, Played) {
    let mut fleet = Fleet::start(&real.launcher, 2, SLOTS).await;
    let setup = setup(fleet.servers.iter().map(|server| &server.address));
    let gateway = setup.top(&format!("affinity: {{ policy: {policy} }}")).start().await;
    // The long session and half of the short ones are at home on the server that will die.
    let long = (0..).map(|i| format!("long{i}")).find(|prefix| gateway.home(&format!("{prefix}-0")) == "a").unwrap();
    let short = even_prefix(&gateway, SCENARIO.sessions, "short");
    let loads = [SCENARIO.long(&long), SCENARIO.short(&short)];
    let played = play(loads, &[gateway.url()], Some(&mut fleet)).await;
    tell(policy, &played);
    (gateway, played)
}

fn only_begun_answers_failed(played: &Played) {
    let unexplained: Vec<_> = played.unexplained().collect();
    assert!(unexplained.is_empty(), "{unexplained:#?}");
    assert!(played.failed() <= SLOTS, "more than one server works on at once");
    let mut answered = played.turns().filter(|turn| turn.error.is_none());
    assert!(answered.all(|turn| turn.cached_tokens.is_some() && turn.backend.is_some()));
    assert_eq!(played.turns().count(), SCENARIO.sessions * SCENARIO.turns + SCENARIO.long_turns, "nobody gives up");
}

/// The gateway counts the tokens that the servers reported to the clients, and nothing is left behind.
async fn agree(gateway: &Gateway, played: &Played) {
    gateway.until_idle().await;
    let tokens = |cached: bool| -> u64 {
        let of = |step: Step<'_>| {
            let found = step.turn.cached_tokens.unwrap();
            if cached { found } else { step.turn.prompt_tokens.unwrap() - found }
        };
        played.steps().map(of).sum()
    };
    for cached in [true, false] {
        let counted = gateway.metric("ingle_prompt_tokens_total", &[("cached", &cached.to_string())]).await;
        assert_eq!(counted, tokens(cached) as f64, "prompt tokens, cached {cached}");
    }
    assert!(NAMES[..2].contains(&played.kill.as_ref().unwrap().backend.as_str()));
    promtool::accepts(gateway).await;
}

fn tell(name: &str, played: &Played) {
    let phases = [Phase::Before, Phase::Down, Phase::After].map(|phase| played.reuse(phase));
    let reuse = phases.iter().filter(|reuse| reuse.known > 0).map(Reuse::of_known);
    let reuse: Vec<String> = reuse.map(|share| format!("{:.0} %", 100.0 * share)).collect();
    let moves = played.steps().filter(Step::moved).count();
    let (failed, seconds) = (played.failed(), played.seconds);
    println!("{name}: {seconds:.0} s; reused of what there was, by phase: {}; {moves} moves", reuse.join(", "));
    let [long, short] =
        [true, false].map(|long| ttft(std::slice::from_ref(played), |_, talk, _| talk.long == long).mean);
    println!(
        "{name}: {failed} broke with their server; first token after {short:.2} s, in the long session {long:.2} s"
    );
}
