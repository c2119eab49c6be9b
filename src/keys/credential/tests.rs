//! Credentials as their sources come, go, rotate and misbehave: a real HTTP listener that answers as it is told.

use std::{
    collections::VecDeque,
    path::PathBuf,
    process::Command,
    sync::{Mutex, atomic::AtomicUsize},
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, Method, Response, Uri},
};
use jiff::Timestamp;
use tokio::net::TcpListener;

use super::*;
use crate::{
    keys::source::{ClientAuth, Endpoint, VaultLogin},
    runtime::clock::Hand,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// What the server answers next; the last one again and again.
#[derive(Clone, Debug)]
enum Answer {
    Json(u16, String),
    Redirect(String),
    /// Blanks without end and without a length.
    Endless,
    /// Nothing, ever.
    Silence,
}

#[derive(Clone, Debug)]
struct Asked {
    what: String,
    headers: HeaderMap,
    body: String,
}

struct Server {
    url: String,
    script: Arc<Script>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Answer>>,
    asked: Mutex<Vec<Asked>>,
    endless: AtomicUsize,
}

impl Server {
    async fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let script = Arc::new(Script {
            answers: Mutex::new(answers.into()),
            ..Script::default()
        });
        let state = Arc::clone(&script);
        let app = axum::Router::new().fallback(move |method, uri, headers, body| {
            answer(Arc::clone(&state), method, uri, headers, body)
        });
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            url,
            script,
            _task: AbortOnDropHandle::new(serving),
        }
    }

    fn says(&self, answers: Vec<Answer>) {
        *self.script.answers.lock().unwrap() = answers.into();
    }

    fn asked(&self) -> Vec<Asked> {
        self.script.asked.lock().unwrap().clone()
    }
}

async fn answer(
    script: Arc<Script>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    script.asked.lock().unwrap().push(Asked {
        what: format!("{method} {uri}"),
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    });
    let answer = {
        let mut answers = script.answers.lock().unwrap();
        match answers.len() {
            0 => Answer::Json(500, "{}".to_owned()),
            1 => answers[0].clone(),
            _ => answers.pop_front().unwrap(),
        }
    };
    let status = |code: u16| Response::builder().status(code);
    match answer {
        Answer::Json(code, text) => status(code).body(Body::from(text)).unwrap(),
        Answer::Redirect(to) => status(307)
            .header("location", to)
            .body(Body::empty())
            .unwrap(),
        Answer::Endless => {
            let blanks = futures::stream::repeat_with(move || {
                script.endless.fetch_add(64 * 1024, Relaxed);
                Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 64 * 1024]))
            });
            status(200).body(Body::from_stream(blanks)).unwrap()
        }
        Answer::Silence => std::future::pending().await,
    }
}

fn kv(value: &str) -> Answer {
    let data =
        serde_json::json!({"data": {"key": value, "other": "x"}, "metadata": {"version": 1}});
    Answer::Json(200, serde_json::json!({"data": data}).to_string())
}

fn token(value: &str, seconds: u64) -> Answer {
    let token =
        serde_json::json!({"access_token": value, "token_type": "Bearer", "expires_in": seconds});
    Answer::Json(200, token.to_string())
}

fn logged_in(token: &str, seconds: u64) -> Answer {
    let auth = serde_json::json!({"client_token": token, "lease_duration": seconds});
    Answer::Json(200, serde_json::json!({"auth": auth}).to_string())
}

fn status(code: u16) -> Answer {
    Answer::Json(code, r#"{"errors":["canary"]}"#.to_owned())
}

struct Bench {
    server: Server,
    dir: tempfile::TempDir,
    clock: Clock,
    hand: Hand,
}

impl Bench {
    async fn new(answers: Vec<Answer>) -> Self {
        let (clock, hand) = Clock::manual(Timestamp::UNIX_EPOCH);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "s.first\n").unwrap();
        Self {
            server: Server::start(answers).await,
            dir,
            clock,
            hand,
        }
    }

    fn secret(&self) -> PathBuf {
        self.dir.path().join("secret")
    }

    fn vault(&self) -> Vault {
        Vault {
            server: Endpoint::new(&self.server.url, false, None).unwrap(),
            namespace: None,
            mount: "secret".into(),
            path: "llm/openai".into(),
            field: "key".into(),
            login: VaultLogin::Token(SecretSource::File(self.secret())),
            refresh: MINUTE,
            stale: 10 * MINUTE,
        }
    }

    fn oauth2(&self) -> OAuth2 {
        OAuth2 {
            token_url: Endpoint::new(&format!("{}/token", self.server.url), false, None).unwrap(),
            client_id: "gateway".into(),
            client_secret: SecretSource::File(self.secret()),
            auth: ClientAuth::Basic,
            scope: None,
            audience: None,
            resource: None,
        }
    }

    fn start(&self, source: CredentialSource) -> Credential {
        let patient = Timing {
            timeout: 30 * SECOND,
            ..Timing::default()
        };
        Credential::start(&source, patient, self.clock.clone()).unwrap()
    }

    fn of_vault(&self) -> Credential {
        self.start(CredentialSource::Vault(Box::new(self.vault())))
    }

    fn of_oauth2(&self) -> Credential {
        self.start(CredentialSource::OAuth2(Box::new(self.oauth2())))
    }
}

