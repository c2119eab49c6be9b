//! The rules one exchange runs under from its first byte to its last: a snapshot that never changes beneath it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use jiff::{Timestamp, tz::TimeZone};

use super::{
    budget::{Admission, Budget},
    headers::Headers,
    lending::{Guard, Lender},
    route::Route,
};
use crate::{
    audit::{Durability, seal::AuditorKey},
    detect::{Catalog, DetectorError, Scanner},
    dialect::{Selection, Spoken},
    identity::{self, Principal, Scheme, Token, TokenError},
    mask::{Keys, MaskingKey, Owed, Plan, Scope, Vault},
    policy::{Chain, LocalTime, Risk},
};

/// Headers in which SDKs carry a caller's credential. All are removed before forwarding, whichever the token came in.
pub const CREDENTIAL_HEADERS: [&str; 4] =
    ["authorization", "x-api-key", "api-key", "x-goog-api-key"];

/// How names of WebSocket protocols begin in which SDKs carry a caller's credential, as browsers can set no header there; removed before
/// forwarding.
pub(super) const CREDENTIAL_PROTOCOLS: [&str; 1] = ["openai-insecure-api-key."];

/// Query parameters that carry a caller's credential; removed before forwarding.
/// `access_token` is RFC 6750's (section 2.3).
pub(super) const CREDENTIAL_PARAMETERS: [&str; 4] = ["key", "api_key", "api-key", "access_token"];

/// The response header that carries the session id.
pub const SESSION_HEADER: &str = "countersign-session";

/// Everything decided before the request arrived.
#[derive(Debug)]
pub struct Rules {
    /// Connections in the order they are matched.
    pub connections: Vec<Arc<Connection>>,
    /// SHA-256 of the configuration file, hex: recorded with every decision.
    pub digest: String,
    /// Bounds.
    pub limits: Limits,
    /// The byte budget all exchanges share.
    pub budget: Budget,
    /// What bodies may take together of which it is not known yet who sends them. It is a part of [`Rules::budget`] and counted there
    /// too, so that strangers leave room for callers.
    pub strangers: Budget,
    /// The places all exchanges share.
    pub admission: Admission,
    /// How risky a request is.
    pub risk: Arc<Risk>,
    /// Where it is what time, for conditions.
    pub time_zone: TimeZone,
    /// Bounds of waiting for approvals.
    pub approvals: Approvals,
}

/// Bounds of waiting for approvals, and where a caller finds one again.
#[derive(Clone, Debug)]
pub struct Approvals {
    /// Places of requests that are held; who finds none gets a ticket.
    pub holds: Admission,
    /// The largest body that is held, in bytes; who sends a larger one gets a ticket.
    pub largest_held: usize,
    /// What all that are held may take together; who would pass it gets a ticket. It is a part of [`Rules::budget`] and counted there
    /// too, so that those who wait leave room for those who need not.
    pub held_bytes: Budget,
    /// Approvals one caller may have pending.
    pub most_pending: u32,
    /// What stands before the path of our API; empty where that is not known.
    pub public_url: String,
}

/// Bounds of one exchange, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest request body.
    pub request_body: usize,
    /// Longest answer that is one document; also the most one stream may hold back.
    pub response_body: usize,
    /// The most that the bodies of one principal may take of the byte budget.
    pub memory_per_principal: usize,
}

/// One upstream as callers see it: where it is, who may use it and how it is spoken to.
#[derive(Debug)]
pub struct Connection {
    /// Name in the configuration and in records.
    pub name: String,
    /// Where it is and where its credential may go.
    pub route: Route,
    /// The header the caller's token is read from.
    pub token_header: &'static str,
    /// Whether a certificate alone may say who calls, where no token came.
    pub certificate_alone: bool,
    /// The wire format.
    pub dialect: Spoken,
    /// What is lent to the upstream, and to which model.
    pub lender: Arc<dyn Lender>,
    /// Who may do what.
    pub chain: Chain,
    /// Whether records show the masked text.
    pub record_text: bool,
    /// Whom originals are sealed to; nobody where it is empty.
    pub auditors: Arc<[AuditorKey]>,
    /// What an acknowledged record has survived.
    pub durability: Durability,
    /// What becomes of prompts with parts that no detector can look into.
    pub unscanned: Unscanned,
    /// The same of parts that someone has signed or encrypted.
    pub signed: Unscanned,
    /// Which fields are values of which entity, and which are looked into.
    pub fields: Arc<Selection>,
    /// Every detector there is.
    pub catalog: Arc<Catalog>,
    /// Finds everything any detector knows: what policy is told of, and what records never show.
    pub everything: Arc<Scanner>,
    /// What keyed operators work with; `None` where no policy uses one.
    pub masking: Option<Arc<Masking>>,
    /// What requests have owed, made ready.
    pub plans: Plans,
}

