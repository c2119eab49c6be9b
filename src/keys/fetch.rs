//! One fetch from an issuer: of its keys by discovery, from a URL, from a file, and of what else its discovery document names.
//! Bounded in bytes, hops and hosts.

use std::{
    error::Error as _,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Client, redirect};
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use url::{Host, Url};

#[cfg(feature = "saml")]
use super::jwks::Place;
use super::jwks::{KeySource, SourceError};
#[cfg(feature = "saml")]
use crate::identity::saml::{self, MAX_METADATA_BYTES, MetadataError};
use crate::identity::{KeySet, KeySetError, MAX_JWKS_BYTES};

/// The largest discovery document that is read.
const MAX_DISCOVERY_BYTES: usize = 64 * 1024;
/// Most redirects followed, all of them within one origin.
const MAX_REDIRECTS: usize = 2;
/// How long a connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a fetch brought no keys, for the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("there is no connection: {0}")]
    Unreachable(String),
    #[error("the request failed: {0}")]
    Transport(String),
    #[error("the answer has status {0}")]
    Status(u16),
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    #[error("no whole answer came in time")]
    TimedOut,
    #[error("the discovery document is not JSON with `issuer`")]
    NotDiscovery,
    #[error("the discovery document names no `jwks_uri`")]
    NoKeys,
    #[error("the discovery document is that of another issuer")]
    WrongIssuer,
    #[error("the discovery document's `jwks_uri` {0}")]
    JwksUri(#[source] SourceError),
    #[error("the discovery document's `introspection_endpoint` {0}")]
    Endpoint(#[source] SourceError),
    #[error(transparent)]
    KeySet(#[from] KeySetError),
    #[cfg(feature = "saml")]
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error("the key file cannot be read: {0}")]
    File(#[from] io::Error),
}

impl From<reqwest::Error> for FetchError {
    fn from(error: reqwest::Error) -> Self {
        match error.is_connect() {
            true => Self::Unreachable(in_words(error)),
            false => Self::Transport(in_words(error)),
        }
    }
}

/// What went wrong, without the address, which may be a secret. reqwest's own words stop before the cause, which is the part that
/// helps.
pub(crate) fn in_words(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        words = format!("{words}: {inner}");
        cause = inner.source();
    }
    words
}

/// The client for issuers: no proxy from the environment, no redirect out of the origin that was asked.
pub(super) fn client() -> Result<Client, SourceError> {
    let same_origin = redirect::Policy::custom(|attempt| {
        let first = attempt.previous().first().map(Url::origin);
        if attempt.previous().len() > MAX_REDIRECTS {
            attempt.error("too many redirects")
        } else if first.as_ref() != Some(&attempt.url().origin()) {
            attempt.error("redirect to another origin")
        } else {
            attempt.follow()
        }
    });
    Client::builder()
        .no_proxy()
        .redirect(same_origin)
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| SourceError::Client(error.to_string()))
}

/// Where keys are fetched from, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Discovery {
        issuer: String,
        document: Url,
        insecure: bool,
    },
    Url(Url),
    File(PathBuf),
    #[cfg(feature = "saml")]
    Metadata {
        entity_id: String,
        at: Box<Source>,
        signed_by: Option<PathBuf>,
    },
}

impl Source {
    pub(super) fn new(issuer: &str, source: &KeySource) -> Result<Self, SourceError> {
        match source {
            KeySource::Discovery { insecure } => Ok(Self::Discovery {
                issuer: issuer.to_owned(),
                document: discovery_document(issuer, *insecure)?,
                insecure: *insecure,
            }),
            KeySource::Url { url, insecure } => {
                let url = Url::parse(url).map_err(|_| SourceError::NotAUrl)?;
                check(&url, *insecure)?;
                Ok(Self::Url(url))
            }
            KeySource::File(path) => Ok(Self::File(path.clone())),
            #[cfg(feature = "saml")]
            KeySource::Metadata { at, signed_by } => {
                let at = match at {
                    Place::Url(url) => {
                        let url = Url::parse(url).map_err(|_| SourceError::NotAUrl)?;
                        check(&url, false)?;
                        Self::Url(url)
                    }
                    Place::File(path) => Self::File(path.clone()),
                };
                Ok(Self::Metadata {
                    entity_id: issuer.to_owned(),
                    at: Box::new(at),
                    signed_by: signed_by.clone(),
                })
            }
        }
    }

