use std::future::Future;

use tokio::task::JoinHandle;

use crate::{SessionExt, current, sync_scope};

/// [`tokio::spawn`] that takes the caller's session along (or that there is none).
///
/// # Panics
///
/// Outside a tokio runtime, as [`tokio::spawn`] does.
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(future.in_current_session())
}

/// [`tokio::task::spawn_blocking`] that takes the caller's session along (or that there is none).
///
/// # Panics
///
/// Outside a tokio runtime, as [`tokio::task::spawn_blocking`] does.
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub fn spawn_blocking<R>(run: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R>
where
    R: Send + 'static,
{
    let session = current();
    tokio::task::spawn_blocking(move || sync_scope(session, run))
}
