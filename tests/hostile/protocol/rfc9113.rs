//! RFC 9113, by section.

use super::Must::{Acknowledge, Data, Either, End, Pong, Reset, Serve};
use super::Step::{Send, Wait};
use super::{Case, Must};
use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PREFACE, PRIORITIZED, PRIORITY,
    PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame,
};

/// Sends frames on a new connection, after the preface.
pub(crate) fn one(section: &'static str, name: &'static str, frames: &[&[u8]], must: Must) -> Case {
    (section, name, vec![Send([PREFACE, &frames.concat()].concat()), Wait(must)])
}

/// The same, but the last frames are sent when stream 1 has ended.
fn later(section: &'static str, name: &'static str, first: &[u8], then: &[u8], must: Must) -> Case {
    let steps = vec![Send([PREFACE, first].concat()), Wait(Serve(1)), Send(then.to_vec()), Wait(must)];
    (section, name, steps)
}

/// GET on this stream, all of it in one frame.
pub(crate) fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, USUAL)
}

/// The head of a POST whose body is to come.
fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, POST)
}

fn settings(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

fn wider(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

fn depends(stream: u32, on: u32) -> Vec<u8> {
    frame(PRIORITY, 0, stream, &[&on.to_be_bytes()[..], &[7]].concat())
}

pub(crate) fn connections() -> Vec<Case> {
    let wrong_preface =
        vec![Send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX\0\0\0\x04\0\0\0\0\0".to_vec()), Wait(End(PROTOCOL))];
    let (large, larger) = (frame(DATA, END_STREAM, 1, &[b'x'; 16_384]), frame(DATA, END_STREAM, 1, &[b'x'; 16_385]));
    let long = block(&[(b"x", &[b'y'; 16_384][..])]);
    let ping = frame(PING, 0, 0, b"12345678");
    vec![
        one("3.4", "a preface", &[], Acknowledge(1)),
        ("3.4", "a preface that is none", wrong_preface),
        one("4.1", "a frame of an unknown type", &[&frame(22, 0, 0, b"12345678"), &ping], Pong),
        one("4.1", "a frame with flags that mean nothing", &[&frame(PING, 0x16, 0, b"12345678")], Pong),
        one("4.1", "a frame with the reserved bit", &[&frame(PING, 0, 1 << 31, b"12345678")], Pong),
        one("4.2", "data of 2^14 bytes", &[&post(1), &large], Serve(1)),
        one("4.2", "data of more than MAX_FRAME_SIZE", &[&post(1), &larger], Reset(1, FRAME_SIZE)),
        one(
            "4.2",
            "a head of more than MAX_FRAME_SIZE",
            &[&frame(HEADERS, 5, 1, &[USUAL, &long].concat())],
            End(FRAME_SIZE),
        ),
        one("4.3", "a header block that is none", &[&frame(HEADERS, 5, 1, b"\x40\x0a\x00")], End(COMPRESSION)),
        one("4.3", "a priority within a header block", &[&frame(HEADERS, 1, 1, USUAL), &depends(1, 0)], End(PROTOCOL)),
        one("4.3", "another head within a header block", &[&frame(HEADERS, 1, 1, USUAL), &get(3)], End(PROTOCOL)),
        one(
            "5.4.1",
            "after a connection error the connection is closed",
            &[&frame(PING, 0, 3, b"12345678")],
            End(PROTOCOL),
        ),
        one("5.5", "an unknown frame", &[&frame(0xff, 0xff, 0, b"x"), &ping], Pong),
        one("5.5", "an unknown frame on a stream", &[&frame(0xff, 0, 1, b"x"), &get(1)], Serve(1)),
        one(
            "5.5",
            "an unknown frame within a header block",
            &[&frame(HEADERS, 1, 1, USUAL), &frame(0xff, 0, 1, b"x")],
            End(PROTOCOL),
        ),
        one(
            "7",
            "GOAWAY with an unknown code",
            &[&frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0xff]), &ping],
            Either(&Pong, &End(ANY)),
        ),
        one("7", "RST_STREAM with an unknown code", &[&post(1), &reset(1, 0xff), &ping], Pong),
    ]
}

pub(crate) fn streams() -> Vec<Case> {
    let data = |stream: u32| frame(DATA, END_STREAM, stream, b"x");
    let rest = frame(CONTINUATION, END_HEADERS, 1, b"");
    let mut all = vec![
        one("5.1", "idle: data", &[&data(1)], End(PROTOCOL)),
        one("5.1", "idle: RST_STREAM", &[&reset(1, 8)], End(PROTOCOL)),
        one("5.1", "idle: WINDOW_UPDATE", &[&wider(1, 100)], End(PROTOCOL)),
        one("5.1", "idle: CONTINUATION", &[&rest], End(PROTOCOL)),
        one("5.1", "idle: PRIORITY", &[&depends(1, 0), &get(1)], Serve(1)),
        one("5.1", "half-closed: data", &[&get(1), &data(1)], Reset(1, STREAM_CLOSED)),
        one("5.1", "half-closed: a head", &[&get(1), &get(1)], Reset(1, STREAM_CLOSED)),
        one("5.1", "half-closed: CONTINUATION", &[&get(1), &rest], End(CLOSED_OR_PROTOCOL)),
        one("5.1", "half-closed: WINDOW_UPDATE", &[&get(1), &wider(1, 100)], Serve(1)),
        one("5.1", "half-closed: PRIORITY", &[&get(1), &depends(1, 0)], Serve(1)),
        one("5.1", "half-closed: RST_STREAM", &[&get(1), &reset(1, 8), &get(3)], Serve(3)),
        one("5.1", "reset by the client: data", &[&post(1), &reset(1, 8), &data(1)], Reset(1, STREAM_CLOSED)),
        one("5.1", "reset by the client: a head", &[&post(1), &reset(1, 8), &get(1)], Reset(1, STREAM_CLOSED)),
        one("5.1", "reset by the client: CONTINUATION", &[&post(1), &reset(1, 8), &rest], End(CLOSED_OR_PROTOCOL)),
        later("5.1", "closed: data", &get(1), &data(1), Reset(1, STREAM_CLOSED)),
        later("5.1", "closed: a head", &get(1), &get(1), Reset(1, CLOSED_OR_PROTOCOL)),
        later("5.1", "closed: CONTINUATION", &get(1), &rest, End(CLOSED_OR_PROTOCOL)),
        later("5.1", "closed: PRIORITY", &get(1), &[depends(1, 0), get(3)].concat(), Serve(3)),
        one("5.1.1", "an even number", &[&get(2)], End(PROTOCOL)),
        one("5.1.1", "a smaller number than before", &[&get(5), &get(3)], End(PROTOCOL)),
        one(
            "5.3",
            "a head with a priority",
            &[&frame(HEADERS, 5 | PRIORITIZED, 1, &[&[0, 0, 0, 0, 7], USUAL].concat())],
            Serve(1),
        ),
        one(
            "5.3",
            "a head that depends on itself",
            &[&frame(HEADERS, 5 | PRIORITIZED, 1, &[&[0, 0, 0, 1, 7], USUAL].concat())],
            Either(&Serve(1), &Reset(1, PROTOCOL)),
        ),
        one(
            "5.3",
            "a priority that depends on itself",
            &[&depends(1, 1), &get(3)],
            Either(&Serve(3), &Reset(1, PROTOCOL)),
        ),
    ];
    let many: Vec<u8> = (0..101).flat_map(|n| post(2 * n + 1)).collect();
    all.push(one("5.1.2", "more streams than MAX_CONCURRENT_STREAMS", &[&many], Reset(201, &[1, 7])));
    all
}

pub(crate) fn frames() -> Vec<Case> {
    let padded = |length: u8| frame(DATA, PADDED | END_STREAM, 1, &[&[length][..], b"x\0\0"].concat());
    let padded_head = |length: u8| frame(HEADERS, PADDED | 5, 1, &[&[length][..], USUAL, b"\0\0"].concat());
    vec![
        one("6.1", "data on stream 0", &[&post(1), &frame(DATA, 1, 0, b"x")], End(PROTOCOL)),
        one("6.1", "data with padding", &[&post(1), &padded(2)], Serve(1)),
        one("6.1", "data with more padding than there is", &[&post(1), &padded(4)], End(PROTOCOL)),
        one("6.2", "a head on stream 0", &[&get(0)], End(PROTOCOL)),
        one("6.2", "a head with padding", &[&padded_head(2)], Serve(1)),
        one("6.2", "a head with more padding than there is", &[&padded_head(200)], End(PROTOCOL)),
        one("6.3", "a priority on stream 0", &[&depends(0, 1)], End(PROTOCOL)),
        one("6.3", "a priority of 4 bytes", &[&post(1), &frame(PRIORITY, 0, 1, &[0; 4])], Reset(1, FRAME_SIZE)),
        one("6.4", "RST_STREAM on stream 0", &[&reset(0, 8)], End(PROTOCOL)),
        one("6.4", "RST_STREAM of 3 bytes", &[&post(1), &frame(RST_STREAM, 0, 1, &[0; 3])], End(FRAME_SIZE)),
        one("6.5", "an acknowledgement with settings", &[&frame(SETTINGS, 1, 0, &[0; 6])], End(FRAME_SIZE)),
        one("6.5", "settings on a stream", &[&frame(SETTINGS, 0, 1, &[0, 3, 0, 0, 0, 100])], End(PROTOCOL)),
        one("6.5", "settings of 3 bytes", &[&frame(SETTINGS, 0, 0, &[0; 3])], End(FRAME_SIZE)),
        one("6.5.2", "ENABLE_PUSH of 2", &[&settings(2, 2)], End(PROTOCOL)),
        one("6.5.2", "INITIAL_WINDOW_SIZE of 2^31", &[&settings(4, 1 << 31)], End(FLOW_CONTROL)),
        one("6.5.2", "MAX_FRAME_SIZE below 2^14", &[&settings(5, 16_383)], End(PROTOCOL)),
        one("6.5.2", "MAX_FRAME_SIZE of 2^24", &[&settings(5, 1 << 24)], End(PROTOCOL)),
        one("6.5.2", "a setting that nobody knows", &[&settings(0xff, 1), &get(1)], Serve(1)),
        one("6.5.3", "settings are acknowledged, each", &[&settings(4, 100), &settings(4, 200)], Acknowledge(3)),
        one(
            "6.5.3",
            "a setting twice: the last one counts",
            &[&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 9, 0, 4, 0, 0, 0, 1]), &get(1)],
            Data(1),
        ),
        one(
            "6.6",
            "PUSH_PROMISE",
            &[&frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2], USUAL].concat())],
            End(PROTOCOL),
        ),
    ]
}

