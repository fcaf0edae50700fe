//! One read buffer for each thread.
//!
//! A buffer for each connection would be most of the memory of an idle stream. What is read here is used before another
//! task of the thread can read: written on, or copied if it has to wait.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// Reads once; `take` gets what came, nothing at the end of the connection.
pub(super) fn poll_read<S, R>(
    stream: &mut S,
    context: &mut Context<'_>,
    take: impl FnOnce(&mut Context<'_>, &[u8]) -> R,
) -> Poll<io::Result<R>>
where
    S: AsyncRead + Unpin + ?Sized,
{
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(stream).poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(take(context, buffer.filled())))
    })
}

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SIZE].into_boxed_slice());
}

/// Larger ones make no difference on loopback; a TLS record has 16 KiB.
const SIZE: usize = 64 << 10;
