//! How a case is judged.

use crate::cases::{Case, Expect};
use crate::client::{self, Answer};
use crate::world::World;

/// Runs all cases, one after the other, and panics with the list of those that went wrong.
pub(crate) async fn run(world: &World, cases: Vec<Case>) {
    let mut wrong = Vec::new();
    for case in &cases {
        let outcome = outcome(world, case).await;
        println!("{:<58} {}", case.name, outcome.as_deref().unwrap_or_else(|error| error));
        if let Err(error) = outcome {
            wrong.push(format!("{}: expected {:?}, but {error}", case.name, case.expect));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases went wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

async fn outcome(world: &World, case: &Case) -> Result<String, String> {
    let (served, refused) = match case.expect {
        Expect::Refused(status) => (&[][..], Some(status)),
        Expect::Closed => (&[][..], None),
        Expect::Served(requests) => (requests, None),
    };
    let most = (served.len() + usize::from(refused.is_some())).max(1);
    let answers = client::exchange(world.address, &case.bytes, case.end, most).await;
    let (reached, unfinished) = world.aftermath().await?;
    let answers = answers?;
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    let expected: Vec<u16> = served.iter().map(|_| 200).chain(refused).collect();
    let outcome = format!("{statuses:?} {reached:?}{}", if unfinished { ", one cut" } else { "" });
    if unfinished || statuses != expected || reached != served {
        return Err(format!("it was {outcome}"));
    }
    answers.iter().zip(served).try_for_each(|(answer, request)| right_answer(answer, request))?;
    Ok(outcome.chars().take(120).collect())
}

fn right_answer(answer: &Answer, request: &str) -> Result<(), String> {
    let target = request.split(' ').nth(1).unwrap_or_default();
    let empty = request.starts_with("HEAD ");
    if answer.body == if empty { "" } else { target } { Ok(()) } else { Err(format!("answers mixed up: {answer:?}")) }
}
