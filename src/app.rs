//! The house put together: handles built, servers started, configuration followed, all of it drained on a signal.

mod api;
mod approvals;
mod erase;
mod grants;
mod live;
mod readings;
mod reload;
mod socket;
mod tidings;
mod tls;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use envoy_types::pb::envoy::service::ext_proc::v3::external_processor_server::ExternalProcessorServer;
use jiff::Timestamp;
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use tokio_stream::{
    StreamExt,
    wrappers::{ReceiverStream, TcpListenerStream, UnixListenerStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::Server;
use tracing::{error, info, warn};

use self::{
    live::Live,
    socket::SocketFile,
    tidings::Tidings,
    tls::{Tls, TlsListener},
};
use crate::{
    config::{self, Config, ExtProc},
    grpc::Service,
    http,
    kafka::{KafkaOptions, control::ControlOptions, sealed::SealedPublisher},
    keys::secret::SecretSource,
    runtime::{
        clock::Clock,
        control::Control,
        ledger::{Ledger, LedgerOptions, holders::Webhook, retention::Retention},
        seals::Seals,
    },
    store::{keyfile, layout, sealed::sealed_dir},
    telemetry::{TraceOptions, Traces},
};

/// How long requests in flight may go on after a signal to stop.
const GRACE: Duration = Duration::from_secs(25);

/// How long keeping a sealed payload may take.
const WRITE_DEADLINE: Duration = Duration::from_secs(5);

/// How long requests that were cut may take to write their last record.
const CUT: Duration = Duration::from_secs(5);

/// How long sending the last traces may take.
const LAST_TRACES: Duration = Duration::from_secs(3);

/// The largest message taken from Envoy, in bytes: its chunks are about 1 MiB at most (envoy.md).
const MESSAGE: usize = 8 << 20;

/// Serves by the configuration at `path` until told to stop.
///
/// # Errors
/// Whatever keeps it from starting, or from ending in good order, worded for the operator.
pub async fn serve(path: &Path) -> anyhow::Result<()> {
    let config = load(path)?;
    for warning in &config.warnings {
        warn!(
            at = warning.line,
            path = warning.path,
            "{}",
            warning.message
        );
    }
    let options = ledger_options(&config)?;
    let ledger = tokio::task::spawn_blocking(move || Ledger::open(options)).await??;
    report_opening(&ledger);
    let seals = open_seals(&config)?;
    let _sealed = publish_sealed(&config)?;
    let control = open_control(&config).await?;
    let tidings = Tidings::start(&config, &Clock::system())?;
    let traces = start_traces(&config)?;
    let live = Live::new(&config, ledger, seals, control.clone(), tidings, traces).await?;
    live.record_config(&config)
        .await
        .map_err(|code| anyhow::anyhow!("the audit log does not take a record: {code}"))?;

    // All of it before anything is said to be ready, and in good order where it cannot be had.
    let (ext_proc, listening) = match bind(&config.listen, live.clock().now()).await {
        Ok(bound) => bound,
        Err(error) => {
            let ended = live.ledger().clone().shutdown(0).await;
            ended.context("the audit log did not end in good order")?;
            return Err(error);
        }
    };
    let tasks = TaskTracker::new();
    let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
    let service = Service::new(live.clone(), tasks.clone(), cut.clone());
    let serving = tokio::spawn(serve_ext_proc(
        ext_proc,
        service,
        live.clone(),
        stop.clone(),
    ));
    let http_stop = CancellationToken::new();
    let telling = tokio::spawn(serve_http(listening, live.clone(), http_stop.clone()));
    let erasing = tokio::spawn(erase::follow(
        live.clone(),
        config.audit.dir.clone(),
        stop.clone(),
    ));
    let told = CancellationToken::new();
    let approving = control.clone().map(|control| {
        let recording = approvals::record(live.clone(), control.clone(), told.clone());
        let expiring = approvals::expire(control, stop.clone());
        [tokio::spawn(recording), tokio::spawn(expiring)]
    });
    let following = tokio::spawn(reload::follow(
        live.clone(),
        path.to_owned(),
        config,
        stop.clone(),
    ));
    let counting = tokio::spawn(live::count_strangers(live.clone(), stop.clone()));
    let looking = tokio::spawn(tidings::look_after(live.clone(), stop.clone()));
    live.ready();
    info!("serving");

    let mut serving = serving;
    let early = tokio::select! {
        ended = &mut serving => Some(ended),
        () = signalled() => None,
    };
    live.draining();
    info!(
        streams = tasks.len(),
        "stopping: no new requests, {} s for those in flight",
        GRACE.as_secs()
    );
    stop.cancel();
    tasks.close();
    let cut_sessions = if timeout(GRACE, tasks.wait()).await.is_ok() {
        0
    } else {
        cut_the_rest(&tasks, &cut).await
    };
    for task in [following, counting, erasing, looking] {
        task.await.context("a task of the service failed")?;
    }
    // What the last streams did to approvals is on record before the ledger ends.
    told.cancel();
    for task in approving.into_iter().flatten() {
        task.await.context("a task of the service failed")?;
    }
    let flushed = live.flush_strangers().await;
    let ended = live
        .ledger()
        .clone()
        .shutdown(u32::try_from(cut_sessions).unwrap_or(u32::MAX))
        .await;
    // Behind the last record, which tells of nothing that spans do not; and not for long.
    let last = live.clone();
    let told = tokio::task::spawn_blocking(move || last.end_traces(LAST_TRACES)).await;
    told.context("sending the last traces failed")?;
    http_stop.cancel();
    telling.await.context("the HTTP service failed")??;
    match early {
        Some(ended) => ended.context("the ext_proc service failed")??,
        None => serving.await.context("the ext_proc service failed")??,
    }
    flushed
        .map_err(|code| anyhow::anyhow!("the last count of refusals is not on record: {code}"))?;
    ended.context("the audit log did not end in good order")?;
    info!("stopped");
    Ok(())
}

/// Sends traces, where the configuration says so.
fn start_traces(config: &Config) -> anyhow::Result<Option<Traces>> {
    let Some(otlp) = &config.otlp else {
        return Ok(None);
    };
    let mut headers = std::collections::HashMap::new();
    for (name, source) in &otlp.headers {
        let value = source.read();
        let value = value.with_context(|| format!("telemetry.otlp.headers.{name}"))?;
        headers.insert(name.clone(), value);
    }
    let endpoint = otlp.endpoint.as_ref().map(url::Url::as_str);
    let endpoint = endpoint.map(|url| format!("{}/v1/traces", url.trim_end_matches('/')));
    let options = TraceOptions {
        endpoint,
        headers,
        sample_ratio: otlp.sample_ratio,
        principals: otlp.principals,
        replica: replica(&config.audit),
    };
    Ok(Some(Traces::start(options).context("telemetry.otlp")?))
}

fn load(path: &Path) -> anyhow::Result<Config> {
    let config = config::load_with_builtins(path)?;
    let missing = config.missing();
    let told: Vec<_> = missing
        .iter()
        .map(|fault| format!("{}:{fault}", path.display()))
        .collect();
    anyhow::ensure!(missing.is_empty(), "{}", told.join("\n"));
    Ok(config)
}

fn replica(audit: &config::Audit) -> String {
    audit.replica.clone().unwrap_or_else(hostname)
}

/// How the ledger is kept by a configuration.
///
/// # Errors
/// Where a secret that it names cannot be read.
pub fn ledger_options(config: &Config) -> anyhow::Result<LedgerOptions> {
    let audit = &config.audit;
    let replica = replica(audit);
    let mut options = LedgerOptions::new(&audit.dir, &audit.deployment, replica);
    options.signing_key.clone_from(&audit.signing_key);
    options.checkpoint_file.clone_from(&audit.checkpoint_file);
    options.segment_bytes = audit.segment;
    options.spool_cap_bytes = audit.spool_cap;
    for webhook in &audit.checkpoint_webhooks {
        let token = webhook.token.as_ref().map(SecretSource::read).transpose();
        options.webhooks.push(Webhook {
            url: webhook.url.clone(),
            token: token.context("audit.checkpoint_webhooks")?,
        });
    }
    options.retention = audit.retention.as_ref().map(|from| Retention {
        age: from.age,
        size: from.size,
        at_least: from.at_least,
        archive: from.archive.clone(),
        sealed_cap: config.sealing.as_ref().map(|sealing| sealing.cap),
    });
    options.kafka = audit.kafka.as_ref().map(kafka_options).transpose()?;
    Ok(options)
}

/// Opens the control log, where anything could need an approval.
async fn open_control(config: &Config) -> anyhow::Result<Option<Control>> {
    let Some(approvals) = &config.approvals else {
        return Ok(None);
    };
    let (dir, replica) = (approvals.dir.clone(), replica(&config.audit));
    let shared = match (&approvals.kafka, &config.audit.kafka) {
        (Some(shared), Some(kafka)) => Some(control_options(
            shared,
            kafka_options(kafka)?,
            &config.audit.deployment,
            &replica,
        )?),
        _ => None,
    };
    let opening = tokio::task::spawn_blocking(move || match shared {
        Some(options) => {
            layout::create_private(&dir)?;
            Control::join(&options, &dir, Clock::system())
                .context("the control log on Kafka cannot be used")
        }
        None => Control::open(&dir, &replica, Clock::system())
            .with_context(|| format!("the control log in `{}` cannot be used", dir.display())),
    });
    opening.await?.map(Some)
}

fn control_options(
    shared: &config::ControlKafka,
    kafka: KafkaOptions,
    deployment: &str,
    replica: &str,
) -> anyhow::Result<ControlOptions> {
    let certificate = std::fs::read_to_string(&shared.certificate)
        .with_context(|| format!("cannot read `{}`", shared.certificate.display()))?;
    Ok(ControlOptions {
        kafka,
        topic: shared.topic.clone(),
        root: shared.root.clone(),
        key: keyfile::load(&shared.key)?,
        certificate,
        deployment: deployment.to_owned(),
        replica: replica.to_owned(),
        dev: shared.dev,
    })
}

/// Where sealed payloads are kept; under the ledger's lock, so open that first.
fn open_seals(config: &Config) -> anyhow::Result<Option<Seals>> {
    let Some(sealing) = &config.sealing else {
        return Ok(None);
    };
    let dir = &config.audit.dir;
    let seals = Seals::open(dir, sealing.cap, WRITE_DEADLINE)
        .with_context(|| format!("sealed payloads cannot be kept in `{}`", dir.display()))?;
    Ok(Some(seals))
}

/// Sends sealed payloads to Kafka where there is one, until it is dropped.
fn publish_sealed(config: &Config) -> anyhow::Result<Option<SealedPublisher>> {
    let (Some(sealing), Some(kafka)) = (&config.sealing, &config.audit.kafka) else {
        return Ok(None);
    };
    let replica = replica(&config.audit);
    let source = format!("countersign/{}/{replica}", config.audit.deployment);
    let dir = sealed_dir(&config.audit.dir);
    let options = kafka_options(kafka)?;
    let publisher = SealedPublisher::start(&options, &sealing.topic, &dir, &replica, source)?;
    Ok(Some(publisher))
}

/// The machine's name, as the kernel has it.
fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() {
        "replica".to_owned()
    } else {
        name.to_owned()
    }
}

/// How Kafka is reached by a configuration.
///
/// # Errors
/// Where a secret that it names cannot be read.
pub fn kafka_options(from: &config::Kafka) -> anyhow::Result<KafkaOptions> {
    use secrecy::ExposeSecret;
    let mut extra = from.options.clone();
    for (name, source) in &from.secrets {
        let secret = source
            .read()
            .with_context(|| format!("audit.kafka.secrets.{name}"))?;
        extra.insert(name.clone(), secret.expose_secret().to_owned());
    }
    Ok(KafkaOptions {
        topic: from.topic.clone(),
        checkpoint_topic: from.checkpoint_topic.clone(),
        take_over: from.take_over,
        extra,
        ..KafkaOptions::new(from.brokers.join(","))
    })
}

fn report_opening(ledger: &Ledger) {
    let opening = ledger.opening();
    for cut in &opening.cuts {
        warn!(
            ?cut,
            "the end of the audit log was torn by a crash and is cut off"
        );
    }
    if opening.orphans_closed > 0 {
        warn!(
            sessions = opening.orphans_closed,
            "closed sessions that a crash had left open, as unknown"
        );
    }
    info!(chain = %opening.chain, clean = opening.previous_clean, key = %opening.verifier, "the audit log is open");
}

/// Where Envoy's streams come in.
enum ExtProcListener {
    Unix(UnixListener, SocketFile),
    Tls(TcpListener, Followed),
    Tcp(TcpListener),
}

/// A listener's certificates, and what of their files was seen.
type Followed = (Arc<Tls>, Result<Vec<String>, String>);

/// Where the API is asked.
type HttpListener = (TcpListener, Option<Followed>);

/// Everything that is listened on.
async fn bind(
    listen: &config::Listen,
    now: Timestamp,
) -> anyhow::Result<(ExtProcListener, HttpListener)> {
    let ext_proc = match &listen.ext_proc {
        ExtProc::Unix(path, mode) => {
            let (listener, file) = socket::bind(path, *mode)
                .with_context(|| format!("cannot listen on `{}`", path.display()))?;
            ExtProcListener::Unix(listener, file)
        }
        ExtProc::Tls(address, files) => {
            let tls = Tls::open("ext_proc", b"h2", files, now).context("listen.ext_proc.tls")?;
            ExtProcListener::Tls(bind_tcp(*address, "ext_proc").await?, tls)
        }
        ExtProc::Insecure(address) => {
            warn!(%address, "ext_proc is open to whoever reaches this port, lent credentials included");
            ExtProcListener::Tcp(bind_tcp(*address, "ext_proc").await?)
        }
    };
    let files = listen.http_tls.as_ref();
    let tls = files.map(|files| Tls::open("http", b"http/1.1", files, now));
    let tls = tls.transpose().context("listen.http.tls")?;
    Ok((ext_proc, (bind_tcp(listen.http, "http").await?, tls)))
}

async fn serve_http(
    (listener, tls): HttpListener,
    live: Arc<Live>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let Some((tls, seen)) = tls else {
        http::serve(listener, live, stop.cancelled_owned()).await;
        return Ok(());
    };
    let following = tokio::spawn(tls.clone().follow(seen, live.clone(), stop.clone()));
    let address = listener.local_addr()?;
    let incoming = tls.accept(listener, stop.clone());
    let listener = TlsListener { incoming, address };
    http::serve(listener, live, stop.cancelled_owned()).await;
    following.await.context("a task of the service failed")
}

async fn bind_tcp(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("cannot listen on {address} (listen.{key})"))
}

