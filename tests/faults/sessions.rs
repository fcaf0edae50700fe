//! Session headers that are none, and sessions that somebody chose.

use std::time::Instant;

use tokio::task::JoinSet;

use crate::asked::{Asked, Kind};
use crate::cases::End;
use crate::exchange::Caller;
use crate::harness::Setup;
use crate::hostile::{Answer, exchange};
use crate::scenario::{Play, Played, Scenario, scenario};
use crate::stage::Stage;
use crate::traffic::Seen;

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        scenario("absent", "requests without a session header", |play| odd(play, vec![(b"X: y".to_vec(), BALANCED)])),
        scenario("empty", "an empty session header, and one of blanks", |play| {
            odd(play, vec![(b"X-Session-Id:".to_vec(), BALANCED), (b"X-Session-Id: \t ".to_vec(), BALANCED)])
        }),
        scenario("long", "a session header of 10 KB, and one of 64 KB", |play| {
            let of = |length: usize| format!("X-Session-Id: {}", "s".repeat(length)).into_bytes();
            odd(play, vec![(of(10_000), BALANCED), (of(65_536), (431, None))])
        }),
        scenario("no_text", "a session header that is no ASCII, and one that is no UTF-8", |play| {
            odd(play, vec![("X-Session-Id: café".into(), BALANCED), (b"X-Session-Id: \xff\xfe".to_vec(), BALANCED)])
        }),
        scenario("repeated", "a session header twice, the same and different", |play| {
            let two = |other: &str| format!("X-Session-Id: session-0\r\nX-Session-Id: {other}").into_bytes();
            odd(play, vec![(two("session-0"), HOME), (two("session-1"), BALANCED)])
        }),
        scenario("case", "the session header in other cases", |play| {
            let named = |name: &str| (format!("{name}: session-0").into_bytes(), HOME);
            odd(play, ["x-session-id", "X-SESSION-ID", "x-SeSsIoN-iD"].map(named).into())
        }),
        scenario(
            "aimed",
            "somebody who knows the names and the seed sends 60 sessions at once that all live on gpu1",
            aimed,
        ),
    ]
}

type Due = (u16, Option<&'static str>);
const BALANCED: Due = (200, Some("balanced"));
const HOME: Due = (200, Some("home"));

/// Each gets this status and this affinity; `session-0` is at its home, where the traffic's is.
async fn odd(play: Play, headers: Vec<(Vec<u8>, Due)>) -> Played {
    let mut stage = Stage::start(play, |setup| setup).await;
    stage.faulty(&[]);
    let seen = stage.traffic.seen();
    let of_0 = |seen: &&Seen| seen.asked.session.as_deref() == Some("session-0");
    let home = seen.iter().find(of_0).and_then(|seen| seen.done.backend.clone());
    let times = stage.play.times(20);
    for (header, (status, affinity)) in (0..times).flat_map(|_| headers.clone()) {
        let bytes = [b"GET /odd HTTP/1.1\r\nHost: a\r\n", &header[..], b"\r\n\r\n"].concat();
        let answers = exchange(stage.process.address, &bytes, End::Waits, 1).await.unwrap_or_default();
        let right = |answer: &Answer| {
            let of = |name| crate::client::header_of(&answer.head, name);
            let there = affinity != Some("home") || of("X-Ingle-Backend") == home.as_deref();
            answer.status == status && affinity.is_none_or(|due| of("X-Ingle-Affinity") == Some(due)) && there
        };
        if !answers.first().is_some_and(right) {
            stage.problem(format!("not {status} {affinity:?}: {answers:?}"));
        }
    }
    stage.note(format!("{} such requests", times * headers.len()));
    stage.traffic.turns(2).await;
    stage.finish().await
}

/// What keeps one backend from being buried is the bound on its share.
async fn aimed(play: Play) -> Played {
    // As it comes: the other scenarios have load bounds switched off.
    let names = ["gpu0", "gpu1", "gpu2"];
    let backends: Vec<_> = names.map(crate::backend::Backend::start).into();
    let setup = backends.iter().fold(Setup::new().health("interval: 100ms"), |setup, backend| {
        setup.backend(backend.name(), &format!("http://{}", backend.address))
    });
    let mut stage = Stage::of(play, backends, &setup.yaml()).await;
    // Sessions leave it for load, as they should.
    stage.faulty(&names);
    let address = stage.process.address;
    let mut aimed = Vec::new();
    let mut caller = Caller::Http1 { keeps: true, connection: None };
    for number in 0.. {
        let ask = |id: String| Asked {
            id,
            kind: Kind::Short,
            session: Some(format!("aimed-{number}")),
            padding: 0,
            chunked: false,
        };
        let done = caller.ask(address, &ask(format!("aim-{number}"))).await;
        if done.backend.as_deref() == Some("gpu1") && done.affinity.as_deref() == Some("home") {
            aimed.push(format!("aimed-{number}"));
        }
        if aimed.len() == 60 {
            break;
        }
    }
    let mut attack = JoinSet::new();
    for (number, session) in aimed.into_iter().enumerate() {
        attack.spawn(async move {
            let (id, kind) = (format!("attack-{number}"), Kind::Stream { pieces: 20, pause: 50 });
            let asked = Asked { id, kind, session: Some(session), padding: 0, chunked: false };
            let begun = Instant::now();
            let done = Caller::Http1 { keeps: false, connection: None }.ask(address, &asked).await;
            Seen { asked, begun, ended: Instant::now(), done }
        });
    }
    let mut there = 0;
    while let Some(seen) = attack.join_next().await {
        let done = seen.unwrap().done;
        there += usize::from(done.backend.as_deref() == Some("gpu1"));
        if let Some(failure) = done.failure {
            stage.problem(format!("one of the 60 failed: {failure:?}"));
        }
    }
    stage.traffic.turns(2).await;
    let most = stage.gpu1().most();
    stage.must(most < 50, format!("gpu1 had {most} requests at once"));
    stage.note(format!("{there} of the 60 were served by gpu1, which had at most {most} requests at once"));
    stage.finish().await
}
