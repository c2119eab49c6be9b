//! Streams as Envoy sees them: how they end, whatever becomes of the exchange and its task.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::sync::Mutex;

use envoy_types::pb::{
    envoy::{
        config::core::v3::{HeaderMap, HeaderValue},
        service::ext_proc::v3::{
            HttpBody, HttpHeaders, HttpTrailers, ProcessingResponse, ProtocolConfiguration,
            external_processor_client::ExternalProcessorClient,
            external_processor_server::ExternalProcessorServer,
            processing_request::Request as Said, processing_response::Response as Told,
        },
    },
    google::protobuf::{Struct, Value, value::Kind},
};
use futures::{FutureExt, SinkExt, StreamExt, channel::mpsc};
use tokio::sync::Semaphore;
use tonic::Code;

use super::*;
use crate::{
    audit::record::Event,
    exchange::{
        Limits,
        tests::rules::{LENT, principal, rules},
    },
};

const FULL_DUPLEX: i32 = 4;
const PROMPT: &str = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
const CHUNK: &str = "data: {\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hello there\"}}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// What becomes of a record that is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ledger {
    Durable,
    /// When [`Fake::let_it_write`] says so.
    Waits,
    Panics,
}

struct Fake {
    rules: Arc<Rules>,
    ledger: Mutex<Ledger>,
    authenticates: bool,
    gate: Arc<Semaphore>,
    /// A record is being written.
    writing: Arc<Semaphore>,
    records: Arc<Mutex<Vec<Event>>>,
    streams: Mutex<i32>,
    ended: Mutex<Vec<Summary>>,
    complaints: Mutex<Vec<&'static str>>,
}

impl Fake {
    fn new(ledger: Ledger) -> Self {
        let limits = Limits {
            request_body: 1 << 20,
            response_body: 1 << 20,
            memory_per_principal: 8 << 20,
        };
        Self {
            rules: rules(limits, 8 << 20, 10),
            ledger: Mutex::new(ledger),
            authenticates: true,
            gate: Arc::new(Semaphore::new(0)),
            writing: Arc::new(Semaphore::new(0)),
            records: Arc::default(),
            streams: Mutex::default(),
            ended: Mutex::default(),
            complaints: Mutex::default(),
        }
    }

    fn becomes(&self, ledger: Ledger) {
        *self.ledger.lock().unwrap() = ledger;
    }

    fn let_it_write(&self) {
        self.gate.add_permits(10);
    }

    async fn is_writing(&self) {
        soon(self.writing.acquire()).await.unwrap().forget();
    }

    /// What is on record, but for the parts: how many there are depends on the time.
    fn kinds(&self) -> Vec<&'static str> {
        let records = self.records.lock().unwrap();
        let records = records
            .iter()
            .filter(|event| !matches!(event, Event::Delivered(_)));
        let kind = |event: &Event| match event {
            Event::Opened(_) => "opened",
            Event::Closed(closed) if closed.outcome == "unknown" => "closed as unknown",
            Event::Closed(_) => "closed",
            _ => "other",
        };
        records.map(kind).collect()
    }

    /// Asserts that one stream began, ended and gave all back, and returns what it came to.
    fn came_to(&self) -> (&'static str, &'static str) {
        assert_eq!(
            *self.streams.lock().unwrap(),
            0,
            "a stream is counted for ever"
        );
        assert_eq!(self.rules.budget.used(), 0);
        assert!(
            self.rules
                .admission
                .enter("https://idp.example", "alice")
                .is_ok()
        );
        let ended = self.ended.lock().unwrap();
        assert_eq!(ended.len(), 1);
        (ended[0].outcome, ended[0].code)
    }
}

impl Backing for Fake {
    fn rules(&self) -> Arc<Rules> {
        self.rules.clone()
    }

    fn session(&self) -> String {
        "session-1".into()
    }

    fn seed(&self) -> Option<Seed> {
        None
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(5)
    }

    fn authenticate(
        &self,
        presented: Presented,
    ) -> BoxFuture<'static, Result<Arc<Principal>, TokenError>> {
        use secrecy::ExposeSecret;
        let principal = principal(presented.token.unwrap().text.expose_secret());
        if self.authenticates {
            futures::future::ready(principal).boxed()
        } else {
            futures::future::pending().boxed()
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn ask(&self, _: Box<Asked>) -> BoxFuture<'static, Result<Arc<Approval>, NotAsked>> {
        futures::future::pending().boxed()
    }

