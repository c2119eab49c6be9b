//! Traces over OTLP: one span per exchange, a child for each of its phases.
//!
//! Promises: never a word of a prompt or an answer, never a token, and nobody's name unless the configuration asks for it; names that a
//! caller chose stand there as in records, masked, and cut at [`NAME`] bytes. Spans are made when an exchange is over, from what it says of
//! itself, so telling costs a request nothing; what waits to be sent is bounded by [`WAITING`], and what finds no place is counted and
//! forgotten, whole exchanges at a time. Who could not be identified fills half of the places at most.
//!
//! Can miss: what a kill or a full queue takes. Evidence is the ledger's business.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Array, Context, KeyValue, StringValue, Value,
    trace::{
        Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _,
        TraceFlags, TraceId, TraceState, Tracer as _, TracerProvider as _,
    },
};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, SpanData,
        SpanExporter,
    },
};
use reqwest::{Client, redirect};
use secrecy::{ExposeSecret, SecretString};
use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::exchange::{Summary, TraceParent};

/// Spans that wait to be sent, at most; about a kilobyte each.
const WAITING: u64 = 8_192;

/// How long one attempt to send may take.
const ATTEMPT: Duration = Duration::from_secs(10);

/// The most of a name that a caller or an upstream chose, in bytes.
const NAME: usize = 128;

/// The most of what a collector answers that is read, in bytes.
const ANSWER: usize = 64 << 10;

/// Where traces go. What is `None` is as the environment says (`OTEL_…`), or else as OpenTelemetry says.
pub struct TraceOptions {
    /// The collector's address for traces, path included.
    pub endpoint: Option<String>,
    /// Sent with every batch.
    pub headers: HashMap<String, SecretString>,
    /// How many traces are kept of those that begin here, 0 to 1. Those that began elsewhere are kept where they are.
    pub sample_ratio: Option<f64>,
    /// Whether spans name callers.
    pub principals: bool,
    /// The name of this process among its like.
    pub replica: String,
}

impl fmt::Debug for TraceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceOptions").finish_non_exhaustive()
    }
}

/// Traces cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("traces cannot be sent: {0}")]
pub struct TracesError(String);

/// What became of spans since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceCounts {
    /// Taken by the collector.
    pub sent: u64,
    /// Not taken by it.
    pub failed: u64,
    /// Never sent, because too many waited; those among them too that sampling would have left out.
    pub dropped: u64,
    /// Waiting to be sent.
    pub waiting: u64,
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    waiting: AtomicU64,
}

/// Sends traces until it is [ended](Self::end).
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    counts: Arc<Counts>,
    principals: bool,
}

