//! The API over a real connection, before a register that is the real fold.

mod hostile;
mod proofs;
mod roles;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, future::ready};
use jiff::SignedDuration;
use reqwest::{Method, RequestBuilder};
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::sync::oneshot;

use super::*;
use crate::{
    approval::{Asked, Digest, Event, Given, Mutable, Placed, Register, Requirement, Slot, View},
    identity::testing,
};

const ISSUER: &str = "https://issuer.example";

pub(crate) fn start() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

fn principal(subject: &str, groups: &[&str]) -> Principal {
    Principal {
        issuer: ISSUER.to_owned(),
        subject: subject.to_owned(),
        groups: names(groups),
        expires_at: Timestamp::MAX,
        authenticated_at: Some(start()),
        issued_at: Some(start()),
        ..testing::principal()
    }
}

/// The application as far as the API knows it.
pub(crate) struct World {
    register: Mutex<(Register, u64)>,
    now: Mutex<Timestamp>,
    tokens: Mutex<HashMap<String, Principal>>,
    pub(crate) seen: Mutex<Vec<(Id, String)>>,
    rejected: Mutex<Vec<(Id, String, &'static str)>>,
    cannot_record: AtomicBool,
    keys_away: AtomicBool,
    /// What callers showed.
    presented: Mutex<Vec<Presented>>,
}

impl World {
    /// People by the token that is their name: `alice` calls, the others have a role or none.
    pub(crate) fn new() -> Arc<Self> {
        let people = [
            principal("alice", &["finance"]),
            principal("mallory", &["finance"]),
            principal("bob", &["security", "approvers"]),
            principal("carol", &["legal", "approvers"]),
            principal("dora", &["security"]),
            principal("eve", &["incident"]),
            principal("audrey", &["auditors"]),
            principal("root", &["admins"]),
        ];
        let by_name = |person: Principal| (person.subject.clone(), person);
        Arc::new(Self {
            register: Mutex::default(),
            now: Mutex::new(start()),
            tokens: Mutex::new(people.into_iter().map(by_name).collect()),
            seen: Mutex::default(),
            rejected: Mutex::default(),
            cannot_record: AtomicBool::new(false),
            keys_away: AtomicBool::new(false),
            presented: Mutex::default(),
        })
    }

    fn person(&self, name: &str, change: impl FnOnce(&mut Principal)) {
        change(self.tokens.lock().unwrap().get_mut(name).unwrap());
    }

    pub(crate) fn after(&self, seconds: i64) {
        *self.now.lock().unwrap() += SignedDuration::from_secs(seconds);
    }

    fn tell(&self, event: &Event) -> Fate {
        let mut register = self.register.lock().unwrap();
        register.1 += 1;
        let placed = Placed {
            offset: register.1,
            at: *self.now.lock().unwrap(),
        };
        register.0.apply(placed, event)
    }

    pub(crate) fn ask(&self, id: &str, caller: &str) {
        self.ask_for(id, caller, "openai", &[("security", 1)]);
    }

    fn ask_for(&self, id: &str, caller: &str, connection: &str, slots: &[(&str, u8)]) {
        let slot = |&(group, distinct): &(&str, u8)| Slot {
            group: group.into(),
            distinct,
        };
        let mut request = [0; 32];
        for (to, from) in request.iter_mut().zip(id.bytes()) {
            *to = from;
        }
        let asked = Asked {
            id: Id::new(id).unwrap(),
            request: Digest(request),
            session: "0195-session".into(),
            caller: Party {
                issuer: ISSUER.into(),
                subject: caller.into(),
                also: BTreeSet::new(),
            },
            requirement: Requirement {
                slots: slots.iter().map(slot).collect(),
                reasons: vec!["an SSN in the prompt".into()],
                break_glass: BTreeSet::from(["incident".to_owned()]),
                expires_ms: 600_000,
            },
            most_pending: u32::MAX,
            view: View {
                target: "POST api.example/v1/chat/completions".into(),
                headers: vec!["content-type: application/json".into()],
                connection: connection.into(),
                endpoint: "chat_completions".into(),
                model: "gpt-4o-mini".into(),
                bytes: 4321,
                risk: 70,
                tools: true,
                findings: BTreeMap::from([("US_SSN".to_owned(), 1)]),
                excerpt: vec!["my number is <US_SSN>".into()],
                not_shown: 12,
                mutable: vec![Mutable {
                    kind: "file_id".into(),
                    name: "file-1".into(),
                }],
            },
        };
        let fate = self.tell(&Event::Asked(Box::new(asked)));
        assert!(matches!(fate, Fate::Counts(_)), "{fate:?}");
    }

