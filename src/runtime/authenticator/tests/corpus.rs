//! The corpus of `tests/data/jwt` against the whole authenticator: live keys, memory, and a listener that nobody may call.

use std::collections::BTreeMap;

use serde_json::Value;

use super::*;
use crate::identity::testing::{ISSUER, corpus::*};

/// An authenticator for the corpus' issuer, whose keys a provider publishes at a URL.
struct Stage {
    idp: Idp,
    authenticator: Authenticator,
    clock: Clock,
    hand: Hand,
}

impl Stage {
    async fn new(setting: &Setting, rules: &str, keys: &str) -> Self {
        let idp = Idp::start(setting.jwks(keys)).await;
        let (clock, hand) = Clock::manual(now());
        let source = KeySource::Url {
            url: idp.url("/realm/keys"),
            insecure: false,
        };
        let issuers = vec![(setting.rules(rules), source)];
        let authenticator = Authenticator::with(issuers, [0; 32], clock.clone(), timing()).unwrap();
        authenticator.first_fetches().await;
        Self {
            idp,
            authenticator,
            clock,
            hand,
        }
    }

    async fn code(&self, token: &str) -> &'static str {
        let now = self.clock.now();
        let principal = self
            .authenticator
            .authenticate(&Presented::bearer(token), now)
            .await;
        principal.map_or_else(TokenError::code, |_| "ok")
    }

    /// Lets time pass, and the fetch end that falls due in it.
    async fn wait(&self, seconds: u64) {
        let keys = &self.authenticator.issuers[ISSUER].keys.as_ref().unwrap();
        let (fetches, _) = keys.fetches();
        self.hand.advance(SECOND * u32::try_from(seconds).unwrap());
        if seconds >= 60 {
            keys.fetched(fetches + 1).await;
        }
    }
}

#[tokio::test]
async fn live_keys_and_memory_change_no_answer_of_the_corpus() {
    let setting = Setting::read();
    let mut stages: BTreeMap<(String, String), Vec<Case>> = BTreeMap::new();
    for case in FILES.into_iter().flat_map(cases) {
        let stage = (case.rules.clone(), case.keys.clone());
        stages.entry(stage).or_default().push(case);
    }
    for ((rules, keys), cases) in stages {
        let stage = Stage::new(&setting, &rules, &keys).await;
        for _ in 0..2 {
            for case in &cases {
                assert_eq!(stage.code(&case.token).await, case.expect, "{}", case.name);
            }
        }
        assert!(
            stage.idp.served() <= 2,
            "{rules} {keys}: strangers' tokens caused fetches"
        );
    }
}

#[tokio::test]
async fn addresses_in_a_token_are_never_called() {
    let bait = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", bait.local_addr().unwrap());
    let stage = Stage::new(&Setting::read(), "usual", "usual").await;
    let document = document("addresses");
    let cases = document["cases"].as_array().unwrap();
    for case in cases {
        let baited = |part: &str| case[part].as_str().unwrap().replace("{bait}", &address);
        // A key that is not the issuer's, whatever the header says.
        let token = P256_SECOND.sign_text(&baited("header"), &baited("claims"));
        assert_eq!(stage.code(&token).await, case["expect"], "{}", case["case"]);
        // So that the rate limit of unknown key ids is not what keeps us from asking.
        stage.hand.advance(11 * SECOND);
        assert!(
            futures::poll!(Box::pin(bait.accept())).is_pending(),
            "{}: the bait was taken",
            case["case"]
        );
    }
    assert!(cases.len() >= 20 && stage.idp.served() > 5);
}

#[tokio::test]
async fn stories_of_rotation_end_as_they_are_told() {
    let setting = Setting::read();
    let document = document("rotations");
    for told in document["stories"].as_array().unwrap() {
        let stage = Stage::new(&setting, "usual", "p256").await;
        for (number, step) in told["steps"].as_array().unwrap().iter().enumerate() {
            let place = format!("{}, step {number}", told["story"]);
            match step {
                Value::Object(step) if step.contains_key("send") => {
                    let code = stage.code(step["send"].as_str().unwrap()).await;
                    assert_eq!(code, step["expect"], "{place}");
                }
                Value::Object(step) if step.contains_key("publish") => {
                    let keys = setting.jwks(step["publish"].as_str().unwrap());
                    stage.idp.publish(Answer::Body(keys));
                }
                Value::Object(step) if step.contains_key("status") => {
                    let status = step["status"].as_u64().unwrap();
                    stage
                        .idp
                        .publish(Answer::Status(u16::try_from(status).unwrap()));
                }
                step => stage.wait(step["wait"].as_u64().unwrap()).await,
            }
        }
    }
}
