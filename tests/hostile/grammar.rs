//! Random requests: mostly grammar, partly mutation, all from one seed.

/// A source of numbers: SplitMix64, so that a seed means the same everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// The bytes of case `number`. Its target begins with `/c/NUMBER/`, unless a mutation hits it. Half of the cases have
/// one flaw at most, so that they get as far as flaws can.
pub(crate) fn request(random: &mut Random, number: usize) -> Vec<u8> {
    let mut bytes = if random.below(2) == 0 { mild(random, number) } else { wild(random, number) };
    if random.below(3) == 0 {
        for _ in 0..=random.below(4) {
            mutate(random, &mut bytes);
        }
    }
    bytes
}

/// A well-formed request with one more header, which may be anything, and bytes after its end.
fn mild(random: &mut Random, number: usize) -> Vec<u8> {
    let (framing, body) = random.of(GOOD);
    let head = format!("POST /c/{number}/ HTTP/1.1\r\nHost: a\r\n{framing}\r\n");
    let mut bytes = [head.as_bytes(), random.of(HEADERS), b"\r\n\r\n", body].concat();
    if random.below(2) == 0 {
        bytes.extend_from_slice(random.of(BODIES));
    }
    bytes
}

/// Anything in any place.
fn wild(random: &mut Random, number: usize) -> Vec<u8> {
    let end = if random.below(10) == 0 { random.of(&["\n", "\r", "\r\r\n", "\n\r"]) } else { "\r\n" };
    let (method, version) = (random.of(METHODS), random.of(VERSIONS));
    let target = random.of(TARGETS).replace('N', &number.to_string());
    let mut bytes = format!("{method} {target} {version}{end}").into_bytes();
    if random.below(10) > 0 {
        bytes.extend_from_slice(format!("Host: a{end}").as_bytes());
    }
    for _ in 0..random.below(6) {
        bytes.extend_from_slice(random.of(HEADERS));
        bytes.extend_from_slice(end.as_bytes());
    }
    bytes.extend_from_slice(end.as_bytes());
    for _ in 0..random.below(4) {
        bytes.extend_from_slice(random.of(BODIES));
    }
    bytes
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let at = random.below(bytes.len());
    match random.below(6) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.of(SPECIAL),
        2 => bytes.insert(at, random.of(SPECIAL)),
        3 => drop(bytes.remove(at)),
        4 => bytes.truncate(at),
        _ => {
            let piece = bytes[at..bytes.len().min(at + 1 + random.below(20))].to_vec();
            let to = random.below(bytes.len());
            bytes.splice(to..to, piece);
        }
    }
}

const GOOD: &[(&str, &[u8])] = &[
    ("Content-Length: 5", b"abcde"),
    ("Transfer-Encoding: chunked", b"5\r\nabcde\r\n0\r\n\r\n"),
    ("Transfer-Encoding: chunked", b"2;x=y\r\nab\r\n3\r\ncde\r\n0\r\nX: y\r\n\r\n"),
    ("X-Session-Id: s", b""),
];
const METHODS: &[&str] = &["GET", "POST", "POST", "POST", "PUT", "OPTIONS", "TRACE", "BREW", "get", "CONNECT", "PRI"];
const VERSIONS: &[&str] =
    &["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.10", ""];
const TARGETS: &[&str] = &[
    "/c/N/",
    "/c/N/",
    "/c/N/",
    "/c/N/",
    "/c/N/?q=%00",
    "/c/N/ HTTP/1.1",
    "/c/N/\t",
    "/c/N/\u{e9}",
    "http://a/c/N/",
    "http://b/c/N/",
    "https://a@b/c/N/",
    "c/N/",
    "*",
    "//c/N/",
    "/c/N/#f",
    "/c/N/%0d%0aX:y",
    " /c/N/",
    "/c/N/\rX: y",
];
const SPECIAL: &[u8] = b"\0\x01\t\n\x0b\r \"%+,-./0189:;=@A\\_a\x7f\x80\xa0\xff";
const HEADERS: &[&[u8]] = &[
    b"Content-Length: 5",
    b"Content-Length: 5",
    b"Content-Length: 0",
    b"Content-Length: 6",
    b"Content-Length: +5",
    b"Content-Length: -1",
    b"Content-Length: 5, 5",
    b"Content-Length: 5,6",
    b"Content-Length : 5",
    b"Content-Length: 18446744073709551617",
    b"content-length:\t5",
    b"Content_Length: 5",
    b"Content-Length: 0x5",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: Chunked",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding:\x0bchunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: identity, chunked",
    b"Transfer-Encoding: gzip",
    b"Transfer-Encoding:\r\n chunked",
    b"Transfer-Encoding: xchunked",
    b" Transfer-Encoding: chunked",
    b"X: y\nTransfer-Encoding: chunked",
    b"X: y\rTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\0",
    b"Host: a",
    b"Host: b",
    b"Host:",
    b"Host: a, b",
    b"Host: u@a",
    b"Host: a\0",
    b"Connection: close",
    b"Connection: keep-alive",
    b"Connection: Host",
    b"Connection: Content-Length",
    b"Connection: Transfer-Encoding",
    b"Connection: Upgrade\r\nUpgrade: websocket",
    b"Upgrade: h2c",
    b"Connection: \"",
    b"Expect: 100-continue",
    b"Expect: 200-ok",
    b"TE: trailers",
    b"Trailer: Content-Length",
    b"X-Forwarded-For: \xff",
    b"X-Session-Id: s",
    b"X-Session-Id: t",
    b"X-Session-Id:",
    b"X-Session-Id: \xff",
    b"X-Session-Id: \x01",
    b"X: \0",
    b"X\0: y",
    b"X: \xff",
    b"X",
    b": y",
    b" folded",
    b"\tfolded",
    b"X(: y",
    b"X :y",
    b"X: y\r",
    b"",
    b"X-Request-Id: a\tb",
    b"X-Request-Id: \x80",
];
const BODIES: &[&[u8]] = &[
    b"abcde",
    b"abcde",
    b"5\r\nabcde\r\n",
    b"5\r\nabcde\r\n0\r\n\r\n",
    b"5\r\nabcde\r\n0\r\n\r\n",
    b"0\r\n\r\n",
    b"0\r\n\r\n",
    b"0\r\nX: y\r\n\r\n",
    b"5;x=y\r\nabcde\r\n",
    b"5;\nabcde\r\n",
    b"-5\r\nabcde\r\n",
    b"+5\r\nabcde\r\n",
    b"0x5\r\nabcde\r\n",
    b"5\nabcde\n0\n\n",
    b"ffffffffffffffff\r\nabcde",
    b"10000000000000005\r\nabcde\r\n",
    b"zz\r\n",
    b"\r\n",
    b"\n",
    b"\0",
    b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    b"26\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n\r\n\r\n",
];
