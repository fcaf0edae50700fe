//! The config file as it is written: TLS.
//!
//! Paths are relative to the directory of the config file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::lenient::Lenient;

/// How clients of a listener are met.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "ListenerTls")]
pub(super) struct ListenerTlsSection {
    /// PEM file: the certificate, then those between it and its authority. Who asks for no name, or an unknown one, gets it.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub(super) certificate: Lenient<String>,
    /// PEM file: the certificate's key.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub(super) key: Lenient<String>,
    /// Further certificates: a client gets the one for the name it asks for (SNI).
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    #[schemars(length(min = 1, max = 1024))]
    pub(super) certificates: Lenient<Vec<Lenient<CertificateSection>>>,
    /// PEM file: clients must have a certificate signed by one of these authorities. Absent: clients need none.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub(super) client_ca: Lenient<String>,
}

/// A certificate and its key.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Certificate", extend("required" = ["certificate", "key"]))]
pub(super) struct CertificateSection {
    /// PEM file: the certificate, then those between it and its authority.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub(super) certificate: Lenient<String>,
    /// PEM file: the certificate's key.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub(super) key: Lenient<String>,
}

/// How backends with an https:// url are met.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "UpstreamTls")]
pub(super) struct UpstreamTlsSection {
    /// PEM file: the authorities that sign the backends' certificates. Absent: those that the system believes.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub(super) ca: Lenient<String>,
    /// The name that backends are asked for (SNI) and that their certificates must have. Absent: the host of the url.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub(super) server_name: Lenient<String>,
    /// False believes whoever answers.
    pub(super) verify: Lenient<bool>,
    /// PEM file: what backends are shown that ask who connects.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub(super) certificate: Lenient<String>,
    /// PEM file: the certificate's key.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub(super) key: Lenient<String>,
}