    fn hold(&self, _: Id, _: Presented, _: Duration) -> BoxFuture<'static, Held> {
        futures::future::pending().boxed()
    }

    fn take_use(&self, _: Use) -> BoxFuture<'static, Result<u32, NotUsed>> {
        futures::future::pending().boxed()
    }

    fn claim(&self, _: Claimed) -> BoxFuture<'static, Result<Arc<Approval>, NotClaimed>> {
        futures::future::pending().boxed()
    }

    fn record(
        &self,
        entries: Vec<Entry>,
        _: Vec<Frame>,
        _: Durability,
    ) -> BoxFuture<'static, Result<(), &'static str>> {
        let (ledger, records) = (*self.ledger.lock().unwrap(), self.records.clone());
        let (gate, writing) = (self.gate.clone(), self.writing.clone());
        // What is closed as unknown is written by a ledger that works again.
        let unknown = entries.iter().any(
            |entry| matches!(&entry.event, Event::Closed(closed) if closed.outcome == "unknown"),
        );
        async move {
            writing.add_permits(1);
            match ledger {
                Ledger::Panics if !unknown => panic!("injected"),
                Ledger::Waits if !unknown => gate.acquire().await.unwrap().forget(),
                _ => {}
            }
            let mut records = records.lock().unwrap();
            records.extend(entries.into_iter().map(|entry| entry.event));
            Ok(())
        }
        .boxed()
    }

    fn began(&self) {
        *self.streams.lock().unwrap() += 1;
    }

    fn ended(&self, _: &str, summary: &Summary, _: Duration) {
        *self.streams.lock().unwrap() -= 1;
        self.ended.lock().unwrap().push(summary.clone());
    }

    fn outdated(&self, version: &str) {
        let mut complaints = self.complaints.lock().unwrap();
        complaints.push(if version == "1.38.2" { "outdated" } else { "?" });
    }

    fn misconfigured(&self, why: &'static str) {
        self.complaints.lock().unwrap().push(why);
    }
}

/// Fails rather than hangs: nothing here takes long.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what)
        .await
        .expect("it hangs")
}

/// One stream between Envoy and us.
struct Stream {
    fake: Arc<Fake>,
    envoy: Option<mpsc::UnboundedSender<Result<ProcessingRequest, Status>>>,
    answers: Option<answers::Answers>,
    task: tokio::task::JoinHandle<()>,
    tasks: TaskTracker,
    large: Arc<Semaphore>,
    drain: CancellationToken,
}

impl Stream {
    fn open(fake: Fake) -> Self {
        let fake = Arc::new(fake);
        let (envoy, inbound) = mpsc::unbounded();
        let (teller, answers) = answers::channel();
        let (tasks, drain) = (TaskTracker::new(), CancellationToken::new());
        let large = Arc::new(Semaphore::new(1));
        let driving = drive::drive(
            fake.clone(),
            tasks.clone(),
            large.clone(),
            inbound,
            String::new(),
            teller,
            drain.clone(),
        );
        Self {
            fake,
            envoy: Some(envoy),
            answers: Some(answers),
            task: tasks.spawn(driving),
            tasks,
            large,
            drain,
        }
    }

    fn say(&self, message: ProcessingRequest) -> &Self {
        self.envoy
            .as_ref()
            .unwrap()
            .unbounded_send(Ok(message))
            .unwrap();
        self
    }

    fn ask(&self) -> &Self {
        self.say(first()).say(body(PROMPT, true, false))
    }

    /// The next thing Envoy is told.
    async fn told(&mut self) -> Told {
        let answers = self.answers.as_mut().unwrap();
        let answer = soon(answers.next()).await.expect("an early good end");
        answer.expect("an early error").response.unwrap()
    }

    /// How the stream ends: the code of its error, `None` where it ends well.
    async fn end(&mut self) -> Option<Code> {
        let answers = self.answers.as_mut().unwrap();
        let mut end = None;
        while let Some(answer) = soon(answers.next()).await {
            end = answer.err().map(|status| status.code());
        }
        end
    }

