//! The subcommands that end by themselves.

use serde_json::Value;

use crate::harness::Setup;
use crate::process::{file, run};

/// The config of a gateway with these backends, as a file.
fn config(names: &[&str]) -> String {
    let setup = names.iter().fold(Setup::new(), |setup, name| setup.backend(name, &format!("http://{name}.test:8080")));
    file(&setup.yaml()).to_str().unwrap().to_owned()
}

/// What a good command prints.
fn stdout(args: &[&str]) -> String {
    let output = run(args);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a bad command complains about, with exit code 2.
fn complaint(args: &[&str]) -> String {
    let output = run(args);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn check_says_ok_or_every_error_with_its_place() {
    let good = config(&["a", "b"]);
    assert_eq!(stdout(&["check", "--config", &good]), format!("{good}: ok (1 listener, 2 backends)\n"));
    let text = "listeners: [{ address: 127.0.0.1:0 }]\npols:\n  - name: main\npools:\n  - name: main\n    backends:\n      - { url: http://a:1, weight: 0 }\n";
    let bad = file(text);
    let complaint = complaint(&["check", "--config", bad.to_str().unwrap()]);
    let lines: Vec<&str> = complaint.lines().collect();
    assert_eq!(lines.len(), 2, "{complaint}");
    assert!(lines[0].contains(":2:1: ") && lines[0].contains("pools"), "{complaint}");
    assert!(
        lines[1].contains(":7:") && lines[1].contains("pools[0].backends[0].weight") && lines[1].contains("drain"),
        "{complaint}"
    );
}

#[test]
fn explain_prints_the_order_home_first() {
    let path = config(&["a", "b", "c"]);
    let order = stdout(&["explain", "--config", &path, "--session", "my session"]);
    let order: Vec<&str> = order.lines().collect();
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, ["a", "b", "c"]);
    let without = stdout(&["explain", "--config", &path, "--session", " my session ", "--without", order[0]]);
    assert_eq!(without.lines().collect::<Vec<_>>(), order[1..], "the next in the order takes over");
    let both = ["explain", "--config", &path, "--session", "my session", "--without", order[0], order[1]];
    assert_eq!(stdout(&both), format!("{}\n", order[2]), "several names after one option");
    let homes = |id: usize| stdout(&["explain", "--config", &path, "--session", &format!("s{id}")]);
    assert!((0..12).any(|id| homes(id).lines().next() != Some(order[0])), "not everybody lives there");
}

#[test]
fn explain_prints_the_scores_where_they_decide() {
    let setup = Setup::new().top("affinity: { policy: least_ttft }").backend("a", "http://a.test:1");
    let path = file(&setup.backend_with("b", "http://b.test:1", "weight: 2").yaml());
    let path = path.to_str().unwrap();
    let text = stdout(&["explain", "--config", path, "--session", "s", "--bytes", "1000"]);
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let score = |speed: u32, total: u32| format!("\t(wait 0 + recompute 1500 + decoding 0) / speed {speed} = {total}");
    assert_eq!(lines, [format!("a{}", score(1, 1500)), format!("b{}", score(2, 750))]);
}

#[test]
fn explain_refuses_what_it_cannot_answer() {
    let path = config(&["a", "b"]);
    assert!(complaint(&["explain", "--config", &path, "--session", "s", "--without", "z"]).contains("z"));
    assert!(complaint(&["explain", "--config", &path, "--session", ""]).contains("--session"));
    complaint(&["explain", "--config", &path]);
    assert!(complaint(&["explain", "--config", "/no/such.yaml", "--session", "s"]).contains("/no/such.yaml"));
    assert!(complaint(&["explain", "--config", &path, "--against", "/no/such.yaml"]).contains("/no/such.yaml"));
}

#[test]
fn explain_against_says_what_a_change_moves() {
    let (four, three, reordered) =
        (config(&["a", "b", "c", "d"]), config(&["a", "b", "c"]), config(&["d", "b", "c", "a"]));
    let nothing = stdout(&["explain", "--config", &four, "--against", &reordered]);
    assert_eq!(nothing, "0 of 100000 sessions move (0.0 %)\n");
    let removed = stdout(&["explain", "--config", &four, "--against", &three]);
    let (moves, total) = removed.trim_end().rsplit_once('\n').unwrap();
    assert!(moves.lines().count() == 3 && moves.lines().all(|line| line.starts_with("d -> ")), "{removed}");
    let moved: f64 = total.split(' ').next().unwrap().parse().unwrap();
    assert!((24_000.0..26_000.0).contains(&moved), "a quarter: {total}");
    assert_eq!(total, format!("{moved} of 100000 sessions move ({:.1} %)", moved / 1000.0));

    let sessions = file("one\ntwo\n\nthree\n");
    let some = stdout(&["explain", "--config", &four, "--against", &four, "--sessions", sessions.to_str().unwrap()]);
    assert_eq!(some, "0 of 3 sessions move (0.0 %)\n");
}

#[test]
fn schema_is_a_json_schema_of_the_file() {
    let schema: Value = serde_json::from_str(&stdout(&["schema"])).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    for key in ["listeners", "admin", "affinity", "pools", "limits", "shutdown"] {
        assert!(schema["properties"][key].is_object(), "{key}");
    }
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn completions_know_the_subcommands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&["completions", shell]);
        for word in ["run", "check", "explain", "schema", "completions", "--config"] {
            assert!(script.contains(word.trim_start_matches("--")), "{word} in {shell}");
        }
    }
    complaint(&["completions", "no-shell"]);
}

#[test]
fn help_and_version_are_there() {
    assert!(stdout(&["--version"]).starts_with("ingle "));
    for args in [&["--help"][..], &["run", "--help"], &["explain", "--help"]] {
        assert!(stdout(args).contains("Usage: ingle"), "{args:?}");
    }
}
