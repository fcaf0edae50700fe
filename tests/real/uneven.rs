//! Uneven sessions, a server that dies and comes back: what holds whatever the clock says. `make bench-real` measures
//! how long clients wait meanwhile.

use crate::harness::Gateway;
use crate::llama::{Real, setup};
use crate::played::{Phase, Played, Reuse, Step, sum, ttft};
use crate::promtool;
use crate::reuse::even_prefix;
use crate::scenario::{SLOTS, Scenario, play};
use crate::servers::{Fleet, Llama, NAMES};

/// The long session and these are a bit more than one server has slots for.
const SCENARIO: Scenario = Scenario { sessions: 6, turns: 4, long_turns: 5, concurrency: SLOTS, seed: 1 };

/// Reuse may differ by this much between two ways to the same cache: where a random answer is cut into tokens decides
/// how much of its prompt's end is found again.
const TOLERANCE: f64 = 0.03;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hash_reuses_all_there_is_and_displaced_sessions_stay() {
    let Some(real) = Real::take("uneven, consistent_hash").await else { return };
    let direct = directly(&real).await;
    // What is spilled moves for another reason: here nothing is.
    let (gateway, played) = through(&real, "consistent_hash", "balance_floor: 100").await;
    only_begun_answers_failed(&played);

    // Who was not moved by the kill finds what a session finds whose client knows its server.
    let (moved, mut stayed): (Vec<Step<'_>>, Vec<Step<'_>>) =
        played.steps().filter(|step| step.before.is_some()).partition(Step::moved);
    stayed.retain(|step| !lost_its_cache(&played, step));
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
async fn sessions_may_move_for_load_and_nobody_fails_but_who_had_begun() {
    let Some(real) = Real::take("uneven, load moves sessions").await else { return };
    for policy in ["consistent_hash", "least_ttft"] {
        let (gateway, played) = through(&real, policy, "").await;
        only_begun_answers_failed(&played);
        let killed = &played.kill.as_ref().unwrap().backend;
        let left = |step: &Step<'_>| step.moved() && step.before.unwrap().backend.as_ref() == Some(killed);
        assert!(played.steps().any(|step| left(&step)), "sessions that lost their server go on elsewhere");
        let warm = |step: &Step<'_>| step.before.is_some() && !step.moved() && !lost_its_cache(&played, step);
        let stayed = sum(played.steps().filter(warm));
        assert!(stayed.of_known() > 1.0 - TOLERANCE, "who stays finds its cache: {stayed:?}");
        agree(&gateway, &played).await;
    }
}

/// Whether the server of the turn before has died since: its cache is gone, even if the turn is on it again. A session that
/// is silent for as long as its server is away does not move, and yet finds nothing.
fn lost_its_cache(played: &Played, step: &Step<'_>) -> bool {
    let (Some(kill), Some(before)) = (&played.kill, step.before) else { return false };
    before.backend.as_ref() == Some(&kill.backend) && before.began <= kill.at && step.turn.ended >= kill.at
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

/// The same through a gateway with this policy and these bounds, and the long session's server dies on the way.
async fn through(real: &Real, policy: &str, overload: &str) -> (Gateway, Played) {
    let mut fleet = Fleet::start(&real.launcher, 2, SLOTS).await;
    let setup = setup(fleet.servers.iter().map(|server| &server.address));
    let setup = setup.top(&format!("affinity: {{ policy: {policy} }}")).pool(&format!("overload: {{ {overload} }}"));
    let gateway = setup.start().await;
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
