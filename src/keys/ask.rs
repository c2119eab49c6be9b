//! One question to a server that holds a secret, over HTTP.
//!
//! Promises: bounded in bytes; no redirect is followed and no proxy of the environment is used, so a secret goes where the
//! configuration says and nowhere else; answers are wiped when let go, and no error shows any of one.
//! Can miss: copies that the HTTP and TLS libraries make.

use std::{path::PathBuf, time::Duration};

use reqwest::{Certificate, Client, ClientBuilder, RequestBuilder, header::HeaderValue, redirect};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use tokio::io::AsyncReadExt as _;

use super::{fetch::in_words, source::Endpoint};

/// How long a connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The largest file of authorities that is read.
const MAX_CA_BYTES: u64 = 1 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("there is no connection: {0}")]
    Unreachable(String),
    #[error("the request failed: {0}")]
    Transport(String),
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the file of authorities `{0}` cannot be used: {1}")]
    Authorities(PathBuf, String),
}

impl From<reqwest::Error> for AskError {
    fn from(error: reqwest::Error) -> Self {
        match error.is_connect() {
            true => Self::Unreachable(in_words(error)),
            false => Self::Transport(in_words(error)),
        }
    }
}

/// What all clients that carry secrets have in common: they go where they are told and nowhere else.
pub(super) fn builder() -> ClientBuilder {
    Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")))
}

/// A client for `endpoint`. Made for each fetch: they are rare, and its authorities may have changed.
pub(super) async fn client(endpoint: &Endpoint) -> Result<Client, AskError> {
    let mut client = builder();
    if let Some(path) = endpoint.ca_file() {
        let unusable = |why: String| AskError::Authorities(path.clone(), why);
        let file = tokio::fs::File::open(path).await;
        let file = file.map_err(|error| unusable(error.to_string()))?;
        let mut pem = Vec::new();
        let read = file.take(MAX_CA_BYTES).read_to_end(&mut pem).await;
        read.map_err(|error| unusable(error.to_string()))?;
        let authorities = Certificate::from_pem_bundle(&pem)
            .map_err(|error| unusable(in_words(error)))
            .and_then(|found| match found.is_empty() {
                true => Err(unusable("it holds no certificate".to_owned())),
                false => Ok(found),
            })?;
        client = client.tls_certs_only(authorities);
    }
    Ok(client.build()?)
}

/// A header value that nothing prints.
pub(super) fn header(secret: &SecretString) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(secret.expose_secret()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Status and body of the answer, at most `limit` bytes of it in memory.
pub(super) async fn ask(
    request: RequestBuilder,
    limit: usize,
) -> Result<(u16, Zeroizing<Vec<u8>>), AskError> {
    let mut answer = request.header("accept", "application/json").send().await?;
    // The room is there from the start, as a vector that grows leaves unwiped copies behind; unless the answer is of no length.
    let length = answer.content_length().unwrap_or(limit as u64);
    let room = usize::try_from(length).map_or(limit, |length| length.min(limit));
    let mut body = Zeroizing::new(Vec::with_capacity(room));
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Err(AskError::TooLarge(limit));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((answer.status().as_u16(), body))
}
