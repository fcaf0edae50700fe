//! What affinity saved: prompt tokens of requests with a session that were in a KV cache.

use super::Millis;
use super::usage::Tokens;
use super::window::Window;

/// Prompt tokens of requests with a session, lately and since the start.
#[derive(Debug)]
pub struct Savings {
    lately: Window<Tokens>,
    ever: Tokens,
}

impl Savings {
    /// Notes the prompt of a request with a session.
    pub fn note(&mut self, tokens: Tokens, now: Millis) {
        self.ever += tokens;
        *self.lately.at(now) += tokens;
    }

    /// The prompts of the last five minutes, to five seconds.
    #[must_use]
    pub fn lately(&self, now: Millis) -> Tokens {
        let mut sum = Tokens::default();
        self.lately.buckets(now).for_each(|(_, tokens)| sum += *tokens);
        sum
    }

    /// All prompts so far.
    #[must_use]
    pub fn ever(&self) -> Tokens {
        self.ever
    }
}

impl Default for Savings {
    fn default() -> Savings {
        Savings { lately: Window::new(BUCKETS, GRAIN), ever: Tokens::default() }
    }
}

const BUCKETS: usize = 60;
const GRAIN: Millis = 5000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_minutes_pass_and_the_sum_since_the_start_stays() {
        let mut savings = Savings::default();
        let tokens = |prompt, cached| Tokens { prompt, cached };
        savings.note(tokens(100, 40), 0);
        savings.note(tokens(10, 9), 60_000);
        assert_eq!(savings.lately(299_999), tokens(110, 49));
        assert_eq!(savings.lately(300_000), tokens(10, 9));
        assert_eq!(savings.lately(400_000), tokens(0, 0));
        assert_eq!(savings.ever(), tokens(110, 49));
    }
}
