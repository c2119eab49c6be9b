//! What is written of an upstream's credential.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Source;

/// The upstream's credential: `header`, and exactly one of `file`, `env`, `vault` and `oauth2`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Credential {
    /// The request header it is sent in.
    pub(in super::super) header: String,
    /// The header's value, `{}` standing for the secret. Default: `Bearer {}` for authorization, else `{}`.
    pub(in super::super) format: Option<String>,
    /// A file that holds the secret and nothing else; one line break at its end is ignored.
    pub(in super::super) file: Option<String>,
    /// Name of an environment variable that holds the secret.
    pub(in super::super) env: Option<String>,
    /// A field of a secret in Vault or OpenBao.
    pub(in super::super) vault: Option<VaultSecret>,
    /// An access token by OAuth 2.0 client credentials.
    pub(in super::super) oauth2: Option<OAuth2>,
    /// Other credentials for some models; the first entry with a pattern that matches counts. Default: none.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub(in super::super) models: Vec<ModelCredential>,
}

/// The credential of some models: exactly one of `file`, `env`, `vault` and `oauth2`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct ModelCredential {
    /// The models: names in which `*` stands for any text.
    #[schemars(length(min = 1))]
    pub(in super::super) models: Vec<String>,
    /// A file that holds the secret and nothing else; one line break at its end is ignored.
    pub(in super::super) file: Option<String>,
    /// Name of an environment variable that holds the secret.
    pub(in super::super) env: Option<String>,
    /// A field of a secret in Vault or OpenBao.
    pub(in super::super) vault: Option<VaultSecret>,
    /// An access token by OAuth 2.0 client credentials.
    pub(in super::super) oauth2: Option<OAuth2>,
}

/// A field of a secret in the key-value store, version 2, of Vault or OpenBao: with a `token`, or with a `login` for one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct VaultSecret {
    /// The server: `https://HOST:8200`.
    pub(in super::super) address: String,
    /// Its namespace. Default: none.
    pub(in super::super) namespace: Option<String>,
    /// Where the store is mounted. Default: secret.
    pub(in super::super) mount: Option<String>,
    /// The secret's path in the store.
    pub(in super::super) path: String,
    /// The field of the secret.
    pub(in super::super) field: String,
    /// A token of Vault's that may read it; read anew each time.
    pub(in super::super) token: Option<Source>,
    /// A login with a JWT, such as a pod's service account token.
    pub(in super::super) login: Option<VaultLogin>,
    /// Between two readings. Default: 1m; 1s to 24h.
    pub(in super::super) refresh: Option<String>,
    /// How long a value stays good while it cannot be read again. Default: 1h; 0s to 30d.
    pub(in super::super) stale: Option<String>,
    /// Authorities (PEM) that sign the server's certificate. Default: the system's.
    pub(in super::super) ca_file: Option<String>,
    /// Allow plaintext HTTP to another machine. Default: false.
    #[serde(default)]
    pub(in super::super) insecure: bool,
}

/// A login at Vault's auth method `kubernetes` or `jwt`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct VaultLogin {
    /// The role.
    pub(in super::super) role: String,
    /// Where the auth method is mounted. Default: kubernetes.
    pub(in super::super) mount: Option<String>,
    /// The file with the JWT. Default: the pod's service account token.
    pub(in super::super) jwt_file: Option<String>,
}

/// OAuth 2.0 client credentials (RFC 6749, section 4.4).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct OAuth2 {
    /// The token endpoint.
    pub(in super::super) token_url: String,
    /// The client.
    pub(in super::super) client_id: String,
    /// Its secret.
    pub(in super::super) client_secret: Source,
    /// How the client says who it is: HTTP Basic, or in the body. Default: basic.
    pub(in super::super) auth: Option<ClientAuth>,
    /// The scope asked for, in one text. Default: none.
    pub(in super::super) scope: Option<String>,
    /// The audience asked for, where the server knows that parameter. Default: none.
    pub(in super::super) audience: Option<String>,
    /// The resource asked for (RFC 8707). Default: none.
    pub(in super::super) resource: Option<String>,
    /// Authorities (PEM) that sign the server's certificate. Default: the system's.
    pub(in super::super) ca_file: Option<String>,
    /// Allow plaintext HTTP to another machine. Default: false.
    #[serde(default)]
    pub(in super::super) insecure: bool,
}

/// How a client says who it is.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in super::super) enum ClientAuth {
    Basic,
    Post,
}
