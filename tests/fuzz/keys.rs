//! Files of API keys: whatever is in them, what is valid keeps its promises, and what is said of mistakes shows nothing.

use std::collections::HashSet;

use ingle::config::{KeyFile, Secret};

pub(crate) fn check(bytes: &[u8]) {
    match KeyFile::parse(bytes) {
        Ok(file) => keeps_its_promises(bytes, &file),
        Err(flaws) => {
            assert!(!flaws.is_empty());
            flaws.iter().for_each(|flaw| has_a_place_and_shows_nothing(bytes, flaw));
        }
    }
    match Secret::parse(bytes) {
        Ok(secret) => {
            assert!(!secret.reveal().is_empty() && secret.reveal().bytes().all(|byte| byte.is_ascii_graphic()));
            assert_eq!(secret.reveal().as_bytes(), bytes.trim_ascii());
            assert_eq!(format!("{secret:?}"), "Secret");
        }
        Err(flaw) => shows_nothing(bytes, &flaw),
    }
}

fn keeps_its_promises(bytes: &[u8], file: &KeyFile) {
    let names: HashSet<_> = file.holders.iter().map(|holder| &holder.name).collect();
    let keys: HashSet<_> = file.holders.iter().flat_map(|holder| &holder.keys).collect();
    assert!(!file.holders.is_empty() && names.len() == file.holders.len());
    assert_eq!(keys.len(), file.holders.iter().map(|holder| holder.keys.len()).sum::<usize>());
    for holder in &file.holders {
        assert!((1..=255).contains(&holder.name.len()) && holder.name != "none" && !holder.keys.is_empty());
        assert!(holder.name.bytes().all(|byte| byte.is_ascii_graphic() && !b"#:".contains(&byte)));
        assert!(holder.in_flight.is_none_or(|most| (1..=1_000_000).contains(&most)));
        assert!(holder.requests.is_none_or(|rate| rate.count.get() <= 1_000_000 && rate.burst() <= rate.count.get()));
    }
    // Line ends, blanks and comments mean nothing.
    let text = std::str::from_utf8(bytes).unwrap();
    let other: String = text.lines().map(|line| format!("\t{line} # x\r\n")).collect();
    assert_eq!(KeyFile::parse(other.as_bytes()).as_ref(), Ok(file));
}

fn has_a_place_and_shows_nothing(bytes: &[u8], flaw: &str) {
    if let Some((place, said)) = flaw.strip_prefix("line ").and_then(|rest| rest.split_once(": ")) {
        let lines = String::from_utf8_lossy(bytes).lines().count();
        assert!((1..=lines).contains(&place.parse().unwrap()), "{flaw}");
        return shows_nothing(bytes, said);
    }
    shows_nothing(bytes, flaw);
}

/// No piece that could be one of a key is in what is said, but the words that are always said.
fn shows_nothing(bytes: &[u8], said: &str) {
    const OURS: &str = "needs a name and `sha256:HASH`; `ingle key NAME` makes such a line its second word is not `sha256:` \
        and 64 hexadecimal digits; `ingle key NAME --stdin` makes the line of a key allows no request: to refuse a key, remove \
        its line is neither `requests=RATE` nor `in_flight=NUMBER` is no rate, such as `requests=600/min` \
        its key stands in the file already limits stand with the name's first key, on line is one name too many: at most \
        a name is made of visible ASCII characters but `#` and `:` holds no key: makes one holds something else than one word of visible \
        ASCII is not UTF-8 text `none` is reserved: in metrics it stands for requests without a key is longer than 4096 bytes";
    for piece in bytes.windows(9).filter(|piece| piece.iter().all(u8::is_ascii_graphic)) {
        let piece = std::str::from_utf8(piece).unwrap();
        assert!(!said.contains(piece) || OURS.contains(piece), "{piece} stands in the file: {said}");
    }
}
