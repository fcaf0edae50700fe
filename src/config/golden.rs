//! Bad files and exactly what is said about them.

use super::Config;
use super::at::Files;

pub(super) fn said(text: &str) -> String {
    Config::parse(text, "f").map_or_else(|errors| errors.to_string(), |config| format!("{config:?}"))
}

pub(super) const LISTENERS: &str = "listeners: [{ address: 127.0.0.1:80 }]\n";
const POOLS: &str = "pools: [{ name: main, backends: [{ url: http://a:1 }] }]\n";

/// Puts each mistake at line 3, column 1 of a file that is good otherwise.
pub(super) fn at_the_top(cases: &[(&str, &str)]) {
    assert!(said(&format!("{LISTENERS}{POOLS}")).starts_with("Config"));
    for (line, expected) in cases {
        assert_eq!(said(&format!("{LISTENERS}{POOLS}{line}\n")), format!("f:3:{expected}"), "{line}");
    }
}

/// Puts each mistake into the pool, at line 4, column 5.
pub(super) fn in_the_pool(cases: &[(&str, &str)]) {
    for (line, expected) in cases {
        let text = format!("{LISTENERS}pools:\n  - name: main\n    {line}\n    backends: [{{ url: http://a:1 }}]\n");
        assert_eq!(said(&text), format!("f:4:{expected}"), "{line}");
    }
}

#[test]
fn the_whole_file() {
    let cases = [
        ("", "f:1:1: is empty: it needs at least `listeners:` and `pools:`"),
        ("# only a comment\n", "f:1:1: is empty: it needs at least `listeners:` and `pools:`"),
        ("- a\n- b\n", "f:1:3: must be a map of keys at the top, such as `listeners:` and `pools:`"),
        ("hello", "f:1:1: must be a map of keys at the top, such as `listeners:` and `pools:`"),
        ("\n  hello", "f:2:3: must be a map of keys at the top, such as `listeners:` and `pools:`"),
        ("{}", "f:1:1: listeners: is missing\nf:1:1: pools: is missing"),
        ("listeners: [", "f:2:1: is not valid YAML: did not find expected node content, while parsing a flow node"),
        ("a: b\n\tc: d\n", "f:2:1: a tab indents this line: YAML wants spaces"),
        ("a: 1\n---\nb: 2\n", "f:1:1: holds more than one YAML document: remove the `---` between them"),
        ("listeners: !x []\n", "f:1:12: tags such as `!name` are not supported: remove it"),
        ("a: *nowhere\n", "f:1:4: is not valid YAML: unknown anchor"),
    ];
    for (text, expected) in cases {
        assert_eq!(said(text), expected, "{text:?}");
    }
}

#[test]
fn keys() {
    at_the_top(&[
        ("afinity: {}", "1: afinity: unknown key; did you mean `affinity`?"),
        ("Limits: {}", "1: Limits: unknown key; did you mean `limits`?"),
        ("access-log: json", "1: access-log: unknown key; did you mean `access_log`?"),
        ("weight: 2", "1: weight: unknown key; it belongs in `pools[].backends[]`"),
        ("drain_timeout: 2s", "1: drain_timeout: unknown key; it belongs in `shutdown`"),
        ("shutdown: { colour: red }", "13: shutdown.colour: unknown key; this section has `delay`, `drain_timeout`"),
        (
            "shutdown: { \"a\\nb\\u001b\": red }",
            "13: shutdown.a\\nb\\u{1b}: unknown key; this section has `delay`, `drain_timeout`",
        ),
        ("limits: { max_body: 1B, max_body: 1B }", "25: limits.max_body: is given twice in this section: keep one"),
        ("7: x", "1: 7: a key must be text"),
        ("[a]: x", "2: a key must be text"),
        ("routes: []", "1: routes: not yet supported: everything goes to the one pool"),
        ("<<: {}", "1: <<: merging with `<<` is not supported: write the keys out, or use an alias for a whole value"),
        ("limits:", "1: limits: has no value: give it one or remove the key"),
        ("limits: ~", "1: limits: has no value: give it one or remove the key"),
        ("limits: 3", "9: limits: must be a map of keys, not `3`"),
        ("limits: [3]", "1: limits: must be a map of keys, not a list"),
    ]);
    assert_eq!(
        said(&format!("{LISTENERS}{POOLS}limits: {{}}\nlimits: {{}}\n")),
        "f:4:1: limits: is given twice in this section: keep one"
    );
}

