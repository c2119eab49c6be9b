//! The token endpoint and what belongs to it: RFC 6749 and 8693 (token), 7009 (revocation), 7662 (introspection), 8414 (metadata), 7517
//! (our keys). Requests are forms; no client authenticates: who asks is who the token or assertion they show says they are.

use std::time::Duration;

use axum::{
    Json, Router,
    body::to_bytes,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::{
    api::{Caller, Shared},
    refused::Refused,
};
use crate::{
    approval::Id,
    grant::{GRANT_TYPES, OAuthError, SAML_BEARER, TOKEN_TYPE, TokenRequest, form},
    identity::{Algorithm, Scope},
};

/// The largest form that is read, in bytes: an assertion is the longest thing in one.
const MAX_FORM: usize = 512 * 1024;
/// How long a form may take to come.
const FORM_TIME: Duration = Duration::from_secs(10);
/// Forms that are read and answered at one time; beyond it 503. Together with [`MAX_FORM`] this bounds what strangers can fill.
static PLACES: Semaphore = Semaphore::const_new(64);
/// The same for forms that hold one token, apart, and once they are here: whoever fills the places above, or is slow, must not keep a token
/// from being revoked. What comes slowly is bounded by [`MAX_FORM_OF_ONE`] and the number of connections.
static PLACES_FOR_ONE: Semaphore = Semaphore::const_new(64);
/// The largest form with one token, in bytes.
const MAX_FORM_OF_ONE: usize = 32 * 1024;
/// How soon a caller whose grant waits for an approval may ask again, in seconds.
const INTERVAL: u32 = 5;

/// The grants that are made here.
#[derive(Clone, Debug)]
pub struct Issuing {
    /// `iss` of grants.
    pub issuer: String,
    /// Our public keys, as a JWK Set.
    pub jwks: Value,
    /// Whether SAML assertions are taken (RFC 7522).
    pub takes_assertions: bool,
}

/// A grant that was made.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The token.
    pub token: SecretString,
    /// What it is for.
    pub scope: Scope,
    /// Seconds until it is over.
    pub expires_in: i64,
    /// Whether it is bound to a key (RFC 9449).
    pub bound: bool,
}

/// A grant that counts now.
#[derive(Clone, Debug)]
pub struct Active {
    /// Its id.
    pub id: String,
    /// The holder's issuer and subject.
    pub holder: (String, String),
    /// What it is for.
    pub scope: Scope,
    /// How often it was used; only where that is counted.
    pub used: Option<u32>,
    /// When it was made, and when it is over, in seconds since 1970.
    pub times: (Option<i64>, i64),
}

pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/.well-known/oauth-authorization-server", get(metadata))
        .route("/oauth2/jwks", get(jwks))
        .route("/oauth2/token", post(token))
        .route("/oauth2/revoke", post(revoke))
        .route("/oauth2/introspect", post(introspect))
}

/// RFC 8414, 2.
async fn metadata(State(backing): State<Shared>) -> Result<Json<Value>, Refused> {
    let Issuing {
        issuer,
        takes_assertions,
        ..
    } = issuing(&backing)?;
    let mut grant_types = GRANT_TYPES.to_vec();
    grant_types.retain(|kind| takes_assertions || *kind != SAML_BEARER);
    Ok(Json(json!({
        "issuer": issuer,
        "token_endpoint": format!("{issuer}/oauth2/token"),
        "jwks_uri": format!("{issuer}/oauth2/jwks"),
        "revocation_endpoint": format!("{issuer}/oauth2/revoke"),
        "introspection_endpoint": format!("{issuer}/oauth2/introspect"),
        "grant_types_supported": grant_types,
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "introspection_endpoint_auth_methods_supported": ["none"],
        "response_types_supported": [],
        "authorization_details_types_supported": ["inference"],
        "dpop_signing_alg_values_supported": Algorithm::ALL.map(Algorithm::name),
    })))
}

async fn jwks(State(backing): State<Shared>) -> Result<Json<Value>, Refused> {
    Ok(Json(issuing(&backing)?.jwks))
}

fn issuing(backing: &Shared) -> Result<Issuing, Refused> {
    backing.issuing().ok_or_else(Refused::not_found)
}

async fn token(State(backing): State<Shared>, request: Request) -> Result<Response, Refused> {
    let issuing = issuing(&backing)?;
    let public_url = backing.public_url();
    let _place = match place(&PLACES) {
        Ok(place) => place,
        Err(error) => return Ok(refused(&error, &public_url)),
    };
    let (parts, fields) = match fields(request, MAX_FORM).await {
        Ok(form) => form,
        Err(error) => return Ok(refused(&error, &public_url)),
    };
    let asked = TokenRequest::read(&fields, &issuing.issuer);
    let granted = match asked.and_then(|asked| Ok((asked, proof(&parts.headers)?))) {
        Ok((asked, proof)) => backing.grant(asked, proof).await,
        Err(error) => Err(error),
    };
    Ok(match granted {
        Ok(granted) => Json(json!({
            "access_token": secrecy::ExposeSecret::expose_secret(&granted.token),
            "issued_token_type": TOKEN_TYPE,
            "token_type": if granted.bound { "DPoP" } else { "Bearer" },
            "expires_in": granted.expires_in,
            "authorization_details": [granted.scope],
        }))
        .into_response(),
        Err(error) => refused(&error, &public_url),
    })
}

