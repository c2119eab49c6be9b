//! Against a local server that answers as it is told; time stands still until a test moves it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    os::unix::fs::PermissionsExt,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, extract::State as Extract, http::HeaderMap};
use jiff::SignedDuration;
use serde_json::Value;
use tokio::{net::TcpListener, time::timeout};

use super::*;
use crate::{
    approval::{
        Approval, Approver, Asked, Decided, Digest, Event, Fate, Given, Id, Party, Placed,
        Register, Requirement, Slot, Stop, View,
    },
    runtime::clock::Hand,
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

pub(crate) fn start() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

/// What happened to one approval until somebody decided, or until it expired.
pub(crate) fn story(given: Option<Given>) -> Approval {
    let mut register = Register::default();
    let mut offset = 0;
    let mut tell = |at: Timestamp, event: &Event| {
        offset += 1;
        match register.apply(Placed { offset, at }, event) {
            Fate::Counts(approval) => Approval::clone(&approval),
            fate => panic!("{fate:?}"),
        }
    };
    let party = |subject: &str| Party {
        issuer: "https://issuer.example".into(),
        subject: subject.into(),
        also: BTreeSet::new(),
    };
    let asked = Asked {
        id: Id::new("a1").unwrap(),
        request: Digest([1; 32]),
        session: "s1".into(),
        caller: party("alice"),
        requirement: Requirement {
            slots: vec![Slot {
                group: "security".into(),
                distinct: 1,
            }],
            reasons: vec!["an SSN in the prompt".into()],
            break_glass: BTreeSet::from(["security".to_owned()]),
            expires_ms: 600_000,
        },
        most_pending: 9,
        view: View {
            connection: "openai".into(),
            model: "<!channel> gpt".into(),
            excerpt: vec!["the excerpt".into()],
            findings: BTreeMap::from([("US_SSN".into(), 1)]),
            ..View::default()
        },
    };
    let mut approval = tell(start(), &Event::Asked(Box::new(asked)));
    let id = approval.asked.id.clone();
    approval = match given {
        Some(given) => tell(
            start(),
            &Event::Decided(Box::new(Decided {
                id,
                binding: approval.binding,
                given,
                by: Approver {
                    who: party("bob"),
                    groups: BTreeSet::from(["security".to_owned()]),
                },
                reason: "a secret reason".into(),
            })),
        ),
        None => tell(
            start() + SignedDuration::from_secs(601),
            &Event::Expired(Stop { id, by: None }),
        ),
    };
    approval
}

#[derive(Debug, Default)]
struct Heard {
    /// Statuses to answer with; 204 when there is none left. 0 is never an answer.
    answers: VecDeque<u16>,
    got: Vec<(HeaderMap, Bytes)>,
}

/// A hook's other end.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    heard: Arc<Mutex<Heard>>,
    pub(crate) url: Url,
}

impl Server {
    pub(crate) async fn start(answers: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?key=secret", listener.local_addr().unwrap());
        let heard = Arc::new(Mutex::new(Heard {
            answers: answers.iter().copied().collect(),
            got: Vec::new(),
        }));
        async fn answer(
            Extract(heard): Extract<Arc<Mutex<Heard>>>,
            headers: HeaderMap,
            body: Bytes,
        ) -> axum::response::Response {
            let status = {
                let mut heard = heard.lock().unwrap();
                heard.got.push((headers, body));
                heard.answers.pop_front().unwrap_or(204)
            };
            if status == 0 {
                std::future::pending::<()>().await;
            }
            axum::http::Response::builder()
                .status(status)
                .header("location", "/elsewhere")
                .body(axum::body::Body::empty())
                .unwrap()
        }
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&heard));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            heard,
            url: url.parse().unwrap(),
        }
    }

    pub(crate) fn got(&self) -> Vec<(HeaderMap, Value)> {
        let heard = self.heard.lock().unwrap();
        let parsed = |(headers, body): &(HeaderMap, Bytes)| {
            (headers.clone(), serde_json::from_slice(body).unwrap())
        };
        heard.got.iter().map(parsed).collect()
    }
}

