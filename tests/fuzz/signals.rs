//! The readers of backends' own figures: on well-formed text what was written is read; on any, nothing impossible.
//!
//! An input is a kind, then choices of which a text of `/metrics` is written and where it is cut; or, if its first bit is
//! set, any bytes.

use ingle::core::Signals;
use ingle::core::signals::{LastSignals, whole_families};

use crate::input::Input;

pub(crate) fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    if input.byte() & 1 == 1 {
        let bytes = input.rest();
        let read = [Signals::from_metrics(bytes), Signals::from_slots(bytes), Signals::from_props(bytes)];
        read.into_iter().flatten().for_each(|signals| is_possible(&signals));
        assert!(bytes.starts_with(whole_families(bytes)));
        if let Ok(slots) = serde_json::from_slice::<Vec<serde_json::Value>>(bytes) {
            slots_agree(&slots, read[1]);
        }
        return;
    }
    let families: Vec<Family> = (0..input.below(6)).map(|_| Family::write(&mut input)).collect();
    let text: String = families.iter().map(|family| family.text.as_str()).collect();
    assert_eq!(Signals::from_metrics(text.as_bytes()), expected(&families), "{text}");
    // Of a text that is cut, the families count of which something that comes after them has begun.
    let cut = usize::from(input.u16()) % (text.len() + 1);
    let whole = whole_families(&text.as_bytes()[..cut]);
    let mut end = 0;
    let begun = |family: &&Family| {
        end += family.text.len();
        end <= whole.len() + 1
    };
    let complete = families.iter().take_while(begun).count();
    assert_eq!(Signals::from_metrics(whole), expected(&families[..complete]), "{text:?} cut at {cut}: {complete}");
}

fn is_possible(signals: &Signals) {
    assert!(*signals != Signals::UNKNOWN && signals.slots != Some(0));
    assert!(signals.kv_usage.is_none_or(|share| (0.0..=1.0).contains(&share)));
    let last = LastSignals::default();
    last.set(*signals);
    assert_eq!((last.get(), last.slots()), (Some(*signals), signals.slots));
}

/// What another reader of JSON sees in `/slots`.
fn slots_agree(slots: &[serde_json::Value], read: Option<Signals>) {
    let busy: Option<Vec<bool>> = slots.iter().map(|slot| slot.as_object()?.get("is_processing")?.as_bool()).collect();
    let busy = busy.filter(|busy| !busy.is_empty());
    if let Some(read) = read.filter(|_| busy.is_some()) {
        let running = busy.iter().flatten().filter(|busy| **busy).count();
        let counts = (read.slots.map(|slots| slots as usize), read.running.map(|running| running as usize));
        assert_eq!(counts, (Some(slots.len()), Some(running)));
    }
}

/// A family of samples, with the comment before it.
struct Family {
    name: &'static str,
    values: Vec<u32>,
    text: String,
}

const RUNNING: [&str; 2] = ["llamacpp:requests_processing", "vllm:num_requests_running"];
const WAITING: [&str; 2] = ["llamacpp:requests_deferred", "vllm:num_requests_waiting"];
const KV: [&str; 3] = ["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "llamacpp:kv_cache_usage_ratio"];
const OTHERS: [&str; 3] = ["python_info", "vllm:num_requests_waiting_by_reason", "process_open_fds"];
/// Any text may be in a quoted label.
const LABELS: [&str; 6] =
    ["", "{engine=\"0\"}", "{model_name=\"a} 9\",engine=\"1\"}", "{x=\"\\\"}\\\\\"}", "{a=\"{\" , b=\"\"}", "{}"];

impl Family {
    fn write(input: &mut Input<'_>) -> Family {
        let all = [&RUNNING[..], &WAITING, &KV, &OTHERS].concat();
        let name = input.pick(&all);
        let mut family = Family { name, values: Vec::new(), text: format!("# TYPE {name} gauge\n") };
        for _ in 0..input.below(4) {
            // Whole numbers of eighths, which a float holds exactly.
            let value = u32::from(input.byte());
            let (labels, end) = (input.pick(&LABELS), input.pick(&["", " 1700000000000", "\r"]));
            let written = if KV.contains(&name) { f64::from(value) / 256.0 } else { f64::from(value) };
            family.text += &format!("{name}{labels} {written}{end}\n");
            family.values.push(value);
        }
        if input.below(4) == 0 {
            family.text += &format!("{name} {}\n", input.pick(&["NaN", "-1", "+Inf", "", "x"]));
        }
        family
    }
}

fn expected(families: &[Family]) -> Option<Signals> {
    let values = |names: &[&str]| {
        let of: Vec<u32> = families.iter().filter(|f| names.contains(&f.name)).flat_map(|f| f.values.clone()).collect();
        (!of.is_empty()).then_some(of)
    };
    let sum = |values: Vec<u32>| values.iter().sum::<u32>();
    #[expect(clippy::cast_possible_truncation, reason = "rounded, as nobody needs more digits of a share")]
    let mean = |values: Vec<u32>| (f64::from(sum(values.clone())) / 256.0 / values.len() as f64) as f32;
    let signals = Signals {
        slots: None,
        running: values(&RUNNING).map(sum),
        waiting: values(&WAITING).map(sum),
        kv_usage: KV.iter().find_map(|name| values(&[name])).map(mean),
    };
    signals.known()
}