#[test]
fn listeners_and_admin() {
    let listeners = |list: &str| said(&format!("{POOLS}listeners: {list}\n"));
    assert_eq!(listeners("[]"), "f:2:1: listeners: is empty: it needs at least one item");
    assert_eq!(listeners("0.0.0.0:80"), "f:2:12: listeners: must be a list: write [0.0.0.0:80]");
    assert_eq!(listeners("{ address: 0.0.0.0:80 }"), "f:2:1: listeners: must be a list: begin each item with `- `");
    assert_eq!(listeners("[{}]"), "f:2:1: listeners[0].address: is missing");
    assert_eq!(
        listeners("[{ tls: {} }]"),
        "f:2:15: listeners[0].address: is missing\nf:2:15: listeners[0].tls: needs a `certificate` and its `key`"
    );
    assert_eq!(
        listeners("[{ adress: 1.1.1.1:1 }]"),
        "f:2:15: listeners[0].adress: unknown key; did you mean `address`?"
    );
    let address = |written: &str| listeners(&format!("[{{ address: {written} }}]"));
    let wrong = |quoted: &str, advice: &str| {
        format!("f:2:24: listeners[0].address: `{quoted}` is not an IP address and port, such as `{advice}`")
    };
    assert_eq!(address("localhost:99"), wrong("localhost:99", "127.0.0.1:99"));
    assert_eq!(address("':99'"), wrong(":99", "0.0.0.0:99"));
    assert_eq!(address("1.2.3.4"), wrong("1.2.3.4", "0.0.0.0:8080"));
    assert_eq!(address("8080"), "f:2:24: listeners[0].address: `8080` is not text: write it in quotes, \"8080\"");
    let two = "[{ address: 0.0.0.0:80 }, { address: 127.0.0.1:80 }, { address: '[::1]:80' }, { address: '[::1]:80' }]";
    assert_eq!(
        listeners(two),
        "f:2:49: listeners[1].address: `127.0.0.1:80` is taken by listeners[0]\nf:2:101: listeners[3].address: `[::1]:80` is taken by listeners[2]"
    );
    assert!(listeners("[{ address: 127.0.0.1:0 }, { address: 127.0.0.1:0 }]").starts_with("Config"));
    at_the_top(&[
        ("admin: {}", "1: admin.address: is missing"),
        (
            "admin: { address: 127.0.0.1:80 }",
            "19: admin.address: `127.0.0.1:80` is taken by listeners[0]: the admin listener needs an address of its own",
        ),
        (
            "admin: { address: 0.0.0.0:80, keys_file: k }",
            "19: admin.address: `0.0.0.0:80` is taken by listeners[0]: the admin listener needs an address of its own",
        ),
    ]);
}

#[test]
fn affinity() {
    at_the_top(&[
        ("affinity: { headers: [] }", "13: affinity.headers: is empty: it needs at least one item"),
        ("affinity: { headers: X-A }", "22: affinity.headers: must be a list: write [X-A]"),
        (
            "affinity: { headers: [X A] }",
            "23: affinity.headers[0]: `X A` is not a header name: letters, digits and `-`, such as `X-Session-Id`",
        ),
        (
            "affinity: { headers: [X-A, x-a] }",
            "28: affinity.headers[1]: `x-a` is headers[0] again: names are case-insensitive",
        ),
        (
            "affinity: { headers: [Upgrade] }",
            "23: affinity.headers[0]: `Upgrade` belongs to the connection: a session needs a header of its own",
        ),
        (
            "affinity: { headers: [none] }",
            "23: affinity.headers[0]: `none` is reserved: in metrics it stands for requests without a session",
        ),
        ("affinity: { max_length: 0 }", "25: affinity.max_length: 0 is not from 1 to 16384"),
        ("affinity: { max_length: -1 }", "25: affinity.max_length: `-1` is not a whole number"),
        ("affinity: { max_length: 1.5 }", "25: affinity.max_length: `1.5` is not a whole number"),
        ("affinity: { policy: random }", "21: affinity.policy: `random` is not one of `consistent_hash`, `least_ttft`"),
        (
            "affinity: { policy: least-ttft }",
            "21: affinity.policy: `least-ttft` is not one of `consistent_hash`, `least_ttft`; did you mean `least_ttft`?",
        ),
        ("affinity: { gateways: 0 }", "23: affinity.gateways: 0 is not from 1 to 1000"),
        ("affinity: { gateways: 1001 }", "23: affinity.gateways: 1001 is not from 1 to 1000"),
        ("affinity: { gateways: [a, b] }", "13: affinity.gateways: a list is not a whole number"),
        ("affinity: { max_sessions: 0 }", "27: affinity.max_sessions: 0 is not from 1 to 10000000"),
        ("affinity: { max_sessions: 10000001 }", "27: affinity.max_sessions: 10000001 is not from 1 to 10000000"),
        ("affinity: { max_sessions: 1GiB }", "27: affinity.max_sessions: `1GiB` is not a whole number"),
        ("affinity: { max_session: 9 }", "13: affinity.max_session: unknown key; did you mean `max_sessions`?"),
        ("max_sessions: 9", "1: max_sessions: unknown key; it belongs in `affinity`"),
        ("max_body: 1B", "1: max_body: unknown key; it belongs in `limits` or `pools[].retry`"),
        (
            "affinity: { return_home: when-idle }",
            "26: affinity.return_home: `when-idle` is not one of `when_idle`, `immediately`; did you mean `when_idle`?",
        ),
        ("affinity: { hash_seed: 7 }", "24: affinity.hash_seed: `7` is not text: write it in quotes, \"7\""),
        ("access_log: offf", "13: access_log: `offf` is not one of `off`, `human`, `json`; did you mean `off`?"),
    ]);
}

