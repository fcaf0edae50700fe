//! What happens when, and how much of it: pure arithmetic from the command line's figures.

use std::time::Duration;

use ingle_sim::SimConfig;
use ingle_sim::load::LoadConfig;

/// The course of one demo.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    /// How long there is traffic.
    pub(super) length: Duration,
    /// When one GPU is killed, counted from the first request.
    pub(super) kill_at: Duration,
    /// When it is started again, cold.
    pub(super) revive_at: Duration,
    /// Chat sessions alive at the same time.
    pub(super) sessions: usize,
    /// Factor on every time of the simulation: a short demo is the same one, only faster.
    pub(super) pace: f64,
}

/// Prompts that a GPU should be computing when it is killed.
pub(super) const WANTED_PREFILLS: usize = 2;
/// The GPUs of each side. The second one is killed on the way.
pub(super) const GPUS: [&str; 3] = ["gpu0", "gpu1", "gpu2"];
/// The index of the one that is killed.
pub(super) const VICTIM: usize = 1;

impl Plan {
    pub(super) fn new(seconds: u64, sessions: usize) -> Plan {
        let length = Duration::from_secs(seconds);
        Plan {
            length,
            kill_at: length.mul_f64(0.4),
            revive_at: length.mul_f64(0.6),
            sessions,
            pace: (length.as_secs_f64() / FULL_LENGTH.as_secs_f64()).min(1.0),
        }
    }

    /// One simulated GPU: a mid-sized model on one card.
    pub(super) fn gpu(&self, name: &str) -> SimConfig {
        SimConfig {
            slots: 16,
            // Room for half of all sessions at their longest: more than a GPU's share, and enough when one is gone.
            cache_tokens: self.sessions * LAST_PROMPT_TOKENS / 2,
            prefill_rate: 10_000.0,
            decode_rate: 60.0,
            time_scale: self.pace,
            loading: self.at_pace(Duration::from_secs(2)),
            ..SimConfig::llama_server(name)
        }
    }

    /// The traffic: chats of ten turns, each followed by a new one, and calls beside them without a session.
    pub(super) fn traffic(&self, url: &str) -> LoadConfig {
        LoadConfig {
            sessions: self.sessions,
            turns: TURNS,
            successors: true,
            concurrency: self.sessions,
            ramp: self.at_pace(Duration::from_secs(5)),
            think_time: self.at_pace(Duration::from_millis(2500)),
            shared_prompt_bytes: SHARED_TOKENS * ingle_sim::BYTES_PER_TOKEN,
            first_prompt_bytes: OWN_TOKENS * ingle_sim::BYTES_PER_TOKEN,
            turn_bytes: TURN_TOKENS * ingle_sim::BYTES_PER_TOKEN,
            max_tokens: ANSWER_TOKENS,
            sidecar_ratio: 0.25,
            ..LoadConfig::new([url])
        }
    }

    /// How often the backends are probed.
    pub(super) fn probe_interval(&self) -> Duration {
        self.at_pace(Duration::from_millis(500)).max(Duration::from_millis(20))
    }

    /// How long the kill waits until the GPU computes several prompts, and then until it computes one.
    pub(super) fn kill_patience(&self) -> Duration {
        self.at_pace(Duration::from_secs(3))
    }

    fn at_pace(&self, duration: Duration) -> Duration {
        duration.mul_f64(self.pace)
    }
}

/// The length of a demo at the real pace of its GPUs.
const FULL_LENGTH: Duration = Duration::from_secs(45);
const TURNS: usize = 10;
/// The system prompt, which all sessions share.
const SHARED_TOKENS: usize = 500;
/// What a session begins with: documents, code.
const OWN_TOKENS: usize = 3500;
const TURN_TOKENS: usize = 150;
const ANSWER_TOKENS: usize = 30;
const LAST_PROMPT_TOKENS: usize = SHARED_TOKENS + OWN_TOKENS + TURNS * (TURN_TOKENS + ANSWER_TOKENS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_short_demo_has_another_pace() {
        let (full, short, long) = (Plan::new(45, 36), Plan::new(9, 36), Plan::new(450, 36));
        assert_eq!(full.gpu("g").time_scale, 1.0);
        assert_eq!(short.gpu("g").time_scale, 0.2);
        assert_eq!(short.traffic("u").think_time * 5, full.traffic("u").think_time);
        assert_eq!(long.traffic("u"), full.traffic("u"));
        for plan in [full, short, long] {
            assert!(plan.kill_at + 2 * plan.kill_patience() < plan.revive_at);
            assert!(plan.revive_at + plan.gpu("g").loading < plan.length, "it is seen to be back");
        }
    }
}
