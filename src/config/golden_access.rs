//! Bad settings of who may come, bad key files, and exactly what is said about them.

use std::fs;

use super::Config;
use super::golden::{LISTENERS, at_the_top, said};
use super::secret::Digest;

const POOLS: &str = "pools: [{ name: main, backends: [{ url: http://a:1 }] }]\n";

#[test]
fn addresses() {
    let at = |keys: &str| said(&format!("{POOLS}listeners: [{{ address: 127.0.0.1:0, {keys} }}]\n"));
    let no_range = "is no range or address, such as `10.0.0.0/8` or `::1`";
    for (keys, expected) in [
        ("allow: [all]", format!("45: listeners[0].allow[0]: `all` {no_range}")),
        ("allow: [10.0.0.0/33]", format!("45: listeners[0].allow[0]: `10.0.0.0/33` {no_range}")),
        ("allow: ['::1', 10.0.0.0/]", format!("52: listeners[0].allow[1]: `10.0.0.0/` {no_range}")),
        (
            "allow: [10.0.0.7/8]",
            "45: listeners[0].allow[0]: `10.0.0.7/8` has bits behind its prefix: write `10.0.0.0/8`".into(),
        ),
        (
            "allow: ['::ffff:10.0.0.0/104']",
            "45: listeners[0].allow[0]: `::ffff:10.0.0.0/104` is IPv4 in the form of IPv6: write it as IPv4, such as `10.0.0.0/8`".into(),
        ),
        ("allow: []", "37: listeners[0].allow: is empty: it needs at least one item".into()),
        ("allow: 10.0.0.0/8", "44: listeners[0].allow: must be a list: write [10.0.0.0/8]".into()),
    ] {
        assert_eq!(at(keys), format!("f:2:{expected}"), "{keys}");
    }
    at_the_top(&[
        ("access: { trusted_proxies: [proxy] }", &format!("29: access.trusted_proxies[0]: `proxy` {no_range}")),
        ("access: { keys: k }", "11: access.keys: unknown key; this section has `keys_file`, `trusted_proxies`"),
        ("access: { keys_file: '' }", "22: access.keys_file: is empty"),
        ("allow: [10.0.0.1]", "1: allow: unknown key; it belongs in `admin` or `listeners[]`"),
    ]);
}

#[test]
fn an_admin_listener_that_others_can_reach_needs_keys() {
    for address in ["0.0.0.0:9180", "10.0.0.1:9180", "'[::]:9180'", "'[::ffff:10.0.0.1]:9180'"] {
        let bare = address.trim_matches('\'');
        assert_eq!(
            said(&format!("{LISTENERS}{POOLS}admin: {{ address: {address} }}\n")),
            format!(
                "f:3:19: admin.address: `{bare}` can be reached from other machines: give `admin` a `keys_file` (`ingle key NAME` makes a key), or listen on 127.0.0.1"
            )
        );
        let with = format!("{LISTENERS}{POOLS}admin: {{ address: {address}, keys_file: k }}\n");
        assert!(Config::parse(&with, "f").unwrap().admin.unwrap().keys_file.is_some());
    }
    for address in ["127.0.0.1:9180", "127.8.0.1:9180", "'[::1]:9180'", "'[::ffff:127.0.0.1]:9180'"] {
        Config::parse(&format!("{LISTENERS}{POOLS}admin: {{ address: {address} }}\n"), "f").unwrap();
    }
}

