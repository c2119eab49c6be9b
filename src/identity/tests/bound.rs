//! Tokens bound to a key or a certificate: who does not have that too is nobody.

use super::*;

/// RFC 9449, figures 2 and 12 to 14.
const RFC_TOKEN_REQUEST: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg";
const RFC_RESOURCE_REQUEST: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA";
const RFC_TOKEN: &str = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
const RFC_JKT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";

/// What the proof comes to, `ok` where it holds.
fn proved(presented: &Presented, token: Option<&str>, now: Timestamp) -> &'static str {
    verify_proof(presented, token, now).map_or_else(TokenError::code, |_| "ok")
}

#[test]
fn the_examples_of_rfc_9449_hold_and_name_their_key() {
    let cases = [
        (
            RFC_TOKEN_REQUEST,
            "POST",
            "server.example.com/token",
            None,
            1_562_262_616,
        ),
        (
            RFC_RESOURCE_REQUEST,
            "GET",
            "resource.example.org/protectedresource",
            Some(RFC_TOKEN),
            1_562_262_618,
        ),
    ];
    for (proof, method, target, token, at) in cases {
        let shown = Presented {
            method: method.into(),
            target: Some(target.into()),
            ..presented(Scheme::Dpop, RFC_TOKEN, Some(proof))
        };
        let now = Timestamp::from_second(at).unwrap();
        let proof = verify_proof(&shown, token, now).unwrap();
        assert_eq!(base64url(proof.key), RFC_JKT);
        assert_eq!(proof.made, at);
        let late = Timestamp::from_second(at + 61).unwrap();
        assert_eq!(proved(&shown, token, late), "proof_stale");
    }
    // The same key from the JWK Thumbprint's own RFC (7638, 3.1).
    let key = json!({
        "kty": "RSA", "e": "AQAB", "alg": "RS256", "kid": "2011-04-29",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    });
    let (_, thumbprint) = KeySet::carried(key.as_object().unwrap()).unwrap();
    assert_eq!(
        base64url(thumbprint),
        "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    );
}

/// What becomes of a request with a token bound to [`ED`]'s key, and a proof whose header and claims are changed so.
fn with_proof(header: Value, claims: Value) -> &'static str {
    let token = bound_token(json!({"jkt": jkt(&ED)}));
    let mut parts = [proof_header(&ED), proof_claims(&token, "1")];
    for (part, changes) in parts.iter_mut().zip([header, claims]) {
        let part = part.as_object_mut().unwrap();
        for (name, value) in changes.as_object().unwrap() {
            match value.is_null() {
                true => _ = part.remove(name),
                false => _ = part.insert(name.clone(), value.clone()),
            }
        }
    }
    let [header, claims] = parts.map(|part| part.to_string());
    shown(Scheme::Dpop, &token, Some(&ED.sign_text(&header, &claims)))
}

fn bound_token(cnf: Value) -> String {
    P256.token(&claims_with(json!({ "cnf": cnf })))
}

fn shown(scheme: Scheme, token: &str, proof: Option<&str>) -> &'static str {
    judged(&presented(scheme, token, proof))
}

fn judged(presented: &Presented) -> &'static str {
    use secrecy::ExposeSecret;
    let token = presented.token.as_ref().unwrap().text.expose_secret();
    let judged = check(token).and_then(|principal| principal.bound.check(presented, now()));
    judged.map_or_else(TokenError::code, |_| "ok")
}

