//! What the token endpoint is asked (RFC 6749, 3.2; RFC 8693, 2.1; RFC 7522, 2.1), and how it says no (RFC 6749, 5.2).

use secrecy::SecretString;
use serde::Deserialize;

use crate::identity::{Kind, Scope};

/// RFC 8693, 2.1.
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// RFC 7522, 2.1.
pub const SAML_BEARER: &str = "urn:ietf:params:oauth:grant-type:saml2-bearer";
/// What the endpoint takes, as its metadata say.
pub const GRANT_TYPES: [&str; 2] = [TOKEN_EXCHANGE, SAML_BEARER];
/// What a grant is, among the types of RFC 8693, 3.
pub const TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";
/// RFC 8693, 3.
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
const SAML2: &str = "urn:ietf:params:oauth:token-type:saml2";

/// Most models or methods of one request, and longest of each in characters.
const MAX_LISTED: usize = 32;
const MAX_NAME: usize = 200;

/// Why no grant is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OAuthError {
    /// The request is not what it should be: how.
    InvalidRequest(String),
    /// The token or assertion that was shown is not accepted: a stable code and why.
    InvalidGrant(&'static str, String),
    /// The DPoP proof that came with it does not hold (RFC 9449, 5): a stable code and why.
    InvalidProof(&'static str, String),
    /// The grant type is none of [`GRANT_TYPES`], or not in use here.
    UnsupportedGrantType,
    /// Scopes are not used here.
    InvalidScope,
    /// The audience or resource is not this gateway (RFC 8693, 2.2.2).
    InvalidTarget,
    /// What the grant should be for is not understood (RFC 9396, 5).
    InvalidDetails(String),
    /// No rule gives it, or somebody said no: a stable code and why.
    AccessDenied(&'static str, String),
    /// Somebody must approve it first; the same request again asks how it stands (as in RFC 8628, 3.5).
    Pending(String),
    /// It cannot be decided or put on record now: a stable code.
    Unavailable(&'static str),
}

impl OAuthError {
    /// The registered error code.
    #[must_use]
    pub fn error(&self) -> &'static str {
        match self {
            Self::InvalidRequest(_) => "invalid_request",
            Self::InvalidGrant(..) => "invalid_grant",
            Self::InvalidProof(..) => "invalid_dpop_proof",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
            Self::InvalidDetails(_) => "invalid_authorization_details",
            Self::AccessDenied(..) => "access_denied",
            Self::Pending(_) => "authorization_pending",
            Self::Unavailable(_) => "temporarily_unavailable",
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Unavailable(_) => 503,
            _ => 400,
        }
    }

    /// Our own stable code, where it says more than the registered one.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidGrant(code, _)
            | Self::InvalidProof(code, _)
            | Self::AccessDenied(code, _)
            | Self::Unavailable(code) => code,
            Self::Pending(_) => "approval_required",
            other => other.error(),
        }
    }

    /// One sentence.
    #[must_use]
    pub fn description(&self) -> String {
        match self {
            Self::InvalidRequest(why) | Self::InvalidDetails(why) => why.clone(),
            Self::InvalidGrant(_, why)
            | Self::InvalidProof(_, why)
            | Self::AccessDenied(_, why) => why.clone(),
            Self::UnsupportedGrantType => {
                format!("`grant_type` is one of {}", GRANT_TYPES.join(", "))
            }
            Self::InvalidScope => {
                "scopes are not used here; say what the grant is for in `authorization_details`"
                    .into()
            }
            Self::InvalidTarget => "grants are for this gateway only".into(),
            Self::Pending(id) => {
                format!(
                    "a person must approve this grant: repeat the same request; the approval is {id}"
                )
            }
            Self::Unavailable(_) => {
                "this cannot be decided and recorded now; try again shortly".into()
            }
        }
    }
}

/// Who shows what to get a grant.
#[derive(Clone, Debug)]
pub enum Subject {
    /// An access token of an issuer.
    Token(SecretString),
    /// A SAML 2.0 assertion, base64url (RFC 7522, 2.1).
    Assertion(SecretString),
}

/// What a grant is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// The one kind there is.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The connection.
    pub connection: String,
    /// Models, `*` standing for any text; where none is listed, all that the rule gives.
    #[serde(default)]
    pub models: Vec<String>,
    /// Endpoints by their names in the dialect; where none is listed, all that the rule gives.
    #[serde(default)]
    pub methods: Vec<String>,
    /// How often it should be usable; as often as the rule gives where it does not say.
    pub max_uses: Option<u32>,
    /// How long it should last from when it begins, in seconds; as long as the rule gives, a quarter of an hour at most, where it
    /// does not say.
    pub expires_in: Option<u32>,
    /// When it should begin, in seconds since 1970; now where it does not say.
    pub not_before: Option<i64>,
    /// Why, for whoever must approve it, and for the record.
    #[serde(default)]
    pub reason: String,
}

impl Ask {
    /// As the grant would say it.
    #[must_use]
    pub fn scope(&self) -> Scope {
        Scope {
            kind: self.kind,
            connection: self.connection.clone(),
            models: self.models.clone(),
            methods: self.methods.clone(),
            max_uses: self.max_uses,
        }
    }

