use std::{process::Command, sync::Arc, time::Duration};

use super::{
    jwks::{Jwks, KeySource, SourceError, Timing},
    testing::{Answer, Idp},
};
use crate::{
    identity::testing::{ED, P256, P256_SECOND, Signer, jwks, now},
    runtime::clock::{Clock, Hand},
};

const SECOND: Duration = Duration::from_secs(1);

/// Long enough for a busy machine, where time is real.
fn timing() -> Timing {
    Timing {
        timeout: Duration::from_secs(30),
        ..Timing::default()
    }
}

fn discovery(idp: &Idp) -> (Jwks, Hand) {
    let (clock, hand) = Clock::manual(now());
    let source = KeySource::Discovery { insecure: false };
    (
        Jwks::new(&idp.issuer, &source, timing(), clock).unwrap(),
        hand,
    )
}

fn published(signers: &[&Signer]) -> Answer {
    Answer::Body(jwks(signers))
}

/// Number of usable keys; none where there is no usable set.
fn usable(keys: &Jwks) -> Option<usize> {
    keys.current().map(|current| current.keys.len())
}

#[tokio::test]
async fn discovery_leads_to_the_keys() {
    let idp = Idp::start(jwks(&[&P256, &ED])).await;
    let (keys, _hand) = discovery(&idp);
    keys.fetched(1).await;
    assert_eq!(usable(&keys), Some(2));
    assert_eq!(keys.fetches(), (1, 0));
}

