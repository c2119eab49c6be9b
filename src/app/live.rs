//! What is current right now, as the servers see it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use aws_lc_rs::rand;
use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::{
    api::Desk,
    approvals, grants,
    readings::{ControlReading, Readings},
    tidings::Tidings,
};
use crate::{
    approval::{Approval, Asked, Claimed, Id, Use},
    audit::{
        Durability,
        record::{ConfigLoaded, Entry, Event, Unauthenticated},
        seal::{Frame, Seed},
    },
    config::Config,
    exchange::{Held, NotAsked, NotClaimed, NotUsed, Rules, Summary},
    grant::{self, OAuthError},
    grpc::Backing,
    http::Probe,
    identity::{Presented, Principal, TokenError},
    runtime::{
        authenticator::Authenticator,
        clock::Clock,
        control::{Control, Happened},
        grants::Grants,
        ledger::{Ledger, LedgerError},
        lending::Sources,
        seals::Seals,
        snapshot::{self, SnapshotError},
    },
    telemetry::{Metrics, Traces},
};

/// How often refusals of strangers are put on record, and for how long they are counted together.
const STRANGERS_EVERY: Duration = Duration::from_secs(10);

/// Every live handle.
#[derive(Debug)]
pub(super) struct Live {
    rules: ArcSwap<Rules>,
    authenticator: ArcSwap<Authenticator>,
    desk: ArcSwap<Desk>,
    /// Of the credentials that are lent.
    sources: Sources,
    ledger: Ledger,
    /// `None` where nothing was to be sealed when the program started.
    seals: Option<Seals>,
    /// `None` where nothing could need an approval when the program started.
    control: Option<Control>,
    tidings: Tidings,
    /// No new requests are taken.
    draining: CancellationToken,
    metrics: Metrics,
    /// `None` where none are sent.
    traces: Option<Traces>,
    clock: Clock,
    /// Refusals before authentication, by code. Bounded: codes are the program's own.
    strangers: Mutex<BTreeMap<&'static str, u32>>,
    ready: AtomicBool,
    itself: Weak<Self>,
}

/// A configuration that nothing keeps from being put into force any more.
#[derive(Debug)]
pub(super) struct Prepared {
    rules: Arc<Rules>,
    /// `None` keeps the one there is.
    authenticator: Option<Arc<Authenticator>>,
    desk: Arc<Desk>,
}

