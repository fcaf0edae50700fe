//! Bad TLS settings, bad files, and exactly what is said about them.

use std::fs;
use std::path::PathBuf;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::Config;
use super::golden::{in_the_pool, said};

const POOLS: &str = "pools: [{ name: main, backends: [{ url: http://a:1 }] }]\n";

/// Puts each mistake into the listener's `tls`, at line 2, column 20.
fn in_tls(cases: &[(&str, &str)]) {
    for (keys, expected) in cases {
        let text = format!("{POOLS}listeners: [{{ tls: {{ {keys} }}, address: 127.0.0.1:0 }}]\n");
        assert_eq!(said(&text), format!("f:2:{expected}"), "{keys}");
    }
}

#[test]
fn keys_of_tls() {
    in_tls(&[
        ("", "15: listeners[0].tls: needs a `certificate` and its `key`"),
        ("certificate: c.pem", "15: listeners[0].tls: has a `certificate` without its `key`"),
        ("key: k.pem", "15: listeners[0].tls: has a `key` without its `certificate`"),
        ("client_ca: c.pem", "15: listeners[0].tls: needs a `certificate` and its `key`"),
        ("certificate: 7, key: k.pem", "35: listeners[0].tls.certificate: `7` is not text: write it in quotes, \"7\""),
        ("certificate: '', key: k.pem", "35: listeners[0].tls.certificate: is empty"),
        ("certificates: []", "22: listeners[0].tls.certificates: is empty: it needs at least one item"),
        ("certificates: [{}]", "22: listeners[0].tls.certificates[0]: needs a `certificate` and its `key`"),
        (
            "cert: c.pem",
            "15: listeners[0].tls: needs a `certificate` and its `key`\nf:2:22: listeners[0].tls.cert: unknown key; this section has `certificate`, `certificates`, `client_ca`, `key`",
        ),
    ]);
    in_the_pool(&[
        ("upstream_tls: { certificate: c.pem }", "5: pools[0].upstream_tls: has a `certificate` without its `key`"),
        ("upstream_tls: { verify: maybe }", "29: pools[0].upstream_tls.verify: `maybe` is not `true` or `false`"),
        (
            "upstream_tls: { verify: false, ca: c.pem }",
            "29: pools[0].upstream_tls.verify: is off, but there is a `ca` to verify with: remove one of them",
        ),
        (
            "upstream_tls: { server_name: a b }",
            "34: pools[0].upstream_tls.server_name: `a b` is not a host name or an IP address",
        ),
        ("tls: {}", "5: pools[0].tls: unknown key; it belongs in `listeners[]`"),
    ]);
}

#[test]
fn good_tls_means_what_it_says() {
    let text = "\
listeners:
  - address: 127.0.0.1:0
    tls: { certificate: a.pem, key: /k/a.pem, certificates: [{ certificate: b.pem, key: b.pem }], client_ca: c.pem }
pools:
  - name: main
    upstream_tls: { verify: false }
    backends: [{ url: https://gpu0 }, { url: HTTPS://gpu1:8443/ }]
";
    let config = Config::parse(text, "/etc/ingle/ingle.yaml").unwrap();
    let tls = config.listeners[0].tls.clone().unwrap();
    let files: Vec<_> = tls.identities.into_iter().map(|one| (one.certificate, one.key)).collect();
    let path = |text: &str| PathBuf::from(text);
    assert_eq!(
        files,
        [(path("/etc/ingle/a.pem"), path("/k/a.pem")), (path("/etc/ingle/b.pem"), path("/etc/ingle/b.pem")),]
    );
    assert_eq!(tls.client_ca, Some(path("/etc/ingle/c.pem")));
    let pool = config.pool();
    assert!(!pool.upstream_tls.verify);
    let backends: Vec<_> = pool.backends.iter().map(|one| (one.name.as_str(), one.origin.to_string())).collect();
    assert_eq!(backends, [("gpu0:443", "https://gpu0:443".to_owned()), ("gpu1:8443", "https://gpu1:8443".to_owned()),]);
    let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].starts_with("6:29: pools[0].upstream_tls.verify: is off: anybody on the way"), "{warnings:?}");
}

/// A directory with certificates, and a config that names them.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        let path = std::env::temp_dir().join(format!("ingle-golden-tls-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let directory = Directory(path);
        for (name, end) in [("good", 2100), ("old", 2001)] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(["llm.test".to_owned()]).unwrap();
            (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(end, 1, 1));
            directory.write(&format!("{name}.pem"), &params.self_signed(&key).unwrap().pem());
            directory.write(&format!("{name}.key"), &key.serialize_pem());
        }
        directory.write("empty.pem", "");
        directory
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }

    /// What is said of a config with these keys in the listener's `tls`, without the directory's name.
    fn said(&self, keys: &str) -> String {
        self.write("c.yaml", &format!("listeners: [{{ address: 127.0.0.1:0, tls: {{ {keys} }} }}]\n{POOLS}"));
        let said = match Config::load(self.0.join("c.yaml")) {
            Ok(config) => config.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect(),
            Err(errors) => errors.to_string(),
        };
        said.replace(&format!("{}/", self.0.display()), "")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn files_of_tls() {
    let directory = Directory::new();
    let at = |column: usize, key: &str| format!("c.yaml:1:{column}: listeners[0].tls.{key}: ");
    let wrong = |keys: &str, expected: &[String]| assert_eq!(directory.said(keys), expected.join("\n"), "{keys}");
    wrong("certificate: good.pem, key: good.key, client_ca: good.pem", &[]);
    wrong(
        "certificate: none.pem, key: good.key",
        &[at(57, "certificate") + "`none.pem` cannot be read: No such file or directory (os error 2)"],
    );
    wrong(
        "certificate: good.pem, key: none.key",
        &[at(72, "key") + "`none.key` cannot be read: No such file or directory (os error 2)"],
    );
    wrong(
        "certificate: empty.pem, key: good.key, client_ca: good.key",
        &[
            at(57, "certificate") + "`empty.pem` holds no PEM certificate (-----BEGIN CERTIFICATE-----)",
            at(94, "client_ca") + "`good.key` holds no PEM certificate (-----BEGIN CERTIFICATE-----)",
        ],
    );
    wrong(
        "certificate: good.pem, key: old.key",
        &[at(72, "key") + "`old.key` holds a key that does not belong to the certificate"],
    );
    wrong(
        "certificate: good.pem, key: good.key, certificates: [{ certificate: good.pem, key: old.key }]",
        &[at(127, "certificates[0].key") + "`old.key` holds a key that does not belong to the certificate"],
    );
    let old = directory.said("certificate: old.pem, key: old.key");
    assert!(old.starts_with("warning: 1:57: listeners[0].tls.certificate: expired "), "{old}");
}
