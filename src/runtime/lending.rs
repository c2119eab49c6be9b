//! What connections lend, kept current: sources that are asked once whoever lends them, and for each connection what it lends.
//!
//! ```text
//! Sources ── a Credential per source (keys), shared by connections and by configurations that follow each other
//!               └─ changes ─> a Keeper per connection: compiles what hides the new values, then lends them
//! ```
//! Promises: a value is lent only once everything that leaves is searched for it; a configuration that changes keeps the sources
//! that did not, with what they have; a source nobody names any more is asked no more, once the last request under it has ended.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use futures::future::{join_all, select_all};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tracing::error;

use super::{clock::Clock, snapshot::SnapshotError};
use crate::{
    config::{self, Config},
    exchange::{Choice, Guard, Hidden, Lender, Lending, Lent},
    keys::{
        credential::{Credential, Timing, Value},
        secret::SecretError,
        source::CredentialSource,
    },
};

/// How long the first answers of sources are waited for.
const FIRST: Duration = Duration::from_secs(6);

/// Every source of credentials that is being kept current.
#[derive(Debug)]
pub struct Sources {
    clock: Clock,
    timing: Timing,
    /// A lock, held for a look-up and for reading a file the first time; never across an await.
    running: Mutex<HashMap<CredentialSource, Weak<Credential>>>,
}

impl Sources {
    /// None yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self::with(clock, Timing::default())
    }

    fn with(clock: Clock, timing: Timing) -> Self {
        Self {
            clock,
            timing,
            running: Mutex::default(),
        }
    }

    /// The credential at `source`: the one that is kept current already, or one that is from now on.
    ///
    /// # Errors
    /// As [`Credential::start`], in whose runtime it must be called.
    pub fn keep(&self, source: &CredentialSource) -> Result<Arc<Credential>, SecretError> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, credential| credential.strong_count() > 0);
        if let Some(credential) = running.get(source).and_then(Weak::upgrade) {
            return Ok(credential);
        }
        let credential = Credential::start(source, self.timing, self.clock.clone())?;
        let credential = Arc::new(credential);
        running.insert(source.clone(), Arc::downgrade(&credential));
        Ok(credential)
    }

    /// Starts what `config` names and waits until each was asked once, at most some seconds: who is asked first finds them there.
    /// What is returned keeps them until the rules do. Faults are told when those are made.
    pub async fn warm(&self, config: &Config) -> Vec<Arc<Credential>> {
        let named = config
            .connections
            .iter()
            .filter_map(|c| c.credential.as_ref());
        let named = named.flat_map(config::Credential::sources);
        let kept: Vec<_> = named.filter_map(|source| self.keep(source).ok()).collect();
        let asked = join_all(kept.iter().map(|credential| credential.fetched(1)));
        let _ = tokio::time::timeout(FIRST, asked).await;
        kept
    }

    /// How those do that are being kept current, by their names. Two that ask for the same in different ways are told of as one.
    #[must_use]
    pub fn states(&self) -> BTreeMap<String, SourceState> {
        let mut states: BTreeMap<String, SourceState> = BTreeMap::new();
        for credential in self.all() {
            let name = credential.name().to_owned();
            let state = states.entry(name).or_insert(SourceState {
                usable: true,
                ..SourceState::default()
            });
            let (fetches, failures) = credential.fetches();
            state.fetches += fetches;
            state.failures += failures;
            state.age = state.age.max(credential.age());
            state.usable &= credential.current().is_some();
        }
        states
    }

    fn all(&self) -> Vec<Arc<Credential>> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.values().filter_map(Weak::upgrade).collect()
    }
}

/// How a source does.
#[derive(Clone, Copy, Debug, Default)]
pub struct SourceState {
    /// Fetches that ended.
    pub fetches: u64,
    /// Those that failed.
    pub failures: u64,
    /// Time since the last good one, or since the start.
    pub age: Duration,
    /// Whether there is a value to be lent.
    pub usable: bool,
}

/// What one connection lends, kept current by a task that ends when this is dropped.
#[derive(Debug)]
struct Keeper {
    lending: Arc<ArcSwap<Lending>>,
    clock: Clock,
    _task: AbortOnDropHandle<()>,
}