    /// Whether reading it costs nobody else anything.
    pub(super) fn is_file(&self) -> bool {
        match self {
            Self::File(_) => true,
            Self::Discovery { .. } | Self::Url(_) => false,
            #[cfg(feature = "saml")]
            Self::Metadata { at, .. } => at.is_file(),
        }
    }

    pub(super) async fn fetch(&self, client: &Client) -> Result<KeySet, FetchError> {
        let document = match self {
            Self::Discovery {
                issuer,
                document,
                insecure,
            } => {
                let discovered = get(client, document.clone(), MAX_DISCOVERY_BYTES).await?;
                let keys = jwks_uri(&discovered, issuer, document, *insecure)?;
                get(client, keys, MAX_JWKS_BYTES).await?
            }
            Self::Url(url) => get(client, url.clone(), MAX_JWKS_BYTES).await?,
            Self::File(path) => read(path, MAX_JWKS_BYTES).await?,
            #[cfg(feature = "saml")]
            Self::Metadata {
                entity_id,
                at,
                signed_by,
            } => return metadata(client, entity_id, at, signed_by.as_deref()).await,
        };
        Ok(KeySet::parse(&document)?)
    }
}

/// The keys in the metadata of `entity_id`, signed by a certificate of the file `signed_by` where there is one.
#[cfg(feature = "saml")]
async fn metadata(
    client: &Client,
    entity_id: &str,
    at: &Source,
    signed_by: Option<&Path>,
) -> Result<KeySet, FetchError> {
    let document = match at {
        Source::Url(url) => get(client, url.clone(), MAX_METADATA_BYTES).await?,
        Source::File(path) => read(path, MAX_METADATA_BYTES).await?,
        // Not what `Source::new` makes.
        Source::Discovery { .. } | Source::Metadata { .. } => return Err(FetchError::NotDiscovery),
    };
    let pinned = match signed_by {
        None => None,
        Some(path) => {
            let pem = read(path, MAX_METADATA_BYTES).await?;
            Some(saml::certificates(&String::from_utf8_lossy(&pem))?)
        }
    };
    Ok(saml::metadata(&document, entity_id, pinned.as_ref())?)
}

/// At most one byte more than `limit` of a file: what is too long is so to whoever reads it.
async fn read(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let mut document = Vec::new();
    let file = tokio::fs::File::open(path).await?;
    let mut file = file.take(limit as u64 + 1);
    file.read_to_end(&mut document).await?;
    Ok(document)
}

/// Where an issuer's discovery document is.
pub(super) fn discovery_document(issuer: &str, insecure: bool) -> Result<Url, SourceError> {
    let base = Url::parse(issuer).map_err(|_| SourceError::NotAUrl)?;
    check(&base, insecure)?;
    if base.query().is_some() || base.fragment().is_some() {
        return Err(SourceError::NotAUrl);
    }
    // OIDC Discovery 4.1: a slash at the end is dropped before the path is appended.
    let document = format!(
        "{}/.well-known/openid-configuration",
        issuer.strip_suffix('/').unwrap_or(issuer)
    );
    Url::parse(&document).map_err(|_| SourceError::NotAUrl)
}

/// An address that the configuration names.
pub(super) fn address(url: &str) -> Result<Url, SourceError> {
    let url = Url::parse(url).map_err(|_| SourceError::NotAUrl)?;
    check(&url, false)?;
    Ok(url)
}

/// Where the issuer's discovery document says that it is asked about tokens, if it does.
pub(super) async fn introspection_endpoint(
    client: &Client,
    issuer: &str,
) -> Result<Option<Url>, FetchError> {
    let document = discovery_document(issuer, false).map_err(FetchError::Endpoint)?;
    let discovered = get(client, document.clone(), MAX_DISCOVERY_BYTES).await?;
    let discovered = discovered_of(&discovered, issuer)?;
    let endpoint = discovered.introspection_endpoint.as_deref();
    endpoint
        .map(|uri| named(uri, &document, false))
        .transpose()
        .map_err(FetchError::Endpoint)
}

