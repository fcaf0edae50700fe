//! Lines on their way to standard error.
//!
//! A pipe that is not read, a slow disk or a stopped terminal blocks every thread that writes to it. So one thread writes,
//! and all others put their lines into a bounded buffer. When that is full, lines are dropped and counted.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;

/// The buffer in front of one output. Each handle is of the same buffer.
#[derive(Clone)]
pub struct Log(Arc<Shared>);

struct Shared {
    buffer: Mutex<Buffer>,
    has_lines: Condvar,
    is_drained: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Buffer {
    /// Whole lines that the thread has not taken yet.
    waiting: Vec<u8>,
    /// Bytes that the thread has taken and not written yet.
    in_hand: usize,
}

/// The log of the process. Its thread starts with the first line.
#[must_use]
pub fn stderr() -> &'static Log {
    static LOG: LazyLock<Log> = LazyLock::new(|| Log::to(StandardError));
    &LOG
}

impl Log {
    /// Starts a thread that writes to `output`.
    pub fn to(output: impl Write + Send + 'static) -> Log {
        let log = Log(Arc::new(Shared {
            buffer: Mutex::default(),
            has_lines: Condvar::new(),
            is_drained: Condvar::new(),
            dropped: AtomicU64::new(0),
        }));
        let shared = Arc::clone(&log.0);
        // Without a thread the buffer fills, and further lines are counted as dropped.
        let _ = thread::Builder::new().name("log".to_owned()).spawn(move || shared.write_all(output));
        log
    }

    /// Takes whole lines, or drops them. Never waits for the output.
    pub fn push(&self, lines: &[u8]) {
        let mut buffer = self.0.buffer.lock();
        if buffer.waiting.len() + buffer.in_hand + lines.len() > MAX_BUFFERED {
            drop(buffer);
            self.0.drop_lines(lines);
            return;
        }
        buffer.waiting.extend_from_slice(lines);
        let is_idle = buffer.in_hand == 0;
        drop(buffer);
        if is_idle {
            self.0.has_lines.notify_one();
        }
    }

    /// Lines that were dropped since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything is written, for no longer than `limit`. Returns whether it is.
    pub fn flush(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut buffer = self.0.buffer.lock();
        while !buffer.waiting.is_empty() || buffer.in_hand > 0 {
            if self.0.is_drained.wait_until(&mut buffer, deadline).timed_out() {
                return false;
            }
        }
        true
    }
}

/// Each call is a line, or several.
impl Write for &Log {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.push(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    /// The thread that writes, as long as the process lives.
    fn write_all(&self, output: impl Write) {
        let mut output = Output { output, is_torn: false };
        let (mut batch, mut reported, mut last_report) = (Vec::new(), 0, None::<Instant>);
        loop {
            self.take(&mut batch);
            let mut rest = &batch[..];
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(piece(rest));
                if let Err(lost) = output.write(piece) {
                    self.drop_lines(lost);
                }
                rest = more;
                self.buffer.lock().in_hand = rest.len();
            }
            let dropped = self.dropped.load(Ordering::Relaxed);
            if dropped > reported && last_report.is_none_or(|last| last.elapsed() >= REPORT_AGAIN) {
                tracing::warn!(lines = dropped - reported, "log lines dropped: standard error takes them too slowly");
                // Otherwise the report may be among what was dropped since.
                if self.dropped.load(Ordering::Relaxed) == dropped {
                    (reported, last_report) = (dropped, Some(Instant::now()));
                }
            }
        }
    }

    /// Waits for lines, and takes all of them. What was in `batch` is written.
    fn take(&self, batch: &mut Vec<u8>) {
        batch.clear();
        batch.shrink_to(KEPT_CAPACITY);
        let mut buffer = self.buffer.lock();
        while buffer.waiting.is_empty() {
            self.is_drained.notify_all();
            self.has_lines.wait(&mut buffer);
        }
        std::mem::swap(&mut buffer.waiting, batch);
        buffer.in_hand = batch.len();
    }

