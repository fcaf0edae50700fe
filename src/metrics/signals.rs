//! What backends say of themselves, as metrics.
//!
//! They are written at every scrape instead of being kept: a figure that is not known must have no series, and the
//! library leaves out families without one.

use std::fmt::Write as _;

use crate::core::{Pool, Signals};

/// The families, each with the series of those backends whose figure is known.
pub(super) fn render(pool_name: &str, pool: &Pool) -> String {
    let mut text = String::new();
    for Family { name, help, figure } in FAMILIES {
        // Writing to a String cannot fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n");
        for member in pool.members() {
            let backend = &member.backend;
            if let Some(value) = backend.signals().and_then(figure) {
                let (backend, pool) = (escaped(backend.name()), escaped(pool_name));
                let _ = writeln!(text, "{name}{{backend=\"{backend}\",pool=\"{pool}\"}} {value}");
            }
        }
    }
    text
}

struct Family {
    name: &'static str,
    help: &'static str,
    figure: fn(Signals) -> Option<String>,
}

const FAMILIES: [Family; 4] = [
    Family {
        name: "ingle_backend_kv_usage_ratio",
        help: "The share of its KV cache that running requests hold, by the backend's own account",
        figure: |signals| text(signals.kv_usage),
    },
    Family {
        name: "ingle_backend_running_requests",
        help: "Requests the backend works on, by its own account, whoever sent them",
        figure: |signals| text(signals.running),
    },
    Family {
        name: "ingle_backend_slots",
        help: "Requests the backend can work on at once, by its own account",
        figure: |signals| text(signals.slots),
    },
    Family {
        name: "ingle_backend_waiting_requests",
        help: "Requests in the backend's own queue, by its own account, whoever sent them",
        figure: |signals| text(signals.waiting),
    },
];

fn text(figure: Option<impl ToString>) -> Option<String> {
    figure.map(|figure| figure.to_string())
}

/// A label's value as the text format has it. Names are visible ASCII, so there is no line break in them.
fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        assert_eq!(escaped(r#"a"b\c"#), r#"a\"b\\c"#);
    }
}