#[test]
fn proxies_of_the_environment_are_not_used() {
    // The same test again in a process whose environment names a proxy that is not there.
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "keys::tests::discovery_leads_to_the_keys"]);
    for name in [
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ] {
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
async fn whatever_is_no_good_answer_makes_the_issuer_unavailable_until_it_is() {
    let elsewhere = Idp::start(jwks(&[&P256])).await;
    let private = {
        let mut jwk = P256.jwk();
        jwk["d"] = "AA".into();
        serde_json::json!({ "keys": [jwk] })
            .to_string()
            .into_bytes()
    };
    let huge = format!(r#"{{"keys":[],"pad":"{}"}}"#, "x".repeat(300 * 1024)).into_bytes();
    let idp = Idp::start(vec![]).await;
    let document = |issuer: &str, uri: &str| Answer::Body(idp.document(issuer, uri));
    let right = document(&idp.issuer, &idp.url("/realm/keys"));
    let bad_discovery = [
        document("https://login.example", &idp.url("/realm/keys")),
        document(&format!("{}/", idp.issuer), &idp.url("/realm/keys")),
        document(&idp.issuer, "http://192.0.2.1/keys"),
        document(&idp.issuer, "file:///etc/passwd"),
        document(&idp.issuer, "/realm/keys"),
        document(
            &idp.issuer,
            &idp.url("/realm/keys").replace("http://", "http://user:pw@"),
        ),
        Answer::Body(b"<html>".to_vec()),
        Answer::Body(b"{}".to_vec()),
        Answer::Body(vec![b' '; 65 * 1024]),
        Answer::Endless,
        Answer::Status(404),
        Answer::Redirect(elsewhere.url("/realm/.well-known/openid-configuration")),
    ];
    let bad_keys = [
        Answer::Body(b"<html>".to_vec()),
        Answer::Body(huge),
        Answer::Body(private),
        Answer::Endless,
        Answer::Status(500),
        Answer::Status(203),
        Answer::Redirect(elsewhere.url("/realm/keys")),
        Answer::Redirect("http://localhost:1/keys".to_owned()),
        Answer::Redirect("file:///etc/passwd".to_owned()),
        Answer::Redirect("/again".to_owned()),
    ];
    let cases = bad_discovery
        .into_iter()
        .map(|bad| (bad, published(&[&P256])))
        .chain(bad_keys.into_iter().map(|bad| (right.clone(), bad)));
    for (case, (discovery_answer, keys_answer)) in cases.enumerate() {
        idp.discover(discovery_answer);
        idp.publish(keys_answer);
        let (keys, hand) = discovery(&idp);
        keys.fetched(1).await;
        assert_eq!(
            (usable(&keys), keys.fetches()),
            (None, (1, 1)),
            "case {case}"
        );

        idp.discover(right.clone());
        idp.publish(published(&[&P256]));
        hand.advance(SECOND);
        keys.fetched(2).await;
        assert_eq!(
            (usable(&keys), keys.fetches()),
            (Some(1), (2, 1)),
            "case {case}"
        );
    }
    assert_eq!(
        elsewhere.requests(),
        0,
        "a redirect was followed to another origin"
    );
    assert!(
        idp.endless_bytes() < 64 * 1024 * 1024,
        "an endless answer was read on: {}",
        idp.endless_bytes()
    );
}

#[tokio::test]
async fn a_redirect_within_the_origin_is_followed() {
    let idp = Idp::start(vec![]).await;
    idp.publish(Answer::Redirect("/moved".to_owned()));
    let (keys, _hand) = discovery(&idp);
    keys.fetched(1).await;
    assert_eq!(usable(&keys), Some(1));
}

#[tokio::test]
async fn an_issuer_that_never_answers_is_given_up_on() {
    let idp = Idp::start(vec![]).await;
    idp.publish(Answer::Silence);
    let (clock, _hand) = Clock::manual(now());
    let impatient = Timing {
        timeout: Duration::from_millis(50),
        ..timing()
    };
    let keys = Jwks::new(
        &idp.issuer,
        &KeySource::Discovery { insecure: false },
        impatient,
        clock,
    )
    .unwrap();
    keys.fetched(1).await;
    assert_eq!((usable(&keys), keys.fetches()), (None, (1, 1)));
}

#[tokio::test]
async fn sources_in_plaintext_are_for_loopback_or_for_those_who_ask_for_them() {
    let make = |issuer: &str, source: &KeySource| {
        Jwks::new(issuer, source, timing(), Clock::manual(now()).0).map(|_| ())
    };
    let discovery = |insecure| KeySource::Discovery { insecure };
    let url = |url: &str, insecure| KeySource::Url {
        url: url.to_owned(),
        insecure,
    };
    let cases = [
        ("https://192.0.2.1", discovery(false), Ok(())),
        ("http://127.0.0.1:1", discovery(false), Ok(())),
        ("http://[::1]:1", discovery(false), Ok(())),
        ("http://localhost:1", discovery(false), Ok(())),
        ("http://192.0.2.1", discovery(true), Ok(())),
        (
            "http://192.0.2.1",
            discovery(false),
            Err(SourceError::Plaintext),
        ),
        (
            "http://localhost.example",
            discovery(false),
            Err(SourceError::Plaintext),
        ),
        (
            "http://127.0.0.1.example",
            discovery(false),
            Err(SourceError::Plaintext),
        ),
        (
            "https://a:b@192.0.2.1",
            discovery(false),
            Err(SourceError::Credentials),
        ),
        (
            "https://192.0.2.1/?a",
            discovery(false),
            Err(SourceError::NotAUrl),
        ),
        ("urn:issuer", discovery(false), Err(SourceError::NotAUrl)),
        (
            "urn:issuer",
            url("https://192.0.2.1/k?tenant=1", false),
            Ok(()),
        ),
        (
            "urn:issuer",
            url("http://192.0.2.1/k", false),
            Err(SourceError::Plaintext),
        ),
        (
            "urn:issuer",
            url("file:///etc/passwd", true),
            Err(SourceError::NotAUrl),
        ),
        (
            "urn:issuer",
            url("keys.json", true),
            Err(SourceError::NotAUrl),
        ),
        ("urn:issuer", KeySource::File("/none".into()), Ok(())),
    ];
    for (issuer, source, expected) in cases {
        assert_eq!(make(issuer, &source), expected, "{issuer} {source:?}");
    }
}

#[tokio::test]
async fn a_storm_of_unknown_key_ids_is_one_fetch_per_interval() {
    let idp = Idp::start(jwks(&[&P256])).await;
    let (keys, hand) = discovery(&idp);
    let keys = Arc::new(keys);
    keys.fetched(1).await;
    for storm in 1..=3 {
        let asking = (0..100).map(|i| {
            let keys = Arc::clone(&keys);
            tokio::spawn(async move { keys.refresh_for(Some(&format!("{storm}-{i}"))).await })
        });
        let answers = futures::future::join_all(asking).await;
        assert!(
            answers.into_iter().any(Result::unwrap),
            "nobody's question led to a fetch"
        );
        assert!(
            !keys.refresh_for(Some("late")).await,
            "asked again inside the interval"
        );
        assert_eq!(idp.served(), 1 + storm);
        hand.advance(10 * SECOND);
    }
}

#[tokio::test]
async fn an_issuer_that_rotates_again_at_once_is_asked_again_at_once() {
    let idp = Idp::start(jwks(&[&P256])).await;
    let (keys, _hand) = discovery(&idp);
    keys.fetched(1).await;
    idp.publish(published(&[&P256_SECOND, &P256]));
    assert!(keys.refresh_for(Some("second")).await);
    idp.publish(published(&[&ED, &P256_SECOND, &P256]));
    assert!(keys.refresh_for(Some("third")).await);
    assert_eq!((usable(&keys), idp.served()), (Some(3), 3));
    // A fetch that brings nothing new is the last for a while.
    assert!(keys.refresh_for(Some("made up")).await);
    assert!(!keys.refresh_for(Some("made up too")).await);
    assert_eq!(idp.served(), 4);
}

#[tokio::test]
async fn those_who_ask_while_a_fetch_is_under_way_share_its_answer() {
    let idp = Idp::start(jwks(&[&P256])).await;
    let (keys, _hand) = discovery(&idp);
    keys.fetched(1).await;
    idp.close();
    let mut asking: Vec<_> = (0..20)
        .map(|i| Box::pin(keys.refresh_for(Some(["a", "b"][i % 2]))))
        .collect();
    // Every one of them has asked and waits before the answer is let out.
    for asked in &mut asking {
        assert!(futures::poll!(asked).is_pending());
    }
    // One of them goes away; that is nobody's loss.
    asking.pop();
    idp.publish(published(&[&P256, &P256_SECOND]));
    idp.open();
    assert!(
        futures::future::join_all(asking)
            .await
            .into_iter()
            .all(|fetched| fetched)
    );
    assert_eq!((usable(&keys), idp.served()), (Some(2), 2));
}

#[tokio::test]
async fn a_key_id_that_a_fresh_set_lacked_is_not_asked_for_again_until_keys_change() {
    let idp = Idp::start(jwks(&[&P256])).await;
    let (keys, hand) = discovery(&idp);
    keys.fetched(1).await;
    assert!(keys.refresh_for(Some("gone")).await);
    keys.remember_unknown(Some("gone"));
    hand.advance(11 * SECOND);
    assert!(!keys.refresh_for(Some("gone")).await);
    assert!(keys.refresh_for(Some("other")).await);
    assert_eq!(idp.served(), 3);
    // Forgotten after half a minute ...
    hand.advance(20 * SECOND);
    assert!(keys.refresh_for(Some("gone")).await);
    keys.remember_unknown(Some("gone"));
    // ... and at once when the issuer's keys change.
    hand.advance(11 * SECOND);
    idp.publish(published(&[&P256, &ED]));
    assert!(keys.refresh_for(Some("other")).await);
    hand.advance(11 * SECOND);
    assert!(keys.refresh_for(Some("gone")).await);
}

#[tokio::test]
async fn the_memory_of_unknown_key_ids_is_bounded() {
    let idp = Idp::start(jwks(&[&P256])).await;
    let (keys, hand) = discovery(&idp);
    keys.fetched(1).await;
    for i in 0..5000 {
        keys.remember_unknown(Some(&i.to_string()));
    }
    assert!(!keys.refresh_for(Some("1000")).await);
    assert!(
        keys.refresh_for(Some("4999")).await,
        "the bound is reached: not remembered"
    );
    hand.advance(31 * SECOND);
    keys.remember_unknown(Some("4999"));
    assert!(
        !keys.refresh_for(Some("4999")).await,
        "what was forgotten makes room"
    );
}

#[tokio::test]
async fn keys_outlive_a_dead_issuer_by_their_grace_and_come_back_with_it() {
    let idp = Idp::start(jwks(&[&P256])).await;
    let (keys, hand) = discovery(&idp);
    keys.fetched(1).await;
    idp.publish(Answer::Status(503));

    hand.advance(300 * SECOND);
    keys.fetched(2).await;
    assert_eq!((usable(&keys), keys.fetches()), (Some(1), (2, 1)));

    hand.advance(3600 * SECOND);
    keys.fetched(3).await;
    assert_eq!((usable(&keys), keys.age()), (Some(1), 3900 * SECOND));
    hand.advance(Duration::from_millis(1));
    assert_eq!(usable(&keys), None);

    idp.publish(published(&[&P256]));
    hand.advance(60 * SECOND);
    keys.fetched(4).await;
    assert_eq!((usable(&keys), keys.age()), (Some(1), Duration::ZERO));
}

#[tokio::test]
async fn keys_are_refreshed_on_a_timer_and_the_epoch_moves_only_when_one_is_gone() {
    let idp = Idp::start(jwks(&[&P256])).await;
    let (keys, hand) = discovery(&idp);
    keys.fetched(1).await;
    let steps: [(&[&Signer], u64); 5] = [
        (&[&P256], 0),
        (&[&P256, &P256_SECOND], 0),
        (&[&P256_SECOND, &P256], 0),
        (&[&P256_SECOND], 1),
        (&[], 2),
    ];
    for (step, (signers, epoch)) in steps.into_iter().enumerate() {
        idp.publish(published(signers));
        hand.advance(300 * SECOND);
        keys.fetched(step as u64 + 2).await;
        let current = keys.current().unwrap();
        assert_eq!(
            (current.keys.len(), current.epoch),
            (signers.len(), epoch),
            "step {step}"
        );
    }
}

#[tokio::test]
async fn a_key_file_is_read_again_when_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.json");
    let (clock, hand) = Clock::manual(now());
    let keys = Jwks::new(
        "urn:issuer",
        &KeySource::File(path.clone()),
        timing(),
        clock,
    )
    .unwrap();
    keys.fetched(1).await;
    assert_eq!(usable(&keys), None);

    std::fs::write(&path, jwks(&[&P256])).unwrap();
    hand.advance(SECOND);
    keys.fetched(2).await;
    assert_eq!(usable(&keys), Some(1));

    std::fs::write(&path, jwks(&[&P256, &ED])).unwrap();
    hand.advance(5 * SECOND);
    keys.fetched(3).await;
    assert_eq!(usable(&keys), Some(2));

    // Half written: the old keys stay.
    std::fs::write(&path, "{\"keys\":[").unwrap();
    hand.advance(5 * SECOND);
    keys.fetched(4).await;
    assert_eq!((usable(&keys), keys.fetches()), (Some(2), (4, 2)));
}
