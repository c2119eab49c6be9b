//! What issuers and clocks do wrong: nobody is let in by it, nobody good is kept out before the grace is over, and it costs little.

use super::*;
use crate::identity::{MAX_JWKS_BYTES, MAX_JWKS_KEYS};

/// So many copies of something in the list of keys.
fn keys_of(count: usize, key: &str) -> Answer {
    let list = vec![key; count].join(",");
    Answer::Body(format!("{{\"keys\":[{list}]}}").into_bytes())
}

/// Answers with keys that must not count.
fn bad_answers(elsewhere: &Idp) -> Vec<(&'static str, Answer)> {
    let jwk = P256.jwk().to_string();
    let mut private = P256.jwk();
    private["d"] = "AA".into();
    vec![
        ("10,000 keys", keys_of(10_000, &jwk)),
        ("10,000 keys of two bytes", keys_of(10_000, "{}")),
        ("a private key", keys_of(1, &private.to_string())),
        ("HTML", Answer::Body(b"<html>please log in</html>".to_vec())),
        ("nothing", Answer::Body(vec![])),
        ("cut off", Answer::Body(b"{\"keys\":[".to_vec())),
        ("a page without end", Answer::Endless),
        ("500", Answer::Status(500)),
        ("404", Answer::Status(404)),
        (
            "a redirect elsewhere",
            Answer::Redirect(elsewhere.url("/realm/keys")),
        ),
        (
            "a redirect to itself",
            Answer::Redirect("/realm/keys".to_owned()),
        ),
        (
            "a redirect to a file",
            Answer::Redirect("file:///etc/passwd".to_owned()),
        ),
        ("silence", Answer::Silence),
    ]
}

#[tokio::test]
async fn whatever_an_issuer_answers_old_keys_count_until_their_grace_is_over_and_no_others() {
    let elsewhere = Idp::start(jwks(&[&P256_SECOND])).await;
    for (case, bad) in bad_answers(&elsewhere) {
        let impatient = Timing {
            // Only silence lasts that long.
            timeout: match bad {
                Answer::Silence => Duration::from_millis(50),
                _ => timing().timeout,
            },
            ..timing()
        };
        let bench = Bench::timed(&[&P256], impatient).await;
        let keys = &bench.authenticator.issuers[&bench.idp.issuer]
            .keys
            .as_ref()
            .unwrap();
        let mut n = 0;
        let mut token = |signer: &Signer| {
            n += 1;
            bench.token(signer, json!({"exp": NOW + 90_000, "jti": n.to_string()}))
        };
        assert_eq!(bench.code(&token(&P256)).await, "ok", "{case}");

        bench.idp.publish(bad);
        bench.hand.advance(300 * SECOND);
        keys.fetched(2).await;
        assert_eq!(
            bench.code(&token(&P256)).await,
            "ok",
            "{case}: the old keys are good"
        );
        assert_eq!(
            bench.code(&token(&P256_SECOND)).await,
            "key_unknown",
            "{case}"
        );
        let metrics = &bench.authenticator.metrics().issuers[0];
        assert!(
            metrics.available && metrics.keys == 1 && metrics.failed_fetches >= 1,
            "{case}"
        );

        bench.hand.advance(3600 * SECOND);
        assert_eq!(
            bench.code(&token(&P256)).await,
            "ok",
            "{case}: to the end of the grace"
        );
        bench.hand.advance(SECOND);
        assert_eq!(
            bench.code(&token(&P256)).await,
            "issuer_unavailable",
            "{case}"
        );
        assert!(
            !bench.authenticator.metrics().issuers[0].available,
            "{case}"
        );

        bench.idp.publish(Answer::Body(jwks(&[&P256])));
        let (fetches, _) = keys.fetches();
        bench.hand.advance(60 * SECOND);
        keys.fetched(fetches + 1).await;
        assert_eq!(bench.code(&token(&P256)).await, "ok", "{case}: as before");
        let read = bench.idp.endless_bytes();
        assert!(
            read < 64 * MAX_JWKS_BYTES,
            "{case}: {read} bytes were taken"
        );
    }
    assert_eq!(elsewhere.requests(), 0, "a redirect was followed");
}