fn now(credential: &Credential) -> Option<String> {
    let value = credential.current()?;
    Some(value.secret.expose_secret().to_owned())
}

#[tokio::test]
async fn a_field_of_vaults_is_read_with_the_token_of_the_moment() {
    let bench = Bench::new(vec![kv("one"), kv("two"), kv("three")]).await;
    let vault = Vault {
        namespace: Some("team/ai".into()),
        ..bench.vault()
    };
    let credential = bench.start(CredentialSource::Vault(Box::new(vault)));
    credential.fetched(1).await;
    assert_eq!(now(&credential).as_deref(), Some("one"));
    std::fs::write(bench.secret(), "s.second\n").unwrap();
    bench.hand.advance(MINUTE);
    credential.fetched(2).await;
    assert_eq!(now(&credential).as_deref(), Some("two"));
    let asked = bench.server.asked();
    for (asked, token) in asked.iter().zip(["s.first", "s.second"]) {
        assert_eq!(asked.what, "GET /v1/secret/data/llm/openai");
        assert_eq!(asked.headers["x-vault-token"], token);
        assert_eq!(asked.headers["x-vault-namespace"], "team/ai");
        assert_eq!(asked.headers["x-vault-request"], "true");
    }
    assert_eq!((asked.len(), credential.fetches()), (2, (2, 0)));
}

#[tokio::test]
async fn a_value_outlives_vault_by_its_time_and_comes_back_with_it() {
    let bench = Bench::new(vec![kv("one"), status(503)]).await;
    let credential = bench.of_vault();
    credential.fetched(1).await;
    bench.hand.advance(MINUTE);
    credential.fetched(2).await;
    assert_eq!(
        (now(&credential).as_deref(), credential.fetches()),
        (Some("one"), (2, 1))
    );
    // Due at one minute, and ten more.
    bench.hand.advance(10 * MINUTE - Duration::from_millis(1));
    assert_eq!(now(&credential).as_deref(), Some("one"));
    bench.hand.advance(Duration::from_millis(1));
    assert_eq!(now(&credential), None);
    credential.fetched(3).await;
    bench.server.says(vec![kv("two")]);
    bench.hand.advance(MINUTE);
    credential.fetched(4).await;
    assert_eq!(now(&credential).as_deref(), Some("two"));
    assert_eq!(credential.age(), Duration::ZERO);
}

#[tokio::test]
async fn a_secret_that_vault_says_is_gone_counts_no_more_at_once() {
    let deleted = r#"{"data":{"data":null,"metadata":{"deletion_time":"2026-01-01T00:00:00Z"}}}"#;
    for gone in [deleted, r#"{"errors":[]}"#] {
        let gone = Answer::Json(404, gone.to_owned());
        let bench = Bench::new(vec![kv("one"), gone, kv("two")]).await;
        let credential = bench.of_vault();
        credential.fetched(1).await;
        let mut changes = credential.changes();
        changes.mark_unchanged();
        bench.hand.advance(MINUTE);
        credential.fetched(2).await;
        assert_eq!(now(&credential), None);
        assert!(changes.has_changed().unwrap(), "whoever lends it is told");
        bench.hand.advance(SECOND);
        credential.fetched(3).await;
        assert_eq!(now(&credential).as_deref(), Some("two"));
    }
}

#[tokio::test]
async fn a_login_is_made_once_and_again_when_it_ends_or_is_refused() {
    let answers = vec![
        logged_in("s.login-1", 300),
        kv("one"),
        kv("two"),
        status(403),
        logged_in("s.login-2", 90),
        kv("three"),
        logged_in("s.login-3", 0),
        kv("four"),
    ];
    let bench = Bench::new(answers).await;
    let login = VaultLogin::Jwt {
        mount: "kubernetes".into(),
        role: "gateway".into(),
        jwt: bench.secret(),
    };
    let vault = Vault {
        login,
        ..bench.vault()
    };
    let credential = bench.start(CredentialSource::Vault(Box::new(vault)));
    for (fetch, value) in ["one", "two", "three", "four"].into_iter().enumerate() {
        credential.fetched(fetch as u64 + 1).await;
        assert_eq!(now(&credential).as_deref(), Some(value));
        bench.hand.advance(MINUTE);
    }
    let asked = bench.server.asked();
    let logins: Vec<_> = asked
        .iter()
        .filter(|a| a.what.starts_with("POST"))
        .collect();
    assert_eq!(logins.len(), 3);
    for login in logins {
        assert_eq!(login.what, "POST /v1/auth/kubernetes/login");
        let said: serde_json::Value = serde_json::from_str(&login.body).unwrap();
        assert_eq!(
            said,
            serde_json::json!({"role": "gateway", "jwt": "s.first"})
        );
    }
    let tokens = asked.iter().filter_map(|a| a.headers.get("x-vault-token"));
    let tokens: Vec<_> = tokens.map(|token| token.to_str().unwrap()).collect();
    let expected = [
        "s.login-1",
        "s.login-1",
        "s.login-1",
        "s.login-2",
        "s.login-3",
    ];
    assert_eq!(tokens, expected);
    assert_eq!(credential.fetches().1, 0);
}