impl Traces {
    /// Begins. Nothing is sent before there is something to tell; a collector that is not there changes nothing here. Must be called inside a
    /// tokio runtime.
    ///
    /// # Errors
    /// [`TracesError`] for an address or a setting that cannot be used.
    pub fn start(options: TraceOptions) -> Result<Self, TracesError> {
        let failed = |error: &dyn fmt::Display| TracesError(error.to_string());
        let client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .timeout(ATTEMPT)
            .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| failed(&error))?;
        let headers = options.headers.iter();
        let headers = headers
            .map(|(name, value)| (name.clone(), value.expose_secret().to_owned()))
            .collect();
        let mut exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(Posts {
                client,
                runtime: Handle::current(),
            })
            .with_headers(headers);
        if let Some(endpoint) = &options.endpoint {
            exporter = exporter.with_endpoint(endpoint);
        }
        let exporter = exporter.build().map_err(|error| failed(&error))?;
        Ok(Self::with(&options, exporter))
    }

    fn with<E: SpanExporter + 'static>(options: &TraceOptions, exporter: E) -> Self {
        let counts = Arc::<Counts>::default();
        let counting = Counting {
            inner: exporter,
            counts: counts.clone(),
            failing: AtomicU64::new(0),
        };
        // Twice the room that is let in, so that no other bound than ours is ever met.
        let room = usize::try_from(2 * WAITING).unwrap_or(usize::MAX);
        let batches = BatchConfigBuilder::default().with_max_queue_size(room);
        let processor = BatchSpanProcessor::builder(counting).with_batch_config(batches.build());
        // The environment's word on these counts, where it has one.
        let named = Resource::builder_empty()
            .with_attributes([
                KeyValue::new("service.name", "countersign"),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", options.replica.clone()),
            ])
            .with_detector(Box::new(
                opentelemetry_sdk::resource::EnvResourceDetector::new(),
            ));
        let mut provider = SdkTracerProvider::builder()
            .with_resource(named.build())
            .with_span_processor(processor.build());
        if let Some(ratio) = options.sample_ratio {
            let of_ours = Sampler::TraceIdRatioBased(ratio);
            provider = provider.with_sampler(Sampler::ParentBased(Box::new(of_ours)));
        }
        let provider = provider.build();
        Self {
            tracer: provider.tracer("countersign"),
            provider,
            counts,
            principals: options.principals,
        }
    }

    /// Tells of an exchange that ended at `ended` and took so long.
    pub fn tell(&self, session: &str, summary: &Summary, ended: SystemTime, took: Duration) {
        let Some(began) = ended.checked_sub(took) else {
            return;
        };
        let laps = summary.laps.over();
        let spans = 1 + laps.len() as u64;
        let room = if summary.authenticated {
            WAITING
        } else {
            WAITING / 2
        };
        let parent = summary.trace.map_or_else(Context::new, remote);
        if self.counts.waiting.fetch_add(spans, Ordering::Relaxed) + spans > room {
            self.counts.waiting.fetch_sub(spans, Ordering::Relaxed);
            if summary.trace.is_none_or(|trace| trace.sampled) {
                self.counts.dropped.fetch_add(spans, Ordering::Relaxed);
            }
            return;
        }
        let builder = SpanBuilder::from_name(name(summary))
            .with_kind(SpanKind::Server)
            .with_start_time(began)
            .with_attributes(self.attributes(session, summary));
        let mut span = self.tracer.build_with_context(builder, &parent);
        if !span.is_recording() {
            self.counts.waiting.fetch_sub(spans, Ordering::Relaxed);
            return;
        }
        if !matches!(summary.outcome, "completed" | "") {
            span.set_status(Status::error(summary.code));
        }
        let whole = Context::new().with_remote_span_context(span.span_context().clone());
        for lap in laps {
            let mut builder = SpanBuilder::from_name(lap.phase.name())
                .with_kind(SpanKind::Internal)
                .with_start_time(began + lap.from);
            if lap.to - lap.from > lap.took {
                let took = KeyValue::new("countersign.took", lap.took.as_secs_f64());
                builder = builder.with_attributes([took]);
            }
            let mut child = self.tracer.build_with_context(builder, &whole);
            child.end_with_timestamp(began + lap.to);
        }
        span.end_with_timestamp(ended);
    }

    fn attributes(&self, session: &str, summary: &Summary) -> Vec<KeyValue> {
        let mut told = Attributes(Vec::new());
        told.text("countersign.session", session);
        told.text("countersign.connection", &summary.connection);
        told.text("countersign.outcome", summary.outcome);
        told.text("countersign.verdict", summary.verdict);
        told.list("countersign.policies", &summary.policies);
        if summary.status != 0 {
            told.number("http.response.status_code", u64::from(summary.status));
        }
        if !matches!(summary.outcome, "completed" | "") {
            let why = match summary.code {
                "" => summary.outcome,
                code => code,
            };
            told.text("error.type", why);
        }
        if let Some(called) = &summary.called {
            told.text("gen_ai.operation.name", operation(called.endpoint));
            told.text("gen_ai.provider.name", provider(called.dialect));
            told.text("gen_ai.request.model", &called.model);
            told.text("countersign.endpoint", called.endpoint);
        }
        let answered = &summary.answered;
        told.text("gen_ai.response.id", &answered.id);
        told.text("gen_ai.response.model", &answered.model);
        told.list("gen_ai.response.finish_reasons", &answered.finish_reasons);
        for (name, tokens) in [
            ("gen_ai.usage.input_tokens", answered.input_tokens),
            ("gen_ai.usage.output_tokens", answered.output_tokens),
        ] {
            if let Some(tokens) = tokens {
                told.number(name, tokens);
            }
        }
        for (direction, masked) in [
            ("request", &summary.masked_request),
            ("response", &summary.masked_response),
        ] {
            for (entity, n) in masked {
                told.number(format!("countersign.masked.{direction}.{entity}"), *n);
            }
        }
        if let (true, Some((issuer, subject))) = (self.principals, &summary.caller) {
            told.text("enduser.id", subject);
            told.text("countersign.issuer", issuer);
        }
        told.0
    }

    /// What became of spans.
    #[must_use]
    pub fn counts(&self) -> TraceCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        TraceCounts {
            sent: read(&self.counts.sent),
            failed: read(&self.counts.failed),
            dropped: read(&self.counts.dropped),
            waiting: read(&self.counts.waiting),
        }
    }

    /// Sends what waits, within so long, and ends. Blocks.
    pub fn end(&self, within: Duration) {
        if let Err(error) = self.provider.shutdown_with_timeout(within) {
            warn!(%error, "the last traces were not sent");
        }
    }
}

