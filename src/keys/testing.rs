//! An identity provider for tests: a real HTTP listener that answers as it is told.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{Request, Response},
};
use serde_json::json;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::task::AbortOnDropHandle;

/// What the provider answers on a path.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Body(Vec<u8>),
    /// This status, over a body of good keys.
    Status(u16),
    Redirect(String),
    /// Zeroes without end and without a length.
    Endless,
    /// Nothing, ever.
    Silence,
    /// The connection ends in the middle.
    Broken,
}

pub(crate) struct Idp {
    pub(crate) issuer: String,
    script: Arc<Script>,
    _server: AbortOnDropHandle<()>,
}

struct Script {
    discovery: Mutex<Answer>,
    keys: Mutex<Answer>,
    introspection: Mutex<Answer>,
    /// Authorization and body of the last question about a token.
    question: Mutex<(String, String)>,
    discovered: AtomicUsize,
    served: AtomicUsize,
    asked: AtomicUsize,
    /// Each answer of keys or about a token takes a permit.
    gate: Semaphore,
    endless_bytes: AtomicUsize,
}

impl Idp {
    /// Starts a provider that publishes `keys` by discovery.
    pub(crate) async fn start(keys: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}/realm", listener.local_addr().unwrap());
        let script = Arc::new(Script {
            discovery: Mutex::new(Answer::Status(404)),
            keys: Mutex::new(Answer::Body(keys)),
            introspection: Mutex::new(Answer::Status(404)),
            question: Mutex::default(),
            asked: AtomicUsize::new(0),
            discovered: AtomicUsize::new(0),
            served: AtomicUsize::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            endless_bytes: AtomicUsize::new(0),
        });
        let app = axum::Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&script));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let idp = Self {
            issuer,
            script,
            _server: AbortOnDropHandle::new(server),
        };
        idp.discover(Answer::Body(
            idp.document(&idp.issuer, &idp.url("/realm/keys")),
        ));
        idp
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.issuer.strip_suffix("/realm").unwrap())
    }

    pub(crate) fn document(&self, issuer: &str, jwks_uri: &str) -> Vec<u8> {
        let introspection = self.url("/realm/introspect");
        json!({"issuer": issuer, "jwks_uri": jwks_uri, "token_endpoint": "x", "introspection_endpoint": introspection})
            .to_string()
            .into_bytes()
    }

    pub(crate) fn discover(&self, answer: Answer) {
        *self.script.discovery.lock().unwrap() = answer;
    }

    pub(crate) fn publish(&self, answer: Answer) {
        *self.script.keys.lock().unwrap() = answer;
    }

    /// What it says of every token.
    pub(crate) fn say(&self, answer: Answer) {
        *self.script.introspection.lock().unwrap() = answer;
    }

    /// How often it was asked about a token.
    pub(crate) fn asked(&self) -> usize {
        self.script.asked.load(SeqCst)
    }

    /// Authorization and body of the last question about a token.
    pub(crate) fn question(&self) -> (String, String) {
        self.script.question.lock().unwrap().clone()
    }

    /// Holds answers of keys and about tokens back until [`open`](Self::open).
    pub(crate) fn close(&self) {
        self.script.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub(crate) fn open(&self) {
        self.script.gate.add_permits(1000);
    }

    /// How often keys were asked for.
    pub(crate) fn served(&self) -> usize {
        self.script.served.load(SeqCst)
    }

    pub(crate) fn requests(&self) -> usize {
        self.served() + self.asked() + self.script.discovered.load(SeqCst)
    }

    pub(crate) fn endless_bytes(&self) -> usize {
        self.script.endless_bytes.load(SeqCst)
    }
}

async fn answer(State(script): State<Arc<Script>>, request: Request<Body>) -> Response<Body> {
    let uri = request.uri().clone();
    let answer = match uri.path() {
        "/realm/.well-known/openid-configuration" => {
            script.discovered.fetch_add(1, SeqCst);
            script.discovery.lock().unwrap().clone()
        }
        "/realm/introspect" => {
            let authorization = request.headers().get("authorization").cloned();
            let body = axum::body::to_bytes(request.into_body(), 1 << 20).await;
            *script.question.lock().unwrap() = (
                authorization.map_or(String::new(), |value| value.to_str().unwrap().to_owned()),
                String::from_utf8(body.unwrap().into()).unwrap(),
            );
            script.asked.fetch_add(1, SeqCst);
            script.gate.acquire().await.unwrap().forget();
            script.introspection.lock().unwrap().clone()
        }
        _ => {
            script.served.fetch_add(1, SeqCst);
            script.gate.acquire().await.unwrap().forget();
            script.keys.lock().unwrap().clone()
        }
    };
    let status = |code: u16| Response::builder().status(code);
    match answer {
        Answer::Body(bytes) => status(200).body(Body::from(bytes)).unwrap(),
        // With keys in it, so that only the status is wrong.
        Answer::Status(code) => status(code).body(Body::from(moved_keys())).unwrap(),
        // A path of its own, so that a redirect leads to an answer and not to itself.
        Answer::Redirect(to) if uri.path() != "/moved" => status(307)
            .header("location", to)
            .body(Body::empty())
            .unwrap(),
        Answer::Redirect(_) => status(200).body(Body::from(moved_keys())).unwrap(),
        Answer::Endless => {
            let zeroes = futures::stream::repeat_with(move || {
                script.endless_bytes.fetch_add(64 * 1024, SeqCst);
                Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 64 * 1024]))
            });
            status(200).body(Body::from_stream(zeroes)).unwrap()
        }
        Answer::Silence => std::future::pending().await,
        Answer::Broken => {
            let broken =
                futures::stream::once(async { Err::<Bytes, _>(std::io::Error::other("gone")) });
            status(200).body(Body::from_stream(broken)).unwrap()
        }
    }
}

fn moved_keys() -> Vec<u8> {
    crate::identity::testing::jwks(&[&crate::identity::testing::ED])
}
