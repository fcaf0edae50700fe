use std::cell::RefCell;
use std::mem;

use crate::SessionId;

thread_local! {
    static CURRENT: RefCell<Option<SessionId>> = const { RefCell::new(None) };
}

/// The session of the code that runs now, if it runs inside one.
///
/// For adapters of your own. In async code ask when the request is made, not in a task that sends it later.
#[must_use]
pub fn current() -> Option<SessionId> {
    // A thread that ends has no session any more; destructors that run then may still ask.
    CURRENT.try_with(|current| current.borrow().clone()).unwrap_or_default()
}

/// Runs blocking code inside a session, or with `None` outside any.
///
/// For threads, thread pools and blocking clients. There is no guard to hold on purpose: one held across an `.await`
/// would put the session on whatever else runs on that thread. For async code there is
/// [`in_session`](crate::SessionExt::in_session).
///
/// ```
/// use ingle_client::{SessionId, current, sync_scope};
///
/// let id = SessionId::new("chat-7")?;
/// std::thread::spawn({
///     let id = id.clone();
///     move || sync_scope(id.clone(), || assert_eq!(current(), Some(id)))
/// })
/// .join()
/// .unwrap();
/// # Ok::<_, ingle_client::InvalidSessionId>(())
/// ```
pub fn sync_scope<R>(session: impl Into<Option<SessionId>>, run: impl FnOnce() -> R) -> R {
    let mut session = session.into();
    let _swapped = Swapped::new(&mut session);
    run()
}

/// The thread's session and the one in the slot have changed places until this is dropped, by a panic too.
pub(crate) struct Swapped<'a>(&'a mut Option<SessionId>);

impl<'a> Swapped<'a> {
    pub(crate) fn new(slot: &'a mut Option<SessionId>) -> Swapped<'a> {
        swap(slot);
        Swapped(slot)
    }
}

impl Drop for Swapped<'_> {
    fn drop(&mut self) {
        swap(self.0);
    }
}

/// Nothing of the user runs while the cell is borrowed, so it is never borrowed twice.
fn swap(slot: &mut Option<SessionId>) {
    // On a thread that ends this fails, here and for the way back alike: there is no session then.
    let _ = CURRENT.try_with(|current| mem::swap(slot, &mut *current.borrow_mut()));
}