#[test]
fn a_bound_token_counts_with_a_proof_by_its_key_of_every_kind() {
    for signer in [&RSA, &PSS, &P256, &P384, &ED] {
        let token = bound_token(json!({"jkt": jkt(signer)}));
        let proof = proof(signer, &token, "1");
        assert_eq!(shown(Scheme::Dpop, &token, Some(&proof)), "ok");
        // A header of its own has no scheme to say it with.
        assert_eq!(shown(Scheme::Bare, &token, Some(&proof)), "ok");
        assert_eq!(
            shown(Scheme::Bearer, &token, Some(&proof)),
            "token_bound_to_key"
        );
        assert_eq!(shown(Scheme::Bearer, &token, None), "token_bound_to_key");
        for scheme in [Scheme::Dpop, Scheme::Bare] {
            assert_eq!(shown(scheme, &token, None), "proof_missing");
        }
    }
    let free = P256.token(&claims());
    let unneeded = proof(&ED, &free, "1");
    assert_eq!(
        shown(Scheme::Dpop, &free, Some(&unneeded)),
        "token_not_bound_to_key"
    );
    assert_eq!(shown(Scheme::Bearer, &free, Some(&unneeded)), "ok");
}

#[test]
fn a_proof_that_is_wrong_in_any_way_is_refused_with_a_code_of_its_own() {
    assert_eq!(with_proof(json!({}), json!({})), "ok");
    let mut private = ED.jwk();
    private["d"] = "AAAA".into();
    let oct = json!({"kty": "oct", "k": "c2VjcmV0"});
    let weak = json!({"kty": "RSA", "n": base64url([0xff; 128]), "e": "AQAB"});
    let off_curve =
        json!({"kty": "EC", "crv": "P-256", "x": base64url([1; 32]), "y": base64url([1; 32])});
    let other_token = proof_claims("another", "1")["ath"].clone();
    let headers = [
        (json!({"typ": null}), "proof_wrong_type"),
        (json!({"typ": "JWT"}), "proof_wrong_type"),
        (json!({"typ": "at+jwt"}), "proof_wrong_type"),
        (json!({"typ": "application/dpop+jwt"}), "ok"),
        (json!({"typ": "DPoP+JWT"}), "ok"),
        (json!({"alg": null}), "proof_malformed"),
        (json!({"alg": "none"}), "proof_algorithm_refused"),
        (json!({"alg": "HS256"}), "proof_algorithm_refused"),
        (json!({"alg": "eddsa"}), "proof_algorithm_refused"),
        (json!({"alg": "ES256"}), "proof_key_invalid"),
        (json!({"jwk": null}), "proof_key_invalid"),
        (json!({"jwk": "key"}), "proof_key_invalid"),
        (json!({"jwk": {}}), "proof_key_invalid"),
        (json!({"jwk": private}), "proof_key_private"),
        (json!({"jwk": oct}), "proof_key_private"),
        (json!({"jwk": weak}), "proof_key_invalid"),
        (json!({"jwk": off_curve}), "proof_key_invalid"),
        // Rightly formed, but not by whom it says.
        (
            json!({"jwk": P256.jwk(), "alg": "ES256"}),
            "proof_bad_signature",
        ),
        (
            json!({"kid": "made-up", "jku": "https://evil.example"}),
            "ok",
        ),
        (json!({"crit": ["exp"]}), "proof_malformed"),
        (json!({"b64": false}), "proof_malformed"),
    ];
    for (change, code) in headers {
        assert_eq!(with_proof(change.clone(), json!({})), code, "{change}");
    }
    let url = |url: &str| json!({ "htu": url });
    let claims = [
        (json!({"jti": null}), "proof_claims_invalid"),
        (json!({"jti": ""}), "proof_claims_invalid"),
        (json!({"jti": 7}), "proof_claims_invalid"),
        (json!({"htm": null}), "proof_claims_invalid"),
        (json!({"htm": "GET"}), "proof_wrong_method"),
        (json!({"htm": "post"}), "proof_wrong_method"),
        (json!({"htu": null}), "proof_claims_invalid"),
        (url("https://gateway.example/v1/models"), "proof_wrong_url"),
        (
            url("https://evil.example/v1/chat/completions"),
            "proof_wrong_url",
        ),
        (json!({"iat": null}), "proof_claims_invalid"),
        (json!({"iat": NOW.to_string()}), "proof_claims_invalid"),
        (json!({"iat": -1}), "proof_claims_invalid"),
        (json!({"iat": NOW - 60}), "ok"),
        (json!({"iat": NOW - 61}), "proof_stale"),
        (json!({"iat": NOW + 10}), "ok"),
        (json!({"iat": NOW as f64 + 10.5}), "ok"),
        (json!({"iat": NOW + 11}), "proof_in_future"),
        (json!({"ath": null}), "proof_token_missing"),
        (json!({"ath": other_token}), "proof_wrong_token"),
        (json!({"ath": 7}), "proof_wrong_token"),
        (json!({"nonce": "unasked"}), "ok"),
    ];
    for (change, code) in claims {
        assert_eq!(with_proof(json!({}), change.clone()), code, "{change}");
    }
}