pub(crate) fn more_frames() -> Vec<Case> {
    let begun = |flags: u8| frame(HEADERS, flags | END_STREAM, 1, &USUAL[..2]);
    let rest = |flags: u8, block: &[u8]| frame(CONTINUATION, flags, 1, block);
    let pieces: Vec<u8> =
        USUAL[2..5].iter().flat_map(|byte| rest(0, &[*byte])).chain(rest(END_HEADERS, &USUAL[5..])).collect();
    let negative = [&[&settings(4, 3)[..], &get(1)].concat()[..], &settings(4, 2), &wider(1, 1), &wider(1, 1)];
    vec![
        one("6.7", "a ping is answered", &[&frame(PING, 0, 0, b"12345678")], Pong),
        one("6.7", "an answer to no ping", &[&frame(PING, 1, 0, b"unwanted"), &frame(PING, 0, 0, b"12345678")], Pong),
        one("6.7", "a ping on a stream", &[&frame(PING, 0, 1, b"12345678")], End(PROTOCOL)),
        one("6.7", "a ping of 6 bytes", &[&frame(PING, 0, 0, b"123456")], End(FRAME_SIZE)),
        one("6.8", "GOAWAY on a stream", &[&frame(GOAWAY, 0, 1, &[0; 8])], End(PROTOCOL)),
        one("6.9", "a window wider by 0", &[&wider(0, 0)], End(PROTOCOL)),
        one("6.9", "a stream's window wider by 0", &[&post(1), &wider(1, 0)], Reset(1, PROTOCOL)),
        one("6.9", "WINDOW_UPDATE of 3 bytes", &[&frame(WINDOW_UPDATE, 0, 0, &[0; 3])], End(FRAME_SIZE)),
        one("6.9.1", "no more data than the window has room for", &[&settings(4, 1), &get(1)], Data(1)),
        one("6.9.1", "a window beyond 2^31 - 1", &[&wider(0, MOST), &wider(0, MOST)], End(FLOW_CONTROL)),
        one(
            "6.9.1",
            "a stream's window beyond 2^31 - 1",
            &[&post(1), &wider(1, MOST), &wider(1, MOST)],
            Reset(1, FLOW_CONTROL),
        ),
        one("6.9.2", "a window that opens later", &[&settings(4, 0), &get(1), &settings(4, 1)], Data(1)),
        one("6.9.2", "a window that is closed again", &negative, Data(4)),
        one("6.10", "a head in pieces", &[&begun(0), &pieces], Serve(1)),
        one(
            "6.10",
            "another frame between pieces",
            &[&begun(0), &rest(0, b""), &frame(DATA, 1, 1, b"x")],
            End(PROTOCOL),
        ),
        one(
            "6.10",
            "a piece on stream 0",
            &[&begun(0), &frame(CONTINUATION, END_HEADERS, 0, &USUAL[2..])],
            End(PROTOCOL),
        ),
        one(
            "6.10",
            "a piece of another stream",
            &[&begun(0), &frame(CONTINUATION, END_HEADERS, 3, &USUAL[2..])],
            End(PROTOCOL),
        ),
        one("6.10", "a piece after the end of the head", &[&post(1), &rest(END_HEADERS, b"")], End(PROTOCOL)),
        one(
            "6.10",
            "a piece after the last piece",
            &[&begun(0), &rest(END_HEADERS, &USUAL[2..]), &rest(END_HEADERS, b"")],
            End(CLOSED_OR_PROTOCOL),
        ),
        one(
            "6.10",
            "a piece after data",
            &[&post(1), &frame(DATA, 0, 1, b"x"), &rest(END_HEADERS, b"")],
            End(PROTOCOL),
        ),
    ]
}

