//! Numbers as people say them.

/// `87 %`, or `-` when nothing is known.
pub(super) fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", share * 100.0))
}

/// `35 ms`, `620 ms`, `1.4 s`, `23 s`; `-` when nothing is known (0).
pub(super) fn seconds(seconds: f64) -> String {
    match seconds {
        s if s <= 0.0 => "-".to_owned(),
        s if s < 0.0995 => format!("{:.0} ms", (s * 1000.0).max(1.0)),
        s if s < 0.995 => format!("{:.0} ms", (s * 100.0).round() * 10.0),
        s if s < 9.95 => format!("{s:.1} s"),
        s => format!("{s:.0} s"),
    }
}

/// `950`, `12 k`, `1.3 M`.
pub(super) fn count(count: u64) -> String {
    match count as f64 {
        n if n < 1e4 => format!("{count}"),
        n if n < 999_500.0 => format!("{:.0} k", n / 1e3),
        n => format!("{:.1} M", n / 1e6),
    }
}

/// How many times as much `large` is as `small`: `4.6`, `17`. `None` if it is not clearly more.
pub(super) fn times(large: f64, small: f64) -> Option<String> {
    let ratio = large / small;
    match ratio {
        r if !r.is_finite() || r < 1.15 => None,
        r if r < 9.95 => Some(format!("{r:.1}")),
        r => Some(format!("{r:.0}")),
    }
}

/// `1 session`, `3 sessions`.
pub(super) fn plural(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_round() {
        assert_eq!(percent(Some(0.874)), "87 %");
        assert_eq!(percent(None), "-");
        let times_said = [0.0, 0.0001, 0.0354, 0.0996, 0.617, 0.9949, 0.996, 1.44, 9.96, 23.4].map(seconds);
        assert_eq!(times_said, ["-", "1 ms", "35 ms", "100 ms", "620 ms", "990 ms", "1.0 s", "1.4 s", "10 s", "23 s"]);
        assert_eq!([950, 9999, 12_345, 999_499, 1_260_000].map(count), ["950", "9999", "12 k", "999 k", "1.3 M"]);
        assert_eq!(plural(1, "session") + ", " + &plural(0, "turn"), "1 session, 0 turns");
    }

    #[test]
    fn a_ratio_is_told_only_if_there_is_one() {
        assert_eq!(times(4.6, 1.0).as_deref(), Some("4.6"));
        assert_eq!(times(17.3, 1.0).as_deref(), Some("17"));
        for (large, small) in [(1.1, 1.0), (1.0, 2.0), (1.0, 0.0), (0.0, 0.0)] {
            assert_eq!(times(large, small), None);
        }
    }
}