/// Until `holds`, with a bound.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = timeout(Duration::from_secs(20), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(waited.await.is_ok(), "not in time: {what}");
}

fn hook(server: &Server, form: Form) -> Hook {
    Hook {
        name: "duty".into(),
        url: server.url.clone(),
        form,
    }
}

fn standard(server: &Server) -> Hook {
    hook(server, Form::Standard(SigningSecret::new(SECRET).unwrap()))
}

struct World {
    server: Server,
    notifier: Notifier,
    hand: Hand,
    letters: tempfile::TempDir,
}

impl World {
    async fn answering(answers: &[u16]) -> Self {
        let server = Server::start(answers).await;
        let letters = tempfile::tempdir().unwrap();
        let (clock, hand) = Clock::manual(start());
        let file = letters.path().join("dead.jsonl");
        let notifier = Notifier::start(vec![standard(&server)], Some(file), clock).unwrap();
        Self {
            server,
            notifier,
            hand,
            letters,
        }
    }

    async fn until(&self, what: &str, holds: impl Fn(&Counts) -> bool) {
        until(what, || holds(&self.notifier.counts())).await;
    }

    fn letters(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.letters.path().join("dead.jsonl")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn asked() -> Message {
    let base = "https://gw.example/cs".parse().unwrap();
    Message::asked(&story(Some(Given::Approve)), start(), Some(&base))
}

#[tokio::test]
async fn a_message_is_signed_over_what_arrives() {
    let world = World::answering(&[]).await;
    world.notifier.send(asked());
    world.until("taken", |counts| counts.taken == 1).await;
    let heard = world.server.heard.lock().unwrap();
    let (headers, body) = &heard.got[0];
    let header = |name: &str| headers[name].to_str().unwrap();
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("webhook-timestamp"), start().as_second().to_string());
    let signed =
        SigningSecret::new(SECRET)
            .unwrap()
            .sign(header("webhook-id"), start().as_second(), body);
    assert_eq!(header("webhook-signature"), signed);
    let said: Value = serde_json::from_slice(body).unwrap();
    assert_eq!(said["type"], "approval.asked");
    assert_eq!(said["data"]["approval"], "a1");
    assert_eq!(
        said["data"]["url"],
        "https://gw.example/cs/api/v1/approvals/a1"
    );
    for kept_back in ["excerpt", "binding", "reason\""] {
        assert!(!said.to_string().contains(kept_back), "{said}");
    }
}

#[test]
fn each_message_says_what_became_of_it() {
    let told = |message: Message| {
        let said: Value = serde_json::from_str(&message.standard()).unwrap();
        let state = said["data"]["state"].as_str().unwrap().to_owned();
        (
            said["type"].as_str().unwrap().to_owned(),
            state,
            message.id().to_owned(),
        )
    };
    let later = start() + SignedDuration::from_secs(700);
    let words =
        |kind: &str, state: &str, id: &str| (kind.to_owned(), state.to_owned(), id.to_owned());
    assert_eq!(
        told(Message::decided(&story(Some(Given::Deny)), start(), None)),
        words("approval.decided", "denied", "msg_a1_1_denied")
    );
    assert_eq!(
        told(Message::decided(
            &story(Some(Given::BreakGlass)),
            start(),
            None
        )),
        words("approval.decided", "approved", "msg_a1_1_approved")
    );
    assert_eq!(
        told(Message::expired(&story(None), later, None)),
        words("approval.expired", "expired", "msg_a1_0_expired")
    );
}

#[tokio::test]
async fn a_chat_gets_text_without_markup_of_others() {
    let server = Server::start(&[]).await;
    let (clock, _hand) = Clock::manual(start());
    let notifier = Notifier::start(vec![hook(&server, Form::Slack)], None, clock).unwrap();
    notifier.send(asked());
    until("taken", || notifier.counts().taken == 1).await;
    let (headers, said) = server.got().remove(0);
    assert!(!headers.contains_key("webhook-signature"));
    let text = said["text"].as_str().unwrap();
    assert!(text.contains("Model: &lt;!channel&gt; gpt"), "{text}");
    assert!(
        text.ends_with("\nhttps://gw.example/cs/api/v1/approvals/a1"),
        "{text}"
    );
    assert!(!text.contains("the excerpt"));
    assert_eq!(said["link_names"], false);
}

#[tokio::test]
async fn what_fails_is_tried_five_times_with_growing_waits_and_then_a_dead_letter() {
    let world = World::answering(&[500, 429, 503, 408, 500]).await;
    world.notifier.send(asked());
    for attempt in 1..=4 {
        world
            .until("the attempt failed", |counts| counts.failures == attempt)
            .await;
        let wait = BACK_OFF[attempt as usize - 1];
        // No sooner than a fifth early, no later than a fifth late.
        world.hand.advance(wait * 4 / 5 - Duration::from_millis(1));
        tokio::task::yield_now().await;
        assert_eq!(world.server.got().len() as u64, attempt);
        world.hand.advance(wait * 2 / 5 + Duration::from_millis(1));
    }
    world.until("given up", |counts| counts.dead == 1).await;
    world
        .until("its place is free", |counts| counts.on_their_way == 0)
        .await;
    let got = world.server.got();
    assert_eq!(got.len(), 5);
    // One id, and each attempt signed for its own time.
    let ids: BTreeSet<_> = got
        .iter()
        .map(|(headers, _)| headers["webhook-id"].clone())
        .map(|id| id.to_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 1);
    let times: BTreeSet<_> = got
        .iter()
        .map(|(headers, _)| headers["webhook-timestamp"].to_str().unwrap().to_owned())
        .collect();
    assert_eq!(times.len(), 5);
    let letters = world.letters();
    assert_eq!(letters[0]["attempts"], 5);
    assert_eq!(letters[0]["hook"], "duty");
    assert_eq!(letters[0]["message"]["data"]["approval"], "a1");
    assert!(!letters[0].to_string().contains("key=secret"));
    let mode = fs::metadata(world.letters.path().join("dead.jsonl"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn what_a_hook_calls_our_fault_is_given_up_at_once_and_a_redirect_is_not_followed() {
    for status in [400, 401, 403, 404, 410] {
        let world = World::answering(&[status]).await;
        world.notifier.send(asked());
        world.until("given up", |counts| counts.dead == 1).await;
        assert_eq!(world.server.got().len(), 1, "{status}");
        assert_eq!(
            world.letters()[0]["cause"],
            format!("the answer has status {status}")
        );
    }
    let world = World::answering(&[302]).await;
    world.notifier.send(asked());
    world
        .until("the attempt failed", |counts| counts.failures == 1)
        .await;
    assert_eq!(world.server.got().len(), 1);
    assert_eq!(world.notifier.counts().on_their_way, 1);
}

#[tokio::test]
async fn a_hook_that_hangs_keeps_nobody_and_what_there_is_no_place_for_is_kept() {
    let world = World::answering(&[0; 8]).await;
    for _ in 0..ON_THEIR_WAY + 3 {
        world.notifier.send(asked());
    }
    world.until("kept", |counts| counts.dead == 3).await;
    let counts = world.notifier.counts();
    assert_eq!(counts.on_their_way, ON_THEIR_WAY as u64);
    assert_eq!((counts.taken, counts.lost), (0, 0));
    assert_eq!(world.letters()[0]["attempts"], 0);
    // Another hook is served meanwhile.
    until("only so many at once", || {
        world.server.got().len() == AT_ONCE
    })
    .await;
}

#[tokio::test]
async fn without_a_file_what_is_given_up_is_counted() {
    let server = Server::start(&[400]).await;
    let (clock, _hand) = Clock::manual(start());
    let notifier = Notifier::start(vec![standard(&server)], None, clock).unwrap();
    notifier.send(asked());
    until("lost", || notifier.counts().lost == 1).await;
}

#[test]
fn chance_moves_a_wait_by_a_fifth_at_most() {
    for wait in BACK_OFF {
        assert_eq!(jittered(wait, 0), wait * 4 / 5);
        assert_eq!(jittered(wait, 255), wait * 6 / 5);
    }
    let all: Duration = BACK_OFF.iter().sum();
    assert_eq!(all, Duration::from_secs(300));
}
