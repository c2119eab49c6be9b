//! Following the configuration: new streams run under what is written now, or, where that is faulty, under what was.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::interval,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::live::Live;
use crate::{
    audit::sha256_hex,
    config::{self, Config, Grants, LoadError},
    runtime::snapshot,
};

/// How often the file and the masking key are looked at. Contents are compared: file times and watches both miss the ways
/// that mounted configuration is swapped in.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Follows the file at `path` until `stop`. SIGHUP looks at once.
pub(super) async fn follow(
    live: Arc<Live>,
    path: PathBuf,
    config: Config,
    stop: CancellationToken,
) {
    let mut watched = Watched::new(path, config);
    let mut due = interval(LOOK_EVERY);
    let mut hangup = signal(SignalKind::hangup()).ok();
    loop {
        tokio::select! {
            _ = due.tick() => {}
            () = received(&mut hangup) => info!("SIGHUP: looking at the configuration"),
            () = stop.cancelled() => return,
        }
        watched.look(&live).await;
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

struct Watched {
    path: PathBuf,
    /// What the file held when it was last looked at, whether that was accepted or not.
    seen: String,
    in_force: Config,
    masking_key: Option<SecretString>,
    lists: Lists,
}

/// The files of dictionaries, of descriptor sets, and of keys for grants. They may be large: not their contents are compared but which file it is, and what its file
/// system says of it.
struct Lists {
    /// As they were when they were last read, whether they could be used or not.
    read: Vec<Stamp>,
    /// As they were at the last look.
    seen: Vec<Stamp>,
}

/// Device, inode, time of the last change in seconds and nanoseconds, length. A change of contents changes the time of the
/// last change, which no program can set; a file swapped in is another inode. `None`: it cannot be found.
type Stamp = Option<(u64, u64, i64, i64, u64)>;

impl Lists {
    fn of(config: &Config) -> Self {
        let read = stamps(config);
        Self {
            seen: read.clone(),
            read,
        }
    }

    /// Whether there is something new to be read. A file that changed since the last look may be half written, and its
    /// missing terms would not be masked: only when it has stayed as it is for a while.
    fn have_news(&mut self, now: Vec<Stamp>) -> bool {
        let settled = now == self.seen && now.iter().all(Option::is_some);
        self.seen = now;
        let news = settled && self.seen != self.read;
        if news {
            self.read.clone_from(&self.seen);
        }
        news
    }
}

fn stamps(config: &Config) -> Vec<Stamp> {
    let stamp = |path: &Path| {
        let of = std::fs::metadata(path).ok()?;
        Some((of.dev(), of.ino(), of.ctime(), of.ctime_nsec(), of.size()))
    };
    let keys = config.grants.iter().flat_map(|grants| &grants.keys);
    let files = snapshot::files_read(config).chain(keys.map(PathBuf::as_path));
    files.map(stamp).collect()
}

impl Watched {
    fn new(path: PathBuf, config: Config) -> Self {
        let masking_key = masking_key(&config);
        Self {
            lists: Lists::of(&config),
            path,
            seen: hex::encode(config.digest),
            in_force: config,
            masking_key,
        }
    }

    async fn look(&mut self, live: &Live) {
        match digest(&self.path) {
            Ok(digest) if digest != self.seen => {
                self.seen.clone_from(&digest);
                self.load(live, digest).await;
            }
            Ok(_) => {
                self.look_at_masking_key(live);
                self.look_at_lists(live);
            }
            // Seen in the middle of being swapped, or gone: what is in force stays, and the next look tells.
            Err(error) => {
                warn!(%error, path = %self.path.display(), "the configuration cannot be read")
            }
        }
    }

    async fn load(&mut self, live: &Live, digest: String) {
        let fresh = match config::load_with_builtins(&self.path) {
            Ok(fresh) => fresh,
            Err(error) => {
                let faults = match &error {
                    LoadError::Faulty(faults) => {
                        u32::try_from(faults.faults.len()).unwrap_or(u32::MAX)
                    }
                    LoadError::Unreadable { .. } => 1,
                };
                return self.reject(live, digest, faults, &error.to_string()).await;
            }
        };
        let missing = fresh.missing();
        if !missing.is_empty() {
            let faults = u32::try_from(missing.len()).unwrap_or(u32::MAX);
            let told: Vec<_> = missing.iter().map(ToString::to_string).collect();
            return self.reject(live, digest, faults, &told.join("\n")).await;
        }
        // Before they are read: what changes from now on is news.
        let lists = Lists::of(&fresh);
        // Credentials that are new are fetched before they are asked for.
        let _kept = live.sources().warm(&fresh).await;
        let other_keys = fresh.grants.is_some() && lists.read != self.lists.read;
        let other = other_keys || identity(&fresh) != identity(&self.in_force);
        let prepared = match live.prepare(&fresh, other) {
            Ok(prepared) => prepared,
            Err(error) => return self.reject(live, digest, 1, &error.to_string()).await,
        };
        if let Some(what) = needs_restart(&self.in_force, &fresh) {
            warn!("`{what}` changed: that takes a restart; the rest is put into force");
        }
        // On record before it is in force: a decision never names rules that the log does not know of. And only what can be
        // put into force: the log never says so of rules that were not.
        if let Err(code) = live.record_config(&fresh).await {
            error!(
                code,
                "the new configuration is not put into force: it cannot be recorded"
            );
            // Looked at again next time.
            self.seen.clear();
            return;
        }
        live.put_in_force(prepared);
        info!(digest, "the new configuration is in force");
        self.masking_key = masking_key(&fresh);
        self.lists = lists;
        self.in_force = fresh;
    }

    async fn reject(&self, live: &Live, digest: String, faults: u32, why: &str) {
        error!(
            digest,
            faults, "the new configuration is refused, the old one stays in force:\n{why}"
        );
        if let Err(code) = live.record_rejected(digest, faults).await {
            error!(code, "that it was refused is not on record");
        }
    }

    /// Upstream credentials follow their sources by themselves.
    fn look_at_masking_key(&mut self, live: &Live) {
        let Some(fresh) = masking_key(&self.in_force) else {
            return;
        };
        let known = self.masking_key.as_ref();
        if known.is_some_and(|known| known.expose_secret() == fresh.expose_secret()) {
            return;
        }
        match live.prepare(&self.in_force, false) {
            Ok(prepared) => {
                live.put_in_force(prepared);
                info!("the masking key changed and is in force");
                self.masking_key = Some(fresh);
            }
            Err(error) => {
                error!(%error, "a changed masking key cannot be used; the old one stays")
            }
        }
    }

    fn look_at_lists(&mut self, live: &Live) {
        if !self.lists.have_news(stamps(&self.in_force)) {
            return;
        }
        // Which of them it was is not told apart: with keys of grants among them, tokens are looked at anew.
        match live.prepare(&self.in_force, self.in_force.grants.is_some()) {
            Ok(prepared) => {
                live.put_in_force(prepared);
                info!(
                    "the file of a dictionary, of a descriptor set or of a key for grants changed and is in force"
                );
            }
            Err(error) => {
                error!(%error, "the changed file of a dictionary, of a descriptor set or of a key for grants cannot be used; what was in force stays")
            }
        }
    }
}

fn masking_key(config: &Config) -> Option<SecretString> {
    config.masking.as_ref()?.source.read().ok()
}

fn digest(path: &Path) -> std::io::Result<String> {
    Ok(sha256_hex(&std::fs::read(path)?))
}

/// What tokens are believed by.
fn identity(config: &Config) -> impl PartialEq + use<'_> {
    (
        &config.issuers,
        &config.certificates,
        config.grants.as_ref().map(Grants::identity),
        saml(config),
    )
}

#[cfg(feature = "saml")]
fn saml(config: &Config) -> &[crate::config::SamlProvider] {
    &config.saml
}

#[cfg(not(feature = "saml"))]
fn saml(_: &Config) {}

/// Of sealed payloads, what is settled at the start.
fn kept(config: &Config) -> Option<(u64, &str)> {
    let sealing = config.sealing.as_ref()?;
    Some((sealing.cap, &sealing.topic))
}

/// Of the control log, what is settled at the start.
fn controlled(config: &Config) -> impl PartialEq + use<'_> {
    let approvals = config.approvals.as_ref();
    approvals.map(|approvals| (&approvals.dir, &approvals.kafka))
}

/// What changed that only a restart puts into force.
fn needs_restart(old: &Config, new: &Config) -> Option<&'static str> {
    if old.listen != new.listen {
        Some("listen")
    } else if old.audit != new.audit {
        Some("audit")
    } else if old.otlp != new.otlp {
        Some("telemetry")
    } else if kept(old) != kept(new) {
        Some("sealing")
    } else if controlled(old) != controlled(new) {
        Some("approvals")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_news_once_and_not_before_it_has_settled() {
        let stamp = |size| Some((1, 2, 3, 4, size));
        let mut lists = Lists {
            read: vec![stamp(0)],
            seen: vec![stamp(0)],
        };
        for (now, news) in [
            (stamp(0), false),
            (stamp(5), false),
            (stamp(6), false),
            (stamp(6), true),
            (stamp(6), false),
            // gone, and there again
            (None, false),
            (None, false),
            (stamp(6), false),
            (stamp(6), false),
            (stamp(7), false),
            (stamp(7), true),
        ] {
            assert_eq!(lists.have_news(vec![now]), news, "{now:?}");
        }
    }
}
