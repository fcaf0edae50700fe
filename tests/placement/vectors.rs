//! The published test vectors, read from the document that publishes them, so that the two cannot drift apart.

use ingle::core::hash::{Claim, NameHash};
use ingle::core::pool::{MemberSpec, Settings};
use ingle::core::{Seed, SessionKey};

use crate::fleet::{key_of, order_names, pool, settings, spec};

const DOCUMENT: &str = include_str!("../../docs/placement.md");

/// hash_seed, session id, key, backend, weight, score
#[test]
fn keys_and_scores() {
    let rows = table("### Scores");
    assert!(rows.len() >= 6, "{rows:?}");
    for row in rows {
        let [seed, id, bits, name, weight, score] = &row[..] else { panic!("{row:?}") };
        let (seed, weight) = (Seed::new(seed), weight.parse().unwrap());
        let key = key_of(id, seed);
        assert_eq!(format!("{:016x}", key.bits()), *bits, "{row:?}");
        let ours = Claim::new(key, NameHash::new(name, seed), weight).score();
        let published: f64 = score.parse().unwrap();
        // The logarithm of another platform's library may differ in the last place.
        assert!((ours / published - 1.0).abs() < 1e-12, "{row:?}: {ours:?}");
    }
}

/// hash_seed, session id, backends, order
#[test]
fn orders() {
    let rows = table("### Orders");
    assert!(rows.len() >= 8, "{rows:?}");
    for row in rows {
        let [seed, id, backends, order] = &row[..] else { panic!("{row:?}") };
        let seed = Seed::new(seed);
        let specs: Vec<_> = backends.split(' ').map(parse).collect();
        let pool = pool(&specs, Settings { seed, ..settings() });
        assert_eq!(order_names(&pool, key_of(id, seed)).join(" "), *order, "{row:?}");
    }
}

#[test]
fn no_sessions() {
    for value in ["", " ", "\t"] {
        assert_eq!(SessionKey::parse(value.as_bytes(), 256, Seed::new("")), Ok(None));
    }
}

/// `name*weight` or `name*weight@priority`
fn parse(backend: &str) -> MemberSpec {
    let (name, rest) = backend.rsplit_once('*').unwrap();
    let (weight, priority) = rest.split_once('@').unwrap_or((rest, "0"));
    spec(name, weight.parse().unwrap(), priority.parse().unwrap())
}

/// The rows of the table below a heading; a cell is what is between its backquotes.
fn table(heading: &str) -> Vec<Vec<String>> {
    let (_, after) = DOCUMENT.split_once(&format!("{heading}\n")).unwrap();
    let lines = after.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    lines.skip(2).map(|line| line.split('`').skip(1).step_by(2).map(str::to_owned).collect()).collect()
}