/// What is told of an exchange; what is empty is not.
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn text(&mut self, name: &'static str, text: &str) {
        if !text.is_empty() {
            self.0.push(KeyValue::new(name, short(text).to_owned()));
        }
    }

    fn number(&mut self, name: impl Into<opentelemetry::Key>, n: u64) {
        let n = i64::try_from(n).unwrap_or(i64::MAX);
        self.0.push(KeyValue::new(name, n));
    }

    fn list(&mut self, name: &'static str, texts: &[String]) {
        if texts.is_empty() {
            return;
        }
        // As many as fit a person's eye; each choice of an answer has one.
        let texts = texts.iter().take(16);
        let texts = texts.map(|text| StringValue::from(short(text).to_owned()));
        let texts = Value::Array(Array::String(texts.collect()));
        self.0.push(KeyValue::new(name, texts));
    }
}

fn short(text: &str) -> &str {
    text.get(..text.floor_char_boundary(NAME)).unwrap_or(text)
}

/// The span's name, as the semantic conventions for generative AI want it.
fn name(summary: &Summary) -> String {
    match &summary.called {
        Some(called) => format!("{} {}", operation(called.endpoint), short(&called.model)),
        None => "exchange".to_owned(),
    }
}

/// `gen_ai.operation.name` of an endpoint: the convention's where it has one.
fn operation(endpoint: &'static str) -> &'static str {
    match endpoint {
        "chat_completions" | "responses" | "messages" | "chat" => "chat",
        "completions" | "generate" => "text_completion",
        "embeddings" | "embed" => "embeddings",
        "generate_content" | "stream_generate_content" => "generate_content",
        other => other,
    }
}

/// `gen_ai.provider.name` of a dialect: the convention's where it has one. Who it is that speaks it is the operator's to know.
fn provider(dialect: &'static str) -> &'static str {
    match dialect {
        "gemini" => "gcp.gemini",
        other => other,
    }
}

fn remote(parent: TraceParent) -> Context {
    Context::new().with_remote_span_context(SpanContext::new(
        TraceId::from_bytes(parent.trace_id.to_be_bytes()),
        SpanId::from_bytes(parent.span_id.to_be_bytes()),
        TraceFlags::default().with_sampled(parent.sampled),
        true,
        TraceState::NONE,
    ))
}

/// Counts what the exporter takes, and says in the log when that changes.
#[derive(Debug)]
struct Counting<E> {
    inner: E,
    counts: Arc<Counts>,
    /// Batches that failed one after the other.
    failing: AtomicU64,
}

impl<E: SpanExporter> SpanExporter for Counting<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let result = self.inner.export(batch).await;
        self.counts.waiting.fetch_sub(spans, Ordering::Relaxed);
        match &result {
            Ok(()) => {
                self.counts.sent.fetch_add(spans, Ordering::Relaxed);
                if self.failing.swap(0, Ordering::Relaxed) > 0 {
                    info!("the collector takes traces again");
                }
            }
            Err(error) => {
                self.counts.failed.fetch_add(spans, Ordering::Relaxed);
                // Once: the counter tells of the rest.
                if self.failing.fetch_add(1, Ordering::Relaxed) == 0 {
                    warn!(%error, "the collector does not take traces; requests go on without");
                }
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Posts batches by the HTTP client that is here anyway, on our runtime: the SDK sends from a thread of its own.
#[derive(Debug)]
struct Posts {
    client: Client,
    runtime: Handle,
}

impl HttpClient for Posts {
    fn send_bytes<'a, 'f>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>
    where
        'a: 'f,
        Self: 'f,
    {
        let client = self.client.clone();
        let posting = self.runtime.spawn(async move {
            let mut answer = client.execute(request.try_into()?).await?;
            let mut response = Response::builder().status(answer.status());
            if let Some(headers) = response.headers_mut() {
                headers.clone_from(answer.headers());
            }
            let mut body = Vec::new();
            while let Some(piece) = answer.chunk().await? {
                if body.len() + piece.len() > ANSWER {
                    return Err(HttpError::from("the collector answers with too much"));
                }
                body.extend_from_slice(&piece);
            }
            Ok(response.body(body.into())?)
        });
        Box::pin(async move { posting.await? })
    }
}

#[cfg(test)]
mod tests;
