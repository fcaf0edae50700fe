//! Prometheus's own opinion of `/metrics`.

use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

use crate::harness::Gateway;
use crate::llama::{required, shout};

/// Fails unless `promtool check metrics` has nothing to say. Skipped, said aloud, where there is no promtool, unless
/// `INGLE_REAL_PROMTOOL=1` says that there must be.
pub(crate) async fn accepts(gateway: &Gateway) {
    let metrics = gateway.admin_get("/metrics").await.text();
    assert!(metrics.contains("ingle_requests_total{"), "there is something to judge: {metrics}");
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match promtool {
        Err(error) if error.kind() == ErrorKind::NotFound && !required("INGLE_REAL_PROMTOOL") => {
            shout("SKIPPED promtool check metrics: it needs promtool; apt-get install prometheus");
            return;
        }
        promtool => promtool.unwrap(),
    };
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    assert!(said.status.success() && said.stderr.is_empty() && said.stdout.is_empty(), "{said:?}\n{metrics}");
}
