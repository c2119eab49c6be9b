//! Our own HTTP endpoints: health, readiness and metrics, the API by which people decide on approvals, and the token endpoint.
//!
//! Promises: nothing of a request is told to anybody without a role but its own caller, and to them only where it stands; who sees
//! an approval is on record before they see it; every refusal has the same shape and a stable code. Never: takes a credential
//! from anywhere but one `Authorization` header or the form of a token request, reads more than 16 KiB of a body (512 KiB of a form),
//! lets an answer be cached.

pub mod access;
mod api;
pub mod list;
pub mod oauth;
mod openapi;
mod places;
mod refused;
mod serve;
#[cfg(test)]
pub(crate) mod tests;
pub mod wire;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::get,
};
use futures::future::BoxFuture;
use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::json;

pub(crate) use self::places::Places;
use self::{
    access::Access,
    list::{Filter, Page},
    oauth::{Active, Granted, Issuing},
    refused::Refused,
};
pub use self::{openapi::document, serve::serve};
use crate::{
    approval::{Approval, Decided, Fate, Freshness, Id, Party, Stop},
    grant::{OAuthError, TokenRequest},
    identity::{Presented, Principal, TokenError},
};

/// Something cannot be known, decided or put on record now: a stable code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable(pub &'static str);

/// What the endpoints tell of to everybody.
pub trait Probe: Send + Sync + 'static {
    /// Why requests cannot be served now; empty when they can.
    fn troubles(&self) -> Vec<String>;
    /// Every metric in the OpenMetrics text format.
    fn metrics(&self) -> String;
}

/// What the API tells of and acts on.
pub trait Backing: Probe {
    /// What time it is.
    fn now(&self) -> Timestamp;
    /// Which groups have which role.
    fn access(&self) -> Arc<Access>;
    /// How fresh a proof of identity must be of who decides.
    fn freshness(&self) -> Freshness;
    /// Who shows `presented`.
    fn authenticate(
        &self,
        presented: Presented,
    ) -> BoxFuture<'static, Result<Arc<Principal>, TokenError>>;
    /// Some approvals: [`Filter::page`] over all there are.
    fn list(&self, filter: Filter) -> BoxFuture<'static, Result<Page, Unavailable>>;
    /// The approval `id`.
    fn approval(&self, id: Id) -> BoxFuture<'static, Result<Option<Arc<Approval>>, Unavailable>>;
    /// Puts a decision into the control log, and on record; what became of it there.
    fn decide(&self, decided: Decided) -> BoxFuture<'static, Result<Fate, Unavailable>>;
    /// Puts a cancellation into the control log, and on record; what became of it there.
    fn cancel(&self, stop: Stop) -> BoxFuture<'static, Result<Fate, Unavailable>>;
    /// Puts on record that `by` tried to decide on `approval` and may not, for this stable cause.
    fn rejected(
        &self,
        approval: Arc<Approval>,
        by: Party,
        code: &'static str,
    ) -> BoxFuture<'static, Result<(), Unavailable>>;
    /// The grants that are made here; `None` where none are.
    fn issuing(&self) -> Option<Issuing>;
    /// Where callers reach us; empty where that is not known.
    fn public_url(&self) -> String;
    /// Makes a grant, once it is on record, bound to the key of `proof` (RFC 9449) where there is one.
    fn grant(
        &self,
        asked: TokenRequest,
        proof: Option<SecretString>,
    ) -> BoxFuture<'static, Result<Granted, OAuthError>>;
    /// The grant that `token` is, if it counts now.
    fn introspect(
        &self,
        token: SecretString,
    ) -> BoxFuture<'static, Result<Option<Active>, Unavailable>>;
    /// Revokes the grant that `token` is, if it is one.
    fn revoke(&self, token: SecretString) -> BoxFuture<'static, Result<(), Unavailable>>;
    /// Revokes the grant of this id, whatever it is for.
    fn revoke_id(&self, id: Id, by: Party) -> BoxFuture<'static, Result<(), Unavailable>>;
    /// Puts on record that `by` is about to see all of `approval`.
    fn seen(
        &self,
        approval: Arc<Approval>,
        by: Party,
    ) -> BoxFuture<'static, Result<(), Unavailable>>;
}

fn router(backing: Arc<dyn Backing>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { Json(json!({"status": "ok"})) }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .merge(openapi::router())
        .merge(oauth::router())
        .fallback(|| async { Refused::not_found() })
        .method_not_allowed_fallback(|| async {
            let message = "the method is none of those in `Allow`";
            Refused::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                message,
            )
        })
        .layer(map_response(guarded))
        .with_state(backing)
}

/// What every answer says to browsers and caches.
async fn guarded(mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    answer
}

async fn ready(State(backing): State<Arc<dyn Backing>>) -> Response {
    let troubles = backing.troubles();
    if troubles.is_empty() {
        return Json(json!({"status": "ready"})).into_response();
    }
    (
        StatusCode::SERVICE_UNAVAILABLE,
        Json(json!({"status": "not ready", "troubles": troubles})),
    )
        .into_response()
}

async fn metrics(State(backing): State<Arc<dyn Backing>>) -> Response {
    let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, format)], backing.metrics()).into_response()
}
