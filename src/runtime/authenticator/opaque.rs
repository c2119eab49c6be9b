//! Tokens that say nothing themselves: their issuer is asked, and what it said is remembered as briefly as a verified token.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use jiff::Timestamp;
use moka::sync::Cache;

use super::{Authenticator, AuthenticatorError, CacheKey};
use crate::{
    identity::{Principal, TokenError},
    keys::introspect::{IntrospectionSource, Introspector},
};

/// Longest that a refusal is remembered, so that one client with a dead token is not a question each time.
pub(super) const REFUSAL_REMEMBERED_FOR: Duration = Duration::from_secs(10);
/// Most refusals that are remembered: hashes and codes, some 100 bytes each. Beyond, the least used is asked about anew.
pub(super) const MAX_REFUSALS: u64 = 4096;

/// The issuer whose tokens are opaque. At most one: such a token does not say whose it is, and to ask around would show each
/// issuer the tokens of the others.
#[derive(Debug)]
pub(super) struct Opaque {
    pub(super) issuer: String,
    pub(super) introspector: Introspector,
    pub(super) refusals: Cache<CacheKey, (TokenError, Duration)>,
}

impl Opaque {
    pub(super) fn remember_refusal(&self, key: CacheKey, error: TokenError, since: Duration) {
        self.refusals.insert(key, (error, since));
    }
}

impl Authenticator {
    /// Takes opaque tokens too and asks `issuer`, one of those that are trusted, about them.
    ///
    /// # Errors
    /// [`AuthenticatorError::Source`] where it cannot be asked as configured.
    pub fn with_opaque_tokens(
        mut self,
        issuer: &str,
        source: IntrospectionSource,
    ) -> Result<Self, AuthenticatorError> {
        let introspector = Introspector::new(issuer, source, self.timing, self.clock.clone());
        self.opaque = Some(Opaque {
            issuer: issuer.to_owned(),
            introspector: introspector.map_err(|cause| AuthenticatorError::Source {
                issuer: issuer.to_owned(),
                cause,
            })?,
            refusals: Cache::builder()
                .max_capacity(MAX_REFUSALS)
                .time_to_live(REFUSAL_REMEMBERED_FOR)
                .build(),
        });
        Ok(self)
    }

    /// The holder of an opaque token that is not remembered. Waits for a turn and for an answer, at most about
    /// [`Timing::timeout`](crate::keys::jwks::Timing::timeout) each.
    pub(super) async fn introspect(
        &self,
        opaque: &Opaque,
        token: &str,
        key: CacheKey,
        now: Timestamp,
    ) -> Result<Arc<Principal>, TokenError> {
        let issuer = self
            .issuers
            .get(&opaque.issuer)
            .ok_or(TokenError::UnknownIssuer)?;
        let answer = async {
            self.recall_refusal(opaque, &key)?;
            let introspector = &opaque.introspector;
            let turn = introspector
                .turn()
                .await
                .ok_or(TokenError::IssuerUnavailable)?;
            // Of those who came with one token at a time, the first few ask and the others have the answer.
            self.recall_refusal(opaque, &key)?;
            if let Some(principal) = self.recall(&key, now) {
                return Ok(principal);
            }
            let answer = introspector
                .ask(turn, token)
                .await
                .ok_or(TokenError::IssuerUnavailable)?;
            let principal = answer
                .verify(token, &issuer.rules, now)
                .inspect_err(|error| {
                    opaque.remember_refusal(key, *error, self.clock.monotonic());
                })?;
            issuer.accepted.fetch_add(1, Relaxed);
            Ok(self.remember(key, principal, None))
        };
        answer.await.map_err(|error| issuer.refuse(error))
    }

    fn recall_refusal(&self, opaque: &Opaque, key: &CacheKey) -> Result<(), TokenError> {
        match opaque.refusals.get(key) {
            Some((error, since))
                if self.clock.monotonic().saturating_sub(since) <= REFUSAL_REMEMBERED_FOR =>
            {
                Err(error)
            }
            _ => Ok(()),
        }
    }
}
