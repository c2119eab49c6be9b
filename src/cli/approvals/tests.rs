//! The commands against the real API, and a sign-in against an issuer that answers as it is told.

use std::{
    collections::VecDeque,
    fs,
    os::unix::fs::PermissionsExt,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State as Extract,
    routing::{get, post},
};
use clap::Parser;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::{
    approval::{Approval, State},
    http::tests::{Api, World, start},
};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: ApprovalsArgs,
}

fn parse(line: &[&str]) -> ApprovalsArgs {
    Line::try_parse_from([&["approvals"], line].concat())
        .unwrap()
        .args
}

struct Desk {
    api: Api,
    dir: tempfile::TempDir,
}

impl Desk {
    async fn with(id: &str) -> Self {
        let world = World::new();
        world.ask(id, "alice");
        Self {
            api: Api::of(world).await,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// The command as somebody whose token is their name.
    async fn run(&self, who: &str, line: &[&str]) -> Result<(), Stop> {
        let token = self.dir.path().join(who);
        fs::write(&token, format!("{who}\n")).unwrap();
        let token = token.display().to_string();
        act(&parse(
            &[line, &["--url", &self.api.base, "--token-file", &token]].concat(),
        ))
        .await
    }

    fn known(&self, id: &str) -> Arc<Approval> {
        self.api.world.known(id)
    }
}

fn why(done: Result<(), Stop>) -> String {
    match done {
        Ok(()) => "done".to_owned(),
        Err(Stop::Refused(told)) => format!("refused: {told}"),
        Err(Stop::SignIn(told)) => format!("sign in: {told}"),
        Err(Stop::Fault(error)) => format!("fault: {error:#}"),
    }
}

#[tokio::test]
async fn an_approver_looks_and_decides() {
    let desk = Desk::with("a1").await;
    assert_eq!(why(desk.run("bob", &["list"]).await), "done");
    assert_eq!(why(desk.run("bob", &["show", "a1"]).await), "done");
    let line = ["approve", "a1", "--reason", "known customer", "--yes"];
    assert_eq!(why(desk.run("bob", &line).await), "done");
    let known = desk.known("a1");
    assert_eq!(known.state, State::Approved);
    assert_eq!(known.votes[0].reason, "known customer");
    // To see it, and to see it again before deciding.
    assert_eq!(desk.api.world.seen.lock().unwrap().len(), 2);
    let desk = Desk::with("a1").await;
    let line = ["deny", "a1", "--reason", "not this one", "--yes", "--json"];
    assert_eq!(why(desk.run("bob", &line).await), "done");
    assert_eq!(desk.known("a1").state, State::Denied);
}

#[tokio::test]
async fn nothing_is_decided_where_nobody_was_asked_or_the_gateway_refuses() {
    let desk = Desk::with("a1").await;
    // Tests have no terminal to ask on.
    let told = why(desk.run("bob", &["approve", "a1"]).await);
    assert_eq!(
        told,
        "fault: nobody can be asked whether it is meant: say --yes"
    );
    let told = why(desk.run("alice", &["approve", "a1", "--yes"]).await);
    assert!(
        told.starts_with("refused: you may see where it stands"),
        "{told}"
    );
    let told = why(desk.run("root", &["approve", "a1", "--yes"]).await);
    assert_eq!(
        told,
        "refused: none of your groups is asked for this approval (not_asked)"
    );
    let told = why(desk.run("bob", &["show", "a2"]).await);
    assert_eq!(
        told,
        "refused: there is nothing here that you may see (not_found)"
    );
    let told = why(desk.run("stranger", &["list"]).await);
    assert!(told.starts_with("sign in: "), "{told}");
    desk.api.world.after(901 - 600);
    desk.api.world.ask("a3", "alice");
    desk.api.world.after(599);
    desk.api.world.after(2);
    let told = why(desk
        .run("bob", &["deny", "a3", "--reason", "late", "--yes"])
        .await);
    assert_eq!(told, "refused: the approval has expired (approval_expired)");
    desk.api.world.ask("a4", "alice");
    let told = why(desk
        .run("bob", &["deny", "a4", "--reason", "stale", "--yes"])
        .await);
    assert!(told.starts_with("sign in: sign in again"), "{told}");
    assert_eq!(desk.known("a4").state, State::Pending);
}

fn whole() -> Full {
    let world = World::new();
    world.ask("a1", "alice");
    Full::of(&world.known("a1"), start())
}

#[test]
fn what_is_shown_and_what_is_bound_must_be_the_same() {
    assert_eq!(checked(&whole()).unwrap(), whole().binding);
    let changes: [fn(&mut Full); 5] = [
        |full| full.view.excerpt[0].push('!'),
        |full| full.view.model.push('!'),
        |full| full.requirement.reasons.clear(),
        |full| full.requirement.slots[0].distinct = 2,
        |full| full.request = Digest([9; 32]),
    ];
    for change in changes {
        let mut full = whole();
        change(&mut full);
        assert!(checked(&full).is_err(), "{full:?}");
    }
}

#[test]
fn text_of_others_neither_drives_the_terminal_nor_passes_for_ours() {
    let mut hostile = whole();
    let text = "\u{1b}[2J\u{202e}cod\u{e0041}\nbinding      forged\r\u{9b}31m";
    hostile.view.excerpt = vec![format!("{text}{}", "x".repeat(3 * 96))];
    hostile.view.model = text.to_owned();
    hostile.caller.subject = text.to_owned();
    hostile.requirement.reasons = vec![text.to_owned()];
    hostile.view.mutable[0].name = text.to_owned();
    hostile.requirement.slots[0].group = text.to_owned();
    let shown = show::full(&hostile, Paint::none(), start());
    let listed = crate::http::wire::Listed {
        id: hostile.id.clone(),
        state: hostile.state,
        asked_at: text.to_owned(),
        expires_at: text.to_owned(),
        caller: hostile.caller.clone(),
        connection: text.to_owned(),
        endpoint: text.to_owned(),
        model: text.to_owned(),
        risk: 1,
        reasons: vec![text.to_owned()],
        seats: Vec::new(),
        decided: 0,
    };
    let listed = show::listed(&listed, false);
    assert_eq!(listed.lines().count(), 1);
    for shown in [&shown, &listed] {
        for c in ['\u{1b}', '\u{202e}', '\u{e0041}', '\r', '\u{9b}'] {
            assert!(!shown.contains(c), "{shown}");
        }
    }
    let bindings = shown.lines().filter(|line| line.starts_with("binding"));
    assert_eq!(bindings.count(), 1, "{shown}");
    // No line of the excerpt is so long that a terminal would break it.
    assert!(
        shown
            .lines()
            .filter(|line| line.contains('│'))
            .all(|line| line.chars().count() <= 100)
    );
    assert!(shown.contains("(12 bytes not shown)"));
}

#[test]
fn a_view_says_all_there_is() {
    let shown = show::full(&whole(), Paint::none(), start());
    for said in [
        "state        pending",
        "expires      2026-03-01T12:10:00Z (in 10 min)",
        "caller       alice at https://issuer.example",
        "model        gpt-4o-mini",
        "why          an SSN in the prompt",
        "found        US_SSN × 1",
        "refers to    file_id file-1 (what it is may change after you decide)",
        "takes        1 of security",
        "size         4321 bytes",
        "  │ my number is <US_SSN>",
    ] {
        assert!(shown.contains(&format!("{said}\n")), "{said}\n{shown}");
    }
    let mut bare = whole();
    bare.view.excerpt.clear();
    let shown = show::full(
        &bare,
        Paint::none(),
        "2026-03-01T13:00:00Z".parse::<Timestamp>().unwrap(),
    );
    assert!(
        shown.contains("(over)") && shown.contains("no text is shown"),
        "{shown}"
    );
}

#[test]
fn a_token_is_found_in_its_order_and_a_login_goes_to_its_own_gateway() {
    use secrecy::ExposeSecret;
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state/countersign/login.json");
    let here: Url = "https://gw.example:8443/some/path".parse().unwrap();
    let find = |file: Option<&std::path::Path>, variable: Option<&str>, url: &Url| {
        let found = token::choose(file, variable.map(str::to_owned), &state, url).unwrap();
        found.map(|token| token.expose_secret().to_owned())
    };
    assert_eq!(find(None, None, &here), None);
    for token in ["old", "kept"] {
        let login = token::Login {
            gateway: "https://gw.example:8443".into(),
            issuer: "https://issuer.example".into(),
            token: token.into(),
        };
        token::keep(&state, &login).unwrap();
    }
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&state), mode(state.parent().unwrap())),
        (0o600, 0o700)
    );
    assert_eq!(find(None, Some(" "), &here).as_deref(), Some("kept"));
    assert_eq!(find(None, Some("env"), &here).as_deref(), Some("env"));
    let file = dir.path().join("token");
    fs::write(&file, "file\n").unwrap();
    assert_eq!(
        find(Some(&file), Some("env"), &here).as_deref(),
        Some("file")
    );
    for other in [
        "https://gw.example",
        "http://gw.example:8443",
        "https://evil.example:8443",
    ] {
        assert_eq!(find(None, None, &other.parse().unwrap()), None, "{other}");
    }
    fs::write(&state, "{").unwrap();
    assert!(token::choose(None, None, &state, &here).is_err());
    // Where a file was asked for and is not there, nothing else is taken.
    assert!(
        token::choose(
            Some(&dir.path().join("none")),
            Some("env".into()),
            &state,
            &here
        )
        .is_err()
    );
}

