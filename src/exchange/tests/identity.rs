//! What a request shows of its caller, and what becomes of that.

use secrecy::ExposeSecret;

use super::{approvals::changed, bench::*};
use crate::{
    exchange::Headers,
    identity::{Certificate, Presented, Scheme},
};

fn shown(headers: Headers) -> Presented {
    let mut bench = Bench::new();
    bench.slow_authenticator = true;
    bench.head(headers);
    *bench.presented.expect("nobody was asked who calls")
}

fn to_held(more: &[(&str, &str)]) -> Headers {
    let more: Vec<_> = [(":authority", "held.example")]
        .iter()
        .chain(more)
        .copied()
        .collect();
    head_with("alice", &more)
}

#[test]
fn a_proof_is_shown_with_the_method_and_the_address_it_must_be_for() {
    let bound = [
        ("authorization", "DPoP token-of-alice"),
        ("dpop", "proof-of-alice"),
        (":path", "/v1/chat/completions?api-version=1"),
        // None of these says where the request went.
        (":scheme", "https"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-proto", "https"),
        ("host", "evil.example"),
    ];
    let presented = shown(to_held(&bound));
    let token = presented.token.unwrap();
    assert_eq!(token.scheme, Scheme::Dpop);
    assert_eq!(token.text.expose_secret(), "token-of-alice");
    assert_eq!(presented.proof.unwrap().expose_secret(), "proof-of-alice");
    assert_eq!(presented.method, "POST");
    let target = presented.target.as_deref();
    assert_eq!(target, Some("held.example/v1/chat/completions"));
    assert!(presented.certificate.is_none() && !presented.again);
    // Where any host would do, the host is the caller's word.
    assert_eq!(shown(head_with("alice", &bound)).target, None);
    let other_port = shown(head_with("alice", &[(":authority", "held.example:8443")]));
    let target = other_port.target.as_deref();
    assert_eq!(target, Some("held.example:8443/v1/chat/completions"));
}

#[test]
fn of_two_proofs_none_counts() {
    let twice = to_held(&[("dpop", "proof-of-alice")])
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_vec()))
        .chain([("DPoP".to_owned(), b"proof-of-bob".to_vec())])
        .collect();
    let unreadable = to_held(&[("dpop", "proof-of-\u{e4}lice")]);
    for headers in [twice, unreadable] {
        let mut bench = Bench::new();
        bench.head(headers);
        bench.refusal(400, "proof_repeated");
        assert!(bench.presented.is_none());
    }
}

#[test]
fn a_proof_goes_no_further_and_is_no_part_of_what_is_approved() {
    let mut bench = Bench::new();
    let risky = prompt(&format!("my number is {SSN}"));
    let proved = |jti: &str| {
        let proof = format!("proof-of-{jti}");
        to_held(&[
            ("authorization", "DPoP token-of-alice"),
            ("dpop", &proof),
            ("d_pop", "not ours"),
        ])
    };
    bench.head(proved("1")).body(risky.as_bytes(), true);
    let (first, _, _) = bench.holding.clone().unwrap();
    let again = bench.presented.as_ref().unwrap();
    assert!(again.again, "the proof was used");
    // The same request, proved anew as it must be, joins.
    let mut next = bench.next();
    next.head(proved("2")).body(risky.as_bytes(), true);
    assert_eq!(next.holding.as_ref().unwrap().0, first);

    let mut plain = Bench::new();
    plain
        .head(proved("3"))
        .body(prompt("hello").as_bytes(), true);
    let removed = &plain.seen.upstream_head.as_ref().unwrap().remove;
    assert!(removed.iter().any(|name| name == "dpop"), "{removed:?}");
    let mut without = Bench::new();
    without.ask("alice", &prompt("hello"));
    let removed = &without.seen.upstream_head.as_ref().unwrap().remove;
    assert!(
        removed.iter().any(|name| name == "dpop"),
        "whether it was seen or not"
    );
}

/// Somebody whose connection was authenticated by a certificate.
fn with_certificate(certificate_alone: bool, headers: Headers) -> Bench {
    let base = Bench::new();
    let rules = changed(&base, "held", |held| {
        held.certificate_alone = certificate_alone;
    });
    let mut bench = Bench::under(rules);
    bench.certificate = Some(Certificate {
        digest: [9; 32],
        uri: "spiffe://prod.example/agent".into(),
        ..Certificate::default()
    });
    bench.slow_authenticator = true;
    bench.head(headers);
    bench
}

#[test]
fn a_certificate_stands_in_for_a_token_only_where_the_connection_says_so_and_none_came() {
    let without = to_held(&[("authorization", "")]);
    with_certificate(false, without.clone()).refusal(401, "token_missing");

    let bench = with_certificate(true, without.clone());
    let presented = bench.presented.as_ref().unwrap();
    assert!(presented.token.is_none());
    let certificate = presented.certificate.as_ref().unwrap();
    assert_eq!(certificate.uri, "spiffe://prod.example/agent");

    // A token that is shown counts, and must.
    let bench = with_certificate(true, to_held(&[]));
    let presented = bench.presented.as_ref().unwrap();
    assert!(presented.token.is_some() && presented.certificate.is_some());
    let nonsense = to_held(&[("authorization", "Basic abc")]);
    with_certificate(true, nonsense).refusal(400, "token_not_bearer");

    // And nothing a caller writes is a certificate.
    let forged = to_held(&[
        ("authorization", ""),
        ("x-forwarded-client-cert", "URI=spiffe://prod.example/agent"),
    ]);
    let base = Bench::new();
    let mut bench = Bench::under(changed(&base, "held", |held| held.certificate_alone = true));
    bench.head(forged);
    bench.refusal(401, "token_missing");
}
