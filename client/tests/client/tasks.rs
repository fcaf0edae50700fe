use std::time::Duration;

use futures_util::future::join_all;
use ingle_client::{SessionExt, spawn, spawn_blocking, sync_scope};
use proptest::prelude::*;
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

use crate::{here, id};

fn chat(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[tokio::test]
async fn a_bare_spawn_does_not_inherit() {
    let turn = async { tokio::spawn(async { here() }).await.unwrap() };
    assert_eq!(turn.in_session(id("a")).await, None);
}

#[tokio::test]
async fn spawn_takes_the_session_along() {
    let turn = async {
        let task = spawn(async {
            yield_now().await;
            here()
        });
        let wrapped = tokio::spawn(async { here() }.in_current_session());
        let sidecar = spawn(async { here() }.without_session());
        (task.await.unwrap(), wrapped.await.unwrap(), sidecar.await.unwrap())
    };
    assert_eq!(turn.in_session(id("a")).await, (chat("a"), chat("a"), None));
    assert_eq!(spawn(async { here() }).await.unwrap(), None);
}

#[tokio::test]
async fn spawn_blocking_takes_the_session_along() {
    let turn = async { spawn_blocking(here).await.unwrap() };
    assert_eq!(turn.in_session(id("a")).await, chat("a"));
    assert_eq!(tokio::task::spawn_blocking(here).await.unwrap(), None, "the pool's thread kept nothing");
}

#[tokio::test]
async fn a_panic_in_a_task_leaves_its_thread_clean() {
    let task = spawn(async { panic!("on purpose") }.in_session(id("a")));
    assert!(task.await.unwrap_err().is_panic());
    assert_eq!(tokio::spawn(async { here() }).await.unwrap(), None);
}

#[test]
fn threads_have_their_own() {
    sync_scope(id("a"), || {
        assert_eq!(std::thread::spawn(here).join().unwrap(), None);
        let carried = ingle_client::current();
        assert_eq!(std::thread::spawn(|| sync_scope(carried, here)).join().unwrap(), chat("a"));
    });
}

/// What a task of the property test does; after each step it must still be in its own session.
#[derive(Clone, Debug)]
enum Step {
    Yield,
    Sleep,
    Nested(Vec<Step>),
    Sidecar(Vec<Step>),
    Spawned(Vec<Step>),
    Together(Vec<Step>, Vec<Step>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let leaf = prop_oneof![3 => Just(Step::Yield), 1 => Just(Step::Sleep)];
    let step = leaf.prop_recursive(3, 12, 4, |step| {
        let some = proptest::collection::vec(step, 0..4);
        prop_oneof![
            some.clone().prop_map(Step::Nested),
            some.clone().prop_map(Step::Sidecar),
            some.clone().prop_map(Step::Spawned),
            (some.clone(), some).prop_map(|(a, b)| Step::Together(a, b)),
        ]
    });
    proptest::collection::vec(step, 0..6)
}

/// Runs the steps in the session `expected`; true if it was seen after every one.
fn walk(steps: Vec<Step>, expected: Option<String>) -> std::pin::Pin<Box<dyn Future<Output = bool> + Send>> {
    Box::pin(async move {
        let mut held = here() == expected;
        for step in steps {
            held &= match step {
                Step::Yield => {
                    yield_now().await;
                    true
                }
                Step::Sleep => {
                    tokio::time::sleep(Duration::from_micros(50)).await; // moves the task to another thread at times
                    true
                }
                Step::Nested(inner) => {
                    let name = format!("{}+", expected.as_deref().unwrap_or("none"));
                    walk(inner, Some(name.clone())).in_session(id(&name)).await
                }
                Step::Sidecar(inner) => walk(inner, None).without_session().await,
                Step::Spawned(inner) => spawn(walk(inner, expected.clone())).await.unwrap(),
                Step::Together(a, b) => {
                    let (a, b) = tokio::join!(walk(a, expected.clone()), walk(b, expected.clone()));
                    a && b
                }
            };
            held &= here() == expected;
        }
        held
    })
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn concurrent_sessions_do_not_mix(conversations in proptest::collection::vec(steps(), 1..12)) {
        let held = runtime().block_on(async {
            let tasks = conversations.into_iter().enumerate().map(|(n, steps)| {
                let name = format!("chat-{n}");
                tokio::spawn(walk(steps, Some(name.clone())).in_session(id(&name)))
            });
            join_all(tasks.collect::<Vec<_>>()).await
        });
        for (n, held) in held.into_iter().enumerate() {
            prop_assert!(held.unwrap(), "conversation {} saw another's session", n);
        }
    }
}