#[test]
fn durations_sizes_shares() {
    let unit = "write a whole number and ms, s, m or h, such as `500ms`, `2s`, `10m`";
    for (written, quoted, wrong) in [
        ("10", "10", "has no unit"),
        ("0", "0", "has no unit"),
        ("1.5s", "1.5s", "is not a duration"),
        ("-1s", "-1s", "is not a duration"),
        ("5 s", "5 s", "is not a duration"),
        ("1d", "1d", "is not a duration"),
        ("s", "s", "is not a duration"),
        ("''", "", "is not a duration"),
    ] {
        at_the_top(&[(
            &format!("affinity: {{ idle_ttl: {written} }}"),
            &format!("23: affinity.idle_ttl: `{quoted}` {wrong}: {unit}"),
        )]);
    }
    let unit = "write a whole number and B, KiB, MiB or GiB, such as `64KiB`, `4MiB`";
    for (written, wrong) in [
        ("64", "has no unit"),
        ("0", "has no unit"),
        ("4MB", "is not a size"),
        ("4k", "is not a size"),
        ("1.5MiB", "is not a size"),
    ] {
        at_the_top(&[(
            &format!("limits: {{ max_body: {written} }}"),
            &format!("21: limits.max_body: `{written}` {wrong}: {unit}"),
        )]);
    }
    at_the_top(&[
        ("affinity: { idle_ttl: 0s }", "23: affinity.idle_ttl: may not be zero"),
        ("affinity: { idle_ttl: 8761h }", "23: affinity.idle_ttl: `8761h` is longer than a year (`8760h`)"),
        (
            "affinity: { idle_ttl: 99999999999999999999h }",
            "23: affinity.idle_ttl: `99999999999999999999h` is longer than a year (`8760h`)",
        ),
        ("limits: { max_body: 1025GiB }", "21: limits.max_body: `1025GiB` is larger than `1024GiB`"),
        ("limits: { max_body: 0B }", "21: limits.max_body: must be from 1B to 1024GiB"),
        ("limits: { http2_streams: 0 }", "26: limits.http2_streams: 0 is not from 1 to 1000"),
        ("limits: { max_header_bytes: 1B }", "29: limits.max_header_bytes: must be from 1KiB to 1MiB"),
        ("limits: { max_connections: 0 }", "28: limits.max_connections: 0 is not from 1 to 1000000"),
        ("limits: { header_timeout: 0s }", "27: limits.header_timeout: may not be zero"),
    ]);
    limits_of_memory_and_of_clients();
    in_the_pool(&[
        (
            "retry: { budget: 20 }",
            "22: pools[0].retry.budget: `20` is not a share: write a percentage from `0%` to `100%`",
        ),
        (
            "retry: { budget: -1% }",
            "22: pools[0].retry.budget: `-1%` is not a share: write a percentage from `0%` to `100%`",
        ),
        ("retry: { budget: 101% }", "22: pools[0].retry.budget: `101%` is over `100%`"),
        ("retry: { max_body: 2GiB }", "24: pools[0].retry.max_body: must be from 0B to 1GiB"),
    ]);
}