#[tokio::test]
async fn a_token_is_fetched_early_and_never_lent_to_its_end() {
    let bench = Bench::new(vec![token("one", 600), token("two", 40), status(500)]).await;
    let credential = bench.of_oauth2();
    credential.fetched(1).await;
    // A minute before its end.
    bench.hand.advance(540 * SECOND);
    credential.fetched(2).await;
    assert_eq!(now(&credential).as_deref(), Some("two"));
    // Of a short one half its life; then the server is down, and a quarter before its end it goes.
    bench.hand.advance(20 * SECOND);
    credential.fetched(3).await;
    assert_eq!(now(&credential).as_deref(), Some("two"));
    bench.hand.advance(9 * SECOND);
    assert_eq!(now(&credential).as_deref(), Some("two"));
    bench.hand.advance(SECOND);
    assert_eq!(now(&credential), None);
    bench.server.says(vec![token("three", 600)]);
    bench.hand.advance(30 * SECOND);
    let (all, _) = credential.fetches();
    credential.fetched(all + 1).await;
    assert_eq!(now(&credential).as_deref(), Some("three"));
}

#[tokio::test]
async fn a_client_says_who_it_is_as_the_server_wants_it() {
    let bench = Bench::new(vec![token("one", 600)]).await;
    let all = OAuth2 {
        scope: Some("a b".into()),
        audience: Some("https://models.example".into()),
        resource: Some("urn:r".into()),
        ..bench.oauth2()
    };
    let post = OAuth2 {
        auth: ClientAuth::Post,
        ..bench.oauth2()
    };
    for source in [all, post] {
        let credential = bench.start(CredentialSource::OAuth2(Box::new(source)));
        credential.fetched(1).await;
        assert_eq!(now(&credential).as_deref(), Some("one"));
    }
    let asked = bench.server.asked();
    assert!(asked.iter().all(|asked| asked.what == "POST /token"));
    assert_eq!(
        asked[0].headers["authorization"],
        "Basic Z2F0ZXdheTpzLmZpcnN0"
    );
    assert_eq!(
        asked[0].body,
        "grant_type=client_credentials&scope=a+b&audience=https%3A%2F%2Fmodels.example&resource=urn%3Ar"
    );
    assert!(!asked[1].headers.contains_key("authorization"));
    assert_eq!(
        asked[1].body,
        "grant_type=client_credentials&client_id=gateway&client_secret=s.first"
    );
}

