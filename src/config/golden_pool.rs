//! Bad pools and backends, and exactly what is said about them.

use std::time::Duration;

use super::golden::{LISTENERS, in_the_pool, said};
use super::{Config, Drain, DrainSessions, Hold, MaxInFlight, Overload, Policy, RetryUntil};

/// Puts each list of backends at line 5, column 7.
fn as_backends(cases: &[(&str, &str)]) {
    for (lines, expected) in cases {
        assert_eq!(
            said(&format!("{LISTENERS}pools:\n  - name: main\n    backends:\n      {lines}\n")),
            *expected,
            "{lines}"
        );
    }
}

/// Each url and what is said about it after the quoted url.
fn as_url(cases: &[(&str, &str)]) {
    for (url, expected) in cases {
        as_backends(&[(&format!("- url: {url}"), &format!("f:5:14: pools[0].backends[0].url: {expected}"))]);
    }
}

#[test]
fn pool() {
    in_the_pool(&[
        ("name: again", "5: pools[0].name: is given twice in this section: keep one"),
        ("balance: random", "14: pools[0].balance: `random` is not one of `round_robin`, `least_requests`"),
        ("fail_open: yes", "16: pools[0].fail_open: `yes` is not `true` or `false`"),
        ("health_check: { path: health }", "27: pools[0].health_check.path: `health` does not begin with `/`"),
        (
            "health_check: { path: /a b }",
            "27: pools[0].health_check.path: `/a b` is not a path: percent-encode what is not visible ASCII",
        ),
        ("health_check: { interval: 1ms }", "31: pools[0].health_check.interval: is shorter than `10ms`"),
        (
            "health_check: { healthy_threshold: 0 }",
            "40: pools[0].health_check.healthy_threshold: 0 is not from 1 to 1000",
        ),
        (
            "health_check: { unhealthy_threshold: 0 }",
            "42: pools[0].health_check.unhealthy_threshold: 0 is not from 1 to 1000",
        ),
        ("timeouts: { connect: 0s }", "26: pools[0].timeouts.connect: may not be zero"),
        ("retry: { max_attempts: 0 }", "28: pools[0].retry.max_attempts: 0 is not from 1 to 16"),
    ]);
    let pools = |list: &str| said(&format!("{LISTENERS}pools: {list}\n"));
    let good = "{ name: main, backends: [{ url: http://a }] }";
    assert_eq!(pools("[]"), "f:2:1: pools: is empty: it needs at least one item");
    assert_eq!(pools("[{ name: main }]"), "f:2:11: pools[0].backends: is missing");
    assert_eq!(
        pools("[{ name: main, backends: [] }]"),
        "f:2:23: pools[0].backends: is empty: it needs at least one item"
    );
    assert_eq!(
        pools("[{ name: a b, backends: [{ url: http://a }] }]"),
        "f:2:17: pools[0].name: `a b` has a space: a name is a header value and a label"
    );
    assert_eq!(
        pools(&format!("[{good}, {good}]")),
        "f:2:58: pools[1]: several pools need `routes`, which are not yet supported: keep one pool"
    );
}