fn limits_of_memory_and_of_clients() {
    at_the_top(&[
        ("limits: { memory: 1000KiB }", "19: limits.memory: must be from 1MiB to 1024GiB; `0B` turns it off"),
        (
            "limits: { memory: 0 }",
            "19: limits.memory: `0` has no unit: write a whole number and B, KiB, MiB or GiB, such as `64KiB`, `4MiB`",
        ),
        ("limits: { per_client: 5 }", "23: limits.per_client: must be a map of keys, not `5`"),
        (
            "limits: { per_client: { requests: 5 } }",
            "35: limits.per_client.requests: `5` has no unit: write a whole number and /s, /min or /h, such as `100/s`, `600/min`",
        ),
        (
            "limits: { per_client: { requests: 0/d } }",
            "35: limits.per_client.requests: `0/d` is not a rate: write a whole number and /s, /min or /h, such as `100/s`, `600/min`",
        ),
        (
            "limits: { per_client: { max_connections: 1000001 } }",
            "42: limits.per_client.max_connections: 1000001 is not from 0 to 1000000",
        ),
        (
            "limits: { per_client: { rate: 5/s } }",
            "25: limits.per_client.rate: unknown key; this section has `max_connections`, `requests`",
        ),
    ]);
    let limits = |keys: &str| {
        let config = Config::parse(&format!("{LISTENERS}{POOLS}limits: {{ {keys} }}\n"), "f").unwrap();
        (config.limits, config.warnings.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let (on, silent) = limits("memory: 1GiB, per_client: { max_connections: 3, requests: 600/min }");
    let rate = on.per_client.requests.map(|rate| (rate.count.get(), rate.period.as_secs()));
    assert_eq!((on.memory, on.per_client.max_connections, rate), (Some(1 << 30), Some(3), Some((600, 60))));
    assert!(silent.is_empty(), "{silent:?}");
    let (off, silent) = limits("memory: 0B, max_connections: 1000000");
    assert_eq!((off.memory, off.per_client.max_connections, off.per_client.requests), (None, None, None));
    assert!(silent.is_empty(), "{silent:?}");
    let (_, warned) = limits("memory: 1MiB, max_connections: 100000");
    let room = (1 << 20) / super::memory::OF_CONNECTION;
    let message = format!("is more than `limits.memory` has room for: {room} connections without a request");
    assert_eq!(warned, [format!("3:42: limits.max_connections: {message}")]);
}

#[test]
fn good_values_mean_what_they_say() {
    let text = format!(
        "{LISTENERS}\
pools:
  - name: main
    timeouts: {{ connect: 500ms, first_byte: 1m, idle: 0s, keep_alive: 1h }}
    retry: {{ max_attempts: 1, max_body: 0B, budget: 12.5% }}
    backends: [{{ url: &url http://a:1 }}, {{ url: *url, name: b, draining: true }}]
access_log: human
"
    );
    let config = Config::parse(&text, "f").unwrap();
    let pool = config.pool();
    let times = (
        pool.timeouts.connect.as_millis(),
        pool.timeouts.first_byte.unwrap().as_secs(),
        pool.timeouts.idle,
        pool.timeouts.keep_alive.as_secs(),
    );
    assert_eq!(times, (500, 60, None, 3600));
    assert_eq!((pool.retry.max_attempts, pool.retry.max_body, pool.retry.budget), (1, 0, 0.125));
    assert_eq!(pool.backends.iter().map(|backend| backend.draining).collect::<Vec<_>>(), [false, true]);
    assert_eq!(config.access_log, super::AccessLog::Human);
}

#[test]
fn files_from_windows() {
    let text = "\u{feff}listeners: 1\r\npools: []\r\n";
    assert_eq!(
        said(text),
        "f:1:12: listeners: must be a list: write [1]\nf:2:1: pools: is empty: it needs at least one item"
    );
    assert!(said(&format!("\u{feff}{LISTENERS}{POOLS}").replace('\n', "\r\n")).starts_with("Config"));
}

#[test]
fn files_that_are_no_text() {
    let errors = Config::parse_bytes(b"a: \xc3\xa9\n# \xc3\xa9\xff", "f", Files::none()).unwrap_err();
    assert_eq!(errors.to_string(), "f:2:4: is not UTF-8 text");
    let errors = Config::load("/dev/zero").unwrap_err();
    assert_eq!(errors.to_string(), "/dev/zero: is larger than 4 MiB");
    assert!(Config::load("/").unwrap_err().to_string().starts_with("/: cannot be read: "));
}