#[tokio::test]
async fn whatever_is_no_good_answer_leaves_what_there_is_and_is_tried_again() {
    let elsewhere = Server::start(vec![kv("stolen"), token("stolen", 600)]).await;
    let huge = Answer::Json(200, format!("{{\"pad\":\"{}\"}}", "x".repeat(2 << 20)));
    let bad = [
        Answer::Json(200, "<html>".into()),
        Answer::Json(200, String::new()),
        Answer::Json(200, "{}".into()),
        huge,
        Answer::Endless,
        Answer::Redirect(elsewhere.url.clone()),
        Answer::Redirect("/again".into()),
        status(400),
        status(403),
        status(404),
        status(429),
        status(500),
    ];
    for of_vault in [true, false] {
        let good = |value| match of_vault {
            true => kv(value),
            false => token(value, 120),
        };
        for (case, bad) in bad.iter().enumerate() {
            let bench = Bench::new(vec![bad.clone(), good("one"), bad.clone(), good("two")]).await;
            let credential = match of_vault {
                true => bench.of_vault(),
                false => bench.of_oauth2(),
            };
            let step = async |fetch| {
                credential.fetched(fetch).await;
                (now(&credential), credential.fetches().1)
            };
            assert_eq!(step(1).await, (None, 1), "case {case}");
            bench.hand.advance(SECOND);
            assert_eq!(step(2).await, (Some("one".into()), 1), "case {case}");
            bench.hand.advance(MINUTE);
            assert_eq!(step(3).await, (Some("one".into()), 2), "case {case}");
            bench.hand.advance(SECOND);
            assert_eq!(step(4).await, (Some("two".into()), 2), "case {case}");
            let read = bench.server.script.endless.load(Relaxed);
            assert!(read < 64 << 20, "an endless answer was read on: {read}");
        }
    }
    assert_eq!(elsewhere.asked().len(), 0, "a redirect was followed");
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_on() {
    let bench = Bench::new(vec![Answer::Silence]).await;
    let source = CredentialSource::Vault(Box::new(bench.vault()));
    let impatient = Timing {
        timeout: Duration::from_millis(50),
        ..Timing::default()
    };
    let credential = Credential::start(&source, impatient, bench.clock.clone()).unwrap();
    credential.fetched(1).await;
    assert_eq!((now(&credential), credential.fetches()), (None, (1, 1)));
}

#[test]
fn a_server_that_fails_is_asked_ever_less_often() {
    let waits = [1, 2, 3, 4, 5, 6, 7, u32::MAX];
    let waits = waits.map(|failures| back_off(failures, &Timing::default()).as_secs());
    assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
}

#[tokio::test]
async fn a_file_is_followed_and_a_broken_one_leaves_the_old_value() {
    let bench = Bench::new(vec![]).await;
    let path = bench.secret();
    let credential = bench.start(SecretSource::File(path.clone()).into());
    // There from the start.
    assert_eq!(now(&credential).as_deref(), Some("s.first"));
    let mut fetch = 1;
    let mut look = async || {
        bench.hand.advance(SECOND);
        fetch += 1;
        credential.fetched(fetch).await;
        now(&credential).unwrap()
    };
    std::fs::write(&path, "second\n").unwrap();
    assert_eq!(look().await, "second");
    for broken in [&b""[..], b"a\nb", b"\xff"] {
        std::fs::write(&path, broken).unwrap();
        assert_eq!(look().await, "second");
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(look().await, "second");
    std::fs::write(&path, "third").unwrap();
    assert_eq!(look().await, "third");
    assert_eq!(credential.fetches(), (7, 4));
    let missing = SecretSource::File(bench.dir.path().join("none")).into();
    let started = Credential::start(&missing, Timing::default(), bench.clock.clone());
    assert!(matches!(started, Err(SecretError::Unreadable { .. })));
}

#[tokio::test]
async fn nothing_is_asked_any_more_once_nobody_wants_it() {
    let bench = Bench::new(vec![kv("one")]).await;
    let credential = bench.of_vault();
    credential.fetched(1).await;
    let mut changes = credential.changes();
    drop(credential);
    // The task ends, and with it the sender.
    while changes.changed().await.is_ok() {}
    assert_eq!(bench.server.asked().len(), 1);
}

#[test]
fn proxies_of_the_environment_are_not_used() {
    let mut again = Command::new(std::env::current_exe().unwrap());
    let name = "keys::credential::tests::a_client_says_who_it_is_as_the_server_wants_it";
    again.args(["--exact", name]);
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        again.env(name, "http://127.0.0.1:1");
    }
    for name in ["no_proxy", "NO_PROXY", "REQUEST_METHOD"] {
        again.env_remove(name);
    }
    let output = again.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
}

#[tokio::test]
async fn nothing_printed_shows_a_value_and_names_tell_sources_apart() {
    let bench = Bench::new(vec![kv("canary")]).await;
    let credential = bench.of_vault();
    credential.fetched(1).await;
    let printed = format!("{credential:?} {:?}", credential.current());
    assert!(
        !printed.contains("canary") && !printed.contains("s.first"),
        "{printed}"
    );
    let vault = bench.vault();
    let others = [
        Vault {
            path: "llm/other".into(),
            ..vault.clone()
        },
        Vault {
            field: "other".into(),
            ..vault.clone()
        },
        Vault {
            mount: "kv".into(),
            ..vault.clone()
        },
        Vault {
            namespace: Some("n".into()),
            ..vault.clone()
        },
        vault,
    ];
    let others = others.map(|vault| CredentialSource::Vault(Box::new(vault)));
    let oauth2 = bench.oauth2();
    let tokens = [
        OAuth2 {
            scope: Some("s".into()),
            ..oauth2.clone()
        },
        OAuth2 {
            audience: Some("s".into()),
            ..oauth2.clone()
        },
        OAuth2 {
            resource: Some("s".into()),
            ..oauth2.clone()
        },
        OAuth2 {
            client_id: "other".into(),
            ..oauth2.clone()
        },
        oauth2,
    ];
    let tokens = tokens.map(|oauth2| CredentialSource::OAuth2(Box::new(oauth2)));
    let names = others.iter().chain(&tokens).map(ToString::to_string);
    let names: std::collections::BTreeSet<_> = names.collect();
    assert_eq!(names.len(), 10, "{names:?}");
}