pub(crate) fn messages() -> Vec<Case> {
    let trailers =
        |flags: u8, block: &[u8]| [post(1), frame(DATA, 0, 1, b"x"), frame(HEADERS, flags, 1, block)].concat();
    let with = |more: &[(&[u8], &[u8])]| frame(HEADERS, 5, 1, &[USUAL, &block(more)].concat());
    let without = |at: std::ops::Range<usize>| frame(HEADERS, 5, 1, &[&USUAL[..at.start], &USUAL[at.end..]].concat());
    let long = |body: &[&[u8]]| {
        let head = frame(HEADERS, END_HEADERS, 1, &[POST, &block(&[(b"content-length", b"1")])].concat());
        let last = body.len() - 1;
        let data = body.iter().enumerate().flat_map(|(i, piece)| frame(DATA, u8::from(i == last), 1, piece));
        [head, data.collect()].concat()
    };
    vec![
        one("8.1", "GET", &[&get(1)], Serve(1)),
        one(
            "8.1",
            "HEAD",
            &[&frame(HEADERS, 5, 1, &[&block(&[(b":method", b"HEAD")])[..], &USUAL[1..]].concat())],
            Serve(1),
        ),
        one("8.1", "POST in several pieces", &[&post(1), &frame(DATA, 0, 1, b"x"), &frame(DATA, 1, 1, b"y")], Serve(1)),
        one("8.1", "POST with trailers", &[&trailers(5, &block(&[(b"x", b"y")]))], Serve(1)),
        one(
            "8.1",
            "a second head that does not end the stream",
            &[&trailers(END_HEADERS, &block(&[(b"x", b"y")]))],
            Reset(1, PROTOCOL),
        ),
        one("8.2", "a name in capitals", &[&with(&[(b"X-Test", b"ok")])], Reset(1, PROTOCOL)),
        one("8.2.2", "Connection", &[&with(&[(b"connection", b"keep-alive")])], Reset(1, PROTOCOL)),
        one("8.2.2", "TE that is not trailers", &[&with(&[(b"te", b"trailers, deflate")])], Reset(1, PROTOCOL)),
        one("8.3", "an unknown pseudo-header", &[&with(&[(b":test", b"ok")])], Reset(1, PROTOCOL)),
        one("8.3", "a pseudo-header of responses", &[&with(&[(b":status", b"200")])], Reset(1, PROTOCOL)),
        // It should be a stream error; the h2 crate takes it, and Pingora drops all trailers of requests.
        one(
            "8.3",
            "a pseudo-header in trailers is dropped with them",
            &[&trailers(5, &block(&[(b":method", b"GET")]))],
            Serve(1),
        ),
        one(
            "8.3",
            "a pseudo-header after a header",
            &[&frame(HEADERS, 5, 1, &[&USUAL[..2], &block(&[(b"x", b"y")]), &USUAL[2..]].concat())],
            Reset(1, PROTOCOL),
        ),
        one(
            "8.3.1",
            "an empty :path",
            &[&frame(HEADERS, 5, 1, &[&USUAL[..2], &block(&[(b":path", b"")]), &USUAL[9..]].concat())],
            Reset(1, PROTOCOL),
        ),
        one("8.3.1", "no :method", &[&without(0..1)], Reset(1, PROTOCOL)),
        one("8.3.1", "no :scheme", &[&without(1..2)], Reset(1, PROTOCOL)),
        one("8.3.1", "no :path", &[&without(2..9)], Reset(1, PROTOCOL)),
        one("8.3.1", ":method twice", &[&frame(HEADERS, 5, 1, &[&[0x82], USUAL].concat())], Reset(1, PROTOCOL)),
        one("8.3.1", ":scheme twice", &[&frame(HEADERS, 5, 1, &[&[0x86], USUAL].concat())], Reset(1, PROTOCOL)),
        one("8.3.1", ":path twice", &[&frame(HEADERS, 5, 1, &[&[0x84], USUAL].concat())], Reset(1, PROTOCOL)),
        one("8.1.1", "a length that is not the body's", &[&long(&[b"test"])], Reset(1, PROTOCOL)),
        one("8.1.1", "a length that is not that of all pieces", &[&long(&[b"te", b"st"])], Reset(1, PROTOCOL)),
    ]
}

/// `GET /case` of `http://x`: two indices of HPACK's static table, and two literals.
pub(crate) const USUAL: &[u8] = b"\x82\x86\x04\x05/case\x01\x01x";
const POST: &[u8] = b"\x83\x86\x04\x05/case\x01\x01x";
const MOST: u32 = (1 << 31) - 1;

// Codes of section 7.
const PROTOCOL: &[u32] = &[1];
const FLOW_CONTROL: &[u32] = &[3];
const STREAM_CLOSED: &[u32] = &[5];
const CLOSED_OR_PROTOCOL: &[u32] = &[1, 5];
const FRAME_SIZE: &[u32] = &[6];
pub(crate) const COMPRESSION: &[u32] = &[9];
const ANY: &[u32] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13];