impl Live {
    pub(super) async fn new(
        config: &Config,
        ledger: Ledger,
        seals: Option<Seals>,
        control: Option<Control>,
        tidings: Tidings,
        traces: Option<Traces>,
    ) -> Result<Arc<Self>, SnapshotError> {
        let clock = Clock::system();
        let sources = Sources::new(clock.clone());
        let _kept = sources.warm(config).await;
        let rules = ArcSwap::from_pointee(snapshot::rules(config, None, &sources)?);
        let grants = snapshot::grants(config, control.as_ref())?;
        let authenticator = ArcSwap::from_pointee(snapshot::authenticator(config, grants)?);
        Ok(Arc::new_cyclic(|itself| Self {
            rules,
            authenticator,
            desk: ArcSwap::from_pointee(Desk::of(config)),
            sources,
            ledger,
            seals,
            control,
            tidings,
            draining: CancellationToken::new(),
            metrics: Metrics::default(),
            traces,
            clock,
            strangers: Mutex::default(),
            ready: AtomicBool::new(false),
            itself: itself.clone(),
        }))
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub(super) fn control(&self) -> Option<&Control> {
        self.control.as_ref()
    }

    /// Changed certificates of a listener were read, and are in force or not.
    pub(super) fn certificates_read(&self, listener: &'static str, accepted: bool) {
        self.metrics.certificates_read(listener, accepted);
    }

    /// Until when the certificate of a listener is good.
    pub(super) fn certificate_until(&self, listener: &'static str, until: Timestamp) {
        self.metrics.certificate_until(listener, until.as_second());
    }

    /// So many connections of a listener were refused in their handshake.
    pub(super) fn handshakes_refused(&self, listener: &'static str, count: u64) {
        self.metrics.handshakes_refused(listener, count);
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn rules_in_force(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// Checks a caller as they count now.
    pub(super) async fn check(&self, presented: Presented) -> Result<Arc<Principal>, TokenError> {
        Backing::authenticate(self, presented).await
    }

    /// Whose token is exchanged, and the key that their grant is to be bound to.
    pub(super) async fn exchanged(
        &self,
        presented: &Presented,
    ) -> Result<(Arc<Principal>, Option<[u8; 32]>), TokenError> {
        let authenticator = self.authenticator.load_full();
        authenticator.exchanged(presented, self.clock.now()).await
    }

    /// The key that a proof without a token shows its sender to have.
    pub(super) fn possessed_key(
        &self,
        caller: &Principal,
        presented: &Presented,
    ) -> Result<[u8; 32], TokenError> {
        let authenticator = self.authenticator.load();
        authenticator.possessed_key(caller, presented, self.clock.now())
    }

    /// What verifies tokens and assertions now.
    #[cfg(feature = "saml")]
    pub(super) fn authenticator(&self) -> Arc<Authenticator> {
        self.authenticator.load_full()
    }

    /// Whether assertions are taken.
    pub(super) fn takes_assertions(&self) -> bool {
        #[cfg(feature = "saml")]
        return !self.authenticator.load().assertions().is_empty();
        #[cfg(not(feature = "saml"))]
        false
    }

    /// What grants are made of, and by which rules; `None` where none are made.
    pub(super) fn grants(&self) -> Option<(Arc<Grants>, Arc<grant::Rules>)> {
        let grants = self.authenticator.load().grants().cloned()?;
        Some((grants, self.desk().grants.clone()?))
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Itself, as long as it is there to be shared.
    pub(super) fn shared(&self) -> Option<Arc<Self>> {
        self.itself.upgrade()
    }

    pub(super) fn desk(&self) -> Arc<Desk> {
        self.desk.load_full()
    }

    /// Something happened to an approval, and is on record.
    pub(super) fn tell(&self, happened: &Happened) {
        self.tidings.happened(happened);
        let Some(approval) = &happened.approval else {
            return;
        };
        info!(
            approval = %approval.asked.id,
            session = approval.asked.session,
            state = approval.state.name(),
            "approval"
        );
    }

    /// The token endpoint answered.
    pub(super) fn granted<T>(&self, answer: &Result<T, OAuthError>) {
        self.metrics.granted(match answer {
            Ok(_) => "issued",
            Err(error) => error.code(),
        });
    }

    /// What metrics tell of the live handles now.
    fn read(&self) -> Readings<'_> {
        let (authenticator, rules) = (self.authenticator.load(), self.rules.load());
        let budget = &rules.budget;
        Readings {
            metrics: &self.metrics,
            ready: self.troubles().is_empty(),
            now: self.clock.monotonic(),
            ledger: Some(self.ledger.health()),
            control: self.control.as_ref().map(|control| ControlReading {
                usable: control.usable().is_ok(),
                pending: control.pending(),
                unrecorded: control.unrecorded(),
                forged: control.forged().count,
            }),
            sealed: self.seals.as_ref().map(Seals::bytes),
            bodies: (budget.used(), budget.cap()),
            sources: self.sources.states(),
            identity: authenticator.metrics(),
            #[cfg(feature = "saml")]
            saml: {
                let assertions = authenticator.assertions();
                (assertions.metrics(), assertions.refused_strangers())
            },
            traces: self.traces.as_ref().map(Traces::counts),
        }
    }

    /// Sends the traces that wait, within so long. Blocks.
    pub(super) fn end_traces(&self, within: Duration) {
        if let Some(traces) = &self.traces {
            traces.end(within);
        }
    }

    pub(super) fn ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    pub(super) fn tidings(&self) -> &Tidings {
        &self.tidings
    }

    /// Resolves once no new requests are taken: nobody is held any longer then.
    pub(super) fn drains(&self) -> impl Future<Output = ()> + use<> {
        self.draining.clone().cancelled_owned()
    }

    pub(super) fn draining(&self) {
        self.draining.cancel();
        self.ready.store(false, Ordering::Release);
    }

    /// The credentials that are lent.
    pub(super) fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Makes ready what `config` says. With `identity`, verified tokens will be forgotten.
    pub(super) fn prepare(
        &self,
        config: &Config,
        identity: bool,
    ) -> Result<Prepared, SnapshotError> {
        let rules = snapshot::rules(config, Some(&self.rules.load()), &self.sources)?;
        let authenticator = match identity {
            true => {
                let grants = snapshot::grants(config, self.control.as_ref())?;
                let authenticator = snapshot::authenticator(config, grants)?;
                Some(Arc::new(authenticator.after(&self.authenticator.load())))
            }
            false => None,
        };
        Ok(Prepared {
            rules: Arc::new(rules),
            authenticator,
            desk: Arc::new(Desk::of(config)),
        })
    }

    /// Puts it into force for new streams.
    pub(super) fn put_in_force(&self, prepared: Prepared) {
        if let Some(authenticator) = prepared.authenticator {
            self.authenticator.store(authenticator);
        }
        self.desk.store(prepared.desk);
        self.rules.store(prepared.rules);
    }

    /// Puts on record that `config` is about to be in force.
    pub(super) async fn record_config(&self, config: &Config) -> Result<(), &'static str> {
        let digest = hex::encode(config.digest);
        self.record_loaded(ConfigLoaded {
            digest,
            accepted: true,
            ..ConfigLoaded::default()
        })
        .await
    }

    /// Puts on record that a configuration was rejected, with so many faults.
    pub(super) async fn record_rejected(
        &self,
        digest: String,
        faults: u32,
    ) -> Result<(), &'static str> {
        let in_force = self.rules.load().digest.clone();
        self.record_loaded(ConfigLoaded {
            digest,
            accepted: false,
            faults,
            in_force,
        })
        .await
    }

    async fn record_loaded(&self, loaded: ConfigLoaded) -> Result<(), &'static str> {
        self.metrics.reloaded(loaded.accepted);
        let entry = Entry {
            session: String::new(),
            event: Event::Config(loaded),
        };
        self.ledger
            .append(entry, Durability::Disk)
            .await
            .map(drop)
            .map_err(|error| error.code())
    }