    fn check(&self) -> Result<(), &'static str> {
        let plain = |text: &String| {
            (1..=MAX_NAME).contains(&text.chars().count()) && !text.chars().any(char::is_control)
        };
        let list = |list: &Vec<String>| list.len() <= MAX_LISTED && list.iter().all(plain);
        if !plain(&self.connection) || !list(&self.models) || !list(&self.methods) {
            return Err(
                "names are 1 to 200 characters without control characters, and 32 in a list at most",
            );
        }
        if self.max_uses == Some(0) || self.expires_in == Some(0) {
            return Err("`max_uses` and `expires_in` are at least 1");
        }
        if self.reason.chars().count() > MAX_NAME || self.reason.chars().any(char::is_control) {
            return Err("`reason` is one line of at most 200 characters");
        }
        Ok(())
    }
}

/// A request to the token endpoint.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// Who asks.
    pub subject: Subject,
    /// For what.
    pub ask: Ask,
}

impl TokenRequest {
    /// Reads the form's fields, names and values as they were decoded, in order. `issuer` is what `audience` and `resource` may name.
    ///
    /// # Errors
    /// [`OAuthError`] for what the request itself makes impossible. Unknown parameters are ignored (RFC 6749, 3.2).
    pub fn read(fields: &[(String, String)], issuer: &str) -> Result<Self, OAuthError> {
        let one = |name: &str| one(fields, name);
        let required = |name: &str| {
            one(name)?.ok_or_else(|| OAuthError::InvalidRequest(format!("`{name}` is missing")))
        };
        let subject = match required("grant_type")? {
            TOKEN_EXCHANGE => exchanged(fields)?,
            SAML_BEARER => Subject::Assertion(required("assertion")?.into()),
            _ => return Err(OAuthError::UnsupportedGrantType),
        };
        if one("scope")?.is_some() {
            return Err(OAuthError::InvalidScope);
        }
        // These two may stand more than once (RFC 8693, 2.1).
        let elsewhere = |(name, value): &(String, String)| {
            matches!(name.as_str(), "audience" | "resource") && value != issuer
        };
        if fields.iter().any(elsewhere) {
            return Err(OAuthError::InvalidTarget);
        }
        let details = required("authorization_details")?;
        // serde's own words quote what was sent.
        let [ask]: [Ask; 1] = serde_json::from_str(details).map_err(|_| {
            let how = "`authorization_details` is a JSON array of one object with `type` \"inference\", `connection`, and optionally \
                       `models`, `methods`, `max_uses`, `expires_in`, `not_before` and `reason`";
            OAuthError::InvalidDetails(how.into())
        })?;
        ask.check()
            .map_err(|why| OAuthError::InvalidDetails(why.into()))?;
        Ok(Self { subject, ask })
    }
}

/// The subject of a token exchange.
fn exchanged(fields: &[(String, String)]) -> Result<Subject, OAuthError> {
    let bad = |why: &str| OAuthError::InvalidRequest(why.to_owned());
    let one = |name: &str| one(fields, name);
    let shown = one("subject_token")?.ok_or_else(|| bad("`subject_token` is missing"))?;
    let kind = one("subject_token_type")?.ok_or_else(|| bad("`subject_token_type` is missing"))?;
    if one("actor_token")?.is_some() || one("actor_token_type")?.is_some() {
        return Err(bad("nobody acts for another here: leave `actor_token` out"));
    }
    if !matches!(one("requested_token_type")?, None | Some(TOKEN_TYPE | JWT)) {
        return Err(bad("`requested_token_type` is access_token or jwt"));
    }
    match kind {
        TOKEN_TYPE | JWT | ID_TOKEN => Ok(Subject::Token(shown.into())),
        SAML2 => Ok(Subject::Assertion(shown.into())),
        _ => Err(bad(
            "`subject_token_type` is one of access_token, jwt, id_token and saml2 (RFC 8693, 3)",
        )),
    }
}

/// The one field of this name. An empty one counts as none (RFC 6749, 3.2).
fn one<'f>(fields: &'f [(String, String)], name: &str) -> Result<Option<&'f str>, OAuthError> {
    let mut named = fields.iter().filter(|(known, _)| known == name);
    match (named.next(), named.next()) {
        (None, _) => Ok(None),
        (Some((_, value)), None) => Ok(Some(value.as_str()).filter(|value| !value.is_empty())),
        (Some(_), Some(_)) => Err(OAuthError::InvalidRequest(format!(
            "`{name}` stands more than once"
        ))),
    }
}

/// Most fields of a form.
const MAX_FIELDS: usize = 64;

/// The fields of a form (application/x-www-form-urlencoded).
///
/// # Errors
/// [`OAuthError::InvalidRequest`] where there are more than anybody needs.
pub fn form(body: &[u8]) -> Result<Vec<(String, String)>, OAuthError> {
    let mut fields = url::form_urlencoded::parse(body).into_owned();
    let some: Vec<_> = fields.by_ref().take(MAX_FIELDS).collect();
    match fields.next() {
        None => Ok(some),
        Some(_) => {
            let message = format!("a form has at most {MAX_FIELDS} fields");
            Err(OAuthError::InvalidRequest(message))
        }
    }
}
