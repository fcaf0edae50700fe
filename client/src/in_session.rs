use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use pin_project_lite::pin_project;

use crate::scope::Swapped;
use crate::{SessionId, current};

/// Puts futures and streams into a session.
///
/// The session holds while the future or stream is polled or dropped, on whatever thread and runtime that is, and
/// nowhere else. It flows through `.await`, `join!` and `select!`, because these poll in place. It does not flow into
/// a spawned task, which somebody else polls: wrap what you spawn (or use `ingle_client::spawn`).
///
/// The innermost wrapper wins.
///
/// ```
/// use ingle_client::{SessionExt, SessionId, current};
/// # async fn example() -> Result<(), ingle_client::InvalidSessionId> {
/// let id = SessionId::new("chat-7")?;
/// let turn = async {
///     assert!(current().is_some());
///     async { assert!(current().is_none()) }.without_session().await; // say, a title for the chat
/// };
/// turn.in_session(id).await;
/// assert!(current().is_none());
/// # Ok(())
/// # }
/// # let mut future = std::pin::pin!(example());
/// # let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
/// # assert!(future.as_mut().poll(&mut cx).is_ready());
/// ```
pub trait SessionExt: Sized {
    /// Every call made inside belongs to this session.
    fn in_session(self, id: SessionId) -> InSession<Self> {
        InSession::new(self, Some(id))
    }

    /// Takes along the session of the code that calls this, or that there is none: for what will be polled elsewhere.
    ///
    /// ```
    /// # use ingle_client::SessionExt;
    /// # fn example(tasks: &mut tokio::task::JoinSet<()>) {
    /// tasks.spawn(async { /* still in the caller's session */ }.in_current_session());
    /// # }
    /// ```
    fn in_current_session(self) -> InSession<Self> {
        InSession::new(self, current())
    }

    /// No call made inside belongs to a session: for sidecar calls (titles, compaction, memory), whose other prompt
    /// would push the conversation out of the cache it came home for.
    fn without_session(self) -> InSession<Self> {
        InSession::new(self, None)
    }
}

impl<T> SessionExt for T {}

pin_project! {
    /// A future or stream inside a session, or outside any. Made by [`SessionExt`].
    #[must_use = "futures and streams do nothing unless polled"]
    pub struct InSession<T> {
        // Always Some until the drop, which happens inside the session too.
        #[pin]
        inner: Option<T>,
        // While `inner` runs: the session around it. The two change places, so that a poll clones nothing.
        session: Option<SessionId>,
    }

    impl<T> PinnedDrop for InSession<T> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let _swapped = Swapped::new(this.session);
            this.inner.set(None);
        }
    }
}

impl<T> InSession<T> {
    fn new(inner: T, session: Option<SessionId>) -> InSession<T> {
        InSession { inner: Some(inner), session }
    }
}

impl<F: Future> Future for InSession<F> {
    type Output = F::Output;

    #[expect(clippy::expect_used, reason = "only the drop takes it out")]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _swapped = Swapped::new(this.session);
        this.inner.as_pin_mut().expect("not dropped").poll(cx)
    }
}

impl<S: Stream> Stream for InSession<S> {
    type Item = S::Item;

    #[expect(clippy::expect_used, reason = "only the drop takes it out")]
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let this = self.project();
        let _swapped = Swapped::new(this.session);
        this.inner.as_pin_mut().expect("not dropped").poll_next(cx)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inner.as_ref().map_or((0, None), Stream::size_hint)
    }
}