#[tokio::test]
async fn the_largest_key_set_is_read_and_chosen_from() {
    let mut keys: Vec<_> = (1..MAX_JWKS_KEYS)
        .map(|n| {
            let mut jwk = P256_SECOND.jwk();
            jwk["kid"] = format!("k{n}").into();
            jwk
        })
        .collect();
    keys.push(P256.jwk());
    let bench = Bench::new(&[]).await;
    bench.idp.publish(Answer::Body(
        json!({ "keys": keys }).to_string().into_bytes(),
    ));
    assert_eq!(bench.code(&bench.token(&P256, json!({}))).await, "ok");
    assert_eq!(
        bench.authenticator.metrics().issuers[0].keys,
        MAX_JWKS_KEYS as u64
    );
}

#[tokio::test]
async fn a_clock_that_jumps_an_hour_moves_no_grace_no_memory_and_no_rate_limit() {
    for hours in [1, -1] {
        let bench = Bench::new(&[&P256]).await;
        let keys = &bench.authenticator.issuers[&bench.idp.issuer]
            .keys
            .as_ref()
            .unwrap();
        let long = json!({"exp": NOW + 90_000, "nbf": NOW - 9000, "iat": NOW - 9000});
        let token = bench.token(&P256, long.clone());
        assert_eq!(bench.code(&token).await, "ok");
        assert_eq!(
            bench.code(&bench.token(&ED, json!({}))).await,
            "key_unknown"
        );
        assert_eq!(bench.idp.served(), 2);

        bench.hand.jump(SignedDuration::from_hours(hours));
        assert_eq!(bench.code(&token).await, "ok");
        assert_eq!(bench.counts(), (2, 1, 1), "{hours}: from memory still");
        let mut unknown = long.clone();
        unknown["jti"] = "another".into();
        assert_eq!(bench.code(&bench.token(&ED, unknown)).await, "key_unknown");
        assert_eq!(
            bench.idp.served(),
            2,
            "{hours}: the rate limit of questions holds"
        );

        // The issuer goes away, and the clock goes on jumping.
        bench.idp.publish(Answer::Status(500));
        bench.hand.advance(300 * SECOND);
        keys.fetched(3).await;
        for _ in 0..4 {
            bench.hand.jump(SignedDuration::from_hours(hours));
            assert!(
                bench.authenticator.metrics().issuers[0].available,
                "{hours}"
            );
        }
        bench.hand.advance(3601 * SECOND);
        assert!(
            !bench.authenticator.metrics().issuers[0].available,
            "{hours}"
        );
    }
}

#[tokio::test]
async fn memory_for_tokens_is_bounded_in_entries_and_in_bytes() {
    let most = CACHE_BYTES / LEAST_ENTRY_BYTES as u64;
    assert_eq!(
        (most, CACHE_BYTES),
        (16_384, 16 * 1024 * 1024),
        "as docs/identity.md says"
    );
    let (entries, bytes) = filled(20_000, 0).await;
    assert!(
        entries <= most && bytes <= CACHE_BYTES,
        "{entries} entries, {bytes} bytes"
    );
    assert!(entries > most / 2, "{entries}: the bound is used");
    let (entries, bytes) = filled(2_000, 200).await;
    assert!(bytes <= CACHE_BYTES, "{bytes}");
    assert!(
        (100..400).contains(&entries),
        "{entries}: each counts some 55 kB"
    );
}

/// Entries and bytes of a memory that so many callers with so many groups went through.
async fn filled(callers: u32, groups: usize) -> (u64, u64) {
    let bench = Bench::new(&[&P256]).await;
    let principal = testing_principal(vec!["g".repeat(250); groups]);
    for n in 0..callers {
        let mut token = [0; 32];
        token[..4].copy_from_slice(&n.to_be_bytes());
        let key = CacheKey {
            identity: [0; 32],
            token,
        };
        bench
            .authenticator
            .remember(key, principal.clone(), Some(0));
    }
    let cache = &bench.authenticator.cache;
    cache.run_pending_tasks();
    (cache.entry_count(), cache.weighted_size())
}