#[test]
fn backends() {
    as_backends(&[
        ("- http://a:1", "f:5:9: pools[0].backends[0]: must be a map of keys, not `http://a:1`"),
        ("- name: a", "f:5:9: pools[0].backends[0].url: is missing"),
        ("- { url: http://a, weight: 0 }", "f:5:34: pools[0].backends[0].weight: 0 is not a weight: to take a backend out of service, write `draining: true` or drain it on the admin listener"),
        ("- { url: http://a, weight: 1001 }", "f:5:34: pools[0].backends[0].weight: 1001 is not from 1 to 1000"),
        ("- { url: http://a, priority: -1 }", "f:5:36: pools[0].backends[0].priority: `-1` is not a whole number"),
        ("- { url: http://a, server: llamacpp }", "f:5:34: pools[0].backends[0].server: `llamacpp` is not one of `llama_server`, `vllm`, `generic`"),
        ("- { url: http://a, name: '' }", "f:5:32: pools[0].backends[0].name: is empty"),
        ("- { url: http://a, name: none }", "f:5:32: pools[0].backends[0].name: `none` is reserved: in metrics it stands for requests that no backend answered"),
        ("- { url: http://a, name: gpü }", "f:5:32: pools[0].backends[0].name: `gpü` is not visible ASCII: a name is a header value and a label"),
        ("- { url: http://a, name: a/b }", "f:5:32: pools[0].backends[0].name: `a/b` has `/`: a name is a part of admin URLs, so none of `/ ? # %`"),
        ("- { url: http://a, name: x, weight: 0 }\n      - { url: http://b, name: x }", "\
f:5:43: pools[0].backends[0].weight: 0 is not a weight: to take a backend out of service, write `draining: true` or drain it on the admin listener
f:6:32: pools[0].backends[1].name: `x` is the name of backends[0] already: names are identities"),
        ("- url: http://a\n      - url: http://A:80/", "f:6:14: pools[0].backends[1].url: `a:80` is the name of backends[0] already: give one of them a `name`"),
    ]);
    let long = format!("- {{ url: http://a, name: {} }}", "x".repeat(256));
    as_backends(&[(&long, "f:5:32: pools[0].backends[0].name: is longer than 255 characters")]);
}

#[test]
fn urls() {
    as_url(&[
        ("gpu0:8080", "`gpu0:8080` has no scheme: write `http://HOST:PORT`"),
        ("ftp://a", "`ftp://a` is not an `http://` or `https://` URL"),
        ("https://a:0", "`https://a:0` has no valid port: 1 to 65535"),
        ("http://me:secret@a", "holds a user name: the key of a backend belongs in `api_key_file`"),
        (
            "http://a/v1",
            "`http://a/v1` has a path: requests keep the path that the client sent, so write only `http://HOST:PORT`",
        ),
        ("http://a?b", "`http://a?b` has a query or fragment: write only `http://HOST:PORT`"),
        ("http://", "`http://` is not a URL: write `http://HOST:PORT`"),
        ("http://a:0", "`http://a:0` has no valid port: 1 to 65535"),
        ("http://a:65536", "`http://a:65536` has no valid port: 1 to 65535"),
        ("'http://a:'", "`http://a:` has no valid port: 1 to 65535"),
        ("http://a:+80", "`http://a:+80` has no valid port: 1 to 65535"),
        ("unix:llama.sock", "`llama.sock` is not the absolute path of a socket: write `unix:/run/llama.sock`"),
        ("unix:/run/", "`/run/` is not the absolute path of a socket: write `unix:/run/llama.sock`"),
    ]);
    let long = format!("/{}", "x".repeat(120));
    let quoted = format!("`{}...` is no path that a socket can have: at most 107 bytes", &long[..60]);
    as_url(&[(&format!("unix:{long}"), &quoted)]);
    for host in ["10.0.0.300", "a..b", "-a", "[::g]", "a_b.1"] {
        let url = format!("http://{host}:80");
        as_url(&[(
            &url,
            &format!("`{url}` has no valid host: write a name, an IPv4 address or an IPv6 address in brackets"),
        )]);
    }
    for (written, name) in [
        ("http://gpu0", "gpu0:80"),
        ("http://GPU_0.lan:1/", "gpu_0.lan:1"),
        ("http://[2001:DB8::1]:8", "[2001:db8::1]:8"),
        ("HTTP://10.0.0.1:8", "10.0.0.1:8"),
    ] {
        let config =
            Config::parse(&format!("{LISTENERS}pools: [{{ name: main, backends: [{{ url: '{written}' }}] }}]"), "f")
                .unwrap();
        let backend = &config.pool().backends[0];
        assert_eq!((backend.name.as_str(), backend.origin.to_string()), (name, format!("http://{name}")));
    }
    for written in ["unix:/run/llama.sock", "unix:///run/llama.sock"] {
        let text = format!("{LISTENERS}pools: [{{ name: main, backends: [{{ url: '{written}' }}] }}]");
        let config = Config::parse(&text, "f").unwrap();
        let backend = &config.pool().backends[0];
        assert_eq!((backend.name.as_str(), backend.origin.to_string().as_str()), ("llama", "unix:/run/llama.sock"));
    }
}

#[test]
fn overload() {
    let factor =
        "33: pools[0].overload.balance_factor: must be over 1 and at most 100, such as `1.25`; `0` turns it off";
    for wrong in ["1", "1.0", "0.5", "-1", "100.1", "1e300", ".nan", ".inf", "-.inf"] {
        in_the_pool(&[(&format!("overload: {{ balance_factor: {wrong} }}"), factor)]);
    }
    in_the_pool(&[
        ("overload: { balance_factor: 125% }", "33: pools[0].overload.balance_factor: `125%` is not a number"),
        ("overload: { balance_factor: off }", "33: pools[0].overload.balance_factor: `off` is not a number"),
        (
            "overload: { balance_floor: 0 }",
            "32: pools[0].overload.balance_floor: may not be zero: `balance_factor: 0` turns the bound off",
        ),
        (
            "overload: { balance_floor: 1000001 }",
            "32: pools[0].overload.balance_floor: 1000001 is not from 1 to 1000000",
        ),
        ("overload: { balance_floor: 1.5 }", "32: pools[0].overload.balance_floor: `1.5` is not a whole number"),
        ("overload: { queue_wait: 601s }", "29: pools[0].overload.queue_wait: is longer than `10m`"),
        (
            "overload: { queue_wait: 2 }",
            "29: pools[0].overload.queue_wait: `2` has no unit: write a whole number and ms, s, m or h, such as `500ms`, `2s`, `10m`",
        ),
        (
            "overload: { max_waiting: 0 }",
            "30: pools[0].overload.max_waiting: may not be zero: `queue_wait: 0s` turns waiting off",
        ),
        ("overload: { max_waiting: 1000001 }", "30: pools[0].overload.max_waiting: 1000001 is not from 1 to 1000000"),
        (
            "overload: { max_inflight: 8 }",
            "17: pools[0].overload.max_inflight: unknown key; did you mean `max_in_flight`?",
        ),
        ("overload: auto", "15: pools[0].overload: must be a map of keys, not `auto`"),
    ]);
}

#[test]
fn max_in_flight() {
    let wrong = [
        ("-1", "`-1` is not a whole number or `auto`"),
        ("1.5", "`1.5` is not a whole number or `auto`"),
        ("true", "`true` is not a whole number or `auto`"),
        ("Auto", "`Auto` is not a whole number or `auto`"),
        ("slots", "`slots` is not a whole number or `auto`"),
        ("auto 8", "`auto 8` is not a whole number or `auto`"),
        ("off", "`off` is not a whole number or `auto`; `0` turns it off"),
        ("'8'", "`8` is not a whole number or `auto`: write the number without quotes"),
        ("1000001", "1000001 is not from 0 to 1000000"),
        ("4294967297", "4294967297 is not from 0 to 1000000"),
    ];
    for (written, expected) in wrong {
        in_the_pool(&[(
            &format!("overload: {{ max_in_flight: {written} }}"),
            &format!("32: pools[0].overload.max_in_flight: {expected}"),
        )]);
    }
    in_the_pool(&[(
        "overload: { max_in_flight: [auto, 8] }",
        "17: pools[0].overload.max_in_flight: a list is not a whole number or `auto`",
    )]);
}

#[test]
fn slow_start_signals_and_drain() {
    let unit = "write a whole number and ms, s, m or h, such as `500ms`, `2s`, `10m`";
    in_the_pool(&[
        ("slow_start: 61m", "17: pools[0].slow_start: is longer than `1h`"),
        ("slow_start: 30", &format!("17: pools[0].slow_start: `30` has no unit: {unit}")),
        ("slow_start: off", &format!("17: pools[0].slow_start: `off` is not a duration: {unit}")),
        ("signals: { interval: 99ms }", "26: pools[0].signals.interval: is shorter than `100ms`; `0s` turns it off"),
        ("signals: { interval: 1ms }", "26: pools[0].signals.interval: is shorter than `100ms`; `0s` turns it off"),
        ("signals: { interval: 1 }", &format!("26: pools[0].signals.interval: `1` has no unit: {unit}")),
        ("signals: 1s", "14: pools[0].signals: must be a map of keys, not `1s`"),
        ("signal: { interval: 1s }", "5: pools[0].signal: unknown key; did you mean `signals`?"),
        (
            "interval: 1s",
            "5: pools[0].interval: unknown key; it belongs in `pools[].health_check` or `pools[].signals`",
        ),
        (
            "drain: { sessions: until-idle }",
            "24: pools[0].drain.sessions: `until-idle` is not one of `until_idle`, `at_once`; did you mean `until_idle`?",
        ),
        (
            "drain: { sessions: at_one }",
            "24: pools[0].drain.sessions: `at_one` is not one of `until_idle`, `at_once`; did you mean `at_once`?",
        ),
        ("drain: { sessions: true }", "24: pools[0].drain.sessions: `true` is not one of `until_idle`, `at_once`"),
        ("drain: { deadline: never }", &format!("24: pools[0].drain.deadline: `never` is not a duration: {unit}")),
        ("drain: { deadlin: 1m }", "14: pools[0].drain.deadlin: unknown key; did you mean `deadline`?"),
        ("draining: true", "5: pools[0].draining: unknown key; it belongs in `pools[].backends[]`"),
    ]);
}

#[test]
fn hold_and_first_token() {
    let unit = "write a whole number and ms, s, m or h, such as `500ms`, `2s`, `10m`";
    in_the_pool(&[
        ("hold: 30s", "11: pools[0].hold: must be a map of keys, not `30s`"),
        ("hold: { timeout: 61m }", "22: pools[0].hold.timeout: is longer than `1h`"),
        ("hold: { timeout: 30 }", &format!("22: pools[0].hold.timeout: `30` has no unit: {unit}")),
        (
            "hold: { max_requests: 0 }",
            "27: pools[0].hold.max_requests: may not be zero: `timeout: 0s` turns waiting off",
        ),
        ("hold: { max_requests: 1000001 }", "27: pools[0].hold.max_requests: 1000001 is not from 1 to 1000000"),
        ("retry: { hold_head: 61m }", "25: pools[0].retry.hold_head: is longer than `1h`"),
        ("retry: { until: token }", "21: pools[0].retry.until: `token` is not one of `first_token`, `first_byte`"),
        ("retry: { hold: 1s }", "14: pools[0].retry.hold: unknown key; it belongs in `pools[]`"),
        ("timeouts: { first_token: 1 }", &format!("30: pools[0].timeouts.first_token: `1` has no unit: {unit}")),
        ("health_check: { fast_interval: 1ms }", "36: pools[0].health_check.fast_interval: is shorter than `10ms`"),
    ]);
}

#[test]
fn good_pools_mean_what_they_say() {
    let pool = |keys: &str| {
        let text = format!("{LISTENERS}pools:\n  - name: main\n    backends: [{{ url: http://a }}]\n    {keys}\n");
        Config::parse(&text, "f").unwrap_or_else(|errors| panic!("{errors}")).pool().clone()
    };
    let overload = |keys: &str| pool(&format!("overload: {{ {keys} }}")).overload;
    for (written, meant) in [
        ("0", MaxInFlight::Off),
        ("1", MaxInFlight::Fixed(1)),
        ("1000000", MaxInFlight::Fixed(1_000_000)),
        ("auto", MaxInFlight::Auto),
        ("'auto'", MaxInFlight::Auto),
    ] {
        assert_eq!(overload(&format!("max_in_flight: {written}")).max_in_flight, meant);
    }
    for (written, meant) in [("0", None), ("-0.0", None), ("1.01", Some(1.01)), ("2", Some(2.0)), ("100", Some(100.0))]
    {
        assert_eq!(overload(&format!("balance_factor: {written}")).balance_factor, meant);
    }
    let millis = |wait: Option<Duration>| wait.map(|wait| wait.as_millis());
    assert_eq!(millis(overload("queue_wait: 0s").queue_wait), None);
    assert_eq!(millis(overload("queue_wait: 10m").queue_wait), Some(600_000));
    assert_eq!((overload("balance_floor: 1").balance_floor, overload("max_waiting: 7").max_waiting), (1, 7));
    assert_eq!(millis(pool("slow_start: 1h").slow_start), Some(3_600_000));
    assert_eq!(millis(pool("signals: { interval: 100ms }").signals.interval), Some(100));
    let fast = |keys: &str| pool(&format!("health_check: {{ {keys} }}")).health_check.fast_interval.as_millis();
    assert_eq!((fast("fast_interval: 50ms"), fast("interval: 300ms")), (50, 300), "never longer than `interval`");
    assert_eq!(
        pool("hold: { timeout: 5m }").hold,
        Hold { timeout: Some(Duration::from_secs(300)), max_requests: 1000 }
    );
    let retry = pool("retry: { until: first_byte, hold_head: 0s }").retry;
    assert_eq!((retry.until, retry.hold_head), (RetryUntil::FirstByte, Duration::ZERO));
    assert_eq!(
        pool("drain: { sessions: at_once, deadline: 0s }").drain,
        Drain { sessions: DrainSessions::AtOnce, deadline: None }
    );
}

#[test]
fn without_a_word_load_is_bounded_and_the_rest_is_off() {
    let text = format!("{LISTENERS}pools: [{{ name: main, backends: [{{ url: http://a }}] }}]");
    let config = Config::parse(&text, "f").unwrap();
    let affinity = &config.affinity;
    assert_eq!((affinity.policy, affinity.gateways, affinity.max_sessions), (Policy::ConsistentHash, 1, 200_000));
    let pool = config.pool();
    let overload = Overload {
        max_in_flight: MaxInFlight::Off,
        balance_factor: Some(1.25),
        balance_floor: 4,
        queue_wait: None,
        max_waiting: 1000,
    };
    assert_eq!((&pool.overload, pool.slow_start, pool.signals.interval), (&overload, None, None));
    let drain = Drain { sessions: DrainSessions::UntilIdle, deadline: Some(Duration::from_secs(600)) };
    assert_eq!(pool.drain, drain);
}
