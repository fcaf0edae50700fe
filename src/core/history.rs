//! What a pool did in the last quarter of an hour, in pieces of 15 seconds: what the charts of the status page show.

use super::Millis;
use super::latency::{Histogram, Quantiles};
use super::usage::Tokens;
use super::window::Window;

/// The history of one pool, in a fixed amount of memory (about 40 KiB).
#[derive(Debug)]
pub struct History {
    pieces: Window<Piece>,
}

/// The most requests that a backend had at once, in each piece of time.
#[derive(Debug)]
pub struct Load {
    pieces: Window<u32>,
}

#[derive(Debug, Default)]
struct Piece {
    requests: u32,
    errors: u32,
    tokens: Tokens,
    first_tokens: Histogram,
}

/// What a pool did in one piece of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// Requests that ended.
    pub requests: u32,
    /// Those of them that failed.
    pub errors: u32,
    /// Prompt tokens of requests with a session.
    pub tokens: Tokens,
    /// How long requests waited for their first token; `None` if no first token came.
    pub first_token: Option<Quantiles>,
}

impl Default for History {
    fn default() -> History {
        History { pieces: Window::new(POINTS, STEP) }
    }
}

impl Default for Load {
    fn default() -> Load {
        Load { pieces: Window::new(POINTS, STEP) }
    }
}

impl History {
    /// A request has ended.
    pub fn note_request(&mut self, has_failed: bool, now: Millis) {
        let piece = self.pieces.at(now);
        piece.requests = piece.requests.saturating_add(1);
        piece.errors = piece.errors.saturating_add(u32::from(has_failed));
    }

    /// A first token came.
    pub fn note_first_token(&mut self, waited: Millis, now: Millis) {
        self.pieces.at(now).first_tokens.note(waited);
    }

    /// A backend has reported the prompt of a request with a session.
    pub fn note_tokens(&mut self, tokens: Tokens, now: Millis) {
        self.pieces.at(now).tokens += tokens;
    }

    /// [`POINTS`] points, the oldest first. The last one is not over yet.
    #[must_use]
    pub fn points(&self, now: Millis) -> Vec<Point> {
        in_order(&self.pieces, now, |piece| Point {
            requests: piece.requests,
            errors: piece.errors,
            tokens: piece.tokens,
            first_token: piece.first_tokens.quantiles(),
        })
    }
}

impl Load {
    /// Notes how many requests there are now.
    pub fn note(&mut self, requests: usize, now: Millis) {
        let most = self.pieces.at(now);
        *most = (*most).max(u32::try_from(requests).unwrap_or(u32::MAX));
    }

    /// [`POINTS`] points, the oldest first.
    #[must_use]
    pub fn points(&self, now: Millis) -> Vec<u32> {
        in_order(&self.pieces, now, |most| *most)
    }
}

fn in_order<T: Default, P: Clone + Default>(pieces: &Window<T>, now: Millis, point: impl Fn(&T) -> P) -> Vec<P> {
    let mut points = vec![P::default(); POINTS];
    for (age, piece) in pieces.buckets(now) {
        if let Some(place) = usize::try_from(age).ok().and_then(|age| points.iter_mut().rev().nth(age)) {
            *place = point(piece);
        }
    }
    points
}

/// Milliseconds of a piece.
pub const STEP: Millis = 15_000;
/// A quarter of an hour, and the piece that is not over.
pub const POINTS: usize = 61;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_in_the_order_of_time() {
        let mut history = History::default();
        history.note_request(false, 0);
        history.note_request(true, STEP);
        history.note_tokens(Tokens { prompt: 10, cached: 9 }, STEP);
        history.note_first_token(5, 3 * STEP);
        let points = history.points(3 * STEP);
        assert_eq!(points.len(), POINTS);
        let counts: Vec<_> = points.iter().map(|point| (point.requests, point.errors)).collect();
        assert_eq!(counts[POINTS - 4..], [(1, 0), (1, 1), (0, 0), (0, 0)]);
        assert_eq!(points[POINTS - 3].tokens, Tokens { prompt: 10, cached: 9 });
        assert_eq!(points[POINTS - 1].first_token, Some(Quantiles { p50: 5, p99: 5 }));
        assert_eq!(points[POINTS - 2], Point::default());
    }

    #[test]
    fn history_ends_after_a_quarter_of_an_hour() {
        let mut history = History::default();
        history.note_request(false, 7);
        assert_eq!(history.points(60 * STEP).first().unwrap().requests, 1);
        assert!(history.points(61 * STEP).iter().all(|point| *point == Point::default()));
        assert!(history.points(10_000 * STEP).iter().all(|point| *point == Point::default()));
    }

    #[test]
    fn load_is_the_most_of_each_piece() {
        let mut load = Load::default();
        [(3, 0), (7, 1), (2, 2), (1, STEP)].iter().for_each(|(requests, now)| load.note(*requests, *now));
        assert_eq!(load.points(2 * STEP)[POINTS - 3..], [7, 1, 0]);
    }
}
