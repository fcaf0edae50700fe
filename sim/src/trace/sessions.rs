//! Which lines of a trace are turns of one session: the traces have no session ids.
//!
//! A line's parent is the latest line that holds the deepest block of its longest known prefix; the first block, the
//! system prompt that all have, does not count. A parent that has at most one block more (its last, partly filled
//! one) was continued: same session. A parent that had more was left on the way (an edited or regenerated answer, a
//! shared document): a branch, which [`Branches`] gives to the session or makes a session of its own.

use std::collections::HashMap;

use super::line::Line;

/// What a branch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Branches {
    /// A session of its own.
    New,
    /// A turn of its parent's session.
    Same,
    /// One or the other with equal chance.
    Mixed {
        /// Decides.
        seed: u64,
    },
}

/// Where a line belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the session, from 0, in the order of first turns.
    pub session: usize,
    /// The line that this one continues, if it is in the same session.
    pub parent: Option<usize>,
}

/// How the lines of a trace hang together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Lines without a parent.
    pub roots: usize,
    /// Lines that continue the newest turn of a session.
    pub continuations: usize,
    /// Lines that continue an older one.
    pub late_continuations: usize,
    /// Lines that share a part of their parent only.
    pub branches: usize,
}

/// Infers the sessions of a trace. Lines must be in the order of their times.
#[must_use]
pub fn infer(lines: &[Line], branches: Branches) -> (Vec<Place>, Census) {
    let mut coins = fastrand::Rng::with_seed(if let Branches::Mixed { seed } = branches { seed } else { 0 });
    let mut latest: HashMap<u64, usize> = HashMap::new();
    let mut newest_turns = Vec::new();
    let mut places: Vec<Place> = Vec::with_capacity(lines.len());
    let mut census = Census::default();
    for (index, line) in lines.iter().enumerate() {
        let known = line.hash_ids.iter().skip(1).take_while(|id| latest.contains_key(id)).count();
        let parent = (known > 0).then(|| latest[&line.hash_ids[known]]);
        let parent = parent.filter(|parent| {
            let session = places[*parent].session;
            let is_branch = lines[*parent].hash_ids.len() > known + 2;
            match (is_branch, newest_turns[session] == *parent) {
                (true, _) => census.branches += 1,
                (false, true) => census.continuations += 1,
                (false, false) => census.late_continuations += 1,
            }
            !is_branch
                || match branches {
                    Branches::New => false,
                    Branches::Same => true,
                    Branches::Mixed { .. } => coins.bool(),
                }
        });
        census.roots += usize::from(known == 0);
        let session = parent.map_or(newest_turns.len(), |parent| places[parent].session);
        if session == newest_turns.len() {
            newest_turns.push(index);
        }
        newest_turns[session] = index;
        places.push(Place { session, parent });
        for id in &line.hash_ids {
            latest.insert(*id, index);
        }
    }
    (places, census)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(ids: &[&[u64]]) -> Vec<Line> {
        let line = |ids: &&[u64]| Line {
            timestamp: 0,
            input_length: u32::try_from(ids.len()).unwrap() * 512,
            output_length: 1,
            hash_ids: ids.to_vec(),
        };
        ids.iter().map(line).collect()
    }

    fn sessions(ids: &[&[u64]], branches: Branches) -> (Vec<usize>, Census) {
        let (places, census) = infer(&lines(ids), branches);
        (places.iter().map(|place| place.session).collect(), census)
    }

    #[test]
    fn a_continued_prompt_is_the_same_session_even_when_its_last_block_has_changed() {
        let (found, census) = sessions(&[&[0, 1, 2], &[0, 7], &[0, 1, 3, 4], &[0, 1, 3, 4, 5]], Branches::New);
        assert_eq!(found, [0, 1, 0, 0]);
        assert_eq!(census, Census { roots: 2, continuations: 2, ..Census::default() });
    }

    #[test]
    fn the_system_prompt_alone_is_no_bond() {
        let (found, census) = sessions(&[&[0, 1], &[0, 2], &[0], &[0]], Branches::Same);
        assert_eq!(found, [0, 1, 2, 3]);
        assert_eq!(census.roots, 4);
    }

    #[test]
    fn a_branch_is_what_the_rule_says() {
        let ids: &[&[u64]] = &[&[0, 1, 2, 3, 4], &[0, 1, 9]];
        assert_eq!(sessions(ids, Branches::New).0, [0, 1]);
        assert_eq!(sessions(ids, Branches::Same).0, [0, 0]);
        assert_eq!(sessions(ids, Branches::New).1.branches, 1);
        let both: Vec<usize> = (0..20).map(|seed| sessions(ids, Branches::Mixed { seed }).0[1]).collect();
        assert!(both.contains(&0) && both.contains(&1), "{both:?}");
    }

    #[test]
    fn a_session_of_its_own_has_no_parent_in_another() {
        let (places, _) = infer(&lines(&[&[0, 1, 2, 3, 4], &[0, 1, 9]]), Branches::New);
        assert_eq!(places[1], Place { session: 1, parent: None });
        let (places, _) = infer(&lines(&[&[0, 1, 2, 3, 4], &[0, 1, 9]]), Branches::Same);
        assert_eq!(places[1], Place { session: 0, parent: Some(0) });
    }

    #[test]
    fn the_latest_holder_of_a_block_is_the_parent() {
        let ids: &[&[u64]] = &[&[0, 1], &[0, 1, 2], &[0, 1, 3], &[0, 1, 2, 5]];
        let (places, census) = infer(&lines(ids), Branches::New);
        assert_eq!(places[2].parent, Some(1), "its last block is the only other one");
        assert_eq!(places[3].parent, Some(1), "the deepest known block decides");
        assert_eq!((census.continuations, census.late_continuations), (2, 1));
    }
}
