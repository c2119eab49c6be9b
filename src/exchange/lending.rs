//! What a connection lends its upstream: which credential to which model, and how every answer is kept from repeating it.
//!
//! Promises: an exchange takes one [`Lending`] when it is about to be put on record, after the approval where one is needed, and
//! keeps it to its end. So what is lent and what the answer, its head, the record and the sealed original are searched for are
//! the same values, whatever is fetched meanwhile. Every credential of the connection is looked for, whichever was lent.
//! Never: lends one that has expired ([`Lender::current`] leaves it out), or shows one in `Debug`.
//! Can miss: a value that was current before the exchange began and is not any more.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};

use crate::{
    detect::{Catalog, DetectorError, Entity},
    mask::{Operator, Plan},
    policy::ModelPattern,
};

/// Whoever keeps a connection's credentials current.
pub trait Lender: fmt::Debug + Send + Sync {
    /// What may be lent now. Cheap, and never waits.
    fn current(&self) -> Arc<Lending>;
}

/// What a connection may lend at one moment.
#[derive(Clone, Debug)]
pub struct Lending {
    /// The request header it is lent in, lower case.
    pub header: String,
    /// Which credential for which model: the first that matches.
    pub choices: Vec<Choice>,
    /// What hides all of them.
    pub guard: Arc<Guard>,
}

/// A credential, and the models it is for.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The models; all where there are none.
    pub models: Vec<ModelPattern>,
    /// Where it comes from: `file:…`, `env:…`, `vault:…`, `oauth2:…`. Approvals are given for this name, not for the value.
    pub name: String,
    /// What is lent; `None` while it cannot be had.
    pub lent: Option<Arc<Lent>>,
}

/// A credential's value.
#[derive(Debug)]
pub struct Lent {
    /// The whole header value, secret included.
    pub value: SecretString,
    /// Until when it may be lent, by the clock of whoever keeps it; always where it is `None`.
    pub until: Option<Duration>,
}

/// What finds a connection's credentials wherever they turn up.
pub struct Guard {
    /// The bare secrets, the longest first.
    secrets: Vec<SecretString>,
    /// Every detector, behind one for each secret.
    pub(super) catalog: Arc<Catalog>,
    /// Looks for the secrets and nothing else; `None` where there are none.
    pub(super) plan: Option<Arc<Plan>>,
    record_plan: Arc<Plan>,
}

/// Names nothing: what it looks for is secret.
impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("secrets", &self.secrets.len())
            .finish_non_exhaustive()
    }
}

/// What records never show besides the secrets.
#[derive(Clone, Debug)]
pub struct Hidden {
    /// Every detector.
    pub catalog: Arc<Catalog>,
    /// Entities that are looked for.
    pub looked_for: BTreeSet<Entity>,
    /// Entities that stand in fields of their own.
    pub named: BTreeMap<Entity, Operator>,
}

impl Guard {
    /// A guard of `secrets` and of what is `hidden` anyway. Compiles detectors: takes milliseconds, and longer the longer the
    /// secrets are.
    ///
    /// # Errors
    /// [`DetectorError`] where a secret is empty or longer than 16 KiB, or the detectors do not compile together.
    pub fn new(mut secrets: Vec<SecretString>, hidden: &Hidden) -> Result<Self, DetectorError> {
        // Where one begins another, the longer one is found.
        secrets.sort_by_key(|secret| Reverse(secret.expose_secret().len()));
        let (mut catalog, mut plan) = (hidden.catalog.clone(), None);
        if !secrets.is_empty() {
            let exposed = secrets.iter().map(ExposeSecret::expose_secret);
            catalog = Arc::new(catalog.with_credentials(exposed)?);
            let scanner = catalog.scanner(&BTreeSet::new())?;
            plan = Some(Arc::new(Plan::new(scanner, &BTreeMap::new())));
        }
        let scanner = catalog.scanner(&hidden.looked_for)?;
        Ok(Self {
            secrets,
            catalog,
            plan,
            record_plan: Arc::new(Plan::new(scanner, &hidden.named)),
        })
    }

    /// Masks what records may not show. A caller who knows a lent secret may send it: it is not put on record either.
    #[must_use]
    pub fn record_plan(&self) -> &Arc<Plan> {
        &self.record_plan
    }

    /// Whether it guards this one.
    #[must_use]
    pub fn guards(&self, secret: &SecretString) -> bool {
        self.exposed().any(|known| known == secret.expose_secret())
    }

    /// Whether it guards these and no others.
    #[must_use]
    pub fn guards_exactly(&self, secrets: &[SecretString]) -> bool {
        let mine: BTreeSet<&str> = self.exposed().collect();
        mine == secrets.iter().map(ExposeSecret::expose_secret).collect()
    }

    /// Whether `value` holds any of the secrets.
    pub(super) fn finds(&self, value: &[u8]) -> bool {
        self.exposed()
            .any(|secret| memchr::memmem::find(value, secret.as_bytes()).is_some())
    }

    /// The secrets, the longest first.
    pub(super) fn exposed(&self) -> impl Iterator<Item = &str> {
        self.secrets.iter().map(ExposeSecret::expose_secret)
    }
}

impl Lending {
    /// Nothing, for a connection without a credential.
    #[must_use]
    pub fn nothing(guard: Arc<Guard>) -> Self {
        Self {
            header: String::new(),
            choices: Vec::new(),
            guard,
        }
    }

    /// The header a credential is lent in, where there is one.
    pub(super) fn header(&self) -> Option<&str> {
        (!self.choices.is_empty()).then_some(self.header.as_str())
    }

    /// The credential for `model`; `None` where the connection lends none.
    pub(super) fn choice(&self, model: &str) -> Option<&Choice> {
        let is_for = |choice: &&Choice| {
            let mut models = choice.models.iter();
            choice.models.is_empty() || models.any(|pattern| pattern.matches(model))
        };
        self.choices.iter().find(is_for)
    }

    /// Whether nothing in it has expired at `now`, by the clock of whoever keeps it.
    #[must_use]
    pub fn is_fresh(&self, now: Duration) -> bool {
        self.choices.iter().all(|choice| !choice.has_expired(now))
    }

    /// The same without what has expired at `now`. That is looked for all the same.
    #[must_use]
    pub fn at(&self, now: Duration) -> Self {
        let mut lending = self.clone();
        for choice in &mut lending.choices {
            if choice.has_expired(now) {
                choice.lent = None;
            }
        }
        lending
    }
}

impl Choice {
    fn has_expired(&self, now: Duration) -> bool {
        let until = self.lent.as_ref().and_then(|lent| lent.until);
        until.is_some_and(|until| until <= now)
    }
}

/// What never changes keeps itself current.
impl Lender for Lending {
    fn current(&self) -> Arc<Lending> {
        Arc::new(self.clone())
    }
}
