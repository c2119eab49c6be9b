//! Mutual TLS of a listener, by files that are read again when they change.
//!
//! Promises: a handshake is by the files as they were when they were last good; connections that stand are never touched; no session is
//! resumed, so every connection shows a certificate that counts now. Handshakes under way are bounded in number, for each address too,
//! and in time. Never: serves without a client's certificate; writes a line for every stranger. Can miss: a certificate that was
//! withdrawn, as revocation lists are not read; many addresses together can still take all handshakes there are.

mod files;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::{interval, timeout},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::files::{Contents, Validity};
use super::live::Live;
use crate::config::TlsFiles;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How many handshakes may be under way; beyond that, connections wait in the kernel's queue.
const HANDSHAKES: usize = 256;

/// How many of them may be of one address; beyond that, its connections are closed. An Envoy that starts makes one for each worker.
const OF_ONE_ADDRESS: usize = 128;

/// How often the files are looked at. Contents are compared, as with the configuration.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often refused connections are told of in the log; the metric counts all of them.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Files of a listener, and what they were when they were last good.
#[derive(Debug)]
pub(super) struct Tls {
    files: TlsFiles,
    good: ArcSwap<Good>,
    /// What became of each look: digests, or why they could not be read.
    seen: Mutex<Result<[String; 3], String>>,
}

/// What is in force.
#[derive(Debug)]
struct Good {
    config: Arc<ServerConfig>,
    validity: Validity,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Where one of them cannot be used, or the certificate has expired.
    pub(super) fn open(files: &TlsFiles, now: Timestamp) -> anyhow::Result<Arc<Self>> {
        let contents = Contents::read(files)?;
        Ok(Arc::new(Self {
            good: ArcSwap::from_pointee(Good::of(&contents, files, now)?),
            seen: Mutex::new(Ok(contents.digest())),
            files: files.clone(),
        }))
    }

