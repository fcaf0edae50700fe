//! The status page in a browser: headless Chromium, driven over WebDriver (W3C) by ChromeDriver.
//!
//! Debian has both (`apt-get install chromium-driver`). Without them these tests are skipped, unless
//! `INGLE_TEST_BROWSER` is set, as it is in CI.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::client::{Client, Req};
use crate::harness::{Gateway, PATIENCE, Setup, sims};

/// A browser with one page. It ends with its driver when this drops.
struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
}

impl Browser {
    /// A browser as wide as a phone or a desk's screen. `None` if there is no driver and none is required.
    async fn start(width: u32) -> Option<Browser> {
        let started = Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut driver = match started {
            Ok(driver) => driver,
            Err(error) => {
                assert!(std::env::var_os("INGLE_TEST_BROWSER").is_none(), "chromedriver: {error}");
                println!("skipped: no chromedriver (Debian: apt-get install chromium-driver)");
                return None;
            }
        };
        let lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines
            .filter_map(|line| line.split_once("successfully on port ")?.1.trim_end_matches('.').parse::<u16>().ok())
            .next();
        let address = SocketAddr::from(([127, 0, 0, 1], port.expect("it prints its port")));
        let mut browser = Browser { driver, address, session: String::new() };
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ];
        let phone = json!({"deviceMetrics": {"width": width, "height": 850, "pixelRatio": 1}});
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments, "mobileEmulation": phone},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let value = browser.command("POST", "", &capabilities).await;
        value["sessionId"].as_str().unwrap().clone_into(&mut browser.session);
        Some(browser)
    }

    async fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        let session = if self.session.is_empty() { String::new() } else { format!("/{}", self.session) };
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let mut req = Req::new(method, &format!("/session{session}{path}"), body.as_bytes());
        // It serves no other host.
        req.headers = vec![("Host".to_owned(), "localhost".to_owned())];
        let answer = Client::connect(self.address).await.send(&req).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()["value"].clone()
    }

    async fn open(&self, gateway: &Gateway) {
        let url = format!("http://{}/", gateway.admin);
        self.command("POST", "/url", &json!({"url": url})).await;
    }

    /// The value of a JavaScript expression.
    async fn value(&self, expression: &str) -> Value {
        let script = json!({"script": format!("return {expression};"), "args": []});
        self.command("POST", "/execute/sync", &script).await
    }

    async fn until(&self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.value(expression).await != Value::Bool(true) {
            assert!(Instant::now() < deadline, "not in time: {expression}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the page wrote to the console.
    async fn console(&self) -> Value {
        self.command("POST", "/se/log", &json!({"type": "browser"})).await
    }

    async fn close(self) {
        self.command("DELETE", "", &Value::Null).await;
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

async fn shows_everything(width: u32) {
    // Two drivers that start at the same time can choose the same port.
    static ONE_BROWSER: Mutex<()> = Mutex::const_new(());
    let _alone = ONE_BROWSER.lock().await;
    let Some(browser) = Browser::start(width).await else { return };
    let sims = sims(2).await;
    let gateway = Setup::new().sims(&sims).start().await;
    for turn in 0..6 {
        let text = format!("{} turn {turn}", "a long prompt ".repeat(50));
        gateway.send(&Req::chat(&text, 3, true).session("a-chat")).await;
    }
    browser.open(&gateway).await;
    browser.until("document.querySelectorAll('#charts figure').length == 4").await;
    browser.until("document.querySelectorAll('#backends tr').length == 2").await;
    browser.until("document.querySelector('#charts path').getAttribute('d').startsWith('M')").await;
    let labels =
        browser.value("[...document.querySelectorAll('#charts svg')].map((svg) => svg.ariaLabel).join('; ')").await;
    let labels = labels.as_str().unwrap();
    assert!(labels.contains("Time to first token in the last 15 minutes"), "{labels}");
    let reuse = labels.split("Cache reuse").nth(1).unwrap();
    assert!(reuse.contains(" %;") && !reuse.contains("now of prompt tokens -;"), "{labels}");
    let firsts = browser.value("[...document.querySelectorAll('#backends td[data-label=\"First token\"]')].map((cell) => cell.textContent).join()").await;
    assert!(firsts.as_str().unwrap().contains(" ms / "), "{firsts}");
    browser.until("[...document.querySelectorAll('.spark path')].every((path) => path.getAttribute('d'))").await;
    assert_eq!(browser.value("document.documentElement.scrollWidth <= innerWidth").await, true, "nothing is cut off");
    assert_eq!(browser.console().await, json!([]), "no error, and nothing that the page's policy refuses");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_page_fits_a_phone() {
    shows_everything(390).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_page_fits_a_screen() {
    shows_everything(1280).await;
}

#[tokio::test]
async fn history_has_a_quarter_of_an_hour() {
    let sims = sims(1).await;
    let gateway = Setup::new().sims(&sims).start().await;
    gateway.send(&Req::chat("hello", 3, true).session("s")).await;
    gateway.until_idle().await;
    let history = gateway.admin_get("/history").await.json();
    for list in
        ["requests", "errors", "prompt_tokens", "cached_prompt_tokens", "first_token_p50_ms", "first_token_p99_ms"]
    {
        assert_eq!(history[list].as_array().unwrap().len(), 61, "{list}");
    }
    let sum = |list: &str| history[list].as_array().unwrap().iter().filter_map(Value::as_u64).sum::<u64>();
    assert_eq!((sum("requests"), sum("errors")), (1, 0));
    assert!(sum("prompt_tokens") > 0, "{history}");
    assert!(history["first_token_p50_ms"].as_array().unwrap().iter().any(Value::is_u64));
    assert_eq!(history["backends"][0]["in_flight"].as_array().unwrap().len(), 61);
}