/// The plans that were last used for a connection, for the next request that owes the same: a few at most.
#[derive(Default)]
pub struct Plans(Mutex<Vec<Made>>);

/// A plan without what is a request's own, and what it was made of.
struct Made {
    // Not kept alive by this: it may know a credential that has since been replaced.
    catalog: Weak<Catalog>,
    owed: Owed,
    plan: Arc<Plan>,
}

/// Most plans that are kept.
const PLANS: usize = 8;

impl std::fmt::Debug for Plans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plans").finish_non_exhaustive()
    }
}

impl Plans {
    fn find_or_make<E>(
        &self,
        catalog: &Arc<Catalog>,
        owed: &Owed,
        make: impl FnOnce() -> Result<Plan, E>,
    ) -> Result<Arc<Plan>, E> {
        if let Some(plan) = find(&mut self.kept(), catalog, owed) {
            return Ok(plan);
        }
        let plan = Arc::new(make()?);
        let mut kept = self.kept();
        // Another may have made it meanwhile.
        if let Some(plan) = find(&mut kept, catalog, owed) {
            return Ok(plan);
        }
        kept.retain(|made| made.catalog.strong_count() > 0);
        kept.truncate(PLANS - 1);
        let made = Made {
            catalog: Arc::downgrade(catalog),
            owed: owed.clone(),
            plan: plan.clone(),
        };
        kept.insert(0, made);
        Ok(plan)
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Made>> {
        // Nothing here can leave the list half changed, so a poisoned lock is as good as another.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The plan for `owed`, which then is the last to go.
fn find(kept: &mut [Made], catalog: &Arc<Catalog>, owed: &Owed) -> Option<Arc<Plan>> {
    let is_it = |made: &Made| {
        std::ptr::eq(made.catalog.as_ptr(), Arc::as_ptr(catalog)) && made.owed == *owed
    };
    let at = kept.iter().position(is_it)?;
    kept[..=at].rotate_right(1);
    kept.first().map(|made| made.plan.clone())
}

/// What becomes of prompts with parts that no detector can look into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unscanned {
    /// They are refused.
    Refuse,
    /// They pass as they are.
    Allow,
    /// The parts are taken out; what cannot be taken out is refused.
    Strip,
}

/// The key of the operators that need one.
#[derive(Debug)]
pub struct Masking {
    /// The key.
    pub key: MaskingKey,
    /// Whether each principal has stand-ins of their own.
    pub per_principal: bool,
}

/// What the operators of one request work with.
#[derive(Default)]
pub(super) struct Secrets {
    keys: Option<Arc<Keys>>,
    /// Filled as the prompt is masked, emptied into the answer.
    pub(super) vault: Option<Arc<Vault>>,
}

impl Rules {
    /// The time of day at `now`, as conditions see it.
    pub(crate) fn local_time(&self, now: Timestamp) -> LocalTime {
        self.time_zone.to_datetime(now).into()
    }

    /// The connection for `host` and `path`: the first that matches, in the configuration's order.
    #[must_use]
    pub fn connection(&self, host: &str, path: &str) -> Option<&Arc<Connection>> {
        self.connections
            .iter()
            .find(|connection| connection.route.matches(host, path))
    }
}

impl Connection {
    /// Whether records commit to sealed originals.
    pub(super) fn seals(&self) -> bool {
        !self.auditors.is_empty()
    }

    /// What the record holds of the text, as it says so.
    pub(super) fn payload(&self) -> &'static str {
        match (self.record_text, self.seals()) {
            (true, false) => "masked",
            (true, true) => "masked+sealed",
            (false, true) => "sealed",
            (false, false) => "omit",
        }
    }

    /// What keyed operators work with for the request `body` of `principal`.
    pub(super) fn secrets(&self, principal: &Principal, body: &[u8]) -> Secrets {
        let Some(masking) = &self.masking else {
            return Secrets::default();
        };
        let scope = if masking.per_principal {
            Scope::Principal {
                issuer: &principal.issuer,
                subject: &principal.subject,
            }
        } else {
            Scope::Deployment
        };
        let keys = masking.key.keys(scope).map(Arc::new);
        let vault = keys.as_ref().map(|keys| Arc::new(Vault::new(keys, body)));
        Secrets { keys, vault }
    }

    /// A plan for a prompt under `obligations`; `None` where they oblige to nothing.
    ///
    /// # Errors
    /// [`DetectorError`] where the detectors do not compile together.
    pub(super) fn request_plan(
        &self,
        obligations: &Owed,
        secrets: &Secrets,
    ) -> Result<Option<Arc<Plan>>, DetectorError> {
        if obligations.is_empty() {
            return Ok(None);
        }
        self.plan(&self.catalog, obligations, secrets).map(Some)
    }

    /// A plan for an answer under `obligations`: what `guard` guards is masked in it whatever they say.
    ///
    /// # Errors
    /// [`DetectorError`] where the detectors do not compile together.
    pub(super) fn response_plan(
        &self,
        obligations: &Owed,
        secrets: &Secrets,
        guard: &Guard,
    ) -> Result<Option<Arc<Plan>>, DetectorError> {
        if guard.plan.is_none() {
            return self.request_plan(obligations, secrets);
        }
        self.plan(&guard.catalog, obligations, secrets).map(Some)
    }

    fn plan(
        &self,
        catalog: &Arc<Catalog>,
        obligations: &Owed,
        secrets: &Secrets,
    ) -> Result<Arc<Plan>, DetectorError> {
        let plan = self.plans.find_or_make(catalog, obligations, || {
            let looked_for = obligations.keys();
            let looked_for = looked_for.filter(|entity| !self.fields.names(entity));
            let scanner = catalog.scanner(&looked_for.cloned().collect())?;
            Ok(Plan::new(scanner, obligations))
        })?;
        if secrets.keys.is_none() && secrets.vault.is_none() {
            return Ok(plan);
        }
        // What is the request's own is in no plan that is kept.
        let mut plan = Plan::clone(&plan);
        if let Some(keys) = &secrets.keys {
            plan = plan.with_keys(keys.clone());
        }
        if let Some(vault) = &secrets.vault {
            plan = plan.with_vault(vault.clone());
        }
        Ok(Arc::new(plan))
    }
}

/// The token a request carries in `header`.
///
/// # Errors
/// [`TokenError`] where there is none, or several, or something else.
pub(super) fn token(headers: &Headers, header: &str) -> Result<Token, TokenError> {
    let mut values = headers
        .iter()
        .filter(|(name, _)| *name == header)
        .map(|(_, value)| value);
    if header == "authorization" {
        return identity::from_authorization(values);
    }
    let value = values.next().ok_or(TokenError::Missing)?;
    if values.next().is_some() {
        return Err(TokenError::Repeated);
    }
    let text = std::str::from_utf8(value)
        .map_err(|_| TokenError::NotBearer)?
        .trim();
    if text.is_empty() {
        Err(TokenError::Missing)
    } else {
        Ok(Token {
            scheme: Scheme::Bare,
            text: text.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{detect::Entity, mask::Operator};

    fn owed(operator: Operator) -> Owed {
        let entity: Entity = "US_SSN".into();
        Arc::new(BTreeMap::from([(entity, operator)]))
    }

    #[test]
    fn plans_are_kept_for_what_is_owed_under_a_catalog_that_is_there() {
        let plans = Plans::default();
        let made = |catalog: &Arc<Catalog>, owed: &Owed| {
            let mut made = false;
            let plan = plans.find_or_make(catalog, owed, || {
                made = true;
                let scanner = catalog.scanner(&owed.keys().cloned().collect())?;
                Ok::<_, DetectorError>(Plan::new(scanner, owed))
            });
            (made, Arc::downgrade(&plan.unwrap()))
        };
        let rotated = |token| {
            Arc::new(
                Catalog::builtin()
                    .unwrap()
                    .with_credentials([token])
                    .unwrap(),
            )
        };
        let (replace, redact) = (owed(Operator::Replace), owed(Operator::Redact));
        let old = rotated("an old credential");
        let (new, of_old) = made(&old, &replace);
        assert!(new);
        let (again, same) = made(&old, &owed(Operator::Replace));
        assert!(!again && same.ptr_eq(&of_old));
        assert!(made(&old, &redact).0, "another operator is another plan");
        let fresh = rotated("a new credential");
        assert!(made(&fresh, &replace).0, "another catalog is another plan");
        // The credential was replaced: with the next plan what knows it is gone.
        drop(old);
        assert!(made(&fresh, &redact).0);
        assert!(of_old.upgrade().is_none());
        assert!(!made(&fresh, &replace).0 && !made(&fresh, &redact).0);
        // A few at most.
        let more: Vec<_> = (0..2 * PLANS).map(|_| rotated("one more")).collect();
        for catalog in &more {
            assert!(made(catalog, &replace).0);
        }
        assert_eq!(plans.kept().len(), PLANS);
    }
}
