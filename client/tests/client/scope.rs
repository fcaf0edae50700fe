//! Polled by hand on the test's own thread: what holds after each poll is plain to see.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use futures_util::stream::{self, Stream, StreamExt};
use ingle_client::{SessionExt, current, sync_scope};

use crate::{here, id};

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls until done, and checks after each poll that the session did not stay.
fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    for _ in 0..1000 {
        let polled = poll_once(future.as_mut());
        assert_eq!(current(), None, "a session outlived its poll");
        if let Poll::Ready(output) = polled {
            return output;
        }
    }
    panic!("not done after 1000 polls");
}

/// Pending once: whoever awaits it is polled again later.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|_| if std::mem::replace(&mut yielded, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

fn chat(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn set_inside_and_absent_outside() {
    assert_eq!(here(), None);
    assert_eq!(run(async { here() }.in_session(id("chat-7"))), chat("chat-7"));
    assert_eq!(here(), None);
}

#[test]
fn flows_through_await_and_yield() {
    async fn deep() -> Option<String> {
        yield_now().await;
        here()
    }
    let turn = async {
        let before = here();
        yield_now().await;
        (before, here(), deep().await)
    };
    assert_eq!(run(turn.in_session(id("a"))), (chat("a"), chat("a"), chat("a")));
}

#[test]
fn flows_through_join_and_each_branch_may_have_its_own() {
    let branch = async || {
        yield_now().await;
        here()
    };
    let turn = async { tokio::join!(branch(), branch().in_session(id("b")), branch().without_session(), branch()) };
    assert_eq!(run(turn.in_session(id("a"))), (chat("a"), chat("b"), None, chat("a")));
}

#[test]
fn flows_through_select() {
    let turn = async {
        tokio::select! {
            biased;
            () = std::future::pending() => unreachable!(),
            seen = async { yield_now().await; here() } => (seen, here()),
        }
    };
    assert_eq!(run(turn.in_session(id("a"))), (chat("a"), chat("a")));
}

#[test]
fn a_nested_session_wins_and_the_outer_one_comes_back() {
    let turn = async {
        let inner = async {
            yield_now().await;
            here()
        };
        let inner = inner.in_session(id("inner")).await;
        (inner, here())
    };
    assert_eq!(run(turn.in_session(id("outer"))), (chat("inner"), chat("outer")));
}

#[test]
fn without_session_inside_a_session_is_none() {
    let turn = async {
        let title = async {
            yield_now().await;
            here()
        };
        (title.without_session().await, here())
    };
    assert_eq!(run(turn.in_session(id("a"))), (None, chat("a")));
}

#[test]
fn interleaved_polls_do_not_mix() {
    let turn = || async {
        yield_now().await;
        let first = here();
        yield_now().await;
        (first, here())
    };
    let mut a = pin!(turn().in_session(id("a")));
    let mut b = pin!(turn().in_session(id("b")));
    for _ in 0..2 {
        assert!(poll_once(a.as_mut()).is_pending());
        assert!(poll_once(b.as_mut()).is_pending());
        assert_eq!(here(), None);
    }
    assert_eq!(poll_once(b), Poll::Ready((chat("b"), chat("b"))));
    assert_eq!(poll_once(a), Poll::Ready((chat("a"), chat("a"))));
}

#[test]
fn current_is_captured_when_asked_for() {
    let (captured, nothing) = sync_scope(id("a"), || (async { here() }.in_current_session(), async { here() }));
    assert_eq!(run(captured), chat("a"));
    assert_eq!(run(nothing), None);

    let unset = async { here() }.in_current_session();
    let turn = async { (unset.await, here()) };
    assert_eq!(run(turn.in_session(id("a"))), (None, chat("a")), "no session is captured, too");
}

#[test]
fn each_poll_of_a_stream_is_inside() {
    let mut lazy = pin!(
        stream::iter(0..2)
            .then(|_| async {
                yield_now().await;
                here()
            })
            .in_session(id("a"))
    );
    let mut items = Vec::new();
    for _ in 0..8 {
        match lazy.as_mut().poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(item)) => items.push(item),
            Poll::Ready(None) => break,
            Poll::Pending => {}
        }
        assert_eq!(here(), None);
    }
    assert_eq!(items, [chat("a"), chat("a")]);
}

#[test]
fn a_stream_keeps_its_own_session_in_another() {
    let turn = async {
        let lazy = stream::iter(0..2).map(|_| here());
        let items: Vec<_> = lazy.in_session(id("stream")).collect().await;
        (items, here())
    };
    assert_eq!(run(turn.in_session(id("turn"))), (vec![chat("stream"), chat("stream")], chat("turn")));
    assert_eq!(stream::iter(0..3).without_session().size_hint(), (3, Some(3)));
}

#[test]
fn a_panic_in_a_poll_restores_what_was() {
    async fn panics() {
        assert_eq!(here(), None, "a panic on purpose");
    }
    let mut future = pin!(panics().in_session(id("inner")));
    sync_scope(id("outer"), || {
        assert!(catch_unwind(AssertUnwindSafe(|| poll_once(future.as_mut()))).is_err());
        assert_eq!(here(), chat("outer"));
    });
    assert_eq!(here(), None);
}

/// Asks for the session when dropped.
struct AskOnDrop<'a>(&'a RefCell<Vec<Option<String>>>);

impl Drop for AskOnDrop<'_> {
    fn drop(&mut self) {
        self.0.borrow_mut().push(here());
    }
}

#[test]
fn what_is_wrapped_is_dropped_inside() {
    let seen = RefCell::new(Vec::new());
    let guard = AskOnDrop(&seen);
    drop(async move { drop(guard) }.in_session(id("unpolled")));

    let half_way = async {
        let _guard = AskOnDrop(&seen);
        std::future::pending::<()>().await;
    };
    let mut half_way = Box::pin(half_way.in_session(id("cancelled")));
    assert!(poll_once(half_way.as_mut()).is_pending());
    drop(half_way);

    assert_eq!(*seen.borrow(), [chat("unpolled"), chat("cancelled")]);
    assert_eq!(here(), None);
}

#[test]
fn sync_scopes_nest_clear_and_survive_panics() {
    sync_scope(id("a"), || {
        assert_eq!(sync_scope(None, here), None);
        assert_eq!(sync_scope(Some(id("b")), here), chat("b"));
        assert!(catch_unwind(|| sync_scope(id("c"), || panic!("on purpose"))).is_err());
        assert_eq!(here(), chat("a"));
    });
    assert_eq!(here(), None);
}
