//! Where an upstream's credential comes from, as values: nothing here reads or asks anybody.
//!
//! Promises: an [`Endpoint`] is one that may be asked; a source's name ([`std::fmt::Display`]) tells one source from another and
//! holds no secret.

use std::{fmt, path::PathBuf, time::Duration};

use url::Url;

use super::{fetch, jwks::SourceError, secret::SecretSource};

/// Where a credential comes from. Two that are equal are one source: it is asked once for both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CredentialSource {
    /// A file, looked at again every second, or a variable.
    Plain(SecretSource),
    /// A field of a secret in Vault.
    Vault(Box<Vault>),
    /// An access token from a token endpoint.
    OAuth2(Box<OAuth2>),
}

/// A server that is asked for a credential: `https`, or `http` on loopback or where the operator said so; without a user name, a
/// query or a fragment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    url: Url,
    /// The authorities (PEM) that sign its certificate, read at each fetch; those of the system where it is `None`.
    ca_file: Option<PathBuf>,
}

impl Endpoint {
    /// The endpoint at `url`; `insecure` allows plaintext to other machines.
    ///
    /// # Errors
    /// [`SourceError`] for an address that may not be asked.
    pub fn new(url: &str, insecure: bool, ca_file: Option<PathBuf>) -> Result<Self, SourceError> {
        let url = Url::parse(url).map_err(|_| SourceError::NotAUrl)?;
        fetch::check(&url, insecure)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(SourceError::NotAUrl);
        }
        Ok(Self { url, ca_file })
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    pub(super) fn ca_file(&self) -> Option<&PathBuf> {
        self.ca_file.as_ref()
    }
}

/// A field of a secret in Vault's key-value store, version 2 (or OpenBao's).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Vault {
    /// The server, with the path before `/v1` where it has one.
    pub server: Endpoint,
    /// The namespace, where there are any.
    pub namespace: Option<String>,
    /// Where the store is mounted.
    pub mount: String,
    /// The secret's path in it.
    pub path: String,
    /// The field of the secret.
    pub field: String,
    /// Who asks.
    pub login: VaultLogin,
    /// Between two readings.
    pub refresh: Duration,
    /// How long a value stays good after the reading that failed was due.
    pub stale: Duration,
}

impl Vault {
    /// The address of `parts`, each of which may be several segments, in the server's API.
    pub(super) fn address(&self, parts: &[&str]) -> Url {
        let mut url = self.server.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("v1");
            path.extend(parts.iter().flat_map(|part| part.split('/')));
        }
        url
    }
}

/// Who asks Vault.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum VaultLogin {
    /// Whoever has this token; it is read anew at each reading of the secret.
    Token(SecretSource),
    /// Whoever has this JWT, at the auth method `kubernetes` or `jwt`.
    Jwt {
        /// Where the auth method is mounted.
        mount: String,
        /// The role that is asked for.
        role: String,
        /// The JWT, such as a pod's service account token; read anew at each login.
        jwt: PathBuf,
    },
}

/// OAuth 2.0 client credentials (RFC 6749, section 4.4).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OAuth2 {
    /// The token endpoint.
    pub token_url: Endpoint,
    /// The client.
    pub client_id: String,
    /// Its secret; read anew at each fetch.
    pub client_secret: SecretSource,
    /// How the client says who it is.
    pub auth: ClientAuth,
    /// The scope asked for.
    pub scope: Option<String>,
    /// The `audience` asked for, where the server knows that parameter.
    pub audience: Option<String>,
    /// The resource asked for (RFC 8707).
    pub resource: Option<String>,
}

impl OAuth2 {
    /// What is asked for, beside the grant.
    pub(super) fn parameters(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let parameters = [
            ("scope", &self.scope),
            ("audience", &self.audience),
            ("resource", &self.resource),
        ];
        let given = parameters.into_iter();
        given.filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }
}

/// How a client says who it is (RFC 6749, section 2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientAuth {
    /// HTTP Basic.
    Basic,
    /// In the body.
    Post,
}

impl From<SecretSource> for CredentialSource {
    fn from(source: SecretSource) -> Self {
        Self::Plain(source)
    }
}

/// The source's name: what is recorded, measured and approved.
impl fmt::Display for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(SecretSource::File(path)) => write!(f, "file:{}", path.display()),
            Self::Plain(SecretSource::Env(name)) => write!(f, "env:{name}"),
            // What is asked for, as an address: escapes in it keep the parts apart.
            Self::Vault(vault) => {
                let mut url = vault.address(&[&vault.mount, "data", &vault.path]);
                if let Some(namespace) = &vault.namespace {
                    url.query_pairs_mut().append_pair("namespace", namespace);
                }
                write!(f, "vault:{url}#{}", vault.field)
            }
            Self::OAuth2(oauth2) => {
                let mut url = oauth2.token_url.url.clone();
                let mut pairs = url.query_pairs_mut();
                pairs.append_pair("client_id", &oauth2.client_id);
                for (name, value) in oauth2.parameters() {
                    pairs.append_pair(name, value);
                }
                drop(pairs);
                write!(f, "oauth2:{url}")
            }
        }
    }
}