/// RFC 7009, 2: who has the token may revoke it, and of what is no token of ours nothing is said.
async fn revoke(State(backing): State<Shared>, request: Request) -> Result<Response, Refused> {
    issuing(&backing)?;
    Ok(match shown(request).await {
        Ok((token, _place)) => match backing.revoke(token).await {
            Ok(()) => StatusCode::OK.into_response(),
            Err(unavailable) => refused(&OAuthError::Unavailable(unavailable.0), ""),
        },
        Err(error) => refused(&error, ""),
    })
}

/// RFC 7662, 2: for callers with a role.
async fn introspect(
    State(backing): State<Shared>,
    caller: Caller,
    request: Request,
) -> Result<Response, Refused> {
    let issuer = issuing(&backing)?.issuer;
    if !caller.reads() {
        return Err(Refused::forbidden());
    }
    let (token, _place) = match shown(request).await {
        Ok(shown) => shown,
        Err(error) => return Ok(refused(&error, "")),
    };
    let told = match backing.introspect(token).await? {
        None => json!({"active": false}),
        Some(grant) => json!({
            "active": true,
            "iss": issuer,
            "jti": grant.id,
            "sub": grant.holder.1,
            "holder_iss": grant.holder.0,
            "iat": grant.times.0,
            "exp": grant.times.1,
            "authorization_details": [grant.scope],
            "used": grant.used,
        }),
    };
    Ok(Json(told).into_response())
}

/// Revokes a grant by its id; for administrators.
pub(super) async fn revoke_by_id(
    State(backing): State<Shared>,
    caller: Caller,
    id: super::api::AskedId,
) -> Result<Json<super::wire::Revocation>, Refused> {
    if !caller.is_admin() {
        return Err(Refused::forbidden());
    }
    let id = id.ok().and_then(|axum::extract::Path(id)| Id::new(&id));
    let id = id.ok_or_else(Refused::not_found)?;
    issuing(&backing)?;
    backing.revoke_id(id.clone(), caller.into_party()).await?;
    Ok(Json(super::wire::Revocation {
        id: id.to_string(),
        revoked: true,
    }))
}

/// The one field `token` of a form, and the place that it takes until it is let go.
async fn shown(request: Request) -> Result<(SecretString, SemaphorePermit<'static>), OAuthError> {
    let (_, fields) = fields(request, MAX_FORM_OF_ONE).await?;
    let place = place(&PLACES_FOR_ONE)?;
    let mut tokens = fields.into_iter().filter(|(name, _)| name == "token");
    match (tokens.next(), tokens.next()) {
        (Some((_, token)), None) if !token.is_empty() => Ok((token.into(), place)),
        _ => Err(OAuthError::InvalidRequest("send one `token`".to_owned())),
    }
}

/// The DPoP proof that a grant is to be bound by (RFC 9449, 5).
fn proof(headers: &HeaderMap) -> Result<Option<SecretString>, OAuthError> {
    let mut proofs = headers.get_all("dpop").iter();
    let bad = || OAuthError::InvalidRequest("one DPoP proof, in ASCII, at most".to_owned());
    let proof = proofs.next().map(|proof| proof.to_str().map_err(|_| bad()));
    match proofs.next() {
        None => Ok(proof.transpose()?.map(SecretString::from)),
        Some(_) => Err(bad()),
    }
}

fn place(places: &'static Semaphore) -> Result<SemaphorePermit<'static>, OAuthError> {
    places
        .try_acquire()
        .map_err(|_| OAuthError::Unavailable("overloaded"))
}

/// The head and the fields of a form.
async fn fields(
    request: Request,
    most: usize,
) -> Result<(Parts, Vec<(String, String)>), OAuthError> {
    let (parts, body) = request.into_parts();
    if !is_form(&parts.headers) {
        let message = "the body must be application/x-www-form-urlencoded, not encoded";
        return Err(OAuthError::InvalidRequest(message.to_owned()));
    }
    let bytes = match timeout(FORM_TIME, to_bytes(body, most)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => {
            let message = format!("the body is larger than {most} bytes");
            return Err(OAuthError::InvalidRequest(message));
        }
        Err(_) => {
            let message = "the body did not come in time";
            return Err(OAuthError::InvalidRequest(message.to_owned()));
        }
    };
    Ok((parts, form(&bytes)?))
}

fn is_form(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(first), None) = (types.next(), types.next()) else {
        return false;
    };
    let essence = first.to_str().unwrap_or_default().split(';').next();
    let essence = essence.unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
        && !headers.contains_key(header::CONTENT_ENCODING)
}

/// RFC 6749, 5.2, with our own stable code besides.
fn refused(error: &OAuthError, public_url: &str) -> Response {
    let mut told = json!({
        "error": error.error(),
        "error_description": error.description(),
        "code": error.code(),
    });
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let mut answer_headers = HeaderMap::new();
    if let OAuthError::Pending(id) = error {
        told["approval"] = id.as_str().into();
        told["interval"] = INTERVAL.into();
        let location = format!("{public_url}/api/v1/approvals/{id}");
        if let (false, Ok(location)) = (public_url.is_empty(), location.parse()) {
            answer_headers.insert(header::LOCATION, location);
        }
    }
    if let OAuthError::Unavailable(_) = error {
        answer_headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    }
    (status, answer_headers, Json(told)).into_response()
}
