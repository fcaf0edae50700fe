//! The file with every default filled in, for telling what a new one changes.

use std::fmt;

use serde_json::Value;

use super::file::File;

/// Every key of a file and its value. It never shows a value: some are secrets.
#[derive(Clone, PartialEq)]
pub struct Written(Value);

impl Written {
    pub(super) fn new(file: &File) -> Written {
        // Only what was read is here, and all of that can be written.
        Written(serde_json::to_value(file).unwrap_or_default())
    }

    /// The keys whose values differ, as paths such as `pools[0].retry.budget`; without those of [`Config::listeners`]
    /// and of the backends, whose order means nothing.
    ///
    /// [`Config::listeners`]: super::Config::listeners
    #[must_use]
    pub fn changed(&self, new: &Written) -> Vec<String> {
        let mut paths = Vec::new();
        differing(&self.0, &new.0, "", &mut paths);
        paths.retain(|path| path != "listeners" && !path.ends_with("].backends"));
        paths
    }

    /// The keys whose values differ between the backend at `at` here and the one at `new_at` in `new`, but for its
    /// name. Both are places in the list of the one pool.
    #[must_use]
    pub fn changed_of_backend(&self, at: usize, new: &Written, new_at: usize) -> Vec<String> {
        let mut keys = Vec::new();
        differing(self.backend(at), new.backend(new_at), "", &mut keys);
        keys.retain(|key| key != "name");
        keys
    }

    /// The file, every key with its value: what [`Config::parse`] would read as the same config. For tools that write
    /// files. Some values are secrets, so it belongs into no log and no answer.
    ///
    /// [`Config::parse`]: super::Config::parse
    #[must_use]
    pub fn with_secrets(&self) -> &Value {
        &self.0
    }

    fn backend(&self, at: usize) -> &Value {
        &self.0["pools"][0]["backends"][at]
    }
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Written")
    }
}

/// Lists are compared item by item if they are lists of sections, of which only pools have paths of their own.
fn differing(old: &Value, new: &Value, path: &str, found: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let added = new.keys().filter(|key| !old.contains_key(*key));
            for key in old.keys().chain(added) {
                let dot = if path.is_empty() { "" } else { "." };
                let (old, new) = (old.get(key).unwrap_or(&Value::Null), new.get(key).unwrap_or(&Value::Null));
                differing(old, new, &format!("{path}{dot}{key}"), found);
            }
        }
        (Value::Array(old), Value::Array(new)) if path == "pools" && old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                differing(old, new, &format!("{path}[{index}]"), found);
            }
        }
        _ if old == new => {}
        _ => found.push(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn parse(text: &str) -> Config {
        Config::parse(text, "test").unwrap()
    }

    const LISTENERS: &str = "listeners: [{ address: 127.0.0.1:80 }]\n";

    #[test]
    fn what_differs_is_named_and_defaults_are_what_they_are() {
        let old = parse(&format!(
            "{LISTENERS}affinity: {{ hash_seed: top-secret }}\npools: [{{ name: a, backends: [{{ url: http://a:1 }}, {{ url: http://b:1, weight: 2 }}] }}]\n"
        ));
        let new = parse(
            "listeners: [{ address: 127.0.0.1:81 }]\nadmin: { address: 127.0.0.1:82 }\nlimits: { max_body: 64MiB, max_connections: 5 }\n\
             pools: [{ name: a, retry: { max_attempts: 3, budget: 1% }, backends: [{ url: http://b:1, weight: 1, name: \"b:1\" }] }]\n",
        );
        let mut changed = old.written.changed(&new.written);
        changed.sort_unstable();
        assert_eq!(changed, ["admin", "affinity.hash_seed", "limits.max_connections", "pools[0].retry.budget"]);
        assert_eq!(old.written.changed_of_backend(1, &new.written, 0), ["weight"]);
        assert_eq!(old.written.changed(&old.written), [""; 0]);
        assert!(!format!("{:?}", old.written).contains("secret"));
    }
}
