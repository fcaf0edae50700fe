//! What operators and clients read when something fails: the cause in plain words, and the setting that set a limit.

use crate::client::{Client, Req};
use crate::harness::{Gateway, Setup, file, nobody, until};
use crate::process::Process;
use crate::scripted::{Scripted, Step, chunk, stream_head};

/// Names that libraries give to their errors.
fn has_library_name(text: &str) -> bool {
    let is_name = |word: &str| {
        let inner = word.bytes().skip(1);
        word.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && word.bytes().any(|byte| byte.is_ascii_lowercase())
            && inner.into_iter().any(|byte| byte.is_ascii_uppercase())
    };
    text.contains("os error")
        || text.split(|c: char| !c.is_alphanumeric()).any(|word| is_name(word) && word != "LimitNOFILE")
}

async fn last_error(gateway: &Gateway) -> String {
    let error = gateway.backend("a").await["last_error"].as_str().unwrap().to_owned();
    assert!(!has_library_name(&error), "{error}");
    error
}

async fn until_error(gateway: &Gateway) -> String {
    until("a probe has failed", || {
        let snapshot = gateway.inner.snapshot.load();
        snapshot.links[0].last_error().is_some()
    })
    .await;
    last_error(gateway).await
}

#[tokio::test]
async fn failed_probe_is_described() {
    // The kernel accepts, and nothing answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    for (url, expected) in [
        ("http://nowhere.invalid:80".to_owned(), "probe: the name cannot be resolved: "),
        (nobody(), "probe: connection refused"),
        (silent_url, "probe: no answer within 200ms (health_check.timeout)"),
    ] {
        let setup = Setup::new().backend("a", &url).health("interval: 20ms, timeout: 200ms");
        let gateway = setup.start_cold().await;
        // The resolver has its own limits.
        let error = until_error(&gateway).await;
        let is_slow_resolver = url.contains("nowhere") && error.contains("no answer within");
        assert!(error.starts_with(expected) || is_slow_resolver, "{error}");
    }
}

#[tokio::test]
async fn refused_probe_names_the_key() {
    let key = file("secret");
    for (status, more, expected) in [
        (401, String::new(), "probe: status 401: it requires an API key: set api_key_file"),
        (403, format!("api_key_file: {key:?}"), "probe: status 403: it does not accept the key of api_key_file"),
        (404, String::new(), "probe: status 404: it has no health check there: set health_check.path"),
    ] {
        let a = Scripted::ok("a").await;
        a.set_health(status);
        let gateway = Setup::new().backend_with("a", &a.url(), &format!("server: generic, {more}")).start_cold().await;
        assert_eq!(until_error(&gateway).await, expected);
        gateway.until_state("a", "unhealthy").await;
    }
}

#[tokio::test]
async fn throttled_probe_is_no_failure() {
    let (a, b) = (Scripted::ok("a").await, Scripted::ok("b").await);
    a.set_health(429);
    let gateway = Setup::new().backend("a", &a.url()).backend("b", &b.url()).start().await;
    until("it was probed often", || a.probes() > 10).await;
    assert_eq!(gateway.state("a"), "healthy");
    assert_eq!(last_error(&gateway).await, "probe: status 429: it throttles probes: raise health_check.interval");
    assert_eq!(gateway.send(&Req::get("/").session(&gateway.session_of("a"))).await.outcome(), "a home 200");
}

#[tokio::test]
async fn gateway_errors_say_why_and_when_to_retry() {
    let hangs = Scripted::start(|_| vec![Step::Hang]).await;
    let closes = Scripted::start(|_| vec![Step::Close]).await;
    for (url, timeouts, status, cause) in [
        (hangs.url(), "first_byte: 200ms", 504, "no first byte within 200ms (timeouts.first_byte)"),
        (hangs.url(), "total: 200ms", 504, "not complete within 200ms (timeouts.total)"),
        (closes.url(), "total: 0s", 502, "the backend closed the connection"),
    ] {
        let setup = Setup::new().one_probe().backend("a", &url).pool(&format!("timeouts: {{ {timeouts} }}"));
        let answer = setup.start().await.send(&Req::get("/v1/models")).await;
        assert_eq!((answer.status, answer.header("Retry-After")), (status, Some("2")), "{cause}");
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.ends_with(&format!("Cause: {cause}.")), "{message}");
    }
    let gateway = Setup::new().one_probe().backend("a", "http://nowhere.invalid").pool("timeouts: { connect: 10s }");
    let answer = gateway.start_cold().await.send(&Req::get("/v1/models")).await;
    assert!(answer.text().contains("the name cannot be resolved") && answer.header("Retry-After").is_some());
}

#[tokio::test]
async fn request_failed_has_its_cause() {
    let yaml = Setup::new().backend("a", &nobody()).yaml();
    let process = Process::start(&yaml).await;
    process.until_line(|line| line["to"] == "unhealthy").await;
    assert_eq!(Client::connect(process.address).await.send(&Req::get("/")).await.status, 502);
    let line = process.until_line(|line| line["message"] == "request failed").await;
    assert_eq!((&line["cause"], &line["backend"]), (&"connection refused".into(), &"a".into()));

    let process = Process::start(&yaml.replace("    backends:", "    fail_open: false\n    backends:")).await;
    process.until_line(|line| line["to"] == "unhealthy").await;
    assert_eq!(Client::connect(process.address).await.send(&Req::get("/")).await.status, 503);
    let line = process.until_line(|line| line["message"] == "request failed").await;
    assert_eq!(line["cause"], "no backend is left: 1 unhealthy");
    assert!(process.lines().iter().all(|line| !has_library_name(line)), "{:#?}", process.lines());
}

#[tokio::test]
async fn stream_cut_by_a_limit_names_the_setting() {
    for (timeouts, cause) in [
        ("idle: 300ms", "no byte within 300ms (timeouts.idle)"),
        ("total: 300ms", "not complete within 300ms (timeouts.total)"),
    ] {
        let stream = || vec![Step::Send(stream_head()), Step::Send(chunk(b"data: {\"x\":1}\n\n")), Step::Hang];
        let a = Scripted::start(move |_| stream()).await;
        let yaml = Setup::new().one_probe().backend("a", &a.url()).pool(&format!("timeouts: {{ {timeouts} }}")).yaml();
        let process = Process::start(&yaml).await;
        process.until_line(|line| line["to"] == "healthy").await;
        let answer = Client::connect(process.address).await.send(&Req::get("/stream")).await;
        assert_eq!((answer.status, answer.whole), (200, false));
        assert_eq!(process.until_line(|line| line["message"] == "stream broken").await["error"], cause);
    }
}

/// A client that reads nothing is not the backend's fault, and the setting that cut it is the same.
#[tokio::test]
async fn client_cut_by_a_limit_names_the_setting() {
    let a = Scripted::start(|_| vec![Step::Send(stream_head()), Step::Flood]).await;
    let setup = Setup::new().one_probe().backend("a", &a.url()).top("access_log: json");
    let process = Process::start(&setup.pool("timeouts: { idle: 300ms }").yaml()).await;
    process.until_line(|line| line["to"] == "healthy").await;
    let mut client = Client::connect(process.address).await;
    client.write(&Req::get("/flood").bytes()).await;
    let line = process.until_line(|line| line["path"] == "/flood").await;
    assert_eq!(line["error"], "the client read nothing for 300ms (timeouts.idle)");
}
