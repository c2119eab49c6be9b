//! What a caller shows to prove who they are, as it was received: nothing of it is believed yet.

use secrecy::SecretString;

use super::Purpose;

/// The longest DPoP proof that is looked at, in bytes. One with an RSA key of 8192 bits and its signature has about 4 KiB.
pub const MAX_PROOF_BYTES: usize = 8 * 1024;

/// How a token is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `Authorization: Bearer` (RFC 6750, 2.1).
    Bearer,
    /// `Authorization: DPoP` (RFC 9449, 7.1): the token is bound to a key, and a proof comes with it.
    Dpop,
    /// In a header of its own, without a scheme, as some providers' SDKs send it.
    Bare,
}

/// A token as it was carried.
#[derive(Clone, Debug)]
pub struct Token {
    /// How.
    pub scheme: Scheme,
    /// The token itself.
    pub text: SecretString,
}

/// The certificate by which the caller's TLS connection was authenticated, as Envoy tells of it. That the caller has its private
/// key, the handshake has proved; that it is valid, whoever set up Envoy says (docs/identity.md).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// SHA-256 of its DER form.
    pub digest: [u8; 32],
    /// Its first URI name; empty where it has none. A SPIFFE ID is one.
    pub uri: String,
    /// Its first DNS name; empty where it has none.
    pub dns: String,
    /// Its subject (RFC 4514), as in `CN=batch,O=Example`; empty where it has none.
    pub subject: String,
}

/// What a request shows of whoever sends it.
#[derive(Clone, Debug)]
pub struct Presented {
    /// The token. Without one the certificate alone says who calls: only who accepts that leaves this empty.
    pub token: Option<Token>,
    /// The one DPoP proof (RFC 9449, 4.1).
    pub proof: Option<SecretString>,
    /// What it is shown for.
    pub purpose: Purpose,
    /// The request's method.
    pub method: String,
    /// The request's host, port where there is one, and path, without scheme and query: what a proof must be for. `None` where it is
    /// not certain that the caller meant this gateway: then no proof counts.
    pub target: Option<String>,
    /// The certificate of the caller's connection.
    pub certificate: Option<Certificate>,
    /// Whether the same was accepted before, for the same request: then a proof may be older, and is not a repetition.
    pub again: bool,
}

impl Presented {
    /// A bearer token and nothing else.
    #[must_use]
    pub fn bearer(token: impl Into<SecretString>) -> Self {
        Self {
            token: Some(Token {
                scheme: Scheme::Bearer,
                text: token.into(),
            }),
            proof: None,
            purpose: Purpose::Inference,
            method: String::new(),
            target: None,
            certificate: None,
            again: false,
        }
    }
}