impl Lender for Keeper {
    fn current(&self) -> Arc<Lending> {
        let (lending, now) = (self.lending.load_full(), self.clock.monotonic());
        // Looked at here and not left to a timer: an expired one is never lent, however busy the machine is.
        match lending.is_fresh(now) {
            true => lending,
            false => Arc::new(lending.at(now)),
        }
    }
}

/// A credential's format and sources, and what hides it.
struct Recipe {
    connection: String,
    from: config::Credential,
    credentials: Vec<Arc<Credential>>,
    hidden: Hidden,
}

/// Whoever lends what the connection named `connection` does. Compiles detectors; must be called inside a tokio runtime.
///
/// # Errors
/// [`SnapshotError`] where a file or variable cannot be read, or a secret cannot be looked for.
pub(super) fn lender(
    connection: &str,
    from: &config::Credential,
    sources: &Sources,
    hidden: &Hidden,
) -> Result<Arc<dyn Lender>, SnapshotError> {
    let unreadable = |cause| SnapshotError::Secret {
        connection: connection.to_owned(),
        cause,
    };
    let credentials = from.sources().map(|source| sources.keep(source));
    let credentials: Vec<_> = credentials.collect::<Result<_, _>>().map_err(unreadable)?;
    let mut changes: Vec<_> = credentials.iter().map(|c| c.changes()).collect();
    let recipe = Arc::new(Recipe {
        connection: connection.to_owned(),
        from: from.clone(),
        credentials,
        hidden: hidden.clone(),
    });
    let values = seen(&mut changes);
    let guard = Arc::new(Guard::new(secrets(&values), hidden)?);
    let lending = Arc::new(ArcSwap::from_pointee(recipe.lending(&values, guard)));
    let following = follow(recipe, changes, Arc::clone(&lending));
    Ok(Arc::new(Keeper {
        lending,
        clock: sources.clock.clone(),
        _task: AbortOnDropHandle::new(tokio::spawn(following)),
    }))
}

/// The values as they are, marked as seen.
fn seen(changes: &mut [watch::Receiver<Option<Arc<Value>>>]) -> Vec<Option<Arc<Value>>> {
    let values = changes.iter_mut();
    values.map(|of| of.borrow_and_update().clone()).collect()
}

fn secrets(values: &[Option<Arc<Value>>]) -> Vec<SecretString> {
    let mut secrets: Vec<SecretString> = Vec::new();
    for value in values.iter().flatten() {
        let known = |other: &SecretString| other.expose_secret() == value.secret.expose_secret();
        if !secrets.iter().any(known) {
            secrets.push(value.secret.clone());
        }
    }
    secrets
}

impl Recipe {
    fn lending(&self, values: &[Option<Arc<Value>>], guard: Arc<Guard>) -> Lending {
        let config::Credential {
            header,
            prefix,
            suffix,
            ..
        } = &self.from;
        let lent = |value: &Arc<Value>| {
            let whole = format!("{prefix}{}{suffix}", value.secret.expose_secret());
            Arc::new(Lent {
                value: SecretString::from(whole),
                until: value.until,
            })
        };
        let own = std::iter::once(&[][..]);
        let models = self.from.models.iter().map(|for_some| &for_some.models[..]);
        let choices = models.chain(own).zip(&self.credentials).zip(values);
        let choice =
            |((models, credential), value): ((&[_], &Arc<Credential>), &Option<_>)| Choice {
                models: models.to_vec(),
                name: credential.name().to_owned(),
                lent: value.as_ref().map(lent),
            };
        Lending {
            header: header.clone(),
            choices: choices.map(choice).collect(),
            guard,
        }
    }
}

/// The task: lends what is new once it is hidden.
async fn follow(
    recipe: Arc<Recipe>,
    mut changes: Vec<watch::Receiver<Option<Arc<Value>>>>,
    lending: Arc<ArcSwap<Lending>>,
) {
    loop {
        let changed = changes.iter_mut().map(|of| Box::pin(of.changed()));
        // The senders live in the credentials, which the recipe holds.
        if select_all(changed).await.0.is_err() {
            return;
        }
        let values = seen(&mut changes);
        let before = lending.load_full();
        let guard = guard(&recipe, secrets(&values), &before.guard).await;
        let mut fresh = recipe.lending(&values, guard);
        let guard = fresh.guard.clone();
        let choices = fresh.choices.iter_mut().zip(&before.choices);
        for ((choice, before), value) in choices.zip(&values) {
            let hidden = |value: &Arc<Value>| guard.guards(&value.secret);
            if !value.as_ref().is_none_or(hidden) {
                // What was lent before goes on until it expires; the next change is another try.
                choice.lent.clone_from(&before.lent);
            }
        }
        lending.store(Arc::new(fresh));
    }
}

