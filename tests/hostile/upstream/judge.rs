//! How a case is judged: by what a strict client gets, and by what the next clients get.

use tokio::time::timeout;

use super::client::{Client, Kind, Outcome};
use super::origin::{Origin, control_answer};
use super::script::{Case, Fate, Must, Step};
use super::stage::Stage;
use crate::cases::PATIENCE;

/// Runs each case with each kind of client, and panics with the list of those that went wrong.
pub(crate) async fn run(cases: Vec<Case>) {
    let (alone, paired) = (Stage::start().await, Stage::with_fallback().await);
    let (mut wrong, mut count) = (Vec::new(), 0);
    for case in &cases {
        let mut judged = Vec::new();
        for kind in [Kind::Http11, Kind::Http10, Kind::H2c] {
            judged.push((format!("{kind:?}"), judge(&alone, case, kind).await));
        }
        if matches!(case.must, Must::Refused(_)) && case.method == "GET" {
            judged.push(("another backend".to_owned(), judge(&paired, case, Kind::Http11).await));
        }
        for (how, outcome) in judged {
            count += 1;
            println!("{:<58} {how:<16} {}", case.name, outcome.as_deref().unwrap_or_else(|error| error));
            if let Err(error) = outcome {
                wrong.push(format!("{} ({how}): {} expected, but {error}", case.name, case.must));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {count} cases went wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// What came of a case, or what is wrong with that.
async fn judge(stage: &Stage, case: &Case, kind: Kind) -> Result<String, String> {
    stage.origin.set(&case.steps);
    let fallback = stage.fallback.as_ref();
    // The other backend gives the answer of a control request.
    fallback.inspect(|fallback| fallback.set(&[Step::Send(control_answer("/fallback"))]));
    let mut client = Client::connect(stage.address, kind).await;
    let asked = client.ask(case.method, "/case", |progress| stage.origin.note(progress));
    let outcome = timeout(PATIENCE, asked).await.map_err(|_| "the gateway hangs".to_owned())??;
    is_right(case, &outcome, kind, fallback.is_some())?;
    stage.until_quiet().await?;
    timeout(PATIENCE, stage.origin.until_done()).await.map_err(|_| "the backend is not left".to_owned())?;
    // On the same connection, then on another one.
    if outcome.keeps {
        control(&mut client, "/control/same").await?;
    } else {
        timeout(PATIENCE, client.end()).await.map_err(|_| "the connection stays open".to_owned())??;
    }
    drop(client);
    control(&mut Client::connect(stage.address, Kind::Http11).await, "/control/other").await?;
    stage.until_empty().await?;
    is_at_peace(&stage.origin, case)?;
    fallback.map_or(Ok(()), |fallback| fallback.log().wrong.first().cloned().map_or(Ok(()), Err))?;
    Ok(outcome.to_string())
}

fn is_right(case: &Case, outcome: &Outcome, kind: Kind, has_fallback: bool) -> Result<(), String> {
    let Outcome { status, payload, is_whole, .. } = outcome;
    let is_from = |name: &str| outcome.field("X-Ingle-Backend") == Some(name.as_bytes());
    let is_right = match &case.must {
        Must::Whole(must, all) => *status == Some(*must) && payload == all && *is_whole && is_from("hostile"),
        Must::Broken(must, all) => {
            // To HTTP/1.0, a body without a length ends with its connection, however that ends.
            let is_broken = !is_whole || kind == Kind::Http10 && outcome.field("Content-Length").is_none();
            *status == Some(*must) && all.starts_with(payload) && is_broken && is_from("hostile")
        }
        Must::Refused(_) if has_fallback => {
            *status == Some(200) && payload == b"/fallback" && *is_whole && is_from("fallback")
        }
        Must::Refused(must) => *status == Some(*must) && *is_whole && outcome.field("X-Ingle-Backend").is_none(),
    };
    if !is_right {
        return Err(format!("it was {outcome}"));
    }
    let (interim, trailers) = match kind {
        Kind::Http11 => (&case.interim[..], &case.trailers[..]),
        Kind::Http10 => (&[][..], &[][..]),
        Kind::H2c => (&[][..], &case.trailers[..]),
    };
    let same = |(one, other): (&crate::reader::Field, &crate::reader::Field)| {
        one.0.eq_ignore_ascii_case(&other.0) && one.1 == other.1
    };
    if outcome.interim != interim {
        return Err(format!("the interim responses were {:?}", outcome.interim));
    }
    if outcome.trailers.len() != trailers.len() || !outcome.trailers.iter().zip(trailers).all(same) {
        return Err(format!("the trailers were {:?}", outcome.trailers));
    }
    match &case.field {
        Some((name, value)) if outcome.field(name) != Some(value) => {
            Err(format!("{name} was {:?}", outcome.field(name).map(|value| value.escape_ascii().to_string())))
        }
        _ => Ok(()),
    }
}

/// An ordinary request gets its own answer.
pub(crate) async fn control(client: &mut Client, target: &str) -> Result<(), String> {
    let asked = timeout(PATIENCE, client.ask("GET", target, |_| ()));
    let outcome = asked.await.map_err(|_| format!("{target}: the gateway hangs"))??;
    let is_right = outcome.status == Some(200) && outcome.payload == target.as_bytes() && outcome.is_whole;
    if is_right { Ok(()) } else { Err(format!("{target} got {outcome}")) }
}

/// The backend got nothing but requests, and its connection was kept or dropped as it must be.
fn is_at_peace(origin: &Origin, case: &Case) -> Result<(), String> {
    let log = origin.log();
    if let Some(wrong) = log.wrong.first() {
        return Err(format!("at the backend: {wrong}"));
    }
    let last = log.cases.last().ok_or("the backend got no request")?;
    let fate = if log.controls.contains(last) { Fate::Kept } else { Fate::Dropped };
    if fate == case.fate { Ok(()) } else { Err(format!("the connection to the backend was {fate:?}")) }
}