    pub(crate) fn known(&self, id: &str) -> Arc<Approval> {
        let id = Id::new(id).unwrap();
        self.register
            .lock()
            .unwrap()
            .0
            .approval(&id)
            .unwrap()
            .clone()
    }

    fn decision(&self, id: &str, given: Given) -> Value {
        json!({"decision": given, "binding": self.known(id).binding, "reason": "looked at it"})
    }

    fn recorded<T: Send + 'static>(
        &self,
        done: impl FnOnce() -> T,
    ) -> BoxFuture<'static, Result<T, Unavailable>> {
        let cannot = self.cannot_record.load(Ordering::Relaxed);
        let done = match cannot {
            true => Err(Unavailable("audit_full")),
            false => Ok(done()),
        };
        ready(done).boxed()
    }
}

impl Probe for World {
    fn troubles(&self) -> Vec<String> {
        match self.cannot_record.load(Ordering::Relaxed) {
            true => vec!["the audit log is full".to_owned()],
            false => Vec::new(),
        }
    }

    fn metrics(&self) -> String {
        "# EOF\n".to_owned()
    }
}

impl Backing for World {
    fn now(&self) -> Timestamp {
        *self.now.lock().unwrap()
    }

    fn access(&self) -> Arc<Access> {
        let set = |name: &str| BTreeSet::from([name.to_owned()]);
        Arc::new(Access {
            auditor: set("auditors"),
            approver: set("approvers"),
            admin: set("admins"),
            issuers: BTreeSet::new(),
            address: Some("gateway.example/countersign".into()),
        })
    }

    fn freshness(&self) -> Freshness {
        Freshness {
            within: Duration::from_secs(900),
            or_issued: false,
        }
    }

    fn authenticate(
        &self,
        presented: Presented,
    ) -> BoxFuture<'static, Result<Arc<Principal>, TokenError>> {
        let known = self.tokens.lock().unwrap();
        let token = presented.token.clone().unwrap().text;
        self.presented.lock().unwrap().push(presented);
        let known = known.get(token.expose_secret()).cloned().map(Arc::new);
        let known = match self.keys_away.load(Ordering::Relaxed) {
            true => Err(TokenError::IssuerUnavailable),
            false => known.ok_or(TokenError::BadSignature),
        };
        ready(known).boxed()
    }

    fn list(&self, filter: Filter) -> BoxFuture<'static, Result<Page, Unavailable>> {
        let page = filter.page(self.register.lock().unwrap().0.iter(), Backing::now(self));
        ready(Ok(page)).boxed()
    }

    fn approval(&self, id: Id) -> BoxFuture<'static, Result<Option<Arc<Approval>>, Unavailable>> {
        let known = self.register.lock().unwrap().0.approval(&id).cloned();
        ready(Ok(known)).boxed()
    }

    fn decide(&self, decided: Decided) -> BoxFuture<'static, Result<Fate, Unavailable>> {
        self.recorded(|| self.tell(&Event::Decided(Box::new(decided))))
    }

    fn cancel(&self, stop: Stop) -> BoxFuture<'static, Result<Fate, Unavailable>> {
        self.recorded(|| self.tell(&Event::Cancelled(stop)))
    }

    fn rejected(
        &self,
        approval: Arc<Approval>,
        by: Party,
        code: &'static str,
    ) -> BoxFuture<'static, Result<(), Unavailable>> {
        let rejected = (approval.asked.id.clone(), by.subject, code);
        self.recorded(|| self.rejected.lock().unwrap().push(rejected))
    }

    fn issuing(&self) -> Option<Issuing> {
        Some(Issuing {
            issuer: "https://gateway.example".to_owned(),
            jwks: json!({"keys": []}),
            takes_assertions: true,
        })
    }

    fn public_url(&self) -> String {
        "https://gateway.example".to_owned()
    }

    fn grant(
        &self,
        asked: TokenRequest,
        _: Option<SecretString>,
    ) -> BoxFuture<'static, Result<Granted, OAuthError>> {
        // What becomes of it is not this module's business: that it came as it was sent is.
        let pending = OAuthError::Pending(asked.ask.connection);
        std::future::ready(Err(pending)).boxed()
    }

    fn introspect(
        &self,
        _: SecretString,
    ) -> BoxFuture<'static, Result<Option<Active>, Unavailable>> {
        std::future::ready(Ok(None)).boxed()
    }

    fn revoke(&self, _: SecretString) -> BoxFuture<'static, Result<(), Unavailable>> {
        std::future::ready(Ok(())).boxed()
    }

    fn revoke_id(&self, _: Id, _: Party) -> BoxFuture<'static, Result<(), Unavailable>> {
        std::future::ready(Ok(())).boxed()
    }

    fn seen(
        &self,
        approval: Arc<Approval>,
        by: Party,
    ) -> BoxFuture<'static, Result<(), Unavailable>> {
        let seen = (approval.asked.id.clone(), by.subject);
        self.recorded(|| self.seen.lock().unwrap().push(seen))
    }
}

