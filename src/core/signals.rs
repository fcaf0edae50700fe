//! What a backend says of its own load: the figures, and the readers of the formats that real servers tell them in.
//!
//! A gateway sees only its own requests. What others send to a backend, and how full its KV cache is, only the backend
//! knows. All of it is optional: a figure that is not known is `None`, never 0.
//!
//! They are late: a poll's interval, and llama-server counts what arrives only when the batch that it computes is done.
//! Measured: while one prompt's first batch took 2.5 s, it said that one request runs and none waits; four were there.
//! So what the gateway itself has sent there is a lower bound that it must keep.

use std::sync::atomic::{AtomicU32, Ordering};

use serde::Deserialize;

/// What a backend said last.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Signals {
    /// Requests that it can work on at once; never 0.
    pub slots: Option<u32>,
    /// Requests that it works on, whoever sent them.
    pub running: Option<u32>,
    /// Requests that wait in its own queue.
    pub waiting: Option<u32>,
    /// The share of its KV cache that running requests hold: 0.0..=1.0.
    pub kv_usage: Option<f32>,
}

impl Signals {
    /// Nothing is known.
    pub const UNKNOWN: Signals = Signals { slots: None, running: None, waiting: None, kv_usage: None };

    /// Reads the text of `/metrics`, as llama-server and vLLM write it: `None` if it has no figure of either.
    ///
    /// Figures of several engines (vLLM labels each with its number) are added up; their KV usage is the mean. vLLM
    /// renamed that gauge: where both are there, the new one counts. Despite its name it goes from 0 to 1, as does
    /// llama-server's, which versions since 2025 do not have.
    #[must_use]
    pub fn from_metrics(text: &[u8]) -> Option<Signals> {
        let mut sums = [Sum::default(); 5];
        for (name, value) in text.split(|byte| *byte == b'\n').filter_map(sample) {
            let index = match name {
                b"llamacpp:requests_processing" | b"vllm:num_requests_running" => 0,
                b"llamacpp:requests_deferred" | b"vllm:num_requests_waiting" => 1,
                b"vllm:kv_cache_usage_perc" => 2,
                b"vllm:gpu_cache_usage_perc" => 3,
                b"llamacpp:kv_cache_usage_ratio" => 4,
                _ => continue,
            };
            sums[index].add(value);
        }
        let [running, waiting, kv_usage @ ..] = sums;
        let signals = Signals {
            slots: None,
            running: running.count(),
            waiting: waiting.count(),
            kv_usage: kv_usage.iter().find_map(Sum::mean),
        };
        signals.known()
    }

    /// Reads llama-server's `/slots`: how many there are, and how many of them are at work. `None` if it is no list of
    /// slots, or has none.
    #[must_use]
    pub fn from_slots(json: &[u8]) -> Option<Signals> {
        #[derive(Deserialize)]
        struct Slot {
            is_processing: bool,
        }
        let slots: Vec<Slot> = serde_json::from_slice(json).ok()?;
        let running = slots.iter().filter(|slot| slot.is_processing).count();
        let slots = u32::try_from(slots.len()).ok().filter(|slots| *slots > 0)?;
        Some(Signals { slots: Some(slots), running: u32::try_from(running).ok(), ..Signals::UNKNOWN })
    }

    /// Reads `total_slots` of llama-server's `/props`. `None` if it is not there, or 0: a server without a slot could
    /// never be given anything.
    #[must_use]
    pub fn from_props(json: &[u8]) -> Option<Signals> {
        #[derive(Deserialize)]
        struct Props {
            total_slots: u32,
        }
        let props: Props = serde_json::from_slice(json).ok()?;
        Signals { slots: Some(props.total_slots).filter(|slots| *slots > 0), ..Signals::UNKNOWN }.known()
    }

    /// `None` if nothing is known.
    #[must_use]
    pub fn known(self) -> Option<Signals> {
        (self != Signals::UNKNOWN).then_some(self)
    }
}

/// The part of the text of `/metrics` that certainly has whole families, when only its beginning was read: what comes
/// after the last comment may be a family of which some engines are missing.
#[must_use]
pub fn whole_families(text: &[u8]) -> &[u8] {
    let comment = memchr::memmem::rfind(text, b"\n#").unwrap_or(0);
    &text[..comment]
}

/// [`Signals`] that one task writes and many read, without a lock. A reader may see figures of two polls mixed: each of
/// them was true a moment ago.
#[derive(Debug)]
pub struct LastSignals([AtomicU32; 4]);

impl LastSignals {
    /// Keeps what was said.
    pub fn set(&self, signals: Signals) {
        let Signals { slots, running, waiting, kv_usage } = signals;
        let words = [slots, running, waiting, kv_usage.map(f32::to_bits)];
        for (cell, word) in self.0.iter().zip(words) {
            cell.store(word.unwrap_or(NOTHING), Ordering::Relaxed);
        }
    }

