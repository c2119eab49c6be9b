//! Mutual TLS of a listener, by files that are read again when they change.
//!
//! Promises: a handshake is by the files as they were when they were last good; connections that stand are never touched; no session is
//! resumed, so every connection shows a certificate that counts now. Handshakes under way are bounded in number and time.
//! Never: serves without a client's certificate. Can miss: a certificate that was withdrawn, as revocation lists are not read.

use std::{fs, io, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::{interval, timeout},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::{NoServerSessionStorage, WebPkiClientVerifier},
    },
    server::TlsStream,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{audit::sha256_hex, config::TlsFiles};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How many handshakes may be under way; beyond that, connections wait in the kernel's queue.
const HANDSHAKES: usize = 256;

/// How often the files are looked at. Contents are compared, as with the configuration.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Files of a listener, and what they were when they were last good.
#[derive(Debug)]
pub(super) struct Tls {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
}

/// What the three files hold; never shown, as one of them is a key.
struct Contents([Vec<u8>; 3]);

impl Contents {
    fn read(files: &TlsFiles) -> anyhow::Result<Self> {
        let read = |path: &Path| {
            fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))
        };
        Ok(Self([
            read(&files.cert)?,
            read(&files.key)?,
            read(&files.client_ca)?,
        ]))
    }

    fn digest(&self) -> [String; 3] {
        self.0.each_ref().map(|bytes| sha256_hex(bytes))
    }

    fn config(&self, files: &TlsFiles) -> anyhow::Result<ServerConfig> {
        let [cert, key, client_ca] = &self.0;
        let mut roots = RootCertStore::empty();
        for root in certificates(client_ca, &files.client_ca)? {
            let added = roots.add(root);
            added.with_context(|| told(&files.client_ca, "a certificate that cannot be used"))?;
        }
        let verifier = WebPkiClientVerifier::builder(roots.into()).build()?;
        let chain = certificates(cert, &files.cert)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| anyhow::anyhow!(told(&files.key, "no private key in PEM")))?;
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .with_context(|| told(&files.key, "no key of the certificate"))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A session resumed is a certificate not looked at again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

fn told(path: &Path, what: &str) -> String {
    format!("`{}` holds {what}", path.display())
}

fn certificates(pem: &[u8], path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|_| anyhow::anyhow!(told(path, "broken PEM")))?;
    anyhow::ensure!(!read.is_empty(), told(path, "no certificate in PEM"));
    Ok(read)
}

impl Tls {
    /// Reads the files.
    pub(super) fn open(files: &TlsFiles) -> anyhow::Result<(Arc<Self>, [String; 3])> {
        let contents = Contents::read(files)?;
        let config = ArcSwap::from_pointee(contents.config(files)?);
        let files = files.clone();
        Ok((Arc::new(Self { files, config }), contents.digest()))
    }

    /// Reads the files again where they are not as `seen`: whether they are in force now, or nothing where nothing changed.
    fn look(&self, seen: &mut [String; 3]) -> Option<anyhow::Result<()>> {
        let contents = match Contents::read(&self.files) {
            Ok(contents) => contents,
            Err(error) => return Some(Err(error)),
        };
        let digest = contents.digest();
        if digest == *seen {
            return None;
        }
        *seen = digest;
        let fresh = contents.config(&self.files);
        Some(fresh.map(|fresh| self.config.store(Arc::new(fresh))))
    }

    /// Follows the files until `stop`; `told` hears of each change whether it is in force.
    pub(super) async fn follow(
        self: Arc<Self>,
        mut seen: [String; 3],
        told: impl Fn(bool) + Send,
        stop: CancellationToken,
    ) {
        let mut due = interval(LOOK_EVERY);
        loop {
            tokio::select! {
                _ = due.tick() => {}
                () = stop.cancelled() => return,
            }
            match self.look(&mut seen) {
                None => {}
                Some(Ok(())) => {
                    told(true);
                    info!("changed certificates are in force for new connections");
                }
                Some(Err(error)) => {
                    told(false);
                    error!(
                        error = format!("{error:#}"),
                        "changed certificates cannot be used; the old ones stay"
                    );
                }
            }
        }
    }

    /// Connections of `listener` whose handshake is done, until what is returned is dropped or `stop`.
    pub(super) fn accept(
        self: Arc<Self>,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> ReceiverStream<io::Result<TlsStream<TcpStream>>> {
        let (done, incoming) = mpsc::channel(HANDSHAKES);
        tokio::spawn(async move {
            let under_way = Arc::new(Semaphore::new(HANDSHAKES));
            loop {
                let Ok(permit) = Arc::clone(&under_way).acquire_owned().await else {
                    return;
                };
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = done.closed() => return,
                    () = stop.cancelled() => return,
                };
                let stream = match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        warn!(%error, "a connection cannot be taken");
                        // Out of descriptors, most likely: not to be asked again at once.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                };
                let _ = stream.set_nodelay(true);
                let handshake = TlsAcceptor::from(self.config.load_full()).accept(stream);
                let done = done.clone();
                tokio::spawn(async move {
                    let _permit = permit;
                    match timeout(HANDSHAKE, handshake).await {
                        Ok(Ok(stream)) => drop(done.send(Ok(stream)).await),
                        Ok(Err(error)) => {
                            warn!(%error, "a connection is refused: its TLS handshake failed")
                        }
                        Err(_) => warn!("a connection is refused: its TLS handshake took too long"),
                    }
                });
            }
        });
        ReceiverStream::new(incoming)
    }
}
