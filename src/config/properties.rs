//! Whatever the file holds: no panic, and every error has its place.

use proptest::prelude::*;

use super::at::Files;
use super::node::Position;
use super::{Config, Errors, MaxInFlight};

const REFERENCE: &str = include_str!("../../conf/reference.yaml");

fn places_are_real(text: &str, result: Result<Config, Errors>) {
    let Err(errors) = result else { return };
    assert!(errors.count() > 0);
    let lines = text.lines().count().max(1);
    for error in errors.iter() {
        let Some(Position { line, column }) = error.position else { panic!("no place: {errors}") };
        // libyaml may report the end of the file, one line further.
        assert!((1..=lines + 1).contains(&line) && column >= 1, "{errors}");
    }
}

fn with_overload(keys: &str) -> Result<Config, Errors> {
    let pool = format!("{{ name: main, backends: [{{ url: http://a }}], overload: {{ {keys} }} }}");
    Config::parse(&format!("listeners: [{{ address: 127.0.0.1:0 }}]\npools: [{pool}]\n"), "f")
}

/// Fragments that make half-right files likelier than random text does.
fn fragment() -> impl Strategy<Value = String> {
    let words = [
        "listeners:",
        "pools:",
        "- ",
        "  ",
        "\n",
        "\n  ",
        "\n    ",
        "\n      - ",
        "address: ",
        "0.0.0.0:8080",
        "url: ",
        "http://a:1",
        "name: ",
        "{",
        "}",
        "[",
        "]",
        ", ",
        ": ",
        "0s",
        "4MiB",
        "20%",
        "&a ",
        "*a",
        "!t ",
        "!!str ",
        "null",
        "~",
        "'",
        "\"",
        "|\n",
        "<<: ",
        "---\n",
        "#",
        "é",
        "\t",
        "1e99",
        "weight: ",
        "0",
        "-1",
        "backends:",
        "headers: ",
        "? ",
        "\u{feff}",
        "\r\n",
        "overload: ",
        "max_in_flight: ",
        "balance_factor: ",
        "auto",
        ".nan",
        "1.25",
        "drain: ",
        "sessions: ",
        "until_idle",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..60).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn any_text(text in "\\PC*") {
        places_are_real(&text, Config::parse(&text, "any.yaml"));
    }

    #[test]
    fn any_half_right_file(text in fragment()) {
        places_are_real(&text, Config::parse(&text, "half.yaml"));
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let result = Config::parse_bytes(&bytes, "bytes.yaml", Files::none());
        if let Err(errors) = result {
            prop_assert!(errors.count() > 0);
        }
    }

    /// A valid file with one character changed: an error, if any, is at that line or where YAML noticed.
    #[test]
    fn the_reference_with_one_change(at in 0..REFERENCE.len(), with in any::<char>()) {
        let mut text = REFERENCE.to_owned();
        if text.is_char_boundary(at) && text.is_char_boundary(at + 1) {
            text.replace_range(at..=at, &with.to_string());
            places_are_real(&text, Config::parse(&text, "changed.yaml"));
        }
    }

    /// Whatever number is written: only those that the bound can be computed with are taken.
    #[test]
    fn any_number_as_factor(factor in prop_oneof![any::<f64>(), -1.0..120.0, Just(1.0), Just(100.0)]) {
        let overload = format!("balance_factor: {}", serde_yaml::to_string(&factor).unwrap().trim());
        match with_overload(&overload) {
            Ok(config) if factor == 0.0 => prop_assert_eq!(config.pool().overload.balance_factor, None),
            Ok(config) => {
                prop_assert!(factor > 1.0 && factor <= 100.0);
                prop_assert_eq!(config.pool().overload.balance_factor, Some(factor));
            }
            Err(errors) => {
                prop_assert!(factor != 0.0 && !(factor > 1.0 && factor <= 100.0), "{}", errors);
                prop_assert_eq!(errors.count(), 1);
            }
        }
    }

    #[test]
    fn any_number_as_limit(limit in prop_oneof![any::<i64>(), -2_i64..1_000_002]) {
        let read = with_overload(&format!("max_in_flight: {limit}")).map(|config| config.pool().overload.max_in_flight);
        match u32::try_from(limit) {
            Ok(0) => prop_assert_eq!(read, Ok(MaxInFlight::Off)),
            Ok(count) if count <= 1_000_000 => prop_assert_eq!(read, Ok(MaxInFlight::Fixed(count))),
            _ => prop_assert_eq!(read.map_err(|errors| errors.count()), Err(1)),
        }
    }

    /// The place of a value is the place where it was written, whatever stands around it.
    #[test]
    fn positions_are_exact(before in "[a-zé]{0,8}", lines in 0_usize..20, indent in 0_usize..6) {
        let comments = format!("# {before}\n").repeat(lines);
        let pad = " ".repeat(indent);
        let text = format!("{comments}listeners: [{{ address: 127.0.0.1:0 }}]\npools: [{{ name: 'é{before}', {pad}backends: {pad}[ {{ url: http://a }} ] }}]\n");
        let errors = Config::parse(&text, "f").unwrap_err();
        let column = text.lines().last().unwrap().chars().position(|c| c == '\'').unwrap() + 1;
        prop_assert_eq!(errors.count(), 1);
        prop_assert_eq!(errors.iter().next().unwrap().position, Some(Position { line: lines + 2, column }));
    }
}

#[test]
fn a_deep_or_exploding_file_is_one_error() {
    let deep = format!("listeners: {}1{}", "[".repeat(5000), "]".repeat(5000));
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..30 {
        let alias = format!("*a{}", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![alias; 10].join(", ")));
    }
    for text in [deep, bomb] {
        assert_eq!(Config::parse(&text, "f").unwrap_err().count(), 1);
    }
}