    /// The slots of what was said last.
    #[must_use]
    pub fn slots(&self) -> Option<u32> {
        Some(self.0[0].load(Ordering::Relaxed)).filter(|word| *word != NOTHING)
    }

    /// What was said last; `None` if nothing is known.
    #[must_use]
    pub fn get(&self) -> Option<Signals> {
        let word = |cell: &AtomicU32| Some(cell.load(Ordering::Relaxed)).filter(|word| *word != NOTHING);
        let [slots, running, waiting, kv_usage] = &self.0;
        let signals = Signals {
            slots: word(slots),
            running: word(running),
            waiting: word(waiting),
            kv_usage: word(kv_usage).map(f32::from_bits),
        };
        signals.known()
    }
}

impl Default for LastSignals {
    fn default() -> LastSignals {
        LastSignals([NOTHING; 4].map(AtomicU32::new))
    }
}

/// What stands for "not known" in [`LastSignals`]. As bits of an `f32` it is not a number, so no share has it.
const NOTHING: u32 = u32::MAX;

/// The samples of one family.
#[derive(Clone, Copy, Default)]
struct Sum {
    total: f64,
    samples: u32,
}

impl Sum {
    fn add(&mut self, value: f64) {
        self.total += value;
        self.samples += 1;
    }

    fn count(self) -> Option<u32> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped, and never negative")]
        let total = self.total.min(f64::from(NOTHING - 1)) as u32;
        (self.samples > 0).then_some(total)
    }

    fn mean(&self) -> Option<f32> {
        #[expect(clippy::cast_possible_truncation, reason = "from 0 to 1; nobody needs more digits of a share")]
        let mean = (self.total / f64::from(self.samples)).min(1.0) as f32;
        (self.samples > 0).then_some(mean)
    }
}

/// Name and value of a line of Prometheus' text format. `None` for comments, for what is no sample, and for values that
/// are no quantity, such as NaN.
fn sample(line: &[u8]) -> Option<(&[u8], f64)> {
    let end = line.iter().position(|byte| matches!(byte, b'{' | b' ' | b'\t'))?;
    let (name, mut rest) = line.split_at(end);
    if name.starts_with(b"#") {
        return None;
    }
    if rest.first() == Some(&b'{') {
        rest = &rest[labels(rest)?..];
    }
    // A time may follow the value.
    let mut words = rest.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let value: f64 = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
    (value.is_finite() && value >= 0.0).then_some((name, value))
}