#[test]
fn secrets_go_over_tls_or_stay_on_the_machine() {
    let ok = |url: &str| gateway::check(&url.parse().unwrap()).is_ok();
    assert!(
        ok("https://gw.example")
            && ok("http://127.0.0.1:8480")
            && ok("http://[::1]:1")
            && ok("http://localhost")
    );
    assert!(
        !ok("http://gw.example")
            && !ok("http://10.0.0.1")
            && !ok("ftp://gw.example")
            && !ok("http://localhost.evil.example")
    );
}

/// An issuer whose token endpoint gives these answers, one after the other.
async fn issuer(answers: &[(u16, Value)]) -> (String, Arc<Mutex<Vec<String>>>) {
    type Script = (Arc<Mutex<VecDeque<(u16, Value)>>>, Arc<Mutex<Vec<String>>>);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let script: Script = (
        Arc::new(Mutex::new(answers.iter().cloned().collect())),
        asked.clone(),
    );
    let document = json!({"issuer": issuer, "device_authorization_endpoint": format!("{issuer}/device"), "token_endpoint": format!("{issuer}/token")});
    let device = json!({"device_code": "dev", "user_code": "WDJB-\u{1b}MJHT", "verification_uri": "https://login.example/device", "expires_in": 60, "interval": 5});
    async fn token(
        Extract((answers, asked)): Extract<Script>,
        body: String,
    ) -> (axum::http::StatusCode, Json<Value>) {
        asked.lock().unwrap().push(body);
        let (status, answer) = answers
            .lock()
            .unwrap()
            .pop_front()
            .unwrap_or((400, json!({"error": "authorization_pending"})));
        (status.try_into().unwrap(), Json(answer))
    }
    async fn begin(
        Extract((_, asked)): Extract<Script>,
        device: Value,
        body: String,
    ) -> Json<Value> {
        asked.lock().unwrap().push(body);
        Json(device)
    }
    let router = Router::new()
        .route(
            "/.well-known/openid-configuration",
            get(move || async { Json(document) }),
        )
        .route(
            "/device",
            post(move |state: Extract<Script>, body: String| begin(state, device, body)),
        )
        .route("/token", post(token))
        .with_state(script);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (issuer, asked)
}

