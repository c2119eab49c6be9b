//! What the operator says of a SAML identity provider.

use std::{fmt, str::FromStr, time::Duration};

use super::super::MAX_CLOCK_SKEW;

/// A format of `NameID` (SAML core, 8.3) whose values can name a caller. A transient one names a session, not a person, and
/// has no value here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFormat {
    /// A pseudonym that stays the same.
    Persistent,
    /// An email address.
    Email,
    /// Whatever the provider takes for a name; so too where it does not say.
    Unspecified,
}

impl NameFormat {
    /// Every format there is.
    pub const ALL: [Self; 3] = [Self::Persistent, Self::Email, Self::Unspecified];

    /// The name in a configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Persistent => "persistent",
            Self::Email => "email",
            Self::Unspecified => "unspecified",
        }
    }

    /// The format that an assertion means. Absent is unspecified (SAML core, 2.2.2).
    pub(super) fn of(uri: Option<&str>) -> Option<Self> {
        match uri {
            Some("urn:oasis:names:tc:SAML:2.0:nameid-format:persistent") => Some(Self::Persistent),
            Some("urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress") => Some(Self::Email),
            None | Some("urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified") => {
                Some(Self::Unspecified)
            }
            Some(_) => None,
        }
    }
}

impl fmt::Display for NameFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no format of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a name format: use persistent, email or unspecified")]
pub struct UnknownNameFormat;

impl FromStr for NameFormat {
    type Err = UnknownNameFormat;

    fn from_str(name: &str) -> Result<Self, UnknownNameFormat> {
        Self::ALL
            .into_iter()
            .find(|format| format.name() == name)
            .ok_or(UnknownNameFormat)
    }
}

/// What is demanded of a provider's assertions. An empty list accepts nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The provider's entity id, compared byte for byte.
    pub entity_id: String,
    /// Every `AudienceRestriction` must name one of these.
    pub audiences: Vec<String>,
    /// The bearer confirmation must be for one of these: the URL of our token endpoint (RFC 7522, 3).
    pub recipients: Vec<String>,
    /// Formats of names that are accepted.
    pub name_formats: Vec<NameFormat>,
    /// The `Name` of the attribute that lists the caller's groups. An assertion without it has none.
    pub groups_attribute: Option<String>,
    /// The `Name` of the attribute that names the human behind the account, as [`IssuerRules::person_claim`] does.
    ///
    /// [`IssuerRules::person_claim`]: super::super::IssuerRules::person_claim
    pub person_attribute: Option<String>,
    /// Further attributes to keep as claims, by `Name`; each becomes a list of texts.
    pub claims: Vec<String>,
    /// How far the provider's clock may be off, at most [`MAX_CLOCK_SKEW`].
    pub clock_skew: Duration,
}

impl Rules {
    /// The skew that is granted.
    pub(super) fn skew(&self) -> Duration {
        self.clock_skew.min(MAX_CLOCK_SKEW)
    }
}
