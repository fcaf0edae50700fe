//! What RFC 9113 and RFC 7541 ask of a server, section by section: what h2spec asks in its parts `http2` and `hpack`, and of
//! its part `generic` what is not the same again. Where h2spec wants one error code, any that the standard allows will do.

mod rfc7541;
mod rfc9113;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::PATIENCE;
use crate::frames::{DATA, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, take};
use crate::world::World;

/// Section, case, and what is done.
pub(crate) type Case = (&'static str, &'static str, Vec<Step>);

/// What a client does.
pub(crate) enum Step {
    Send(Vec<u8>),
    Wait(Must),
}

/// What must come of it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Must {
    /// A whole response on this stream.
    Serve(u32),
    /// A stream error with one of these codes, or what a server may make of it: a connection error.
    Reset(u32, &'static [u32]),
    /// A connection error with one of these codes, or an end without a word.
    End(&'static [u32]),
    /// So many bytes of data, and no more, on stream 1.
    Data(usize),
    /// The answer to a ping.
    Pong,
    /// The acknowledgement of so many settings.
    Acknowledge(usize),
    /// One of these two.
    Either(&'static Must, &'static Must),
}

/// What came.
#[derive(Debug, Default)]
struct Seen {
    ended: Vec<u32>,
    resets: Vec<(u32, u32)>,
    goaway: Option<u32>,
    data: usize,
    pongs: usize,
    acknowledged: usize,
    closed: bool,
}

impl Seen {
    fn take(&mut self, (kind, flags, stream, payload): (u8, u8, u32, Vec<u8>)) {
        let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match kind {
            RST_STREAM => self.resets.push((stream, code(0))),
            GOAWAY => self.goaway = Some(code(4)),
            PING if flags == 1 => self.pongs += 1,
            SETTINGS if flags == 1 => self.acknowledged += 1,
            DATA if stream == 1 => self.data += payload.len(),
            _ => {}
        }
        if kind <= HEADERS && flags & END_STREAM != 0 {
            self.ended.push(stream);
        }
    }

    fn holds(&self, must: Must) -> bool {
        let right = |codes: &[u32], code: u32| codes.contains(&code) || GENERIC.contains(&code);
        // 0 says that nothing was wrong.
        let ended = |codes: &[u32]| match self.goaway {
            None | Some(0) => self.closed,
            Some(code) => right(codes, code),
        };
        match must {
            Must::Serve(stream) => self.ended.contains(&stream),
            Must::Reset(stream, codes) => {
                self.resets.iter().any(|(of, code)| *of == stream && right(codes, *code)) || ended(codes)
            }
            Must::End(codes) => ended(codes),
            Must::Data(bytes) => self.data == bytes,
            Must::Pong => self.pongs == 1,
            Must::Acknowledge(count) => self.acknowledged == count,
            Must::Either(one, other) => self.holds(*one) || self.holds(*other),
        }
    }
}

/// PROTOCOL_ERROR and INTERNAL_ERROR may always stand for a code that says more (RFC 9113, section 5.4).
const GENERIC: [u32; 2] = [1, 2];

/// Does the steps. An error says what came instead of what must.
async fn play(world: &World, steps: Vec<Step>) -> Result<(), String> {
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let (mut seen, mut bytes) = (Seen::default(), Vec::new());
    for step in steps {
        let must = match step {
            Step::Send(frames) => {
                // The gateway may have closed.
                let _ = stream.write_all(&frames).await;
                continue;
            }
            Step::Wait(must) => must,
        };
        let wait = async {
            while !seen.holds(must) && !seen.closed {
                seen.closed = !matches!(stream.read_buf(&mut bytes).await, Ok(1..));
                while let Some(frame) = take(&mut bytes) {
                    seen.take(frame);
                }
            }
        };
        let waited = timeout(PATIENCE / 4, wait).await.is_ok();
        if !waited || !seen.holds(must) {
            return Err(format!("{must:?} expected, but there was {seen:?}"));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_is_spoken_as_the_standard_says() {
    let world = World::start("5s").await;
    let (mut wrong, mut count) = (Vec::new(), 0);
    let all =
        [rfc9113::connections(), rfc9113::streams(), rfc9113::frames(), rfc9113::more_frames(), rfc9113::messages()];
    for (section, name, steps) in all.into_iter().flatten().chain(rfc7541::compression()) {
        let played = play(&world, steps).await;
        println!("{section:<8} {name:<70} {}", if played.is_ok() { "as it must be" } else { "WRONG" });
        let played = played.and(world.aftermath().await.map(drop));
        wrong.extend(played.err().map(|why| format!("{section} {name}: {why}")));
        count += 1;
    }
    assert!(wrong.is_empty(), "{} of {count} cases went wrong:\n{}", wrong.len(), wrong.join("\n"));
}