    /// Reads the files again where they are not as they were: whether they are in force now, or nothing where nothing changed. A file
    /// that is missing or broken is told once.
    fn look(&self, now: Timestamp) -> Option<anyhow::Result<()>> {
        let read = Contents::read(&self.files);
        let fresh = match &read {
            Ok(contents) => Ok(contents.digest()),
            Err(error) => Err(format!("{error:#}")),
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == fresh {
            return None;
        }
        *seen = fresh;
        let good = read.and_then(|contents| Good::of(&contents, &self.files, now));
        Some(good.map(|good| self.good.store(Arc::new(good))))
    }

    /// Follows the files until `stop`.
    pub(super) async fn follow(self: Arc<Self>, live: Arc<Live>, stop: CancellationToken) {
        let mut due = interval(LOOK_EVERY);
        // The certificate of which it was said that it runs out, or that it has expired.
        let mut told = (None, None);
        loop {
            tokio::select! {
                _ = due.tick() => {}
                () = stop.cancelled() => return,
            }
            let now = live.clock().now();
            match self.look(now) {
                None => {}
                Some(Ok(())) => {
                    live.certificates_read(true);
                    info!("changed certificates are in force for new connections");
                }
                Some(Err(error)) => {
                    live.certificates_read(false);
                    error!(
                        error = format!("{error:#}"),
                        "changed certificates cannot be used; the old ones stay"
                    );
                }
            }
            let validity = self.good.load().validity;
            live.certificate_until(validity.until);
            let until = Some(validity.until);
            if now >= validity.until && told.1 != until {
                told = (until, until);
                error!(at = %validity.until, "the certificate of ext_proc has expired: Envoy refuses it on new connections");
            } else if validity.runs_out(now) && told.0 != until {
                told.0 = until;
                warn!(at = %validity.until, "the certificate of ext_proc expires soon; put a new one in its place");
            }
        }
    }

    /// Connections of `listener` whose handshake is done, until what is returned is dropped or `stop`.
    pub(super) fn accept(
        self: Arc<Self>,
        listener: TcpListener,
        live: Arc<Live>,
        stop: CancellationToken,
    ) -> ReceiverStream<io::Result<TlsStream<TcpStream>>> {
        let (done, incoming) = mpsc::channel(HANDSHAKES);
        tokio::spawn(async move {
            let strangers = Arc::new(Strangers::new(live));
            let under_way = Arc::new(Semaphore::new(HANDSHAKES));
            let places = Arc::new(Places::default());
            loop {
                let Ok(permit) = Arc::clone(&under_way).acquire_owned().await else {
                    return;
                };
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = done.closed() => return,
                    () = stop.cancelled() => return,
                };
                let (stream, from) = match accepted {
                    Ok((stream, from)) => (stream, from.ip()),
                    Err(error) => {
                        warn!(%error, "a connection cannot be taken");
                        // Out of descriptors, most likely: not to be asked again at once.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                };
                let Some(place) = places.take(from) else {
                    strangers.refused("too_many", from, "too many handshakes of its address");
                    continue;
                };
                let _ = stream.set_nodelay(true);
                let handshake = TlsAcceptor::from(self.good.load().config.clone()).accept(stream);
                let (done, strangers) = (done.clone(), Arc::clone(&strangers));
                tokio::spawn(async move {
                    let _held = (permit, place);
                    match timeout(HANDSHAKE, handshake).await {
                        Ok(Ok(stream)) => drop(done.send(Ok(stream)).await),
                        Ok(Err(error)) => {
                            strangers.refused("handshake", from, &error.to_string());
                        }
                        Err(_) => strangers.refused("slow", from, "its handshake took too long"),
                    }
                });
            }
        });
        ReceiverStream::new(incoming)
    }
}

impl Good {
    fn of(contents: &Contents, files: &TlsFiles, now: Timestamp) -> anyhow::Result<Self> {
        let (config, validity) = contents.config(files, now)?;
        let config = Arc::new(config);
        Ok(Self { config, validity })
    }
}

/// Handshakes under way by address. Bounded: there are at most [`HANDSHAKES`].
#[derive(Debug, Default)]
struct Places(Mutex<HashMap<IpAddr, usize>>);

/// One of them, until dropped.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    of: IpAddr,
}

impl Places {
    fn take(self: &Arc<Self>, from: IpAddr) -> Option<Place> {
        let of = counted_as(from);
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let n = taken.entry(of).or_default();
        if *n == OF_ONE_ADDRESS {
            return None;
        }
        *n += 1;
        let places = Arc::clone(self);
        Some(Place { places, of })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = taken.get_mut(&self.of) {
            *n -= 1;
            if *n == 0 {
                taken.remove(&self.of);
            }
        }
    }
}

/// Who has one address of IPv6 has 2^64 of them, as a rule.
fn counted_as(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Who was not let in.
#[derive(Debug)]
struct Strangers {
    live: Arc<Live>,
    /// When it was last told, and how many were refused since.
    untold: Mutex<(Option<Instant>, u64)>,
}

impl Strangers {
    fn new(live: Arc<Live>) -> Self {
        let untold = Mutex::default();
        Self { live, untold }
    }

    fn refused(&self, why: &'static str, from: IpAddr, error: &str) {
        self.live.connection_refused(why);
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, others) = &mut *untold;
        if last.is_some_and(|last| last.elapsed() < TELL_EVERY) {
            *others += 1;
            return;
        }
        warn!(%from, error, others = *others, "a connection to ext_proc is refused; `others` were refused since this was last said");
        *untold = (Some(Instant::now()), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_does_not_take_every_place_and_gives_back_what_it_took() {
        let places = Arc::new(Places::default());
        let one: IpAddr = "2001:db8::1".parse().unwrap();
        let same: IpAddr = "2001:db8::2".parse().unwrap();
        let taken: Vec<_> = (0..OF_ONE_ADDRESS)
            .map(|n| places.take(if n % 2 == 0 { one } else { same }).unwrap())
            .collect();
        assert!(places.take(one).is_none() && places.take(same).is_none());
        let mapped = places.take("::ffff:192.0.2.1".parse().unwrap()).unwrap();
        assert_eq!(mapped.of.to_string(), "192.0.2.1");
        drop((taken, mapped));
        assert!(places.0.lock().unwrap().is_empty());
        assert!(places.take(one).is_some());
    }
}
