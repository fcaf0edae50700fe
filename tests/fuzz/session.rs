//! Session ids and the headers that may carry them, against the contract put as simply as possible.
//!
//! An input is the longest valid length, the number of headers, and then values: whose they are, and their bytes.

use ingle::core::session::Invalid;
use ingle::core::{Seed, SessionKey};

use crate::input::Input;

pub(crate) fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let max_length = 1 + input.below(40);
    let mut headers: Vec<Vec<&[u8]>> = vec![Vec::new(); 1 + input.below(4)];
    while !input.is_empty() {
        let of = input.below(headers.len());
        headers[of].push(input.piece());
    }
    let seed = Seed::new("fuzz");
    let find = |headers: &[Vec<&[u8]>]| {
        SessionKey::find(headers.iter().map(|values| values.iter().copied()), max_length, seed)
    };
    let found = find(&headers);
    match expected(&headers, max_length) {
        Expected::None => assert_eq!(found, Ok(None)),
        Expected::Invalid => assert_eq!(found, Err(Invalid)),
        Expected::Id(index, id) => {
            let alone = SessionKey::parse(id, max_length, seed).unwrap().unwrap();
            assert_eq!(found, Ok(Some((index, alone))));
            let other = SessionKey::parse(id, max_length, Seed::new("another")).unwrap().unwrap();
            assert_ne!(alone, other, "the seed is no part of the key");
        }
    }
    for value in headers.iter().flatten() {
        alone(value, max_length, seed);
    }
    values_that_say_no_more_do_not_matter(&headers, found, find);
    let all: Vec<&[u8]> = headers.iter().flatten().copied().collect();
    equal_ids_and_no_others_have_equal_keys(&all, seed);
}

enum Expected<'a> {
    None,
    Invalid,
    Id(usize, &'a [u8]),
}

/// The first header with anything in it decides, for good or ill.
fn expected<'a>(headers: &[Vec<&'a [u8]>], max_length: usize) -> Expected<'a> {
    for (index, values) in headers.iter().enumerate() {
        let ids: Vec<&[u8]> = values.iter().map(|value| trimmed(value)).filter(|id| !id.is_empty()).collect();
        let Some(first) = ids.first() else { continue };
        let valid = ids.iter().all(|id| id.len() <= max_length && id.iter().all(|b| (0x20..0x7f).contains(b)));
        let one = ids.iter().all(|id| id == first);
        return if valid && one { Expected::Id(index, first) } else { Expected::Invalid };
    }
    Expected::None
}

/// Without blanks around it.
fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b'\n' | b'\r' | 0x0c, rest @ ..] | [rest @ .., b' ' | b'\t' | b'\n' | b'\r' | 0x0c] =
        value
    {
        value = rest;
    }
    value
}

/// Blanks around a value change nothing, and what is shown of it is neither the id nor all of its hash.
fn alone(value: &[u8], max_length: usize, seed: Seed) {
    let key = SessionKey::parse(value, max_length, seed);
    assert_eq!(key, SessionKey::parse(trimmed(value), max_length, seed));
    assert_eq!(key, SessionKey::parse(&[b" \t", value, b"\t "].concat(), max_length, seed));
    if let Ok(Some(key)) = key {
        let shown = key.to_string();
        assert_eq!((shown.len(), shown.as_str()), (12, &format!("{:016x}", key.bits())[..12]));
        assert_eq!(format!("{key:?}"), format!("SessionKey({shown})"));
    }
}

/// Empty values anywhere, and anything in headers after the one that decides, are as if they were not there.
fn values_that_say_no_more_do_not_matter(
    headers: &[Vec<&[u8]>],
    found: Result<Option<(usize, SessionKey)>, Invalid>,
    find: impl Fn(&[Vec<&[u8]>]) -> Result<Option<(usize, SessionKey)>, Invalid>,
) {
    let mut more = headers.to_vec();
    for values in &mut more {
        values.insert(0, b" ");
        values.push(b"");
    }
    assert_eq!(found, find(&more));
    if let Ok(Some((index, _))) = found {
        more.truncate(index + 1);
        more.push(vec![b"\xff", b"another"]);
        assert_eq!(found, find(&more));
    }
}

/// 64 bits of hash: two ids of a few bytes that collide would be a fault of ours, not bad luck.
fn equal_ids_and_no_others_have_equal_keys(values: &[&[u8]], seed: Seed) {
    let key = |value: &[u8]| SessionKey::parse(value, usize::MAX, seed).ok().flatten();
    for pair in values.windows(2) {
        if let (Some(one), Some(other)) = (key(pair[0]), key(pair[1])) {
            assert_eq!(one == other, trimmed(pair[0]) == trimmed(pair[1]));
        }
    }
}
