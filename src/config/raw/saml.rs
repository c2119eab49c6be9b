//! SAML identity providers.

use schemars::JsonSchema;
use serde::Deserialize;

use super::OneOrMany;

/// A SAML 2.0 identity provider, whose signed assertions our token endpoint takes (RFC 7522).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[cfg_attr(
    not(feature = "saml"),
    allow(dead_code, reason = "read only where assertions are")
)]
pub(in crate::config) struct Saml {
    /// Its entity id, exactly as its metadata and its assertions carry it.
    pub(in crate::config) entity_id: String,
    /// Its metadata, for its keys.
    pub(in crate::config) metadata: Metadata,
    /// The audience its assertions must be for: one, or a list of which one suffices. Mostly our own entity id there.
    pub(in crate::config) audience: OneOrMany,
    /// The `Recipient` its assertions must be for: one, or a list of which one suffices. Default: the token endpoint, by its
    /// URL.
    pub(in crate::config) recipient: Option<OneOrMany>,
    /// Formats of the subject's name that are accepted: persistent, email, unspecified. Default: persistent and email.
    #[schemars(length(min = 1))]
    pub(in crate::config) name_id_formats: Option<Vec<String>>,
    /// The `Name` of the attribute that lists the caller's groups. Default: `groups`.
    pub(in crate::config) groups_attribute: Option<String>,
    /// The `Name` of the attribute that names the human behind the account, as `person_claim` does. Default: none.
    pub(in crate::config) person_attribute: Option<String>,
    /// The `Name`s of further attributes that conditions may read and records carry, each a list of texts. Default: none.
    #[serde(default)]
    pub(in crate::config) claims: Vec<String>,
    /// Leeway for its clock. Default: 30s; 0s to 5m.
    pub(in crate::config) clock_skew: Option<String>,
}

/// Where metadata is: exactly one of `file` and `url`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[cfg_attr(
    not(feature = "saml"),
    allow(dead_code, reason = "read only where assertions are")
)]
pub(in crate::config) struct Metadata {
    /// In a file.
    pub(in crate::config) file: Option<String>,
    /// At an https URL.
    pub(in crate::config) url: Option<String>,
    /// A file of certificates (PEM), of which one must have signed it. Default: the file, or TLS, is what is trusted.
    pub(in crate::config) signed_by: Option<String>,
}