/// What a sign-in led to, how long it waited each time, and what the user was told.
async fn sign_in(issuer: &str) -> (Result<String, String>, Vec<u64>, String) {
    let args = parse(&[
        "login",
        "--issuer",
        issuer,
        "--client-id",
        "cli",
        "--resource",
        "urn:gw",
        "--max-age",
        "300",
    ]);
    let What::Login(login) = &args.what else {
        panic!()
    };
    let waits = Mutex::new(Vec::new());
    let told = Mutex::new(String::new());
    let tell = |text: &dyn std::fmt::Display| *told.lock().unwrap() = text.to_string();
    let wait = async |time: Duration| waits.lock().unwrap().push(time.as_secs());
    let done = login::device_login(login, &tell, wait).await;
    let done = done.map_err(|error| format!("{error:#}"));
    (
        done,
        waits.into_inner().unwrap(),
        told.into_inner().unwrap(),
    )
}

#[tokio::test]
async fn a_sign_in_waits_as_it_is_told_to() {
    let pending = || (400, json!({"error": "authorization_pending"}));
    let slower = (400, json!({"error": "slow_down"}));
    let granted = (
        200,
        json!({"access_token": "t0k3n", "token_type": "Bearer", "expires_in": 300}),
    );
    let (at, asked) = issuer(&[pending(), slower, pending(), granted]).await;
    let (done, waits, told) = sign_in(&at).await;
    assert_eq!(done.unwrap(), "t0k3n");
    assert_eq!(waits, [5, 5, 10, 10]);
    assert_eq!(
        told,
        "Go to https://login.example/device and enter the code WDJB-\\u{1b}MJHT"
    );
    let asked = asked.lock().unwrap();
    assert_eq!(
        asked[0],
        "client_id=cli&scope=openid&resource=urn%3Agw&max_age=300"
    );
    assert_eq!(
        asked[1],
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code=dev&client_id=cli"
    );
}

#[tokio::test]
async fn a_sign_in_that_leads_to_nothing_says_why() {
    for (answer, why) in [
        (json!({"error": "access_denied"}), "the sign-in was refused"),
        (
            json!({"error": "expired_token"}),
            "nobody signed in in time",
        ),
        (
            json!({"error": "invalid_client"}),
            "the issuer refuses: invalid_client",
        ),
    ] {
        let (at, _) = issuer(&[(400, answer)]).await;
        assert_eq!(sign_in(&at).await.0, Err(why.to_owned()));
    }
    let (at, _) = issuer(&[(200, json!({"access_token": "t", "token_type": "mac"}))]).await;
    assert!(sign_in(&at).await.0.is_err());
    // A minute, five seconds at a time.
    let (at, _) = issuer(&[]).await;
    let (done, waits, _) = sign_in(&at).await;
    assert_eq!(
        (done, waits.len()),
        (Err("nobody signed in in time".to_owned()), 12)
    );
    let told = sign_in(&format!("{at}/")).await.0.unwrap_err();
    assert_eq!(told, "the discovery document is that of another issuer");
}