    /// Puts the refusals counted since the last call on record.
    pub(super) async fn flush_strangers(&self) -> Result<(), &'static str> {
        let by_code = std::mem::take(
            &mut *self
                .strangers
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        if by_code.is_empty() {
            return Ok(());
        }
        let counted = Unauthenticated {
            by_code: by_code
                .iter()
                .map(|(code, n)| ((*code).to_owned(), *n))
                .collect(),
            window_ms: u32::try_from(STRANGERS_EVERY.as_millis()).unwrap_or(u32::MAX),
        };
        let entry = Entry {
            session: String::new(),
            event: Event::Unauthenticated(counted),
        };
        let appended = self.ledger.append(entry, Durability::Spool).await;
        if let Err(error) = appended {
            // They stay counted, so that the next record tells of them.
            let mut strangers = self
                .strangers
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            for (code, n) in by_code {
                *strangers.entry(code).or_default() += n;
            }
            return Err(error.code());
        }
        Ok(())
    }
}

/// Puts refusals of strangers on record every [`STRANGERS_EVERY`], so that they cost one write however many there are.
pub(super) async fn count_strangers(live: Arc<Live>, stop: CancellationToken) {
    let mut due = tokio::time::interval(STRANGERS_EVERY);
    loop {
        tokio::select! {
            _ = due.tick() => {}
            () = stop.cancelled() => return,
        }
        if let Err(code) = live.flush_strangers().await {
            warn!(code, "refusals of strangers are not on record yet");
        }
    }
}

impl Backing for Live {
    fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    fn session(&self) -> String {
        Uuid::now_v7().to_string()
    }

    fn seed(&self) -> Option<Seed> {
        let mut seed = [0; 32];
        rand::fill(&mut seed).ok()?;
        Some(Seed(seed))
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    fn authenticate(
        &self,
        presented: Presented,
    ) -> BoxFuture<'static, Result<Arc<Principal>, TokenError>> {
        let authenticator = self.authenticator.load_full();
        let now = self.clock.now();
        async move { authenticator.authenticate(&presented, now).await }.boxed()
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn ask(&self, asked: Box<Asked>) -> BoxFuture<'static, Result<Arc<Approval>, NotAsked>> {
        approvals::ask(self.control.clone(), asked).boxed()
    }