    async fn settled(&self) {
        self.tasks.close();
        soon(self.tasks.wait()).await;
    }

    /// Asks and reads until the request is upstream and the stream's head is out.
    async fn flows(&mut self) {
        self.ask();
        assert!(matches!(self.told().await, Told::RequestHeaders(_)));
        assert!(matches!(self.told().await, Told::RequestBody(_)));
        self.say(answer_head());
        assert!(matches!(self.told().await, Told::ResponseHeaders(_)));
        self.say(body(CHUNK, false, true));
        assert!(matches!(self.told().await, Told::ResponseBody(_)));
    }
}

fn fields(fields: &[(&str, &str)]) -> HttpHeaders {
    let field = |(key, value): &(&str, &str)| HeaderValue {
        key: (*key).into(),
        raw_value: value.as_bytes().to_vec(),
        ..HeaderValue::default()
    };
    HttpHeaders {
        headers: Some(HeaderMap {
            headers: fields.iter().map(field).collect(),
        }),
        ..HttpHeaders::default()
    }
}

fn first() -> ProcessingRequest {
    let text = |text: &str| Value {
        kind: Some(Kind::StringValue(text.into())),
    };
    let attributes = Struct {
        fields: [("xds.route_name".to_owned(), text("model"))].into(),
    };
    ProcessingRequest {
        request: Some(Said::RequestHeaders(fields(&[
            (":method", "POST"),
            (":authority", "api.example"),
            (":path", "/v1/chat/completions"),
            ("content-type", "application/json"),
            ("authorization", "Bearer token-of-alice"),
        ]))),
        attributes: [("envoy.filters.http.ext_proc".to_owned(), attributes)].into(),
        protocol_config: Some(ProtocolConfiguration {
            request_body_mode: FULL_DUPLEX,
            response_body_mode: FULL_DUPLEX,
            ..ProtocolConfiguration::default()
        }),
        ..ProcessingRequest::default()
    }
}

fn said(request: Said) -> ProcessingRequest {
    ProcessingRequest {
        request: Some(request),
        ..ProcessingRequest::default()
    }
}

fn body(text: &str, end_of_stream: bool, of_answer: bool) -> ProcessingRequest {
    let body = HttpBody {
        body: text.as_bytes().to_vec(),
        end_of_stream,
        ..HttpBody::default()
    };
    said(if of_answer {
        Said::ResponseBody(body)
    } else {
        Said::RequestBody(body)
    })
}

fn answer_head() -> ProcessingRequest {
    said(Said::ResponseHeaders(fields(&[
        (":status", "200"),
        ("content-type", "text/event-stream"),
    ])))
}

/// The metadata a guard of Envoy's asks for.
fn grants(answer: &ProcessingResponse, key: &str) -> bool {
    let ours = answer
        .dynamic_metadata
        .as_ref()
        .and_then(|all| all.fields.get("countersign"));
    let Some(Kind::StructValue(ours)) = ours.and_then(|ours| ours.kind.as_ref()) else {
        return false;
    };
    ours.fields
        .get(key)
        .is_some_and(|value| value.kind == Some(Kind::StringValue("granted".into())))
}

#[tokio::test]
async fn a_whole_exchange_ends_well() {
    let mut stream = Stream::open(Fake::new(Ledger::Durable));
    stream.ask();
    let head = stream
        .answers
        .as_mut()
        .unwrap()
        .next()
        .await
        .unwrap()
        .unwrap();
    assert!(grants(&head, "permit") && !grants(&head, "release"));
    let Some(Told::RequestHeaders(head)) = head.response else {
        panic!("{head:?}")
    };
    let mutation = head.response.unwrap().header_mutation.unwrap();
    let lent = mutation.set_headers[0].header.as_ref().unwrap();
    assert_eq!(
        (lent.key.as_str(), lent.raw_value.as_slice()),
        ("authorization", format!("Bearer {LENT}").as_bytes())
    );
    assert!(mutation.remove_headers.contains(&"x-api-key".to_owned()));
    assert!(matches!(stream.told().await, Told::RequestBody(_)));

    stream.say(answer_head());
    let head = stream
        .answers
        .as_mut()
        .unwrap()
        .next()
        .await
        .unwrap()
        .unwrap();
    assert!(grants(&head, "release") && !grants(&head, "permit"));
    stream
        .say(body(CHUNK, false, true))
        .say(body(DONE, true, true));
    assert_eq!(stream.end().await, None);
    stream.settled().await;
    assert_eq!(stream.fake.kinds(), ["opened", "closed"]);
    assert_eq!(stream.fake.came_to(), ("completed", ""));
}

