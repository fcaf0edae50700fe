//! The files in `conf/` against the code: `reference.yaml` has every key with its default, the examples are valid.

use serde_json::Value as Json;

use super::{Config, schema};

const MINIMAL: &str = "\
listeners: [{ address: 0.0.0.0:8080 }]
admin: { address: 127.0.0.1:9180 }
pools: [{ name: main, backends: [{ name: gpu0, url: http://10.0.0.10:8080 }] }]
";

const REFERENCE: &str = include_str!("../../conf/reference.yaml");

#[test]
fn the_reference_equals_the_defaults() {
    let reference = Config::parse(REFERENCE, "reference.yaml").unwrap();
    assert_eq!(reference, Config::parse(MINIMAL, "minimal").unwrap());
}

#[test]
fn the_examples_are_valid() {
    let examples = [
        include_str!("../../conf/minimal.yaml"),
        include_str!("../../conf/llama-server.yaml"),
        include_str!("../../conf/vllm.yaml"),
        include_str!("../../conf/least-ttft.yaml"),
    ];
    let backends = examples
        .map(|text| Config::parse(text, "example").unwrap_or_else(|errors| panic!("{errors}")).pool().backends.len());
    assert_eq!(backends, [2, 2, 3, 4]);
}

/// Walks the schema: every key is in the reference, with the value that the schema calls its default.
#[test]
fn the_reference_has_every_key_with_the_schemas_default() {
    let schema = schema();
    // What names files is there, and marked: `ingle check` would look for them.
    let all = REFERENCE.replace("#|", "  ");
    Config::parse(&all, "reference.yaml").unwrap();
    let reference: Json = serde_yaml::from_str(&all).unwrap();
    let mut keys = 0;
    let mut sections = vec![(String::new(), &schema, &reference)];
    while let Some((path, section, written)) = sections.pop() {
        let properties = section["properties"].as_object().unwrap();
        assert_eq!(section["additionalProperties"], false, "{path}");
        for (key, property) in properties {
            let path = format!("{path}.{key}");
            let value = &written[key];
            assert!(!value.is_null(), "{path} is not in reference.yaml");
            assert!(property["description"].is_string(), "{path} has no description");
            keys += 1;
            let below = resolve(&schema, property);
            let (below, value) = match below.get("items") {
                Some(items) => (resolve(&schema, items), &value[0]),
                None => (below, value),
            };
            if below.get("properties").is_some() {
                sections.push((path, below, value));
            } else if let Some(default) = property.get("default") {
                // 0 and 0.0 are one number in YAML.
                assert!(
                    written[key] == *default
                        || written[key].as_f64().is_some_and(|number| Some(number) == default.as_f64()),
                    "{path}: {default}"
                );
            } else {
                assert!(
                    [
                        ".name",
                        ".url",
                        ".address",
                        ".certificate",
                        ".key",
                        ".client_ca",
                        ".ca",
                        ".server_name",
                        ".allow",
                        ".keys_file",
                        ".api_key_file",
                    ]
                    .iter()
                    .any(|end| path.ends_with(end)),
                    "{path} has no default"
                );
            }
        }
    }
    assert_eq!(keys, 103, "keys in the schema: update this when adding one");
}

fn resolve<'s>(schema: &'s Json, property: &'s Json) -> &'s Json {
    match property["$ref"].as_str() {
        Some(reference) => schema.pointer(reference.trim_start_matches('#')).unwrap(),
        None => property,
    }
}