#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    /// Mandatory (OIDC Discovery 3), but of use only to who verifies by keys.
    jwks_uri: Option<String>,
    introspection_endpoint: Option<String>,
}

/// OIDC Discovery 4.3: the document must name the very issuer it was asked of, or one tenant could speak for another.
fn discovered_of(document: &[u8], issuer: &str) -> Result<Discovered, FetchError> {
    let discovered: Discovered =
        serde_json::from_slice(document).map_err(|_| FetchError::NotDiscovery)?;
    if discovered.issuer != issuer {
        return Err(FetchError::WrongIssuer);
    }
    Ok(discovered)
}

fn jwks_uri(document: &[u8], issuer: &str, asked: &Url, insecure: bool) -> Result<Url, FetchError> {
    let discovered = discovered_of(document, issuer)?;
    let uri = discovered.jwks_uri.ok_or(FetchError::NoKeys)?;
    named(&uri, asked, insecure).map_err(FetchError::JwksUri)
}

/// An address that the document at `asked` names.
fn named(uri: &str, asked: &Url, insecure: bool) -> Result<Url, SourceError> {
    let uri = Url::parse(uri).map_err(|_| SourceError::NotAUrl)?;
    check(&uri, insecure)?;
    // The exception for loopback is for issuers that are themselves on loopback: one that is reached over TLS may send us
    // neither into plaintext nor to what listens on this machine.
    if uri.scheme() != "https" && asked.scheme() == "https" && !insecure {
        return Err(SourceError::Plaintext);
    }
    Ok(uri)
}

/// TLS, or plaintext to this machine, or plaintext that the operator asked for in so many words.
pub(super) fn check(url: &Url, insecure: bool) -> Result<(), SourceError> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err(SourceError::Credentials);
    }
    let loopback = match url.host() {
        None => return Err(SourceError::NotAUrl),
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
    };
    match url.scheme() {
        "https" => Ok(()),
        "http" if loopback || insecure => Ok(()),
        "http" => Err(SourceError::Plaintext),
        _ => Err(SourceError::NotAUrl),
    }
}

/// The body of a 200 answer, at most `limit` bytes of it in memory.
async fn get(client: &Client, url: Url, limit: usize) -> Result<Vec<u8>, FetchError> {
    let mut answer = client
        .get(url)
        .header("accept", "application/json, application/samlmetadata+xml")
        .send()
        .await?;
    if answer.status() != 200 {
        return Err(FetchError::Status(answer.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Err(FetchError::TooLarge(limit));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_reached_over_tls_sends_nobody_into_plaintext() {
        let asked = |uri: &str, document: &str, insecure| {
            let text = format!(r#"{{"issuer":"https://a.example","jwks_uri":"{uri}"}}"#);
            jwks_uri(
                text.as_bytes(),
                "https://a.example",
                &Url::parse(document).unwrap(),
                insecure,
            )
            .map(|uri| uri.to_string())
            .map_err(|error| error.to_string())
        };
        let (tls, loopback) = ("https://a.example/d", "http://127.0.0.1:9/d");
        let plaintext =
            Err("the discovery document's `jwks_uri` is not https, and not on loopback".to_owned());
        // Another host is usual: keys often come from a content network.
        assert_eq!(
            asked("https://keys.example/k", tls, false),
            Ok("https://keys.example/k".to_owned())
        );
        assert_eq!(asked("http://127.0.0.1:9/k", tls, false), plaintext);
        assert_eq!(asked("http://keys.example/k", tls, false), plaintext);
        assert_eq!(asked("http://keys.example/k", loopback, false), plaintext);
        assert_eq!(
            asked("http://127.0.0.1:9/k", loopback, false),
            Ok("http://127.0.0.1:9/k".to_owned())
        );
        assert_eq!(
            asked("http://keys.example/k", tls, true),
            Ok("http://keys.example/k".to_owned())
        );
    }
}