/// What guards `secrets`: the one there is where it does, or where no other can be made.
async fn guard(recipe: &Arc<Recipe>, secrets: Vec<SecretString>, known: &Arc<Guard>) -> Arc<Guard> {
    if known.guards_exactly(&secrets) {
        return known.clone();
    }
    let hidden = Arc::clone(recipe);
    let compiling = tokio::task::spawn_blocking(move || Guard::new(secrets, &hidden.hidden));
    let why = match compiling.await {
        Ok(Ok(guard)) => return Arc::new(guard),
        Ok(Err(why)) => why.to_string(),
        Err(_) => "given up".to_owned(),
    };
    let connection = &recipe.connection;
    error!(
        connection,
        why, "a new credential cannot be looked for in answers, so it is not lent"
    );
    known.clone()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use jiff::Timestamp;
    use tokio::net::TcpListener;

    use super::*;
    use crate::{exchange::Rules, runtime::snapshot};

    /// Two connections; `%` is what each is lent.
    const CONFIG: &str = r#"
listen: { ext_proc: "unix:/tmp/unused.sock", http: "127.0.0.1:0" }
identity: { issuers: [{ issuer: "https://idp.example", audience: a, algorithms: [RS256] }] }
connections:
  - { name: one, match: { path_prefix: /one }, dialect: openai, endpoints: [chat_completions], policies: [all],
      lend_to: { routes: [r] }, credential: { header: authorization, % } }
  - { name: two, match: { path_prefix: /two }, dialect: openai, endpoints: [chat_completions], policies: [all],
      lend_to: { routes: [r] }, credential: { header: x-api-key, % } }
policies: [{ name: all, when: "true", then: allow }]
audit: { dir: /tmp/unused }
"#;

    fn config(credential: &str) -> Config {
        let text = CONFIG.replace('%', credential);
        config::with_builtins(|known| Config::parse(&text, "test.yaml", known))
            .unwrap_or_else(|faults| panic!("{faults}"))
    }

    fn values(rules: &Rules) -> Vec<Option<String>> {
        let lendings = rules.connections.iter().map(|one| one.lender.current());
        let choices = lendings.flat_map(|lending| lending.choices.clone());
        let value = |choice: Choice| choice.lent.map(|l| l.value.expose_secret().to_owned());
        choices.map(value).collect()
    }

    /// Waits until the rules lend exactly these.
    async fn until(rules: &Rules, expected: &[Option<&str>]) {
        let there = async {
            while values(rules)
                .iter()
                .map(Option::as_deref)
                .ne(expected.iter().copied())
            {
                tokio::task::yield_now().await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), there).await;
        assert!(waited.is_ok(), "{:?} and not {expected:?}", values(rules));
    }

    #[tokio::test]
    async fn what_is_lent_follows_its_file_and_is_never_lent_unguarded() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name).display().to_string();
        let (own, other) = (file("own"), file("other"));
        std::fs::write(&own, "sk-own-1").unwrap();
        std::fs::write(&other, "sk-other-1").unwrap();
        let (clock, hand) = Clock::manual(Timestamp::UNIX_EPOCH);
        let sources = Sources::new(clock);
        let text = format!(r#"file: {own}, models: [{{ models: ["o3*"], file: {other} }}]"#);
        let rules = snapshot::rules(&config(&text), None, &sources).unwrap();
        let lent = [
            "Bearer sk-other-1",
            "Bearer sk-own-1",
            "sk-other-1",
            "sk-own-1",
        ];
        assert_eq!(values(&rules), lent.map(|value| Some(value.to_owned())));
        assert_eq!(sources.all().len(), 2, "one source however many lend it");

        std::fs::write(&own, "sk-own-2").unwrap();
        hand.advance(Duration::from_secs(1));
        let all = [
            "Bearer sk-other-1",
            "Bearer sk-own-2",
            "sk-other-1",
            "sk-own-2",
        ]
        .map(Some);
        until(&rules, &all).await;
        for connection in &rules.connections {
            let guard = connection.lender.current().guard.clone();
            let secrets = ["sk-other-1", "sk-own-2"].map(SecretString::from);
            assert!(guard.guards_exactly(&secrets));
        }

        // One that cannot be looked for is not lent; the others go on following theirs.
        std::fs::write(&own, "x".repeat(20_000)).unwrap();
        hand.advance(Duration::from_secs(1));
        let kept = sources.keep(&CredentialSource::Plain(
            crate::keys::secret::SecretSource::File(own.into()),
        ));
        let kept = kept.unwrap();
        while kept.current().unwrap().secret.expose_secret().len() < 20_000 {
            tokio::task::yield_now().await;
        }
        std::fs::write(&other, "sk-other-3").unwrap();
        hand.advance(Duration::from_secs(1));
        let expected = [
            "Bearer sk-other-1",
            "Bearer sk-own-2",
            "sk-other-1",
            "sk-own-2",
        ]
        .map(Some);
        assert!(values(&rules).iter().map(Option::as_deref).eq(expected));
    }

    /// A token endpoint whose tokens are numbered, and how often it was asked.
    async fn token_endpoint() -> (String, watch::Receiver<u64>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        let (asked, count) = watch::channel(0u64);
        let app = axum::Router::new().fallback(move || {
            asked.send_modify(|asked| *asked += 1);
            let token = format!("sk-token-{}", *asked.borrow());
            std::future::ready(format!(
                r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":600}}"#
            ))
        });
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        (url, count)
    }

    #[tokio::test]
    async fn a_configuration_that_changes_keeps_the_sources_that_did_not() {
        let (url, asked) = token_endpoint().await;
        let source = format!(
            "oauth2: {{ token_url: \"{url}\", client_id: c, client_secret: {{ env: PATH }} }}"
        );
        let (clock, hand) = Clock::manual(Timestamp::UNIX_EPOCH);
        let sources = Sources::new(clock);
        let before = config(&source);
        let kept = sources.warm(&before).await;
        let first = snapshot::rules(&before, None, &sources).unwrap();
        drop(kept);
        // There for the very first request, for both connections, by one fetch.
        let token_1 = [Some("Bearer sk-token-1"), Some("sk-token-1")];
        assert!(values(&first).iter().map(Option::as_deref).eq(token_1));
        assert_eq!(*asked.borrow(), 1);

        let mut after = config(&source);
        after.connections.truncate(1);
        let second = snapshot::rules(&after, Some(&first), &sources).unwrap();
        drop(first);
        assert_eq!(values(&second), [Some("Bearer sk-token-1".to_owned())]);
        assert_eq!((*asked.borrow(), sources.all().len()), (1, 1));

        // It goes on being kept current.
        hand.advance(Duration::from_secs(540));
        until(&second, &[Some("Bearer sk-token-2")]).await;
        // Another source is another credential; the old one ends with the last who lent it.
        let other = config("env: PATH");
        let third = snapshot::rules(&other, Some(&second), &sources).unwrap();
        assert_eq!(sources.all().len(), 2);
        drop(second);
        let ended = async {
            while sources.all().len() > 1 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), ended)
            .await
            .unwrap();
        drop(third);
    }

    #[tokio::test]
    async fn what_has_expired_is_not_lent_whether_its_task_came_to_see_to_that_or_not() {
        let (clock, hand) = Clock::manual(Timestamp::UNIX_EPOCH);
        let sources = Sources::new(clock.clone());
        let rules = snapshot::rules(&config("env: PATH"), None, &sources).unwrap();
        let mut lending = Lending::clone(&rules.connections[0].lender.current());
        lending.choices[0].lent = Some(Arc::new(Lent {
            value: SecretString::from("v"),
            until: Some(Duration::from_secs(5)),
        }));
        let keeper = Keeper {
            lending: Arc::new(ArcSwap::from_pointee(lending)),
            clock,
            _task: AbortOnDropHandle::new(tokio::spawn(std::future::pending())),
        };
        hand.advance(Duration::from_millis(4999));
        let held = keeper.current();
        assert!(held.choices[0].lent.is_some());
        hand.advance(Duration::from_millis(1));
        assert!(keeper.current().choices[0].lent.is_none());
        assert!(held.choices[0].lent.is_some(), "who has it keeps it");
    }
}
