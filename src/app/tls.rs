//! TLS of a listener, by files that are read again when they change.
//!
//! Promises: a handshake is by the files as they were when they were last good; connections that stand are never touched; no session is
//! resumed, so every connection shows a certificate that counts now. Handshakes under way are bounded in number and time, and who begins
//! many keeps nobody else out.
//! Never: serves a client without a certificate where one is asked for, or one whose name is not among those that are listed.
//! Can miss: a certificate that was withdrawn, as revocation lists are not read; connections that stand when an authority goes.

mod validity;

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read},
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{interval, timeout},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
        SignatureScheme,
        client::danger::HandshakeSignatureValid,
        pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
        server::{
            NoServerSessionStorage, WebPkiClientVerifier,
            danger::{ClientCertVerified, ClientCertVerifier},
        },
    },
    server::TlsStream,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::validity::Validity;
use super::live::Live;
use crate::{audit::sha256_hex, config::TlsFiles, http::Places};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How many handshakes may be under way.
const HANDSHAKES: usize = 256;

/// The longest file that is read, in bytes: some hundred certificates.
const LONGEST: u64 = 1 << 20;

/// How often the files are looked at. Contents are compared, as with the configuration.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A listener's files, and what of them is in force.
#[derive(Debug)]
pub(super) struct Tls {
    /// The listener's key in the configuration, as it is logged and counted.
    listener: &'static str,
    protocol: &'static [u8],
    files: TlsFiles,
    good: ArcSwap<Good>,
    refused: Mutex<Refused>,
}

/// What is in force.
#[derive(Debug)]
struct Good {
    config: Arc<ServerConfig>,
    validity: Validity,
}

/// Handshakes that failed since they were last told of. Strangers must not fill the log.
#[derive(Debug, Default)]
struct Refused {
    count: u64,
    last: String,
}

/// What the files in force held, or why those that are there cannot be used.
type Seen = Result<Vec<String>, String>;

/// What the files hold; never shown, as one of them is a key.
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Contents {
    fn read(files: &TlsFiles) -> anyhow::Result<Self> {
        Ok(Self {
            cert: read(&files.cert)?,
            key: read(&files.key)?,
            client_ca: files.client_ca.as_deref().map(read).transpose()?,
        })
    }

    fn digest(&self) -> Vec<String> {
        let all = [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()];
        all.into_iter()
            .flatten()
            .map(|bytes| sha256_hex(bytes))
            .collect()
    }

    fn good(&self, files: &TlsFiles, protocol: &[u8], now: Timestamp) -> anyhow::Result<Good> {
        let builder = ServerConfig::builder();
        let builder = match (&files.client_ca, &self.client_ca) {
            (Some(path), Some(pem)) => {
                builder.with_client_cert_verifier(verifier(pem, path, &files.client_names)?)
            }
            _ => builder.with_no_client_auth(),
        };
        let chain = certificates(&self.cert, &files.cert)?;
        let validity = chain.first().and_then(|own| Validity::of(own));
        let validity =
            validity.with_context(|| told(&files.cert, "a certificate that cannot be read"))?;
        anyhow::ensure!(
            validity.from <= now,
            told(
                &files.cert,
                &format!("a certificate that is good from {} on", validity.from)
            )
        );
        anyhow::ensure!(
            now < validity.until,
            told(
                &files.cert,
                &format!("a certificate that expired at {}", validity.until)
            )
        );
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| anyhow::anyhow!(told(&files.key, "no private key in PEM")))?;
        let mut config = builder
            .with_single_cert(chain, key)
            .with_context(|| told(&files.key, "no key of the certificate"))?;
        config.alpn_protocols = vec![protocol.to_vec()];
        // A session resumed is a certificate not looked at again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let config = Arc::new(config);
        Ok(Good { config, validity })
    }
}

fn verifier(
    pem: &[u8],
    path: &Path,
    names: &BTreeSet<String>,
) -> anyhow::Result<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for root in certificates(pem, path)? {
        let added = roots.add(root);
        added.with_context(|| told(path, "a certificate that cannot be used"))?;
    }
    let by_authority = WebPkiClientVerifier::builder(roots.into()).build()?;
    if names.is_empty() {
        return Ok(by_authority);
    }
    Ok(Arc::new(Named {
        by_authority,
        names: names.clone(),
    }))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let cannot = || format!("cannot read `{}`", path.display());
    let file = File::open(path).with_context(cannot)?;
    let mut bytes = Vec::new();
    let read = file.take(LONGEST + 1).read_to_end(&mut bytes);
    read.with_context(cannot)?;
    anyhow::ensure!(bytes.len() as u64 <= LONGEST, told(path, "over 1 MiB"));
    Ok(bytes)
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

/// Takes a client certificate that the authorities signed and that has one of these names.
#[derive(Debug)]
struct Named {
    by_authority: Arc<dyn ClientCertVerifier>,
    names: BTreeSet<String>,
}