async fn serve_ext_proc(
    listener: ExtProcListener,
    service: Service<Live>,
    live: Arc<Live>,
    token: CancellationToken,
) -> anyhow::Result<()> {
    let service = ExternalProcessorServer::new(service).max_decoding_message_size(MESSAGE);
    let mut server = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .tcp_nodelay(true);
    let stop = token.clone().cancelled_owned();
    let served = match listener {
        ExtProcListener::Unix(listener, _file) => {
            let incoming = UnixListenerStream::new(listener);
            let router = server.add_service(service);
            router.serve_with_incoming_shutdown(incoming, stop).await
        }
        ExtProcListener::Tls(listener, (tls, seen)) => {
            let following = tokio::spawn(tls.clone().follow(seen, live, token.clone()));
            let incoming = ReceiverStream::new(tls.accept(listener, token))
                .map(|(stream, _)| Ok::<_, std::io::Error>(stream));
            let router = server.add_service(service);
            let served = router.serve_with_incoming_shutdown(incoming, stop).await;
            following.await.context("a task of the service failed")?;
            served
        }
        ExtProcListener::Tcp(listener) => {
            let incoming = TcpListenerStream::new(listener);
            let router = server.add_service(service);
            router.serve_with_incoming_shutdown(incoming, stop).await
        }
    };
    served.context("the ext_proc service failed")
}

async fn cut_the_rest(tasks: &TaskTracker, cut: &CancellationToken) -> usize {
    let left = tasks.len();
    warn!(streams = left, "cutting the requests still in flight");
    cut.cancel();
    if timeout(CUT, tasks.wait()).await.is_err() {
        error!(
            streams = tasks.len(),
            "requests did not end; the next start closes their records"
        );
    }
    left
}

/// Resolves at the first signal to stop. Where signals cannot be had the service runs until it is killed.
async fn signalled() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        error!("signals cannot be had: only a kill will end this process");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