    fn hold(&self, id: Id, presented: Presented, patience: Duration) -> BoxFuture<'static, Held> {
        match self.itself.upgrade() {
            Some(live) => {
                let holding = self.metrics.hold(self.clock.monotonic());
                async move {
                    let held = approvals::hold(live, id, presented, patience).await;
                    holding.end(held.name());
                    held
                }
                .boxed()
            }
            None => async { Held::Unavailable("approvals_unavailable") }.boxed(),
        }
    }

    fn take_use(&self, wanted: Use) -> BoxFuture<'static, Result<u32, NotUsed>> {
        let Some(live) = self.itself.upgrade() else {
            return async { Err(NotUsed::Unavailable) }.boxed();
        };
        async move {
            let used = grants::take_use(live.control.clone(), wanted).await;
            live.metrics.used(match &used {
                Ok(_) => "taken",
                Err(NotUsed::Over) => "used_up",
                Err(NotUsed::Revoked) => "revoked",
                Err(NotUsed::TooMany) => "too_many",
                Err(NotUsed::Unavailable) => "unavailable",
            });
            used
        }
        .boxed()
    }

    fn claim(&self, claimed: Claimed) -> BoxFuture<'static, Result<Arc<Approval>, NotClaimed>> {
        approvals::claim(self.control.clone(), claimed).boxed()
    }

    fn record(
        &self,
        entries: Vec<Entry>,
        sealed: Vec<Frame>,
        durability: Durability,
    ) -> BoxFuture<'static, Result<(), &'static str>> {
        let (ledger, seals) = (self.ledger.clone(), self.seals.clone());
        async move {
            // A crash after this leaves frames that no record tells of: noise to everyone but the auditors.
            if !sealed.is_empty() {
                let kept = match seals {
                    Some(seals) => seals.keep(sealed).await,
                    None => Err(LedgerError::Unavailable),
                };
                if let Err(error) = kept {
                    // That it ended is worth a record all the same.
                    let closed = |entry: &Entry| matches!(entry.event, Event::Closed(_));
                    if let Some(closed) = entries.into_iter().find(closed) {
                        ledger.close(closed.session);
                    }
                    return Err(error.code());
                }
            }
            ledger
                .append_all(entries, durability)
                .await
                .map(drop)
                .map_err(|error| error.code())
        }
        .boxed()
    }

    fn began(&self) {
        self.metrics.began();
    }

    fn ended(&self, session: &str, summary: &Summary, took: Duration) {
        self.metrics.ended(summary, took);
        if let Some(traces) = &self.traces {
            traces.tell(session, summary, self.clock.now().into(), took);
        }
        self.tidings.ended(session, summary);
        if summary.outcome == "refused" && !summary.authenticated {
            *self
                .strangers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(summary.code)
                .or_default() += 1;
        }
        let Summary {
            connection,
            outcome,
            code,
            status,
            ..
        } = summary;
        for fault in &summary.faults {
            warn!(
                session,
                connection, fault, "a policy could not be evaluated, so it denied"
            );
        }
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        info!(session, connection, outcome, code, status, ms, "exchange");
    }

    fn outdated(&self, version: &str) {
        if self.metrics.outdated(version) {
            warn!(
                version,
                "Envoy is older than the oldest this was tried with: upgrade it (docs/envoy-conformance.md)"
            );
        }
    }

    fn misconfigured(&self, why: &'static str) {
        self.metrics.misconfigured(why);
        error!(
            why,
            "Envoy does not send all that must be governed: correct its ext_proc filter (docs/add-to-an-existing-envoy.md); refusing"
        );
    }
}

impl Probe for Live {
    fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        if !self.ready.load(Ordering::Acquire) {
            troubles.push("starting or stopping".to_owned());
        }
        let control = self.control.as_ref();
        troubles.extend(
            control.and_then(|control| control.usable().err().map(|error| error.to_string())),
        );
        troubles.extend(
            self.ledger
                .health()
                .trouble
                .map(|trouble| trouble.to_string()),
        );
        troubles
    }

    fn metrics(&self) -> String {
        self.read().text()
    }
}
