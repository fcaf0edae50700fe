//! The soak, shortly: that it finds nothing wrong here, and that it would. `make soak` is the long one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::cast_possible_truncation)] // all of it is test code

#[allow(dead_code, reason = "the bench uses the rest")]
#[path = "../benches/soak/harness/mod.rs"]
mod harness;

use std::time::Duration;

use harness::options::Options;

/// A moderate rate: the tests run unoptimised, and beside others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_minute_of_everything_leaves_nothing_unexplained() {
    let options = Options {
        rate: 60.0,
        streams: 12,
        pause: Duration::from_millis(300),
        sample: Duration::from_secs(2),
        ..Options::of(0.4)
    };
    let report = harness::soak(&options).await.unwrap();
    println!("{}", report.text());
    assert_eq!(report.wrong(), [""; 0]);
    assert_eq!(report.done.get("upgrade"), Some(&5), "{:?}", report.done);
    assert!(report.done.len() >= 3, "too little was done to mean anything: {:?}", report.done);
    assert!(report.tally.requests() > 300 && report.tally.left.len() >= 5, "{}", report.text());
    assert!(report.tally.whole.len() >= 5, "{:?}", report.tally.whole);
}
