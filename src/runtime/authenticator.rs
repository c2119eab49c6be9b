//! Tokens to principals, with live keys and a short memory.
//!
//! ```text
//! token ─> cache (SHA-256, <= 60 s, never past exp, same key epoch) ─> hit
//!            └─ miss ─> peek ─> issuer's rules + keys ─> verify ─> unknown key? refresh once, verify again
//!                         └─ opaque, or of an issuer without keys ─> ask the one issuer (RFC 7662) ─> verify what it says
//! ```
//!
//! Promises: a hit is only ever what verification would have said within the last minute with keys of which none has gone
//! since, or what the issuer said within the last minute; refusals are not remembered, but for those of opaque tokens, for ten
//! seconds. Never waits longer than for one fetch of keys, or for a turn to ask and an answer; never holds a lock across them.
//! Can miss: a token revoked by its issuer, for as long as it is unexpired; an opaque one for a minute.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use jiff::Timestamp;
use moka::sync::Cache;
use secrecy::ExposeSecret;

use self::opaque::Opaque;
#[cfg(feature = "saml")]
use super::assertions::Assertions;
use super::{clock::Clock, grants::Grants};
use crate::{
    identity::{
        self, CertificateRules, IssuerRules, MAX_TOKEN_BYTES, Presented, Principal, Purpose,
        Replays, TokenError, Unverified,
    },
    keys::jwks::{Jwks, KeySource, SourceError, Timing},
};

mod opaque;

/// Longest that a verified token is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// Memory for verified tokens, in bytes as estimated.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// Least an entry counts, so that bytes bound the number of entries too: 16,384.
const LEAST_ENTRY_BYTES: usize = 1024;

/// Why an authenticator cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticatorError {
    /// The keys of an issuer cannot be fetched as configured.
    #[error("the key source of issuer `{issuer}` {cause}")]
    Source {
        /// The issuer.
        issuer: String,
        /// Why.
        cause: SourceError,
    },
    /// Two sets of rules for one issuer.
    #[error("issuer `{0}` is configured twice")]
    Twice(String),
}

/// Verifies callers' tokens. One per configuration; shared by all streams.
#[derive(Debug)]
pub struct Authenticator {
    issuers: HashMap<String, Issuer>,
    /// As they are configured.
    order: Vec<String>,
    opaque: Option<Opaque>,
    cache: Cache<CacheKey, Arc<Remembered>>,
    identity_digest: [u8; 32],
    clock: Clock,
    certificates: CertificateRules,
    timing: Timing,
    strangers: AtomicU64,
    /// Our own grants; `None` where none are made.
    grants: Option<Arc<Grants>>,
    /// Outlives this authenticator: a proof must not count again because the configuration changed. Held for a few look-ups,
    /// never across an await.
    replays: Arc<Mutex<Replays>>,
    unproved: AtomicU64,
    #[cfg(feature = "saml")]
    assertions: Assertions,
}

#[derive(Debug)]
struct Issuer {
    rules: IssuerRules,
    /// None where it is asked about every token.
    keys: Option<Arc<Jwks>>,
    accepted: AtomicU64,
    hits: AtomicU64,
    refused: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct CacheKey {
    identity: [u8; 32],
    token: [u8; 32],
}

#[derive(Debug)]
struct Remembered {
    principal: Arc<Principal>,
    /// Of the issuer's keys that proved it; none where none did.
    epoch: Option<u64>,
    since: Duration,
}

/// Counters of one issuer since the start of this authenticator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerMetrics {
    /// The issuer.
    pub issuer: String,
    /// Tokens accepted, remembered ones included.
    pub accepted: u64,
    /// Tokens accepted from memory.
    pub cache_hits: u64,
    /// Tokens refused.
    pub refused: u64,
    /// Fetches of keys that ended.
    pub fetches: u64,
    /// Those of them that failed.
    pub failed_fetches: u64,
    /// Usable keys at the moment.
    pub keys: u64,
    /// Whether tokens of this issuer can be verified at the moment; of one without keys, whether it answered when it was last asked.
    pub available: bool,
    /// Time since the last good fetch; none before the first.
    pub keys_age: Option<Duration>,
    /// Questions about opaque tokens that ended, and how many of them brought no answer; none where they are not taken.
    pub introspections: Option<(u64, u64)>,
}