#[tokio::test]
async fn trailers_are_answered() {
    let mut stream = Stream::open(Fake::new(Ledger::Durable));
    stream.flows().await;
    stream.say(body(DONE, false, true));
    stream.say(said(Said::ResponseTrailers(HttpTrailers {
        trailers: fields(&[("x-note", "1")]).headers,
    })));
    let trailers = loop {
        match stream.told().await {
            Told::ResponseTrailers(trailers) => break trailers,
            other => assert!(matches!(other, Told::ResponseBody(_))),
        }
    };
    assert_eq!(trailers.header_mutation.unwrap().remove_headers, ["x-note"]);
    assert_eq!(stream.end().await, None);
}

#[tokio::test]
async fn envoy_configured_wrong_is_refused_in_an_error() {
    type Wrong = fn(&mut ProcessingRequest);
    let cases: [(&str, Wrong); 5] = [
        ("observability_mode", |first| {
            first.observability_mode = true
        }),
        ("no_protocol_config", |first| first.protocol_config = None),
        ("wrong_request_body_mode", |first| {
            first.protocol_config.as_mut().unwrap().request_body_mode = 2
        }),
        ("wrong_response_body_mode", |first| {
            first.protocol_config.as_mut().unwrap().response_body_mode = 1
        }),
        ("wrong_response_body_mode", |first| {
            first.protocol_config.as_mut().unwrap().response_body_mode = 0
        }),
    ];
    for (why, wrong) in cases {
        let mut stream = Stream::open(Fake::new(Ledger::Durable));
        let mut message = first();
        wrong(&mut message);
        stream.say(message);
        assert_eq!(stream.end().await, Some(Code::FailedPrecondition), "{why}");
        stream.settled().await;
        assert_eq!(*stream.fake.complaints.lock().unwrap(), [why]);
        assert_eq!(stream.fake.came_to(), ("misconfigured", why));
        assert!(stream.fake.kinds().is_empty());
    }
}

#[tokio::test]
async fn an_envoy_older_than_was_tried_is_noticed_and_served() {
    for (version, complaint) in [
        ([1, 38, 2], Some("outdated")),
        ([1, 38, 3], None),
        ([1, 40, 0], None),
        ([2, 0, 0], None),
    ] {
        let stream = Stream::open(Fake::new(Ledger::Durable));
        let mut message = first();
        let told = message.attributes.values_mut().next().unwrap();
        for (name, number) in ["major_number", "minor_number", "patch"]
            .iter()
            .zip(version)
        {
            let name = format!("xds.node.user_agent_build_version.version.{name}");
            let kind = Some(Kind::NumberValue(number.into()));
            told.fields.insert(name, Value { kind });
        }
        stream.say(message);
        stream.say(said(Said::RequestTrailers(Default::default())));
        stream.settled().await;
        let complaints = stream.fake.complaints.lock().unwrap().clone();
        assert_eq!(complaints.first().copied(), complaint, "{version:?}");
    }
}

#[tokio::test]
async fn a_panic_before_the_request_went_on_ends_in_an_error() {
    let mut stream = Stream::open(Fake::new(Ledger::Panics));
    stream.ask();
    assert_eq!(stream.end().await, Some(Code::Internal));
    stream.settled().await;
    assert_eq!(stream.fake.came_to(), ("unfinished", ""));
    assert!(stream.task.await.unwrap_err().is_panic());
}