impl ClientCertVerifier for Named {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.by_authority.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .by_authority
            .verify_client_cert(end_entity, intermediates, now)?;
        let certificate = webpki::EndEntityCert::try_from(end_entity)
            .map_err(|_| Error::General("the client's certificate cannot be read".to_owned()))?;
        let mut names = certificate
            .valid_dns_names()
            .chain(certificate.valid_uri_names());
        if names.any(|name| self.names.contains(name)) {
            return Ok(verified);
        }
        let none = "the client's certificate has none of the names in `client_names`";
        Err(Error::General(none.to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authority.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authority.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_authority.supported_verify_schemes()
    }
}

impl Tls {
    /// Reads the files of the listener that the configuration calls so, for clients that speak `protocol` (RFC 7301).
    pub(super) fn open(
        listener: &'static str,
        protocol: &'static [u8],
        files: &TlsFiles,
        now: Timestamp,
    ) -> anyhow::Result<(Arc<Self>, Seen)> {
        let contents = Contents::read(files)?;
        let good = ArcSwap::from_pointee(contents.good(files, protocol, now)?);
        let tls = Self {
            listener,
            protocol,
            files: files.clone(),
            good,
            refused: Mutex::default(),
        };
        Ok((Arc::new(tls), Ok(contents.digest())))
    }

    /// Reads the files again where they are not those in force: whether they are now, or nothing where nothing changed. What
    /// cannot be used is tried again each time: it may have been too early for it.
    fn look(&self, seen: &mut Seen, now: Timestamp) -> Option<Result<(), String>> {
        let contents = Contents::read(&self.files);
        if let (Ok(contents), Ok(in_force)) = (&contents, &*seen)
            && contents.digest() == *in_force
        {
            return None;
        }
        let fresh = contents.and_then(|contents| {
            let good = contents.good(&self.files, self.protocol, now)?;
            Ok((contents.digest(), good))
        });
        let fresh = fresh.map_err(|error| format!("{error:#}"));
        let found = match &fresh {
            Ok((digest, _)) => Ok(digest.clone()),
            Err(error) => Err(error.clone()),
        };
        let before = std::mem::replace(seen, found);
        if before == *seen {
            return None;
        }
        Some(fresh.map(|(_, good)| self.good.store(Arc::new(good))))
    }

    /// Follows the files until `stop`, and tells of connections that were refused.
    pub(super) async fn follow(
        self: Arc<Self>,
        mut seen: Seen,
        live: Arc<Live>,
        stop: CancellationToken,
    ) {
        let mut due = interval(LOOK_EVERY);
        // The certificate of which it was said that it runs out, and that it has expired.
        let mut told = (None, None);
        loop {
            tokio::select! {
                _ = due.tick() => {}
                () = stop.cancelled() => return,
            }
            let listener = self.listener;
            let now = live.clock().now();
            match self.look(&mut seen, now) {
                None => {}
                Some(Ok(())) => {
                    live.certificates_read(listener, true);
                    info!(
                        listener,
                        "changed certificates are in force for new connections"
                    );
                }
                Some(Err(error)) => {
                    live.certificates_read(listener, false);
                    error!(
                        listener,
                        error, "changed certificates cannot be used; the old ones stay"
                    );
                }
            }
            let validity = self.good.load().validity;
            live.certificate_until(listener, validity.until);
            let until = Some(validity.until);
            if now >= validity.until && told.1 != until {
                told = (until, until);
                error!(listener, at = %validity.until, "the certificate has expired: clients refuse it on new connections");
            } else if validity.runs_out(now) && told.0 != until {
                told.0 = until;
                warn!(listener, at = %validity.until, "the certificate expires soon; put a new one in its place");
            }
            let Refused { count, last } = std::mem::take(&mut *self.refused());
            if count > 0 {
                live.handshakes_refused(listener, count);
                warn!(
                    listener,
                    count, last, "connections were refused in their TLS handshake"
                );
            }
        }
    }

    fn refused(&self) -> std::sync::MutexGuard<'_, Refused> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, why: String) {
        let mut refused = self.refused();
        refused.count += 1;
        refused.last = why;
    }

    /// Connections of `listener` whose handshake is done, until what is returned is dropped or `stop`.
    pub(super) fn accept(
        self: Arc<Self>,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> mpsc::Receiver<Connection> {
        let (done, incoming) = mpsc::channel(HANDSHAKES);
        tokio::spawn(async move {
            let under_way = Places::new(HANDSHAKES);
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = done.closed() => return,
                    () = stop.cancelled() => return,
                };
                let (stream, peer) = match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        warn!(%error, "a connection cannot be taken");
                        // Out of descriptors, most likely: not to be asked again at once.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                };
                let place = under_way.enter(peer.ip());
                let _ = stream.set_nodelay(true);
                let handshake = TlsAcceptor::from(self.good.load().config.clone()).accept(stream);
                let (tls, done) = (Arc::clone(&self), done.clone());
                tokio::spawn(async move {
                    let served = async {
                        match timeout(HANDSHAKE, handshake).await {
                            Ok(Ok(stream)) => drop(done.send((stream, peer)).await),
                            Ok(Err(error)) => tls.refuse(format!("{peer}: {error}")),
                            Err(_) => tls.refuse(format!("{peer}: it took too long")),
                        }
                    };
                    tokio::select! {
                        () = served => {}
                        () = place.given_up() => tls.refuse(format!("{peer}: given up for a newer one, as {HANDSHAKES} are under way")),
                    }
                });
            }
        });
        incoming
    }
}

/// A connection whose handshake is done, and from where.
pub(super) type Connection = (TlsStream<TcpStream>, SocketAddr);

/// Connections with TLS, as the HTTP server takes them.
pub(super) struct TlsListener {
    pub(super) incoming: mpsc::Receiver<Connection>,
    pub(super) address: SocketAddr,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> Connection {
        match self.incoming.recv().await {
            Some(connection) => connection,
            // Stopping: there are no more.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