#[test]
fn key_files_are_read_and_every_mistake_is_told_without_what_stands_there() {
    let folder = std::env::temp_dir().join(format!("ingle-golden-access-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, contents: &str| fs::write(folder.join(name), contents).unwrap();
    let load = |keys: &str| {
        write("f.yaml", &format!("{LISTENERS}{keys}"));
        let loaded = Config::load(folder.join("f.yaml"));
        let told = loaded.err().map_or_else(String::new, |errors| errors.to_string());
        told.replace(&format!("{}/", folder.display()), "")
    };
    write("good", &format!("alice sha256:{}\n", Digest::of(b"k").to_hex()));
    write("bad", "top-secret\nalice top-secret\n");
    write("two", "top secret");
    write("one", "top-secret\n");
    let pools = "pools: [{ name: main, backends: [{ url: http://a:1, api_key_file: one }] }]\n";
    assert_eq!(load(&format!("{pools}access: {{ keys_file: good }}\n")), "");
    let bad = "line 1: needs a name and `sha256:HASH`; `ingle key NAME` makes such a line";
    let worse = "line 2: its second word is not `sha256:` and 64 hexadecimal digits; `ingle key NAME --stdin` makes the line of a key";
    assert_eq!(
        load(&format!("{pools}access: {{ keys_file: bad }}\nadmin: {{ address: 127.0.0.1:1, keys_file: none }}\n")),
        format!(
            "f.yaml:3:22: access.keys_file: `bad` {bad}\nf.yaml:3:22: access.keys_file: `bad` {worse}\n\
             f.yaml:4:43: admin.keys_file: `none` cannot be read: No such file or directory (os error 2)"
        )
    );
    assert_eq!(
        load(&pools.replace("one", "two")),
        "f.yaml:2:67: pools[0].backends[0].api_key_file: `two` holds something else than one word of visible ASCII"
    );
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn keys_that_anybody_can_read_are_warned_of() {
    let warned = |listener: &str, access: &str| {
        let text = format!("listeners: [{{ {listener} }}]\n{POOLS}access: {{ keys_file: k{access} }}\n");
        Config::parse(&text, "f").unwrap().warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        warned("address: 0.0.0.0:80", ""),
        ["3:22: access.keys_file: listeners[0] has no `tls`: anybody on the way can read the keys that clients show"]
    );
    let none: [&str; 0] = [];
    assert_eq!(warned("address: 127.0.0.1:80", ""), none);
    assert_eq!(warned("address: 0.0.0.0:80, tls: { certificate: c, key: k }", ""), none);
    assert_eq!(warned("address: 0.0.0.0:80", ", trusted_proxies: [10.0.0.1]"), none, "whoever is in front has TLS");

    let backends = |urls: &[&str]| {
        let each = |url: &&str| format!("{{ url: {url:?}, api_key_file: k }}");
        let all = urls.iter().map(each).collect::<Vec<_>>().join(", ");
        let text = format!("{LISTENERS}pools: [{{ name: main, backends: [{all}] }}]\n");
        Config::parse(&text, "f").unwrap().warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(backends(&["http://127.0.0.1:1", "http://localhost", "http://[::1]", "https://a"]), none);
    let said = backends(&["https://a", "http://b", "http://c"]);
    assert!(said.len() == 1 && said[0].contains("backends[1].api_key_file: goes to an http:// backend"), "{said:?}");
}

#[test]
fn keys_of_listeners() {
    for (keys, expected) in [
        ("cors: maybe", "43: listeners[0].cors: `maybe` is not one of `pass`, `off`"),
        ("cors: true", "43: listeners[0].cors: `true` is not one of `pass`, `off`"),
        ("answer_probes: 1", "52: listeners[0].answer_probes: `1` is not `true` or `false`"),
    ] {
        let text = format!("{POOLS}listeners: [{{ address: 127.0.0.1:0, {keys} }}]\n");
        assert_eq!(said(&text), format!("f:2:{expected}"), "{keys}");
    }
    let config = Config::parse(&format!("{LISTENERS}{POOLS}"), "f").unwrap();
    assert_eq!((config.listeners[0].cors, config.listeners[0].answer_probes), (super::Cors::Pass, false));
    let off = format!("{POOLS}listeners: [{{ address: 127.0.0.1:0, cors: off, answer_probes: true }}]\n");
    let config = Config::parse(&off, "f").unwrap();
    assert_eq!((config.listeners[0].cors, config.listeners[0].answer_probes), (super::Cors::Off, true));
}
