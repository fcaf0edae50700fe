//! Interim responses, and upgrades that were not requested.

use crate::upstream::script::{Case, Step, answer};

pub(crate) fn interim() -> Vec<Case> {
    let final_answer = answer("Content-Length: 5", "hello");
    let after = |first: &str| [first.as_bytes(), &final_answer].concat();
    let good = |name: &str, first: &str, statuses: &[u16]| Case::whole(name, after(first), "hello").interim(statuses);
    let bad = |name: &str, first: &str| Case::refused(name, after(first));
    let upgrade = "HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let go_on = "HTTP/1.1 100 Continue\r\n\r\n";
    vec![
        good("100", go_on, &[100]),
        good("102, then 103", "HTTP/1.1 102 x\r\n\r\nHTTP/1.1 103 x\r\nLink: </a>\r\n\r\n", &[102, 103]),
        good("199", "HTTP/1.1 199 x\r\nX: y\r\n\r\n", &[199]),
        good("100 of HTTP/1.0", "HTTP/1.0 100 x\r\n\r\n", &[100]),
        good("100 that closes", "HTTP/1.1 100 x\r\nConnection: close\r\n\r\n", &[100]),
        good("100 with a length", "HTTP/1.1 100 x\r\nContent-Length: 5\r\n\r\n", &[100]),
        good("100 in chunks", "HTTP/1.1 100 x\r\nTransfer-Encoding: chunked\r\n\r\n", &[100]),
        good("1,000 times 100", &go_on.repeat(1000), &[100; 1000]),
        Case::whole("100, then the answer", go_on, "hello").interim([100]).then([Step::Send(final_answer.clone())]),
        bad("100 with a body", "HTTP/1.1 100 x\r\nContent-Length: 5\r\n\r\nhello").interim([100]),
        bad("100 with chunks", "HTTP/1.1 100 x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").interim([100]),
        bad("100 in both framings", "HTTP/1.1 100 x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
        bad("100 with LF", "HTTP/1.1 100 x\n\n"),
        bad("100, then junk", &format!("{go_on}junk")).interim([100]),
        bad("101", upgrade),
        bad("100, then 101", &format!("{go_on}{upgrade}")).interim([100]),
        bad("101 without its fields", "HTTP/1.1 101 x\r\n\r\n"),
        Case::refused("100, then a close", go_on).interim([100]).then([Step::Close]),
        Case::refused("100, then silence", go_on).interim([100]).then([Step::Hang]).status(504),
    ]
}