/// The length of a list of labels, braces included: a quoted value may hold anything, a brace or an escaped quote too.
fn labels(text: &[u8]) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn llama_server_says_what_runs_and_what_waits() {
        let text = b"# HELP llamacpp:requests_processing Number of requests processing\n\
            # TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing 3\n\
            # HELP llamacpp:requests_deferred x\nllamacpp:requests_deferred 12\nllamacpp:n_busy_slots_per_decode 1.5\n";
        let signals = Signals { running: Some(3), waiting: Some(12), ..Signals::UNKNOWN };
        assert_eq!(Signals::from_metrics(text), Some(signals));
        let old = [text, &b"llamacpp:kv_cache_usage_ratio 0.25\n"[..]].concat();
        assert_eq!(Signals::from_metrics(&old), Some(Signals { kv_usage: Some(0.25), ..signals }));
    }

    #[test]
    fn engines_of_a_vllm_are_added_up_and_their_kv_usage_is_the_mean() {
        let text = b"python_info{version=\"3.12\"} 1.0\n\
            vllm:num_requests_running{engine=\"0\",model_name=\"a} 9 \\\"b\"} 4.0\n\
            vllm:num_requests_running{engine=\"1\",model_name=\"m\"} 2.0 1700000000000\r\n\
            vllm:num_requests_waiting{engine=\"0\"} 0.0\nvllm:num_requests_waiting_by_reason{reason=\"x\"} 7.0\n\
            vllm:kv_cache_usage_perc{engine=\"0\"} 0.5\nvllm:kv_cache_usage_perc{engine=\"1\"} 1e-1\n\
            vllm:gpu_cache_usage_perc{engine=\"0\"} 0.9\n";
        let signals = Signals { slots: None, running: Some(6), waiting: Some(0), kv_usage: Some(0.3) };
        assert_eq!(Signals::from_metrics(text), Some(signals));
    }

    #[test]
    fn the_old_name_of_vllms_gauge_counts_where_the_new_one_is_not() {
        let text = b"vllm:gpu_cache_usage_perc{model_name=\"m\"} 0.75\n";
        assert_eq!(Signals::from_metrics(text), Some(Signals { kv_usage: Some(0.75), ..Signals::UNKNOWN }));
    }

    #[test]
    fn what_is_no_quantity_is_not_known() {
        for value in ["NaN", "+Inf", "-1", "", "much", "\u{661}"] {
            let text = format!("llamacpp:requests_processing {value}\nvllm:kv_cache_usage_perc{{engine=\"0\" 0.5");
            assert_eq!(Signals::from_metrics(text.as_bytes()), None, "{value:?}");
        }
        let huge = Signals::from_metrics(b"vllm:num_requests_running 1e300\nvllm:kv_cache_usage_perc 7\n").unwrap();
        assert_eq!((huge.running, huge.kv_usage), (Some(NOTHING - 1), Some(1.0)));
    }

    #[test]
    fn slots_are_counted_and_props_are_read() {
        let slots = br#"[{"id":0,"n_ctx":8192,"speculative":false,"is_processing":true,"prompt":"[{}]"},
            {"id":1,"is_processing":false,"next_token":[{"n_decoded":5}]}]"#;
        let expected = Signals { slots: Some(2), running: Some(1), ..Signals::UNKNOWN };
        assert_eq!(Signals::from_slots(slots), Some(expected));
        for no_slots in [&b"[]"[..], b"{}", br#"[{"id":0}]"#, br#"{"error":{"code":501}}"#, b""] {
            assert_eq!(Signals::from_slots(no_slots), None);
        }
        let props = br#"{"default_generation_settings":{"n_ctx":8192},"total_slots":4,"chat_template":"{{ x }}"}"#;
        assert_eq!(Signals::from_props(props), Some(Signals { slots: Some(4), ..Signals::UNKNOWN }));
        for no_props in [&br#"{"total_slots":0}"#[..], br#"{"total_slots":-1}"#, br#"{"slots":4}"#, b""] {
            assert_eq!(Signals::from_props(no_props), None);
        }
    }

    #[test]
    fn of_a_text_that_was_cut_only_whole_families_count() {
        let text = b"# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{engine=\"0\"} 1\n\
            vllm:num_requests_running{engine=\"1\"} 2\n# HELP vllm:num_requests_waiting x\n\
            # TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{engine=\"0\"} 5\n";
        let whole = Signals::from_metrics(whole_families(text));
        assert_eq!(whole, Some(Signals { running: Some(3), ..Signals::UNKNOWN }));
        let at = memchr::memmem::find(text, b"engine=\"1\"").unwrap();
        assert_eq!(Signals::from_metrics(whole_families(&text[..at])), None);
    }

    #[test]
    fn nothing_is_known_until_something_was_said() {
        let last = LastSignals::default();
        assert_eq!(last.get(), None);
        last.set(Signals { running: Some(0), ..Signals::UNKNOWN });
        assert_eq!(last.get(), Some(Signals { running: Some(0), ..Signals::UNKNOWN }));
        last.set(Signals::UNKNOWN);
        assert_eq!(last.get(), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = (Signals::from_metrics(&bytes), Signals::from_slots(&bytes), Signals::from_props(&bytes));
            let _ = whole_families(&bytes);
        }

        #[test]
        fn no_broken_metrics_make_a_reader_panic_or_say_the_impossible(
            lines in prop::collection::vec(r#"(vllm:num_requests_running|vllm:kv_cache_usage_perc|#)[{]?[a-z="\\}]{0,9} ?[0-9eE.+-]{0,6}"#, 0..6)
        ) {
            if let Some(signals) = Signals::from_metrics(lines.join("\n").as_bytes()) {
                prop_assert!(signals.kv_usage.is_none_or(|share| (0.0..=1.0).contains(&share)));
                let last = LastSignals::default();
                last.set(signals);
                prop_assert_eq!(last.get(), Some(signals));
            }
        }

        #[test]
        fn what_is_written_is_read(running in prop::collection::vec(0u32..1000, 1..9), kv in 0.0f32..=1.0) {
            let each = running.iter().enumerate();
            let engines: String = each
                .map(|(engine, running)| {
                    format!("vllm:num_requests_running{{engine=\"{engine}\"}} {running}.0\nvllm:kv_cache_usage_perc{{engine=\"{engine}\"}} {kv}\n")
                })
                .collect();
            let signals = Signals::from_metrics(engines.as_bytes()).unwrap();
            prop_assert_eq!(signals.running, Some(running.iter().sum()));
            prop_assert!((signals.kv_usage.unwrap() - kv).abs() < 1e-6);
        }

        #[test]
        fn every_count_of_slots_is_read(slots in prop::collection::vec(any::<bool>(), 1..50)) {
            let json: Vec<String> = slots.iter().map(|busy| format!(r#"{{"id":0,"is_processing":{busy}}}"#)).collect();
            let signals = Signals::from_slots(format!("[{}]", json.join(",")).as_bytes()).unwrap();
            prop_assert_eq!(signals.slots.map(|count| count as usize), Some(slots.len()));
            prop_assert_eq!(signals.running.map(|count| count as usize), Some(slots.iter().filter(|busy| **busy).count()));
        }
    }
}