#[test]
fn a_proof_is_for_the_address_however_that_is_spelled() {
    let at = |target: &str, htu: &str| {
        let claims = json!({"jti": "1", "htm": "POST", "htu": htu, "iat": NOW});
        let proof = ED.sign_text(&proof_header(&ED).to_string(), &claims.to_string());
        let shown = Presented {
            target: Some(target.into()),
            ..presented(Scheme::Dpop, "", Some(&proof))
        };
        proved(&shown, None, now())
    };
    let chat = "gateway.example/v1/chat";
    for same in [
        "https://gateway.example/v1/chat",
        "https://gateway.example:443/v1/chat",
        "HTTPS://GateWay.Example/v1/chat",
        "https://gateway.example/v1/chat?model=x",
        "https://gateway.example/v1/chat#part",
        "https://gateway.example/v1/%63hat",
        "https://gateway.example/v1/x/../chat",
        "https://gateway.example/v1/x/%2e%2E/./chat",
    ] {
        assert_eq!(at(chat, same), "ok", "{same}");
    }
    for other in [
        "http://gateway.example/v1/chat",
        "https://gateway.example/v1/Chat",
        "https://gateway.example/v1/chat/",
        "https://gateway.example//v1/chat",
        "https://gateway.example/v1/chat%3F",
        "https://gateway.example/v1%2Fchat",
        "https://gateway.example/",
        "https://gateway.example",
        "https://gateway.example:8443/v1/chat",
        "https://gateway.example./v1/chat",
        "https://gateway.example.evil.example/v1/chat",
        "https://gateway.example@evil.example/v1/chat",
        "https://user@gateway.example/v1/chat",
        "https://:secret@gateway.example/v1/chat",
        "https:gateway.example/v1/chat",
        "https:///gateway.example/v1/chat",
        "https:\\\\gateway.example\\v1\\chat",
        "https://gateway.example/v1/ch\tat",
        " https://gateway.example/v1/chat",
        "wss://gateway.example/v1/chat",
        "gateway.example/v1/chat",
        "/v1/chat",
        "",
        "https://",
        "https://gateway.example/v1/ch\u{e4}t",
    ] {
        assert_eq!(at(chat, other), "proof_wrong_url", "{other}");
    }
    assert_eq!(
        at("gateway.example:8443/", "https://gateway.example:8443"),
        "ok"
    );
    assert_eq!(at("g.example/a%7eb%2fc", "https://g.example/a~b%2Fc"), "ok");
    assert_eq!(at("g.example/100%", "https://g.example/100%"), "ok");
    // http only where nothing leaves the machine.
    for host in ["localhost:8080", "127.0.0.1:8080", "[::1]:8080"] {
        assert_eq!(at(&format!("{host}/x"), &format!("http://{host}/x")), "ok");
        assert_eq!(at(&format!("{host}/x"), &format!("https://{host}/x")), "ok");
    }
    assert_eq!(
        at("localhost.evil/x", "http://localhost.evil/x"),
        "proof_wrong_url"
    );
    assert_eq!(at("localhost/x", "http://localhost:80/x"), "ok");
    assert_eq!(
        at("localhost/x", "https://localhost:80/x"),
        "proof_wrong_url"
    );
}

