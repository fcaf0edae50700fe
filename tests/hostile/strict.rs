//! A parser that takes nothing but well-formed HTTP/1.1: what a backend may be sent.
//!
//! It is stricter than RFC 9112 asks a server to be, because two servers that are lenient in different ways are what
//! smuggling lives on.

/// A request, as the backend got it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// The values of a header, in order; `name` in lower case.
    pub(crate) fn all(&self, name: &str) -> Vec<&[u8]> {
        self.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_slice()).collect()
    }

    /// `METHOD TARGET BODY`, for tables.
    pub(crate) fn summary(&self) -> String {
        let body = String::from_utf8_lossy(&self.body);
        format!("{} {} {body}", self.method, self.target).trim_end().to_owned()
    }
}

/// The request at the beginning of `bytes` and how long it is; nothing if more bytes are needed.
pub(crate) fn request(bytes: &[u8]) -> Result<Option<(Request, usize)>, String> {
    let Some((mut request, head)) = head(bytes)? else { return Ok(None) };
    let rest = &bytes[head..];
    let length = match (request.all("transfer-encoding").as_slice(), request.all("content-length").as_slice()) {
        ([], []) => Some(0),
        ([], [length]) => Some(number(length, 10)?),
        ([coding], []) if *coding == b"chunked" => None,
        (codings, lengths) => return Err(format!("framing: {} codings, {} lengths", codings.len(), lengths.len())),
    };
    let body = match length {
        Some(length) => rest.get(..length).map(|body| (body.to_vec(), length)),
        None => chunked(rest)?,
    };
    let Some((body, length)) = body else { return Ok(None) };
    request.body = body;
    Ok(Some((request, head + length)))
}

/// The head of a message: its first line and its headers.
fn head(bytes: &[u8]) -> Result<Option<(Request, usize)>, String> {
    let mut at = 0;
    let Some(first) = line(bytes, &mut at)? else { return Ok(None) };
    let first = std::str::from_utf8(first).map_err(|_| format!("request line: {}", first.escape_ascii()))?;
    let parts: Vec<&str> = first.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts[..] else { return Err(format!("request line: {first:?}")) };
    if method.is_empty() || !method.bytes().all(is_token) || !is_target(target) {
        return Err(format!("request line: {first:?}"));
    }
    let mut request =
        Request { method: method.to_owned(), target: target.to_owned(), headers: Vec::new(), body: Vec::new() };
    loop {
        match line(bytes, &mut at)? {
            None => return Ok(None),
            Some([]) => break,
            Some(field) => request.headers.push(header(field)?),
        }
    }
    if request.all("host").len() != 1 {
        return Err(format!("{} Host headers in {first:?}", request.all("host").len()));
    }
    Ok(Some((request, at)))
}

fn header(field: &[u8]) -> Result<(String, Vec<u8>), String> {
    let broken = || format!("header: {}", field.escape_ascii());
    let colon = field.iter().position(|b| *b == b':').ok_or_else(broken)?;
    let (name, value) = (&field[..colon], field[colon + 1..].trim_ascii());
    let valid = !name.is_empty()
        && name.iter().copied().all(is_token)
        && value.iter().all(|b| matches!(b, b'\t' | b' '..=b'~' | 0x80..));
    if !valid {
        return Err(broken());
    }
    Ok((String::from_utf8_lossy(name).to_ascii_lowercase(), value.to_vec()))
}

/// A body in chunks without extensions or trailers, and how long it is with its framing.
fn chunked(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, String> {
    let (mut at, mut body) = (0, Vec::new());
    loop {
        let Some(size) = line(bytes, &mut at)? else { return Ok(None) };
        let size = number(size, 16)?;
        let Some(piece) = bytes.get(at..at + size) else { return Ok(None) };
        body.extend_from_slice(piece);
        at += size;
        match line(bytes, &mut at)? {
            None => return Ok(None),
            Some([]) if size == 0 => return Ok(Some((body, at))),
            Some([]) => {}
            Some(line) => return Err(format!("after a chunk: {}", line.escape_ascii())),
        }
    }
}

/// The line at `at`, which must end with CR LF and have neither of them inside.
fn line<'a>(bytes: &'a [u8], at: &mut usize) -> Result<Option<&'a [u8]>, String> {
    let rest = &bytes[*at..];
    let Some(end) = rest.iter().position(|b| *b == b'\n') else {
        return if rest.len() > MOST_LINE { Err("an endless line".to_owned()) } else { Ok(None) };
    };
    match rest[..end].split_last() {
        Some((b'\r', line)) if !line.contains(&b'\r') => {
            *at += end + 1;
            Ok(Some(line))
        }
        _ => Err(format!("line end: {}", rest[..=end].escape_ascii())),
    }
}

fn number(digits: &[u8], radix: u32) -> Result<usize, String> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.chars().all(|c| c.is_digit(radix)));
    let number = text.and_then(|text| usize::from_str_radix(text, radix).ok()).filter(|n| *n <= MOST_BODY);
    number.ok_or_else(|| format!("number: {}", digits.escape_ascii()))
}

fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// Origin form, or the asterisk of OPTIONS. Text beyond ASCII goes through as it is, as with every other proxy.
fn is_target(target: &str) -> bool {
    (target.starts_with('/') || target == "*") && target.bytes().all(|b| b.is_ascii_graphic() || b >= 0x80)
}

const MOST_LINE: usize = 1 << 20;
const MOST_BODY: usize = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    /// The judge must itself be judged: each of these would be smuggling.
    #[test]
    fn the_parser_takes_nothing_ambiguous() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.0\r\nHost: a\r\n\r\n",
            b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n b: c\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nb : c\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nb: c\rd\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nb: c\0d\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a\r\nx\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n0\r\n\r\n",
        ] {
            assert!(request(bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn what_is_well_formed_is_taken_apart() {
        let bytes = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET ";
        let (parsed, length) = request(bytes).unwrap().unwrap();
        assert_eq!((parsed.summary().as_str(), length), ("POST /a abc", bytes.len() - 4));
        assert!(request(&bytes[..length - 1]).unwrap().is_none());
    }
}
