//! Requests that two servers could read in two ways: the corpus of `tests/hostile`, while others are served.

use crate::cases::{Case, Expect};
use crate::corpus::{bytes, chunks, connection, framing, size, target};
use crate::hostile::exchange;
use crate::scenario::{Play, Played, Scenario, scenario};
use crate::stage::Stage;

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        scenario("both", "Content-Length and Transfer-Encoding: CL.TE, TE.CL and their kin", |play| {
            run(play, framing::both)
        }),
        scenario("codings", "Transfer-Encoding in disguise", |play| run(play, framing::transfer_encoding)),
        scenario("lengths", "Content-Length in disguise", |play| run(play, framing::content_length)),
        scenario("versions", "HTTP/1.0 with Transfer-Encoding (as CVE-2026-2835), and other versions", |play| {
            run(play, framing::versions)
        }),
        scenario("chunks", "malformed chunks and trailers", |play| {
            run(play, || chunks::chunks().into_iter().chain(chunks::trailers()).collect())
        }),
        scenario("upgrades", "an upgrade that gets no 101, and bytes behind it (as CVE-2026-2833)", |play| {
            run(play, connection::upgrades)
        }),
        scenario("pipelines", "pipelined requests", |play| run(play, connection::pipelines)),
        scenario("nominations", "Connection names headers that are not its own", |play| {
            run(play, connection::nominations)
        }),
        scenario("bytes", "NUL, CR, LF and other bytes in heads", |play| run(play, bytes::bytes)),
        scenario("targets", "ambiguous targets and methods", |play| {
            run(play, || target::targets().into_iter().chain(target::methods()).collect())
        }),
        scenario("sizes", "heads of up to 10 MB", |play| run(play, size::sizes)),
    ]
}

/// Each case ends as the table says, and no request reaches a backend that the table does not name.
async fn run(play: Play, cases: impl Fn() -> Vec<Case>) -> Played {
    let mut stage = Stage::start(play, |setup| setup.top("limits: { header_timeout: 5s, max_body: 1MiB }")).await;
    stage.faulty(&[]);
    let (mut due, mut count, mut refused) = (Vec::new(), 0, 0);
    for case in (0..stage.play.times(1)).flat_map(|_| cases()) {
        let (served, status): (&[&str], _) = match case.expect {
            Expect::Refused(status) => (&[], Some(status)),
            Expect::Closed => (&[], None),
            Expect::Served(requests) => (requests, None),
        };
        let most = (served.len() + usize::from(status.is_some())).max(1);
        let expected: Vec<u16> = served.iter().map(|_| 200).chain(status).collect();
        match exchange(stage.process.address, &case.bytes, case.end, most).await {
            Ok(answers) if answers.iter().map(|answer| answer.status).eq(expected.iter().copied()) => {}
            other => stage.problem(format!("{}: not {expected:?}: {other:?}", case.name)),
        }
        due.extend(served.iter().map(|request| (*request).to_owned()));
        (count, refused) = (count + 1, refused + usize::from(served.is_empty()));
    }
    stage.traffic.turns(1).await;
    // Which backend it was is nobody's business here.
    let mut reached: Vec<String> = stage.backends.iter().flat_map(crate::backend::Backend::others).collect();
    reached.sort();
    due.sort();
    let extra: Vec<&String> = reached.iter().filter(|request| !due.contains(request)).collect();
    stage.must(extra.is_empty(), format!("these reached a backend: {extra:?}"));
    stage.must(reached == due, format!("{} requests reached backends instead of {}", reached.len(), due.len()));
    stage.note(format!("{count} cases, {refused} refused, none let a second request through"));
    stage.finish().await
}