#[tokio::test]
async fn a_panic_in_the_middle_of_an_answer_ends_in_an_error_and_closes_it() {
    let mut stream = Stream::open(Fake::new(Ledger::Durable));
    stream.flows().await;
    stream.fake.becomes(Ledger::Panics);
    // So much that it is recorded at once.
    stream.say(body(&CHUNK.repeat(400), false, true));
    assert_eq!(stream.end().await, Some(Code::Internal));
    stream.settled().await;
    assert_eq!(stream.fake.kinds(), ["opened", "closed as unknown"]);
    assert_eq!(stream.fake.came_to(), ("unfinished", ""));
}

#[tokio::test]
async fn an_aborted_task_ends_in_an_error_and_closes_what_it_opened() {
    let mut stream = Stream::open(Fake::new(Ledger::Durable));
    stream.flows().await;
    stream.task.abort();
    assert_eq!(stream.end().await, Some(Code::Internal));
    stream.settled().await;
    assert_eq!(stream.fake.kinds(), ["opened", "closed as unknown"]);
    assert_eq!(stream.fake.came_to(), ("unfinished", ""));
}

#[tokio::test]
async fn a_message_that_cannot_come_ends_in_an_error() {
    let mut stream = Stream::open(Fake::new(Ledger::Durable));
    stream.flows().await;
    stream.say(first());
    assert_eq!(stream.end().await, Some(Code::Aborted));
    stream.settled().await;
    assert_eq!(stream.fake.kinds().last(), Some(&"closed"));
    assert_eq!(
        stream.fake.came_to(),
        ("protocol_error", "unexpected_message")
    );
}

#[tokio::test]
async fn a_drain_tells_who_waits_and_cuts_who_streams() {
    let mut waiting = Stream::open(Fake {
        authenticates: false,
        ..Fake::new(Ledger::Durable)
    });
    waiting.ask();
    let mut streaming = Stream::open(Fake::new(Ledger::Durable));
    streaming.flows().await;
    let mut opening = Stream::open(Fake::new(Ledger::Waits));
    opening.ask();
    opening.fake.is_writing().await;
    for stream in [&waiting, &streaming, &opening] {
        stream.drain.cancel();
    }

    let Told::ImmediateResponse(immediate) = waiting.told().await else {
        panic!()
    };
    assert_eq!(immediate.status.unwrap().code, 503);
    assert_eq!(immediate.details, "countersign_shutting_down");
    assert_eq!(
        waiting.end().await,
        None,
        "Envoy has our answer: the stream may end well"
    );
    assert_eq!(streaming.end().await, Some(Code::Aborted));
    streaming.settled().await;
    assert_eq!(streaming.fake.came_to(), ("shutdown", "shutting_down"));

    opening.fake.becomes(Ledger::Durable);
    opening.fake.let_it_write();
    let Told::ImmediateResponse(immediate) = opening.told().await else {
        panic!()
    };
    assert_eq!(immediate.status.unwrap().code, 503);
    assert_eq!(opening.end().await, None);
    assert_eq!(opening.fake.kinds(), ["opened", "closed"]);
}

#[tokio::test]
async fn a_drain_does_not_wait_for_an_envoy_that_reads_no_more() {
    let mut stream = Stream::open(Fake::new(Ledger::Durable));
    stream.flows().await;
    // More pieces than may be on their way at once: some wait to be read.
    for _ in 0..20 {
        stream.say(body(CHUNK, false, true));
    }
    stream.say(body(DONE, true, true));
    let answers = stream.answers.as_ref().unwrap();
    soon(async {
        while answers.waiting() < answers::WAITING {
            tokio::task::yield_now().await;
        }
    })
    .await;
    stream.drain.cancel();
    stream.settled().await;
    assert_eq!(stream.fake.kinds(), ["opened", "closed"]);
    let answers = stream.answers.as_mut().unwrap();
    let mut told = 0;
    let end = loop {
        match soon(answers.next()).await {
            Some(Ok(_)) => told += 1,
            Some(Err(status)) => break Some(status.code()),
            None => break None,
        }
    };
    assert!(
        end.is_some(),
        "an answer that did not leave whole ends in an error"
    );
    assert_eq!(
        told,
        answers::WAITING,
        "nothing is told behind what was not"
    );
}