/// Counters of an authenticator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// By issuer, in the order of the configuration.
    pub issuers: Vec<IssuerMetrics>,
    /// Tokens refused before they could be laid to an issuer: malformed, or of an issuer that is not configured. And certificates
    /// that are nobody's.
    pub refused_strangers: u64,
    /// Good tokens refused because what they are bound to was not shown with them. Their issuers count them as accepted.
    pub refused_unproved: u64,
    /// Tokens remembered at the moment, about.
    pub remembered: u64,
}

impl Authenticator {
    /// Starts with the system's clock and default timing; fetching keys begins at once, and a source that does not answer
    /// only makes its issuer unavailable. Must be called inside a tokio runtime.
    ///
    /// An issuer without a source of keys is one that is [asked](Self::with_opaque_tokens) about every token; no token of another
    /// such counts.
    ///
    /// `identity_digest` names the identity part of the configuration: what was verified under another is not believed.
    ///
    /// # Errors
    /// [`AuthenticatorError`] for faults of the configuration.
    pub fn new<K: Into<Option<KeySource>>>(
        issuers: Vec<(IssuerRules, K)>,
        identity_digest: [u8; 32],
    ) -> Result<Self, AuthenticatorError> {
        Self::with(issuers, identity_digest, Clock::system(), Timing::default())
    }

