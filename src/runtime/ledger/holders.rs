//! Those outside who hold checkpoints: a file, and webhooks.
//!
//! Promises: nothing here keeps the ledger waiting, however long a holder hangs; each is given the newest checkpoint there
//! is, which covers what the ones before it did; a posted checkpoint counts as held only where the answer's status is 2xx.
//! Never does: keep more than one checkpoint in memory, follow a redirect, use a proxy from the environment. Can miss:
//! checkpoints that a newer one overtook while a holder was away.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use futures::future::join_all;
use reqwest::{Client, StatusCode, header, redirect};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use url::Url;

use super::OpenError;
use crate::store::checkpoints;

/// How long one attempt to reach a webhook may take.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Waits between attempts with one checkpoint; after the last of them the next checkpoint is waited for.
const BACK_OFF: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];

/// A holder that checkpoints are posted to.
#[derive(Clone)]
pub struct Webhook {
    /// Where to.
    pub url: Url,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<SecretString>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Webhook").field(&self.name()).finish()
    }
}

impl Webhook {
    /// The address without what may be secret in it.
    fn name(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        url.set_fragment(None);
        url.to_string()
    }
}

/// What one holder has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// `file`, or a webhook's address without its query.
    pub holder: String,
    /// Records of the present chain that the newest checkpoint it holds covers; 0 while it holds none.
    pub records: u64,
    /// When it took that one, or when the ledger was opened.
    pub since: Instant,
    /// Attempts that failed.
    pub failures: u64,
}

/// A signed checkpoint on its way.
#[derive(Clone, Debug)]
struct Offered {
    records: u64,
    note: Arc<str>,
}

/// The holders, each served by itself.
#[derive(Clone, Debug)]
pub(super) struct Holders {
    offered: Arc<watch::Sender<Option<Offered>>>,
    held: Arc<Mutex<Vec<Held>>>,
    /// One of them took a checkpoint.
    changed: Arc<Notify>,
}

impl Holders {
    /// Begins to serve them, on a thread of their own.
    pub(super) fn start(file: Option<PathBuf>, webhooks: Vec<Webhook>) -> Result<Self, OpenError> {
        let names = file.iter().map(|_| "file".to_owned());
        let names = names.chain(webhooks.iter().map(Webhook::name));
        let held: Vec<Held> = names
            .map(|holder| Held {
                holder,
                records: 0,
                since: now(),
                failures: 0,
            })
            .collect();
        let holders = Self {
            offered: Arc::new(watch::Sender::new(None)),
            held: Arc::new(Mutex::new(held)),
            changed: Arc::default(),
        };
        if file.is_none() && webhooks.is_empty() {
            return Ok(holders);
        }
        let client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .timeout(ATTEMPT)
            .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|_| OpenError::System("TLS for webhooks"))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|_| OpenError::System("runtime for webhooks"))?;
        let targets = file.into_iter().map(Target::File);
        let targets = targets.chain(webhooks.into_iter().map(Target::Webhook));
        let servers: Vec<_> = targets
            .enumerate()
            .map(|(index, target)| Server {
                target,
                client: client.clone(),
                offered: holders.offered.subscribe(),
                held: Arc::clone(&holders.held),
                changed: Arc::clone(&holders.changed),
                index,
            })
            .collect();
        thread::Builder::new()
            .name("holders".to_owned())
            .spawn(move || {
                runtime.block_on(join_all(servers.into_iter().map(Server::run)));
                // A file that hangs must not hold this up either.
                runtime.shutdown_background();
            })
            .map_err(|_| OpenError::System("thread"))?;
        Ok(holders)
    }

    /// Here is a newer checkpoint, of so many records.
    pub(super) fn offer(&self, records: u64, note: &str) {
        self.offered.send_replace(Some(Offered {
            records,
            note: note.into(),
        }));
    }

    /// Resolves when every holder has the newest checkpoint, which may be never.
    pub(super) async fn have_the_last(&self) {
        let newest = self
            .offered
            .borrow()
            .as_ref()
            .map(|offered| offered.records);
        while self.covered() < newest && !lock(&self.held).is_empty() {
            self.changed.notified().await;
        }
    }

    /// What each has.
    pub(super) fn held(&self) -> Vec<Held> {
        lock(&self.held).clone()
    }

    /// Records of the present chain that every holder has a checkpoint of; `None` where there is no holder.
    pub(super) fn covered(&self) -> Option<u64> {
        lock(&self.held).iter().map(|held| held.records).min()
    }
}

enum Target {
    File(PathBuf),
    Webhook(Webhook),
}

/// What serves one holder.
struct Server {
    target: Target,
    client: Client,
    offered: watch::Receiver<Option<Offered>>,
    held: Arc<Mutex<Vec<Held>>>,
    changed: Arc<Notify>,
    index: usize,
}

impl Server {
    /// Until the ledger is gone and has nothing newer.
    async fn run(mut self) {
        while self.offered.changed().await.is_ok() {
            let mut waits = BACK_OFF.iter();
            loop {
                let Some(offered) = self.offered.borrow_and_update().clone() else {
                    break;
                };
                match self.give(&offered.note).await {
                    Ok(()) => {
                        self.taken(offered.records);
                        break;
                    }
                    Err(error) => self.failed(&error),
                }
                let Some(wait) = waits.next() else { break };
                // A newer one is tried at once; that the ledger is gone leaves the attempts that are left.
                if let Ok(Err(_)) = timeout(*wait, self.offered.changed()).await {
                    tokio::time::sleep(*wait).await;
                }
            }
        }
    }

    async fn give(&self, note: &Arc<str>) -> Result<(), GiveError> {
        match &self.target {
            Target::File(path) => {
                let (path, note) = (path.clone(), Arc::clone(note));
                tokio::task::spawn_blocking(move || checkpoints::append_outside(&path, &note))
                    .await
                    .map_err(io::Error::other)??;
            }
            Target::Webhook(webhook) => {
                let mut request = self
                    .client
                    .post(webhook.url.clone())
                    .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
                    .body(note.to_string());
                if let Some(token) = &webhook.token {
                    request = request.bearer_auth(token.expose_secret());
                }
                let status = request
                    .send()
                    .await
                    .map_err(reqwest::Error::without_url)?
                    .status();
                if !status.is_success() {
                    return Err(GiveError::Status(status));
                }
            }
        }
        Ok(())
    }

    fn taken(&self, records: u64) {
        let mut all = lock(&self.held);
        if let Some(held) = all.get_mut(self.index) {
            (held.records, held.since) = (records, now());
        }
        // Who waits waits alone: the permit is kept for whoever looks before it waits.
        self.changed.notify_one();
    }

    fn failed(&self, error: &GiveError) {
        let mut all = lock(&self.held);
        if let Some(held) = all.get_mut(self.index) {
            held.failures += 1;
            tracing::warn!(%error, holder = held.holder, "a checkpoint could not be given to its holder");
        }
    }
}

/// Why a holder did not take a checkpoint.
#[derive(Debug, thiserror::Error)]
enum GiveError {
    #[error("{0}")]
    File(#[from] io::Error),
    #[error("{0}")]
    Request(#[from] reqwest::Error),
    #[error("the answer has status {0}")]
    Status(StatusCode),
}

#[allow(
    clippy::disallowed_methods,
    reason = "how old what a holder has is, in real time"
)]
fn now() -> Instant {
    Instant::now()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