#[tokio::test]
async fn what_was_let_out_is_recorded_also_while_envoy_reads_nothing() {
    let mut stream = Stream::open(Fake::new(Ledger::Durable));
    stream.flows().await;
    let answers = stream.answers.as_ref().unwrap();
    for n in 1..answers::WAITING {
        stream.say(body(CHUNK, false, true));
        soon(async {
            while answers.waiting() < n {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    // Together they are more than may be let out unrecorded: the first takes the last place, the second finds none.
    let long = CHUNK.replace("hello there", &"hello there ".repeat(1_200));
    stream.say(body(&long.repeat(2), false, true));
    let on_record = |event: &Event| matches!(event, Event::Delivered(part) if part.text.values().any(|text| text.len() > 10_000));
    soon(async {
        while !stream.fake.records.lock().unwrap().iter().any(on_record) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(answers.waiting(), answers::WAITING);
    stream.say(body(DONE, true, true));
    assert_eq!(stream.end().await, None);
    stream.settled().await;
    assert_eq!(stream.fake.kinds(), ["opened", "closed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_wait_for_one_another_and_small_ones_for_none() {
    let mut stream = Stream::open(Fake::new(Ledger::Durable));
    let taken = stream.large.clone().acquire_owned().await.unwrap();
    let large = PROMPT.replace("hi", &"hello ".repeat(50_000));
    assert!(large.len() > 256 << 10);
    stream.say(first()).say(body(&large, true, false));
    // A small one goes its whole way meanwhile.
    let mut small = Stream::open(Fake::new(Ledger::Durable));
    let _other = small.large.clone().acquire_owned().await.unwrap();
    small.flows().await;
    let said = stream.envoy.as_ref().unwrap();
    soon(async {
        while !said.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // It was heard, and not looked at.
    assert!(stream.fake.kinds().is_empty());
    assert_eq!(stream.fake.rules.budget.used(), 0);
    drop(taken);
    assert!(matches!(stream.told().await, Told::RequestHeaders(_)));
    assert_eq!(stream.fake.kinds(), ["opened"]);
}

#[tokio::test]
async fn a_drain_that_came_before_the_request_refuses_it() {
    let fake = Fake::new(Ledger::Durable);
    let mut stream = Stream::open(fake);
    stream.drain.cancel();
    let Told::ImmediateResponse(_) = stream.told().await else {
        panic!()
    };
    assert_eq!(stream.end().await, None);
}

#[tokio::test]
async fn an_envoy_that_hangs_up_leaves_nothing_open() {
    // Its side ends, well or not; or it reads no more.
    let hang_ups: [fn(&mut Stream); 3] = [
        |stream| drop(stream.envoy.take()),
        |stream| {
            let reset = Err(Status::internal("h2 protocol error"));
            stream
                .envoy
                .as_ref()
                .unwrap()
                .unbounded_send(reset)
                .unwrap();
        },
        |stream| drop(stream.answers.take()),
    ];
    for hang_up in hang_ups {
        let mut stream = Stream::open(Fake::new(Ledger::Durable));
        stream.flows().await;
        hang_up(&mut stream);
        stream.settled().await;
        assert_eq!(stream.fake.kinds(), ["opened", "closed"]);
        assert_eq!(stream.fake.came_to(), ("cut_short", "stream_ended"));
        if stream.answers.is_some() {
            assert_eq!(stream.end().await, Some(Code::Aborted));
        }

        let mut stream = Stream::open(Fake::new(Ledger::Waits));
        stream.ask();
        stream.fake.is_writing().await;
        hang_up(&mut stream);
        stream.fake.becomes(Ledger::Durable);
        stream.fake.let_it_write();
        stream.settled().await;
        assert_eq!(stream.fake.kinds(), ["opened", "closed"]);
    }
}

#[tokio::test]
async fn a_hang_up_while_the_end_is_being_recorded_is_not_forgotten() {
    let mut stream = Stream::open(Fake::new(Ledger::Durable));
    stream.flows().await;
    stream.fake.becomes(Ledger::Waits);
    stream.say(body(DONE, false, true));
    while stream.fake.writing.available_permits() < 2 {
        tokio::task::yield_now().await;
    }
    drop(stream.envoy.take());
    stream.fake.let_it_write();
    stream.settled().await;
    assert_eq!(stream.end().await, Some(Code::Aborted));
}

/// The same over gRPC: what Envoy's HTTP/2 sees.
#[tokio::test]
async fn the_wire_tells_good_ends_from_others() {
    for (ledger, expected) in [
        (Ledger::Durable, None),
        (Ledger::Panics, Some(Code::Internal)),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let tasks = TaskTracker::new();
        let service = Service::new(
            Arc::new(Fake::new(ledger)),
            tasks.clone(),
            CancellationToken::new(),
        );
        let serving = tonic::transport::Server::builder()
            .add_service(ExternalProcessorServer::new(service))
            .serve_with_incoming(tokio_stream::wrappers::UnixListenerStream::new(listener));
        let serving = tokio::spawn(serving);
        let mut client = ExternalProcessorClient::connect(format!("unix://{}", path.display()))
            .await
            .unwrap();

        let (mut envoy, said) = mpsc::unbounded();
        for message in [first(), body(PROMPT, true, false)] {
            envoy.send(message).await.unwrap();
        }
        let mut answers = client.process(said).await.unwrap().into_inner();
        let (mut code, mut told) = (None, 0);
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(_) => told += 1,
                Err(status) => code = Some(status.code()),
            }
            if told == 2 {
                for message in [
                    answer_head(),
                    body(CHUNK, false, true),
                    body(DONE, true, true),
                ] {
                    envoy.send(message).await.unwrap();
                }
            }
        }
        assert_eq!(code, expected);
        assert_eq!(told > 0, expected.is_none());
        serving.abort();
    }
}

/// What Envoy says of the caller's certificate, as attributes of these kinds.
fn certificate_of(attributes: &[(&str, Kind)]) -> Option<crate::identity::Certificate> {
    let fields = attributes.iter().map(|(name, kind)| {
        let kind = Some(kind.clone());
        ((*name).to_owned(), Value { kind })
    });
    let fields = Struct {
        fields: fields.collect(),
    };
    let message = ProcessingRequest {
        attributes: [("envoy.filters.http.ext_proc".to_owned(), fields)].into(),
        ..first()
    };
    match convert::input(message, &mut String::new()) {
        Some(crate::exchange::Input::RequestHeaders(_, attributes, _)) => attributes.certificate,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_certificate_is_what_envoy_says_in_full_and_nothing_less() {
    let text = |text: &str| Kind::StringValue(text.to_owned());
    let (mtls, digest) = (
        "connection.mtls",
        "connection.sha256_peer_certificate_digest",
    );
    let whole = [
        (mtls, Kind::BoolValue(true)),
        (digest, text(&"0A".repeat(32))),
        ("connection.uri_san_peer_certificate", text("spiffe://a/b")),
        ("connection.dns_san_peer_certificate", text("batch.example")),
        ("connection.subject_peer_certificate", text("CN=batch")),
    ];
    let certificate = certificate_of(&whole).unwrap();
    assert_eq!(
        certificate,
        crate::identity::Certificate {
            digest: [10; 32],
            uri: "spiffe://a/b".into(),
            dns: "batch.example".into(),
            subject: "CN=batch".into(),
        }
    );
    let named = &certificate_of(&whole[..2]).unwrap().uri;
    assert!(named.is_empty(), "a certificate without names");
    for (name, kind) in [
        (mtls, Kind::BoolValue(false)),
        (mtls, text("true")),
        (mtls, Kind::NumberValue(1.0)),
        (digest, text("")),
        (digest, text(&"0A".repeat(31))),
        (digest, text(&"0G".repeat(32))),
    ] {
        let mut other = whole.clone();
        let place = other.iter_mut().find(|(known, _)| *known == name).unwrap();
        place.1 = kind;
        assert_eq!(
            certificate_of(&other),
            None,
            "{name}: {:?}",
            place_of(&other, name)
        );
    }
    assert_eq!(
        certificate_of(&whole[1..]),
        None,
        "nothing says that it is mutual"
    );
    assert_eq!(
        certificate_of(&[whole[0].clone()]),
        None,
        "nothing says which"
    );
}

fn place_of<'a>(attributes: &'a [(&str, Kind)], name: &str) -> &'a Kind {
    let found = attributes.iter().find(|(known, _)| *known == name);
    &found.unwrap().1
}
