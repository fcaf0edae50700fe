//! RFC 7541 (HPACK), by section.

use super::Case;
use super::Must::{End, Serve};
use super::rfc9113::{COMPRESSION, USUAL, get, one};
use crate::frames::{END_HEADERS, END_STREAM, HEADERS, frame};

pub(crate) fn compression() -> Vec<Case> {
    let head = |stream: u32, more: &[u8]| frame(HEADERS, END_STREAM | END_HEADERS, stream, &[USUAL, more].concat());
    let good = |section, name, more: &[u8]| one(section, name, &[&head(1, more)], Serve(1));
    let bad = |section, name, more: &[u8]| one(section, name, &[&head(1, more)], End(COMPRESSION));
    // `a: b`, with an entry in the table, which the next head means by its index.
    let (entry, meant) = (head(1, &[0x40, 1, b'a', 1, b'b']), head(3, &[0xbe]));
    vec![
        good("6.1", "an index of the static table", &[0x90]),
        one("6.1", "an index of the dynamic table", &[&entry, &meant], Serve(3)),
        bad("6.1", "index 0", &[0x80]),
        bad("2.3.3", "an index beyond both tables", &[0xc6]),
        bad("2.3.3", "a literal whose name is beyond both tables", &[0x7f, 0x05, 1, b'b']),
        good("6.2.1", "a literal that is indexed, its name too", &[0x7a, 1, b'b']),
        good("6.2.1", "the same in Huffman code", &[0x7a, 0x81, 0x8f]),
        good("6.2.2", "a literal that is not indexed", &[0x0f, 0x2b, 1, b'b']),
        good("6.2.2", "the same with a new name", &[0x00, 1, b'a', 1, b'b']),
        good("6.2.2", "the same in Huffman code", &[0x00, 0x81, 0x1f, 0x81, 0x8f]),
        good("6.2.3", "a literal that is never indexed", &[0x1f, 0x2b, 1, b'b']),
        good("6.2.3", "the same with a new name", &[0x10, 1, b'a', 1, b'b']),
        good("6.2.3", "the same in Huffman code", &[0x10, 0x81, 0x1f, 0x81, 0x8f]),
        one("6.3", "a smaller table", &[&frame(HEADERS, 5, 1, &[&[0x20], USUAL].concat())], Serve(1)),
        one(
            "6.3",
            "a smaller table, then a larger one",
            &[&frame(HEADERS, 5, 1, &[&[0x20, 0x3f, 0xe1, 0x1f], USUAL].concat())],
            Serve(1),
        ),
        one(
            "6.3",
            "a larger table than allowed",
            &[&frame(HEADERS, 5, 1, &[&[0x3f, 0xe2, 0x1f], USUAL].concat())],
            End(COMPRESSION),
        ),
        bad("4.2", "a change of the table's size at the end", &[0x20]),
        bad("5.2", "padding of more than 7 bits", &[0x00, 0x81, 0x1f, 0x82, 0x8f, 0xff]),
        bad("5.2", "padding that is not of ones", &[0x00, 0x81, 0x1f, 0x81, 0x8c]),
        bad("5.2", "the end of string within a string", &[0x00, 0x81, 0x1f, 0x84, 0xff, 0xff, 0xff, 0xff]),
        one("4.1", "an entry larger than the table empties it", &[&entry, &larger(), &get(5)], Serve(5)),
    ]
}

/// A header of 5,000 bytes that is to be indexed.
fn larger() -> Vec<u8> {
    let entry = [&[0x40, 1, b'b', 0x7f, 0x89, 0x26][..], &[b'c'; 5000]].concat();
    frame(HEADERS, END_STREAM | END_HEADERS, 3, &[USUAL, &entry].concat())
}