    /// As [`new`](Self::new), with a clock and timing of the caller's choice.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn with<K: Into<Option<KeySource>>>(
        issuers: Vec<(IssuerRules, K)>,
        identity_digest: [u8; 32],
        clock: Clock,
        timing: Timing,
    ) -> Result<Self, AuthenticatorError> {
        let mut by_name = HashMap::new();
        let mut order = Vec::new();
        for (rules, source) in issuers {
            let name = rules.issuer.clone();
            let keys = source
                .into()
                .map(|source| Jwks::new(&name, &source, timing, clock.clone()).map(Arc::new))
                .transpose()
                .map_err(|cause| AuthenticatorError::Source {
                    issuer: name.clone(),
                    cause,
                })?;
            let issuer = Issuer {
                rules,
                keys,
                accepted: AtomicU64::new(0),
                hits: AtomicU64::new(0),
                refused: AtomicU64::new(0),
            };
            if by_name.insert(name.clone(), issuer).is_some() {
                return Err(AuthenticatorError::Twice(name));
            }
            order.push(name);
        }
        let cache = Cache::builder()
            .max_capacity(CACHE_BYTES)
            .weigher(|_, entry: &Arc<Remembered>| {
                u32::try_from(weigh(&entry.principal)).unwrap_or(u32::MAX)
            })
            // Only gives memory back; whether an entry counts is decided on our clocks at each hit.
            .time_to_live(REMEMBERED_FOR)
            .build();
        Ok(Self {
            issuers: by_name,
            order,
            opaque: None,
            cache,
            identity_digest,
            clock,
            certificates: CertificateRules::default(),
            timing,
            strangers: AtomicU64::new(0),
            grants: None,
            replays: Arc::default(),
            unproved: AtomicU64::new(0),
            #[cfg(feature = "saml")]
            assertions: Assertions::default(),
        })
    }

    /// Who is proved to be calling by what is `presented` at the instant `now`, for a purpose that the token's audience must admit.
    ///
    /// Waits only where keys have to be fetched first, and then at most about [`Timing::timeout`]. Cancellation-safe:
    /// dropped at any point, it leaves nothing half done.
    ///
    /// # Errors
    /// [`TokenError`]; [`TokenError::IssuerUnavailable`] while the issuer's keys cannot be had.
    pub async fn authenticate(
        &self,
        presented: &Presented,
        now: Timestamp,
    ) -> Result<Arc<Principal>, TokenError> {
        let principal = match (&presented.token, &presented.certificate) {
            (Some(token), _) => self.holder(token.text.expose_secret(), now).await?,
            (None, Some(certificate)) => {
                let caller = self.certificates.caller(certificate, now);
                return caller.map(Arc::new).inspect_err(|_| {
                    self.strangers.fetch_add(1, Relaxed);
                });
            }
            (None, None) => return Err(TokenError::Missing),
        };
        // Behind what is remembered too: that says whose token it is, and not what for.
        self.admits(&principal, presented.purpose)?;
        let possessed = principal.bound.check(presented, now);
        possessed
            .and_then(|proof| match proof {
                // What was accepted for this request is used already.
                Some(proof) if !presented.again => {
                    self.replays().take(&proof, account(&principal), now)
                }
                _ => Ok(()),
            })
            .inspect_err(|_| {
                self.unproved.fetch_add(1, Relaxed);
            })?;
        Ok(principal)
    }

    fn admits(&self, principal: &Principal, purpose: Purpose) -> Result<(), TokenError> {
        if principal.grant.is_some() {
            // It is for calls of models; what its holder may do elsewhere they may do with their own token.
            return match purpose {
                Purpose::Inference => Ok(()),
                Purpose::Api => Err(TokenError::WrongType),
            };
        }
        let issuer = self.issuers.get(&principal.issuer);
        match issuer.is_some_and(|issuer| issuer.rules.admits(&principal.audiences, purpose)) {
            true => Ok(()),
            false => Err(TokenError::WrongAudience),
        }
    }

    /// Whose token is exchanged at a token endpoint, and the key that what is issued for it is to be bound to: that of the proof that
    /// was presented with it, which must be the token's own where that is bound. Uses the proof.
    ///
    /// # Errors
    /// As for [`authenticate`](Self::authenticate).
    pub async fn exchanged(
        &self,
        presented: &Presented,
        now: Timestamp,
    ) -> Result<(Arc<Principal>, Option<[u8; 32]>), TokenError> {
        let token = presented.token.as_ref().ok_or(TokenError::Missing)?;
        let principal = self.holder(token.text.expose_secret(), now).await?;
        self.admits(&principal, presented.purpose)?;
        let proof = principal
            .bound
            .check_exchanged(presented, now)
            .and_then(|proof| match proof {
                Some(proof) => self
                    .replays()
                    .take(&proof, account(&principal), now)
                    .map(|()| Some(proof.key)),
                None => Ok(None),
            })
            .inspect_err(|_| {
                self.unproved.fetch_add(1, Relaxed);
            })?;
        Ok((principal, proof))
    }

    /// The key that a proof without a token shows `caller` to have, as a token endpoint binds to it what it issues (RFC 9449, 5):
    /// its thumbprint. Uses the proof.
    ///
    /// # Errors
    /// [`TokenError::ProofMissing`] where none was presented, and as for [`identity::verify_proof`] and [`Replays::take`].
    pub fn possessed_key(
        &self,
        caller: &Principal,
        presented: &Presented,
        now: Timestamp,
    ) -> Result<[u8; 32], TokenError> {
        let proof = identity::verify_proof(presented, None, now)?;
        self.replays().take(&proof, account(caller), now)?;
        Ok(proof.key)
    }

    fn replays(&self) -> MutexGuard<'_, Replays> {
        self.replays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is known by a certificate alone; nobody where this is not said.
    #[must_use]
    pub fn knowing(mut self, certificates: CertificateRules) -> Self {
        self.certificates = certificates;
        self
    }

    /// Remembers the proofs that `before` has seen used, and both remember them from now on. Keeps the keys that `before` has of issuers
    /// that are asked where they were: who is away just now need not be there for every change.
    #[must_use]
    pub fn after(mut self, before: &Self) -> Self {
        self.replays = Arc::clone(&before.replays);
        for (name, issuer) in &mut self.issuers {
            let known = before
                .issuers
                .get(name)
                .and_then(|known| known.keys.as_ref());
            if let (Some(fresh), Some(known)) = (&issuer.keys, known)
                && known.is_like(fresh)
                && known.current().is_some()
            {
                issuer.keys = Some(Arc::clone(known));
            }
        }
        self
    }

    /// Whose the token is.
    async fn holder(&self, token: &str, now: Timestamp) -> Result<Arc<Principal>, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            self.strangers.fetch_add(1, Relaxed);
            return Err(TokenError::TooLarge);
        }
        let key = CacheKey {
            identity: self.identity_digest,
            token: identity::token_hash(token),
        };
        if let Some(principal) = self.recall(&key, now) {
            return self.in_force(principal);
        }
        let peeked = identity::peek(token);
        if let (Err(TokenError::NotJws), Some(opaque)) = (&peeked, &self.opaque) {
            return self.introspect(opaque, token, key, now).await;
        }
        let stranger = |_: &TokenError| {
            self.strangers.fetch_add(1, Relaxed);
        };
        let read = peeked.inspect_err(stranger)?;
        if let Some(granted) = self.granted(&read, now) {
            let principal = self.remember(key, granted.inspect_err(stranger)?, None);
            return self.in_force(principal);
        }
        let issuer = self.issuers.get(read.issuer());
        let issuer = issuer
            .ok_or(TokenError::UnknownIssuer)
            .inspect_err(stranger)?;
        let Some(keys) = &issuer.keys else {
            let opaque = self.opaque.as_ref().filter(|it| it.issuer == read.issuer());
            let opaque = opaque.ok_or(TokenError::AlgorithmRefused);
            let opaque = opaque.and_then(|it| read.check_kind(&issuer.rules).map(|()| it));
            let opaque = opaque.map_err(|error| issuer.refuse(error))?;
            return self.introspect(opaque, token, key, now).await;
        };
        let verified = match issuer.prove(keys, &read).await {
            Ok(epoch) => read
                .holder(key.token, &issuer.rules, now)
                .map(|principal| (principal, epoch)),
            Err(error) => Err(error),
        };
        match verified {
            Ok((principal, epoch)) => {
                issuer.accepted.fetch_add(1, Relaxed);
                Ok(self.remember(key, principal, Some(epoch)))
            }
            Err(error) => Err(issuer.refuse(error)),
        }
    }

    fn remember(&self, key: CacheKey, principal: Principal, epoch: Option<u64>) -> Arc<Principal> {
        let principal = Arc::new(principal);
        let remembered = Remembered {
            principal: Arc::clone(&principal),
            epoch,
            since: self.clock.monotonic(),
        };
        self.cache.insert(key, Arc::new(remembered));
        principal
    }

    /// The caller, if their grant, should they have come with one, was not revoked: asked every time, remembered or not.
    fn in_force(&self, principal: Arc<Principal>) -> Result<Arc<Principal>, TokenError> {
        if let Some(grants) = &self.grants {
            grants.check(&principal)?;
        }
        Ok(principal)
    }

    /// The same, which believes grants of ours besides.
    #[must_use]
    pub fn with_grants(self, grants: Option<Arc<Grants>>) -> Self {
        Self { grants, ..self }
    }

    /// The same, which takes assertions besides.
    #[cfg(feature = "saml")]
    #[must_use]
    pub fn with_assertions(self, assertions: Assertions) -> Self {
        Self { assertions, ..self }
    }

    /// What verifies assertions.
    #[cfg(feature = "saml")]
    #[must_use]
    pub fn assertions(&self) -> &Assertions {
        &self.assertions
    }

    /// Our own grants; `None` where none are made.
    #[must_use]
    pub fn grants(&self) -> Option<&Arc<Grants>> {
        self.grants.as_ref()
    }

    /// The holder of a token that says it is a grant of ours; `None` of any other token.
    fn granted(
        &self,
        token: &Unverified<'_>,
        now: Timestamp,
    ) -> Option<Result<Principal, TokenError>> {
        let grants = self.grants.as_ref()?;
        (token.issuer() == grants.issuer()).then(|| grants.verify(token, now))
    }

    /// Counters as they are now.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let issuers = self
            .order
            .iter()
            .filter_map(|name| {
                let opaque = self.opaque.as_ref().filter(|opaque| opaque.issuer == *name);
                let issuer = self.issuers.get(name)?;
                let answers = opaque.is_some_and(|opaque| opaque.introspector.answers());
                let metrics = issuer.metrics();
                Some(IssuerMetrics {
                    introspections: opaque.map(|opaque| opaque.introspector.questions()),
                    available: metrics.available || issuer.keys.is_none() && answers,
                    ..metrics
                })
            })
            .collect();
        Metrics {
            issuers,
            refused_strangers: self.strangers.load(Relaxed),
            refused_unproved: self.unproved.load(Relaxed),
            remembered: self.cache.entry_count(),
        }
    }

    /// Waits until the first fetch of every issuer's keys has ended, well or not.
    pub async fn first_fetches(&self) {
        for keys in self
            .issuers
            .values()
            .filter_map(|issuer| issuer.keys.as_ref())
        {
            keys.fetched(1).await;
        }
    }

    /// What is remembered of a token, if it still counts. What the token is bound to is checked after this, never in it.
    fn recall(&self, key: &CacheKey, now: Timestamp) -> Option<Arc<Principal>> {
        let remembered = self.cache.get(key)?;
        // INVARIANT: three clocks' worth of doubt, each of which alone is enough to ask again.
        let fresh = self.clock.monotonic().saturating_sub(remembered.since) <= REMEMBERED_FOR
            && now < remembered.principal.expires_at;
        if !fresh {
            return None;
        }
        if remembered.principal.grant.is_some() {
            // Our own keys change with the configuration only, and the cache with them.
            return Some(Arc::clone(&remembered.principal));
        }
        let issuer = self.issuers.get(&remembered.principal.issuer)?;
        if let Some(epoch) = remembered.epoch
            && issuer.keys.as_ref()?.current()?.epoch != epoch
        {
            return None;
        }
        issuer.accepted.fetch_add(1, Relaxed);
        issuer.hits.fetch_add(1, Relaxed);
        Some(Arc::clone(&remembered.principal))
    }
}