#[test]
fn a_proof_of_another_key_or_of_odd_form_is_refused() {
    let token = bound_token(json!({"jkt": jkt(&ED)}));
    let with = |proof: &str| shown(Scheme::Dpop, &token, Some(proof));
    assert_eq!(with(&proof(&P256, &token, "1")), "proof_wrong_key");
    let good = proof(&ED, &token, "1");
    assert_eq!(with(&good), "ok");
    for malformed in [
        "",
        "a",
        "a.b.c",
        &good[1..],
        &format!("{good}, {good}"),
        &format!("{good}."),
    ] {
        assert_eq!(with(malformed), "proof_malformed", "{malformed}");
    }
    let (unsigned, _) = good.rsplit_once('.').unwrap();
    assert_eq!(with(&format!("{unsigned}.")), "proof_bad_signature");
    let twice =
        format!(r#"{{"jti":"1","jti":"2","htm":"POST","htu":"https://{TARGET}","iat":{NOW}}}"#);
    let header = proof_header(&ED).to_string();
    assert_eq!(with(&ED.sign_text(&header, &twice)), "proof_malformed");
    let mut long = proof_claims(&token, "1");
    long["pad"] = "x".repeat(MAX_PROOF_BYTES).into();
    assert_eq!(
        with(&ED.sign_text(&header, &long.to_string())),
        "proof_malformed"
    );
    // What is no proof at all is no token either.
    assert_eq!(
        code(&ED.sign_text(&header, &claims().to_string())),
        "token_wrong_type"
    );
}

#[test]
fn no_byte_of_a_proof_can_be_changed() {
    let token = bound_token(json!({"jkt": jkt(&ED)}));
    let good = proof(&ED, &token, "1");
    let bound = check(&token).unwrap().bound;
    for place in 0..good.len() {
        for other in ["A", "B", "-", ".", "=", " ", "é", ""] {
            if good[place..].starts_with(other) && !other.is_empty() {
                continue;
            }
            let changed = format!("{}{other}{}", &good[..place], &good[place + 1..]);
            let shown = presented(Scheme::Dpop, &token, Some(&changed));
            assert!(bound.check(&shown, now()).is_err(), "{place}: {changed}");
        }
    }
}

#[test]
fn where_the_host_is_the_callers_word_no_proof_counts() {
    let token = bound_token(json!({"jkt": jkt(&ED)}));
    let proof = proof(&ED, &token, "1");
    let anywhere = Presented {
        target: None,
        ..presented(Scheme::Dpop, &token, Some(&proof))
    };
    assert_eq!(judged(&anywhere), "proof_host_unknown");
}

#[test]
fn a_binding_that_is_not_understood_is_never_taken_for_none() {
    let digest = base64url([7; 32]);
    for cnf in [
        json!({}),
        json!(null),
        json!([]),
        json!("jkt"),
        json!({"jkt": ""}),
        json!({"jkt": 7}),
        json!({"jkt": base64url([7; 31])}),
        json!({"jkt": base64url([7; 33])}),
        json!({"jkt": format!("{digest}=")}),
        json!({"jkt": digest, "kid": "also"}),
        json!({"kid": "key"}),
        json!({"jwk": ED.jwk()}),
        json!({"jku": "https://evil.example"}),
        json!({"x5t": digest}),
        json!({"X5T#S256": digest}),
        json!({"x5t#S256": null}),
    ] {
        assert_eq!(Bound::read(&cnf), Err(TokenError::BindingUnknown), "{cnf}");
    }
    // Also in a token; null stands for absence in no claim.
    let token = P256.sign_text(
        &P256.header().to_string(),
        &claims().to_string().replacen('{', r#"{"cnf":null,"#, 1),
    );
    assert_eq!(code(&token), "binding_unknown");
    assert_eq!(code(&bound_token(json!({"osc": {}}))), "binding_unknown");
}

#[test]
fn a_binding_is_written_as_it_is_read() {
    let digest = base64url([7; 32]);
    for cnf in [
        json!({"jkt": digest}),
        json!({"x5t#S256": digest}),
        json!({"jkt": digest, "x5t#S256": base64url([8; 32])}),
    ] {
        let bound: Bound = serde_json::from_value(cnf.clone()).unwrap();
        assert_eq!(serde_json::to_value(bound).unwrap(), cnf);
    }
    assert!(serde_json::from_value::<Bound>(json!({"jkt": digest, "kid": "k"})).is_err());
}

#[test]
fn an_issuer_may_have_to_bind_its_tokens() {
    let strict = IssuerRules {
        require_bound_tokens: true,
        ..rules()
    };
    let keys = keys(&[&P256]);
    let code =
        |token: &str| verify(token, &strict, &keys, now()).map_or_else(TokenError::code, |_| "ok");
    assert_eq!(code(&P256.token(&claims())), "token_not_bound");
    assert_eq!(code(&bound_token(json!({"jkt": jkt(&ED)}))), "ok");
    let certificate = json!({"x5t#S256": base64url([7; 32])});
    assert_eq!(code(&bound_token(certificate)), "ok");
}

#[test]
fn a_token_bound_to_a_certificate_counts_with_that_certificate_only() {
    let with = |scheme, cnf: Value, digest: Option<[u8; 32]>| {
        let token = bound_token(cnf);
        let proof = proof(&ED, &token, "1");
        judged(&Presented {
            certificate: digest.map(|digest| Certificate {
                digest,
                ..Certificate::default()
            }),
            ..presented(scheme, &token, Some(&proof))
        })
    };
    let cnf = json!({"x5t#S256": base64url([7; 32])});
    for scheme in [Scheme::Bearer, Scheme::Bare] {
        assert_eq!(with(scheme, cnf.clone(), Some([7; 32])), "ok");
        assert_eq!(
            with(scheme, cnf.clone(), Some([8; 32])),
            "certificate_wrong"
        );
        assert_eq!(with(scheme, cnf.clone(), None), "certificate_missing");
    }
    assert_eq!(
        with(Scheme::Dpop, cnf, Some([7; 32])),
        "token_not_bound_to_key"
    );
    // Where both are named, both must be shown.
    let both = json!({"x5t#S256": base64url([7; 32]), "jkt": jkt(&ED)});
    assert_eq!(with(Scheme::Dpop, both.clone(), Some([7; 32])), "ok");
    assert_eq!(
        with(Scheme::Dpop, both.clone(), Some([8; 32])),
        "certificate_wrong"
    );
    assert_eq!(
        with(Scheme::Bearer, both, Some([7; 32])),
        "token_bound_to_key"
    );
    let other = json!({"x5t#S256": base64url([7; 32]), "jkt": jkt(&P256)});
    assert_eq!(with(Scheme::Dpop, other, Some([7; 32])), "proof_wrong_key");
}

#[test]
fn what_was_accepted_may_be_older_when_it_is_looked_at_again() {
    let token = bound_token(json!({"jkt": jkt(&ED)}));
    let proof = proof(&ED, &token, "1");
    let again = |again, now| {
        let shown = Presented {
            again,
            ..presented(Scheme::Dpop, &token, Some(&proof))
        };
        proved(&shown, Some(&token), now)
    };
    let later = now() + jiff::SignedDuration::from_secs(400);
    assert_eq!(again(false, later), "proof_stale");
    assert_eq!(again(true, later), "ok");
}

fn used(name: u8, key: u8, made: i64) -> Proof {
    Proof {
        key: [key; 32],
        id: [name; 32],
        made,
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn a_proof_is_used_once_and_forgotten_when_it_is_too_old_anyway() {
    let mut replays = Replays::default();
    assert_eq!(replays.take(&used(1, 1, NOW), [1; 32], at(NOW)), Ok(()));
    let again = Err(TokenError::ProofReplayed);
    assert_eq!(replays.take(&used(1, 1, NOW), [1; 32], at(NOW)), again);
    assert_eq!(replays.take(&used(1, 1, NOW), [1; 32], at(NOW + 60)), again);
    assert_eq!(replays.len(), 1);
    assert_eq!(
        replays.take(&used(2, 1, NOW + 61), [1; 32], at(NOW + 61)),
        Ok(())
    );
    assert_eq!(replays.len(), 1, "the first is forgotten");
    // A clock that went back does not bring it to life.
    let stale = Err(TokenError::ProofStale);
    assert_eq!(replays.take(&used(1, 1, NOW), [1; 32], at(NOW)), stale);
    assert_eq!(replays.take(&used(2, 1, NOW + 61), [1; 32], at(NOW)), again);
    assert_eq!(replays.take(&used(3, 1, NOW + 1), [1; 32], at(NOW)), Ok(()));
}

#[test]
fn who_may_choose_keys_freely_has_one_share_for_all_of_them() {
    let mut replays = Replays::with(10, 2);
    let caller = [9; 32];
    for key in [1, 2] {
        let taken = replays.take(&used(key, key, NOW), caller, at(NOW));
        assert_eq!(taken, Ok(()));
    }
    let third = replays.take(&used(3, 3, NOW), caller, at(NOW));
    assert_eq!(third, Err(TokenError::ProofsFull));
    assert_eq!(replays.take(&used(3, 3, NOW), [8; 32], at(NOW)), Ok(()));
    // Whoever it counts as, it is the same proof.
    let again = replays.take(&used(1, 1, NOW), [1; 32], at(NOW));
    assert_eq!(again, Err(TokenError::ProofReplayed));
}

#[test]
fn at_its_bounds_memory_refuses_and_forgets_nothing_early() {
    let mut replays = Replays::with(3, 2);
    let full = Err(TokenError::ProofsFull);
    assert_eq!(replays.take(&used(1, 1, NOW), [1; 32], at(NOW)), Ok(()));
    assert_eq!(replays.take(&used(2, 1, NOW + 1), [1; 32], at(NOW)), Ok(()));
    assert_eq!(
        replays.take(&used(3, 1, NOW), [1; 32], at(NOW)),
        full,
        "one key's share"
    );
    assert_eq!(replays.take(&used(4, 2, NOW), [2; 32], at(NOW)), Ok(()));
    assert_eq!(
        replays.take(&used(5, 3, NOW), [3; 32], at(NOW)),
        full,
        "all there is"
    );
    for replayed in [used(1, 1, NOW), used(2, 1, NOW + 1), used(4, 2, NOW)] {
        let again = Err(TokenError::ProofReplayed);
        assert_eq!(replays.take(&replayed, [1; 32], at(NOW + 60)), again);
    }
    assert_eq!(
        replays.take(&used(6, 1, NOW + 61), [1; 32], at(NOW + 61)),
        Ok(())
    );
    assert_eq!(
        replays.take(&used(7, 1, NOW + 61), [1; 32], at(NOW + 61)),
        full
    );
    assert_eq!(replays.len(), 2);
}

proptest! {
    #[test]
    fn of_every_proof_one_use_counts_whatever_the_clock_does(
        steps in proptest::collection::vec((0u8..6, 0u8..3, -200i64..200), 1..60),
    ) {
        let mut replays = Replays::with(4, 3);
        let mut accepted = BTreeSet::new();
        for (name, key, clock) in steps {
            // Each is made once: its time is a part of it.
            let proof = used(name, key, NOW + i64::from(name) * 30);
            if replays.take(&proof, proof.key, at(NOW + clock)).is_ok() {
                prop_assert!(accepted.insert(name), "{name} was accepted twice");
            }
            prop_assert!(replays.len() <= 4);
        }
    }
}
