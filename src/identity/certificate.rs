//! Callers who are known by the certificate of their connection alone: workloads, above all.
//!
//! Promises: only a certificate that one of the operator's rules names becomes a [`Principal`]; a certificate that carries a URI is
//! known by that and by nothing else, as SPIFFE has it (X509-SVID, 4.1), so that who may issue one kind of name gains no other.
//! Never: looks at a header. Can miss: whether the certificate is valid, and for which names its issuer may vouch. Envoy's
//! configuration says that, and must (docs/bound-tokens.md); of several URIs or DNS names Envoy shows the first.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use serde_json::Value;

use super::{AuthMethod, Bound, Certificate, Principal, TokenError, person};

/// Longest SPIFFE ID, DNS name or subject, in bytes (SPIFFE-ID, 2.3).
const MAX_NAME: usize = 2048;

/// How long a caller counts as known by their certificate: Envoy does not say when it expires, so every request looks anew.
const GOOD_FOR: Duration = Duration::from_secs(60);

/// The issuer of callers who are known by a DNS name. No token's issuer is called so: those are URLs.
const DNS_ISSUER: &str = "mtls:dns";
/// The issuer of callers who are known by their certificate's subject.
const SUBJECT_ISSUER: &str = "mtls:subject";

/// Whose certificate it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateName {
    /// This SPIFFE ID.
    Spiffe(String),
    /// Every SPIFFE ID below this one, which ends in a slash.
    SpiffeBelow(String),
    /// This DNS name, in lower case.
    Dns(String),
    /// This subject, as Envoy writes it (RFC 2253).
    Subject(String),
}

/// A name that no certificate can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateNameError {
    /// Not a SPIFFE ID.
    #[error(
        "not a SPIFFE ID with a path; write `spiffe://trust.domain/workload`, with `/*` at its end for all below"
    )]
    Spiffe,
    /// Not a DNS name.
    #[error("not a DNS name; write it in full, as in `batch.example.com`, without `*`")]
    Dns,
    /// Not a subject.
    #[error("not a subject; write it as in `CN=batch,O=Example`")]
    Subject,
}

impl CertificateName {
    /// Reads a SPIFFE ID, or one that ends in `/*` for all below it.
    ///
    /// # Errors
    /// [`CertificateNameError::Spiffe`].
    pub fn spiffe(text: &str) -> Result<Self, CertificateNameError> {
        let wrong = CertificateNameError::Spiffe;
        if let Some(below) = text.strip_suffix('*') {
            // What is below it is an ID where it is one itself.
            let is_one = below.ends_with('/') && trust_domain(&format!("{below}x")).is_some();
            return is_one
                .then(|| Self::SpiffeBelow(below.to_owned()))
                .ok_or(wrong);
        }
        trust_domain(text)
            .map(|_| Self::Spiffe(text.to_owned()))
            .ok_or(wrong)
    }

    /// Reads a DNS name.
    ///
    /// # Errors
    /// [`CertificateNameError::Dns`].
    pub fn dns(text: &str) -> Result<Self, CertificateNameError> {
        let label = |label: &str| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        let good = text.len() <= MAX_NAME && text.split('.').all(label);
        good.then(|| Self::Dns(text.to_ascii_lowercase()))
            .ok_or(CertificateNameError::Dns)
    }

    /// Reads a subject.
    ///
    /// # Errors
    /// [`CertificateNameError::Subject`].
    pub fn subject(text: &str) -> Result<Self, CertificateNameError> {
        let good = text.contains('=') && is_plain(text);
        good.then(|| Self::Subject(text.to_owned()))
            .ok_or(CertificateNameError::Subject)
    }

    /// Whom a certificate names, as issuer and subject, where it is this one's.
    fn names(&self, certificate: &Certificate) -> Option<(String, String)> {
        let has_uri = !certificate.uri.is_empty();
        match self {
            Self::Spiffe(_) | Self::SpiffeBelow(_) => {
                let domain = trust_domain(&certificate.uri)?;
                let is_it = match self {
                    Self::SpiffeBelow(above) => certificate.uri.starts_with(above.as_str()),
                    Self::Spiffe(id) => certificate.uri == *id,
                    _ => false,
                };
                is_it.then(|| (format!("spiffe://{domain}"), certificate.uri.clone()))
            }
            Self::Dns(name) => (!has_uri && certificate.dns.eq_ignore_ascii_case(name))
                .then(|| (DNS_ISSUER.to_owned(), name.clone())),
            Self::Subject(name) => (!has_uri && certificate.subject == *name)
                .then(|| (SUBJECT_ISSUER.to_owned(), name.clone())),
        }
    }
}

/// A caller, or several, who are known by a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRule {
    /// Whose certificate.
    pub name: CertificateName,
    /// The groups they are in.
    pub groups: Vec<String>,
    /// The human who owns them, with a value like those of an issuer's `person_claim`.
    pub owner: Option<String>,
}

/// Who is known by a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateRules {
    /// In the order of the configuration. A certificate that several name has the groups and owners of all; it is called as the
    /// first says.
    pub known: Vec<CertificateRule>,
    /// Whether issuers name the human behind an account: then a caller of whom no rule says so may not ask for a decision
    /// ([`Principal::person_missing`]).
    pub ask_for_owners: bool,
}

impl CertificateRules {
    /// Who is known by `certificate`, at the instant `now`.
    ///
    /// # Errors
    /// [`TokenError::CertificateUnknown`] where no rule names it; [`TokenError::PersonInvalid`] for an owner that is no name.
    pub fn caller(
        &self,
        certificate: &Certificate,
        now: Timestamp,
    ) -> Result<Principal, TokenError> {
        let mut called = None;
        let mut groups: Vec<String> = Vec::new();
        let mut also = BTreeSet::new();
        for rule in &self.known {
            let Some(names) = rule.name.names(certificate) else {
                continue;
            };
            called.get_or_insert(names);
            for group in &rule.groups {
                if !groups.contains(group) {
                    groups.push(group.clone());
                }
            }
            if let Some(owner) = &rule.owner {
                person::names(&Value::String(owner.clone()), &mut also)?;
            }
        }
        let (issuer, subject) = called.ok_or(TokenError::CertificateUnknown)?;
        Ok(Principal {
            grant: None,
            issuer,
            subject,
            audiences: Vec::new(),
            groups,
            claims: BTreeMap::new(),
            auth_method: AuthMethod::Mtls,
            token_hash: certificate.digest,
            expires_at: now.saturating_add(GOOD_FOR).unwrap_or(now),
            authenticated_at: None,
            issued_at: None,
            person_missing: self.ask_for_owners && also.is_empty(),
            also,
            bound: Bound {
                key: None,
                certificate: Some(certificate.digest),
            },
        })
    }
}

/// The trust domain of a SPIFFE ID with a path, in the one form there is of it (SPIFFE-ID, 2); `None` for anything else.
fn trust_domain(id: &str) -> Option<&str> {
    let (domain, path) = id.strip_prefix("spiffe://")?.split_once('/')?;
    let of_domain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
    let of_path = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let segment =
        |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(of_path);
    let good = id.len() <= MAX_NAME
        && (1..=255).contains(&domain.len())
        && domain.bytes().all(of_domain)
        && path.split('/').all(segment);
    good.then_some(domain)
}

fn is_plain(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && !text.chars().any(char::is_control)
}
