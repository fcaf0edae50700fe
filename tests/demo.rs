//! `ingle demo` and `ingle sim`, as their users run them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// For anything that a busy machine may delay.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn the_demo_ends_by_itself_and_shows_that_affinity_reuses_more() {
    let demo = Command::new(env!("CARGO_BIN_EXE_ingle"))
        .args(["demo", "--seconds", "6", "--admin", "127.0.0.1:0"])
        .output()
        .unwrap();
    let text = stdout(&demo);
    assert!(demo.status.success(), "{demo:?}");
    assert_eq!(String::from_utf8_lossy(&demo.stderr), "", "nothing tears the table");
    let page = text.lines().find_map(|line| line.strip_prefix("status page: http://127.0.0.1:")).expect(&text);
    assert!(page.ends_with('/'), "{page:?}");
    let [with, without] = row(&text, "reuse: prompt tokens found in a cache");
    assert!(with > without, "{with} % against {without} %\n{text}");
    assert!(text.contains("gpu1 is killed") && text.contains("gpu1 starts again"), "{text}");
    assert!(text.contains("gpu1 was killed: 0 of "), "no request may fail before its first token\n{text}");
    let killed = text.lines().find_map(|line| line.split_once("on both sides, while it computes ")).expect(&text).1;
    let prompts: Vec<u32> = killed.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert!(prompts.len() == 2 && prompts.iter().all(|prompts| *prompts > 0), "it dies in prefills\n{text}");
    assert!(!text.contains('\x1b'), "a pipe gets no escape codes");
}

#[test]
fn ctrl_c_ends_the_demo_at_once_with_a_summary() {
    let mut demo = start(&["demo", "--seconds", "600", "--admin", "127.0.0.1:0"]);
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let page = lines.by_ref().map_while(Result::ok).find(|line| line.starts_with("status page: ")).unwrap();
    let address = page.trim_start_matches("status page: http://").trim_end_matches('/').to_owned();
    // Not before there is something to sum up.
    until(|| status(&address)["reuse"].as_array().is_some_and(|all| all.iter().any(|one| one["requests"] != 0)));
    let html = exchange(&address, "GET", "/", "");
    assert!(html.starts_with("HTTP/1.1 200") && html.contains("page.js"), "{html}");
    assert!(html.to_ascii_lowercase().contains("content-security-policy: default-src 'none'"), "{html}");
    interrupt(&demo);
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert_eq!(ended(&mut demo), Some(0));
    assert!(rest.iter().any(|line| line.contains("Stopped after")), "{rest:?}");
}

#[test]
fn the_simulated_server_serves_until_it_is_told_to_end() {
    for server in ["llama_server", "vllm"] {
        let mut sim =
            start(&["sim", "--listen", "127.0.0.1:0", "--server", server, "--name", "gpu7", "--time-scale", "0"]);
        let mut first = String::new();
        BufReader::new(sim.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(first.contains(server) && first.contains("gpu7"), "{first}");
        let address = first.trim().rsplit_once("http://").unwrap().1.to_owned();
        assert!(exchange(&address, "GET", "/health", "").starts_with("HTTP/1.1 200"));
        let body = r#"{"messages":[{"role":"user","content":"hello"}],"max_tokens":3}"#;
        let answer = exchange(&address, "POST", "/v1/chat/completions", body);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(r#""completion_tokens":3"#), "{answer}");
        interrupt(&sim);
        assert_eq!(ended(&mut sim), Some(0));
    }
}

#[test]
fn simulated_server_fails_before_the_first_token() {
    let mut sim = start(&[
        "sim",
        "--listen",
        "127.0.0.1:0",
        "--server",
        "llama_server",
        "--time-scale",
        "0",
        "--fault",
        "503",
        "--fault-skeleton",
        "--fault-times",
        "1",
    ]);
    let mut first = String::new();
    BufReader::new(sim.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let address = first.trim().rsplit_once("http://").unwrap().1.to_owned();
    let body = r#"{"messages":[{"role":"user","content":"hello"}],"max_tokens":3,"stream":true}"#;
    let failed = exchange(&address, "POST", "/v1/chat/completions", body);
    let [role, error] = ["\"role\":\"assistant\"", "\"code\":503"].map(|part| failed.find(part).expect(&failed));
    assert!(role < error && !failed.contains("[DONE]"), "{failed}");
    assert!(exchange(&address, "POST", "/v1/chat/completions", body).contains("[DONE]"), "one answer fails");
    let usage = ["--fault-after", "1s"];
    let sim = Command::new(env!("CARGO_BIN_EXE_ingle")).args(["sim", "--listen", "127.0.0.1:0"]).args(usage).output();
    assert_eq!(sim.unwrap().status.code(), Some(2), "without --fault");
}

#[test]
fn a_simulated_server_with_impossible_settings_is_wrong_usage() {
    for wrong in [["--prefill-rate", "0"], ["--time-scale", "-1"], ["--server", "ollama"], ["--fault", "200"]] {
        let mut arguments = vec!["sim", "--listen", "127.0.0.1:0"];
        if wrong[0] != "--server" {
            arguments.extend(["--server", "vllm"]);
        }
        let sim = Command::new(env!("CARGO_BIN_EXE_ingle")).args(arguments).args(wrong).output().unwrap();
        assert_eq!(sim.status.code(), Some(2), "{wrong:?}: {sim:?}");
    }
}

fn start(arguments: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ingle"));
    Process(command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap())
}

/// A process that does not outlive its test.
struct Process(Child);

impl std::ops::Deref for Process {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl std::ops::DerefMut for Process {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

/// The exit code of a process that is about to end.
fn ended(child: &mut Child) -> Option<i32> {
    let mut status = None;
    until(|| {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status?.code()
}

fn until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Both figures of a row of the summary.
fn row(text: &str, name: &str) -> [u32; 2] {
    let line = text.lines().rfind(|line| line.contains(name)).expect(text);
    let figures: Vec<u32> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    figures.try_into().expect(line)
}

fn status(address: &str) -> serde_json::Value {
    let answer = exchange(address, "GET", "/status", "");
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn exchange(address: &str, method: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}