    fn drop_lines(&self, lines: &[u8]) {
        let count = memchr::memchr_iter(b'\n', lines).count();
        self.dropped.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// The output, and whether its last line lacks its end.
struct Output<W> {
    output: W,
    is_torn: bool,
}

impl<W: Write> Output<W> {
    /// Writes whole lines.
    ///
    /// # Errors
    ///
    /// What could not be written.
    fn write<'a>(&mut self, lines: &'a [u8]) -> Result<(), &'a [u8]> {
        if self.is_torn {
            // A line that broke off must not swallow the next one.
            self.output.write_all(b"\n").map_err(|_| lines)?;
            self.is_torn = false;
        }
        let mut rest = lines;
        while !rest.is_empty() {
            match self.output.write(rest) {
                Ok(written) if written > 0 => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => {
                    self.is_torn |= lines[..lines.len() - rest.len()].last().is_some_and(|byte| *byte != b'\n');
                    return Err(rest);
                }
            }
        }
        Ok(())
    }
}

/// The length of the whole lines that are written at once: more of them than one, but no more bytes than a pipe takes
/// without mixing them with those of another process.
fn piece(lines: &[u8]) -> usize {
    let atomic = lines.get(..PIPE_BUF).unwrap_or(lines);
    let end = memchr::memrchr(b'\n', atomic).or_else(|| memchr::memchr(b'\n', lines));
    end.map_or(lines.len(), |end| end + 1)
}

/// Standard error without the lock of the standard library, which a blocked write would hold.
struct StandardError;

impl Write for StandardError {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(rustix::stdio::stderr(), bytes) {
                // Another process that shares it has made it non-blocking.
                Err(Errno::AGAIN) => thread::sleep(BUSY_PAUSE),
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes that can wait to be written: some thousand lines.
const MAX_BUFFERED: usize = 256 << 10;
/// Bytes of an empty buffer that are kept.
const KEPT_CAPACITY: usize = 64 << 10;
/// Linux's `PIPE_BUF`.
const PIPE_BUF: usize = 4096;
/// How often dropped lines are reported in the log itself.
const REPORT_AGAIN: Duration = Duration::from_secs(10);
const BUSY_PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Writes to a channel, which takes one write at a time.
    struct Slow(mpsc::SyncSender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn unread_output_blocks_no_writer() {
        let (sender, receiver) = mpsc::sync_channel(0);
        let log = Log::to(Slow(sender));
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        let pushed = 3 * MAX_BUFFERED / line.len();
        (0..pushed).for_each(|_| log.push(&line));
        assert!(!log.flush(Duration::from_millis(10)), "it has a limit");
        let dropped = log.dropped();
        assert!(dropped >= (pushed - MAX_BUFFERED / line.len()) as u64, "{dropped} of {pushed}");
        thread::spawn(move || receiver.iter().for_each(drop));
        assert!(log.flush(Duration::from_secs(60)));
        assert_eq!(log.dropped(), dropped, "nothing is lost while it is read");
    }

    #[test]
    fn pieces_are_whole_lines_of_one_pipe_write() {
        let lines = |lengths: &[usize]| {
            lengths.iter().flat_map(|length| [vec![b'x'; length - 1], vec![b'\n']].concat()).collect::<Vec<u8>>()
        };
        assert_eq!(piece(&lines(&[10, 20, 30])), 60);
        assert_eq!(piece(&lines(&[2000, 2000, 97])), 4000);
        assert_eq!(piece(&lines(&[2000, 2096, 97])), 4096);
        assert_eq!(piece(&lines(&[5000, 10])), 5000, "a long line is whole, too");
        assert_eq!(piece(b"no end"), 6);
    }

    #[test]
    fn full_disk_loses_counted_lines_and_no_others() {
        /// Takes 10 bytes, then nothing for two writes, then everything.
        struct Full(Vec<u8>, u32, mpsc::Sender<Vec<u8>>);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let room = 10usize.saturating_sub(self.0.len());
                if room == 0 && self.1 < 2 {
                    self.1 += 1;
                    return Err(io::ErrorKind::StorageFull.into());
                }
                let taken = if self.1 < 2 { bytes.len().min(room) } else { bytes.len() };
                self.0.extend_from_slice(&bytes[..taken]);
                let _ = self.2.send(self.0.clone());
                Ok(taken)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (sender, receiver) = mpsc::channel();
        let log = Log::to(Full(Vec::new(), 0, sender));
        for line in ["first\n", "second\n", "third\n", "fourth\n"] {
            log.push(line.as_bytes());
            assert!(log.flush(Duration::from_secs(60)));
        }
        let written = receiver.try_iter().last().unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), "first\nseco\nfourth\n");
        assert_eq!(log.dropped(), 2);
    }
}