/// The API, served until it is dropped.
pub(crate) struct Api {
    pub(crate) world: Arc<World>,
    pub(crate) base: String,
    client: reqwest::Client,
    _stop: oneshot::Sender<()>,
}

/// What came back.
#[derive(Debug)]
struct Told {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Value,
}

impl Told {
    fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }

    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

impl Api {
    pub(crate) async fn of(world: Arc<World>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(serve(listener, world.clone(), async {
            let _ = stopped.await;
        }));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            world,
            base,
            client,
            _stop: stop,
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    /// As `who`, whose token is their name; nobody sends none. Every answer is looked at for what all of them must have.
    async fn ask(&self, method: &str, path: &str, who: &str, body: Option<&Value>) -> Told {
        let mut request = self.request(method.parse().unwrap(), path);
        if !who.is_empty() {
            request = request.bearer_auth(who);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        tell(request).await
    }

    async fn get(&self, path: &str, who: &str) -> Told {
        self.ask("GET", path, who, None).await
    }

    async fn decide(&self, id: &str, who: &str, given: Given) -> Told {
        let body = self.world.decision(id, given);
        let path = format!("/api/v1/approvals/{id}/decision");
        self.ask("POST", &path, who, Some(&body)).await
    }
}

async fn tell(request: RequestBuilder) -> Told {
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let text = answer.text().await.unwrap();
    let told = Told {
        status,
        body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
        headers,
    };
    assert_eq!(told.header("cache-control"), "no-store", "{told:?}");
    assert_eq!(told.header("x-content-type-options"), "nosniff", "{told:?}");
    // Those of RFC 6749, 5.2 have another shape.
    if status >= 400 && told.body.get("status").is_none() && !told.body["error"].is_string() {
        assert_eq!(told.header("content-type"), "application/json", "{told:?}");
        let error = told.body["error"].as_object().unwrap();
        assert_eq!(error.keys().collect::<Vec<_>>(), ["code", "message"]);
        assert!(!told.code().is_empty());
        assert_eq!(
            told.headers.contains_key("www-authenticate"),
            matches!(status, 401)
                || told.code() == "token_not_bearer"
                || told.code() == "token_repeated"
                || told.code() == "proof_repeated",
            "{told:?}"
        );
    }
    told
}

#[tokio::test]
async fn readiness_says_what_the_trouble_is() {
    let api = Api::of(World::new()).await;
    assert_eq!(api.get("/readyz", "").await.status, 200);
    assert_eq!(api.get("/metrics", "").await.body, "# EOF\n");
    api.world.cannot_record.store(true, Ordering::Relaxed);
    let told = api.get("/readyz", "").await;
    assert_eq!(told.status, 503);
    assert_eq!(told.body["troubles"][0], "the audit log is full");
    assert_eq!(api.get("/healthz", "").await.status, 200);
}

#[tokio::test]
async fn an_approver_sees_what_the_binding_covers_and_that_is_on_record_first() {
    let api = Api::of(World::new()).await;
    api.world.ask("a1", "alice");
    let told = api.get("/api/v1/approvals/a1", "bob").await;
    assert_eq!(told.status, 200);
    let full: wire::Full = serde_json::from_value(told.body).unwrap();
    let known = api.world.known("a1");
    assert_eq!(full.view, known.asked.view);
    assert_eq!(full.requirement, known.asked.requirement);
    // Whoever was shown this can compute what they decide on.
    let again = Asked {
        id: full.id,
        request: full.request,
        requirement: full.requirement,
        view: full.view,
        ..Asked::clone(&known.asked)
    };
    assert_eq!(crate::approval::Binding(&again).digest(), full.binding);
    let seen = [(Id::new("a1").unwrap(), "bob".to_owned())];
    assert_eq!(*api.world.seen.lock().unwrap(), seen);

    api.world.cannot_record.store(true, Ordering::Relaxed);
    let told = api.get("/api/v1/approvals/a1", "bob").await;
    assert_eq!((told.status, told.code()), (503, "audit_full"));
    assert!(!told.body.to_string().contains("gpt-4o-mini"));
    // Its caller sees nothing that would have to be recorded.
    assert_eq!(api.get("/api/v1/approvals/a1", "alice").await.status, 200);
}

#[tokio::test]
async fn a_caller_sees_where_it_stands_and_nothing_else() {
    let api = Api::of(World::new()).await;
    api.world.ask("a1", "alice");
    let path = "/api/v1/approvals/a1";
    let status = |state: &str, until: &str, decision: Value| json!({"id": "a1", "state": state, "expires_at": until, "decision": decision});
    let told = api.get(path, "alice").await;
    let pending = status("pending", "2026-03-01T12:10:00Z", Value::Null);
    assert_eq!((told.status, &told.body), (200, &pending));
    api.world.after(60);
    assert_eq!(api.decide("a1", "bob", Given::Approve).await.status, 200);
    let approved = status("approved", "2026-03-01T12:11:00Z", json!("approve"));
    assert_eq!(api.get(path, "alice").await.body, approved);
    // Whatever nobody has said yet: what was not used in time is expired.
    api.world.after(601);
    assert_eq!(api.get(path, "alice").await.body["state"], "expired");
    assert!(api.world.seen.lock().unwrap().is_empty());
    // An account of the same name at another issuer, and one whose issuer calls it the same human, see nothing.
    api.world.person("mallory", |mallory| {
        mallory.issuer = "https://other.example".to_owned();
        mallory.subject = "alice".to_owned();
        mallory.also.insert(Party::account(ISSUER, "alice"));
    });
    assert_eq!(api.get(path, "mallory").await.status, 404);
    assert_eq!(api.ask("DELETE", path, "mallory", None).await.status, 404);
}

#[tokio::test]
async fn the_log_has_the_last_word_and_a_refusal_names_its_cause() {
    let api = Api::of(World::new()).await;
    api.world
        .ask_for("a1", "alice", "openai", &[("security", 1), ("legal", 1)]);
    let told = api.decide("a1", "bob", Given::Approve).await;
    assert_eq!((told.status, &told.body["state"]), (200, &json!("pending")));
    let told = api.decide("a1", "bob", Given::Approve).await;
    assert_eq!((told.status, told.code()), (403, "decided_already"));
    let told = api.decide("a1", "dora", Given::Approve).await;
    assert_eq!((told.status, told.code()), (403, "seats_filled"));
    let told = api.decide("a1", "carol", Given::BreakGlass).await;
    assert_eq!((told.status, told.code()), (403, "no_break_glass"));
    let mut blind = api.world.decision("a1", Given::Approve);
    blind["binding"] = json!(Digest([7; 32]));
    let path = "/api/v1/approvals/a1/decision";
    let told = api.ask("POST", path, "carol", Some(&blind)).await;
    assert_eq!((told.status, told.code()), (409, "other_binding"));
    api.world.cannot_record.store(true, Ordering::Relaxed);
    let told = api.decide("a1", "carol", Given::Approve).await;
    assert_eq!((told.status, told.code()), (503, "audit_full"));
    api.world.cannot_record.store(false, Ordering::Relaxed);
    let told = api.decide("a1", "carol", Given::Approve).await;
    assert_eq!(
        (told.status, &told.body["state"]),
        (200, &json!("approved"))
    );
    let told = api.decide("a1", "dora", Given::Deny).await;
    assert_eq!((told.status, told.code()), (409, "approval_over"));

    api.world.ask("a2", "alice");
    let mut silent = api.world.decision("a2", Given::BreakGlass);
    silent["reason"] = json!(" ");
    let path = "/api/v1/approvals/a2/decision";
    let told = api.ask("POST", path, "eve", Some(&silent)).await;
    assert_eq!((told.status, told.code()), (403, "no_reason"));
    let told = api.decide("a2", "eve", Given::BreakGlass).await;
    assert_eq!(told.body["decision"], "break_glass");

    api.world.ask("a3", "alice");
    api.world.after(601);
    api.world.person("bob", |bob| {
        bob.authenticated_at = Some(start() + SignedDuration::from_secs(600))
    });
    let told = api.decide("a3", "bob", Given::Approve).await;
    assert_eq!((told.status, told.code()), (409, "approval_expired"));
    // The decider's groups are those of their token, and only what the approval asks for goes on record.
    let vote = &api.world.known("a1").votes[0];
    assert_eq!(vote.by.groups, BTreeSet::from(["security".to_owned()]));
}

#[tokio::test]
async fn who_signed_in_long_ago_is_asked_to_do_it_again() {
    let api = Api::of(World::new()).await;
    api.world.after(901);
    api.world.ask("a1", "alice");
    let told = api.decide("a1", "bob", Given::Approve).await;
    assert_eq!((told.status, told.code()), (401, "authentication_too_old"));
    let challenge = told.header("www-authenticate");
    assert!(challenge.starts_with("Bearer "), "{challenge}");
    assert!(challenge.contains("error=\"insufficient_user_authentication\""));
    assert!(challenge.contains("max_age=\"900\""), "{challenge}");
    api.world.person("bob", |bob| bob.authenticated_at = None);
    let told = api.decide("a1", "bob", Given::Approve).await;
    assert_eq!((told.status, told.code()), (401, "no_auth_time"));
    // Nobody is sent to sign in for what they may not do anyway.
    let told = api.decide("a1", "alice", Given::Approve).await;
    assert_eq!((told.status, told.code()), (403, "own_request"));
    api.world.person("bob", |bob| {
        bob.authenticated_at = Some(start() + SignedDuration::from_secs(900));
    });
    assert_eq!(api.decide("a1", "bob", Given::Approve).await.status, 200);
}

#[tokio::test]
async fn a_list_goes_from_new_to_old_page_by_page_and_is_filtered() {
    let api = Api::of(World::new()).await;
    for n in 0..25 {
        let caller = if n % 5 == 0 { "zoe" } else { "alice" };
        let connection = if n % 2 == 0 { "even" } else { "odd" };
        api.world
            .ask_for(&format!("a{n:02}"), caller, connection, &[("security", 1)]);
        // Several in one moment too.
        api.world.after(i64::from(n % 3 == 0));
    }
    let ids = |told: &Told| -> Vec<String> {
        let approvals = told.body["approvals"].as_array().unwrap();
        let id = |approval: &Value| approval["id"].as_str().unwrap().to_owned();
        approvals.iter().map(id).collect()
    };
    let mut paged = Vec::new();
    let mut path = "/api/v1/approvals?limit=7".to_owned();
    for _ in 0..4 {
        let told = api.get(&path, "audrey").await;
        paged.extend(ids(&told));
        match told.body["next"].as_str() {
            Some(next) => path = format!("/api/v1/approvals?limit=7&cursor={next}"),
            None => break,
        }
        // What comes meanwhile moves nothing.
        api.world.ask(&format!("b{}", paged.len()), "zoe");
    }
    let all: Vec<_> = (0..25).rev().map(|n| format!("a{n:02}")).collect();
    assert_eq!(paged, all);
    let listed = |query: &str| {
        let path = format!("/api/v1/approvals?{query}");
        let api = &api;
        async move { ids(&api.get(&path, "bob").await).len() }
    };
    assert_eq!(listed("connection=even").await, 13);
    assert_eq!(listed("caller=zoe&connection=odd").await, 2);
    assert_eq!(listed("state=denied").await, 0);
    assert_eq!(api.decide("a03", "bob", Given::Deny).await.status, 200);
    assert_eq!(listed("state=denied").await, 1);
    // A list shows no text of a request, so it is no record either.
    let told = api.get("/api/v1/approvals", "bob").await;
    assert!(!told.body.to_string().contains("my number"));
    assert!(api.world.seen.lock().unwrap().is_empty());
}

#[tokio::test]
#[ignore = "measures"]
async fn long_ten_thousand_pending_are_listed() {
    let api = Api::of(World::new()).await;
    for n in 0..10_000 {
        api.world.ask(&format!("a{n}"), &format!("caller-{n}"));
        api.world.after(i64::from(n % 20 == 0));
    }
    let clock = crate::runtime::clock::Clock::system();
    for _ in 0..5 {
        let (began, mut listed) = (clock.monotonic(), 0);
        let mut path = "/api/v1/approvals?state=pending&limit=1000".to_owned();
        loop {
            let told = api.get(&path, "bob").await;
            listed += told.body["approvals"].as_array().unwrap().len();
            let Some(next) = told.body["next"].as_str() else {
                break;
            };
            path = format!("/api/v1/approvals?state=pending&limit=1000&cursor={next}");
        }
        println!("{listed} in {:?}", clock.monotonic() - began);
    }
}