impl Issuer {
    /// That the token is the issuer's: the epoch of the keys that proved it.
    async fn prove(&self, keys: &Jwks, token: &Unverified<'_>) -> Result<u64, TokenError> {
        if keys.current().is_none() {
            keys.wait_for_any().await;
        }
        let first = self.prove_with_current(keys, token);
        if !matches!(first, Err(TokenError::UnknownKey)) {
            return first;
        }
        let fresh = keys.refresh_for(token.kid()).await;
        // Even where nothing was fetched: what another asked for may have come since the first look.
        let second = self.prove_with_current(keys, token);
        if fresh && matches!(second, Err(TokenError::UnknownKey)) {
            keys.remember_unknown(token.kid());
        }
        second
    }

    fn prove_with_current(&self, keys: &Jwks, token: &Unverified<'_>) -> Result<u64, TokenError> {
        let current = keys.current().ok_or(TokenError::IssuerUnavailable)?;
        token.prove(&self.rules, &current.keys)?;
        Ok(current.epoch)
    }

    fn refuse(&self, error: TokenError) -> TokenError {
        self.refused.fetch_add(1, Relaxed);
        error
    }

    fn metrics(&self) -> IssuerMetrics {
        let keys = self.keys.as_deref();
        let current = keys.and_then(Jwks::current);
        let (fetches, failed_fetches) = keys.map_or((0, 0), Jwks::fetches);
        IssuerMetrics {
            issuer: self.rules.issuer.clone(),
            accepted: self.accepted.load(Relaxed),
            cache_hits: self.hits.load(Relaxed),
            refused: self.refused.load(Relaxed),
            fetches,
            failed_fetches,
            keys: current
                .as_ref()
                .map_or(0, |current| current.keys.len() as u64),
            available: current.is_some(),
            keys_age: keys.filter(|_| fetches > failed_fetches).map(Jwks::age),
            introspections: None,
        }
    }
}

/// Whose quota a caller's proofs are counted against: that of the key they are bound to, or else their own.
fn account(caller: &Principal) -> [u8; 32] {
    identity::token_hash(&identity::account(&caller.issuer, &caller.subject))
}

/// About how many bytes a principal keeps in memory.
fn weigh(principal: &Principal) -> usize {
    let groups: usize = principal
        .groups
        .iter()
        .map(|group| group.len() + size_of::<String>())
        .sum();
    let claims: usize = principal
        .claims
        .iter()
        .map(|(name, value)| name.len() + 64 + weigh_value(value))
        .sum();
    let also: usize = principal.also.iter().map(|name| name.len() + 64).sum();
    let audiences: usize = principal.audiences.iter().map(|name| name.len() + 64).sum();
    let own = size_of::<Principal>() + principal.issuer.len() + principal.subject.len();
    (own + audiences + groups + claims + also + 256).max(LEAST_ENTRY_BYTES)
}

fn weigh_value(value: &serde_json::Value) -> usize {
    use serde_json::Value;
    let inner = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(weigh_value).sum(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| name.len() + 64 + weigh_value(value))
            .sum(),
    };
    size_of::<Value>() + inner
}

#[cfg(test)]
mod tests;
