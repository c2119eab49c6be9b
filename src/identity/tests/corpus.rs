//! Every token of `tests/data/jwt` gets exactly the answer that stands beside it.

use super::{testing::corpus::*, *};

fn answer(case: &Case, setting: &Setting) -> &'static str {
    let (rules, keys) = (setting.rules(&case.rules), setting.keys(&case.keys));
    verify(&case.token, &rules, &keys, now()).map_or_else(TokenError::code, |_| "ok")
}

#[test]
fn every_token_of_the_corpus_is_answered_with_the_code_beside_it() {
    let setting = Setting::read();
    let (mut wrong, mut run, mut good) = (Vec::new(), 0, 0);
    for case in FILES.into_iter().flat_map(cases) {
        let answer = answer(&case, &setting);
        if answer != case.expect {
            wrong.push(format!("{}: {answer} and not {}", case.name, case.expect));
        }
        run += 1;
        good += u32::from(answer == "ok");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(run >= 800 && good >= 50, "{run} cases, {good} of them good");
}

#[test]
fn the_corpus_reaches_every_refusal_that_a_token_can_cause() {
    let reached: BTreeSet<String> = FILES
        .into_iter()
        .flat_map(cases)
        .map(|case| case.expect)
        .collect();
    // These are about the header that carries it or about the issuer (bearer.rs; the stories of rotation and of opaque tokens) ...
    let carried = [
        TokenError::Missing,
        TokenError::Repeated,
        TokenError::NotBearer,
        TokenError::IssuerUnavailable,
        TokenError::Inactive,
    ];
    // ... and these about what comes with a token, or is ours.
    let others = [
        "proof",
        "certificate_",
        "binding_",
        "token_bound",
        "token_not_bound",
        "grant",
    ];
    for error in TokenError::ALL {
        let elsewhere =
            carried.contains(error) || others.iter().any(|other| error.code().starts_with(other));
        assert_eq!(reached.contains(error.code()), !elsewhere, "{error:?}");
    }
}

#[test]
fn the_setting_has_nothing_that_no_case_uses() {
    let setting = Setting::read();
    let used: Vec<Case> = FILES.into_iter().flat_map(cases).collect();
    let stories = document("rotations").to_string();
    for rules in setting.names("rules") {
        assert!(used.iter().any(|case| case.rules == rules), "{rules}");
    }
    for keys in setting.names("key_sets") {
        let published = stories.contains(&format!("\"publish\":\"{keys}\""));
        assert!(
            published || used.iter().any(|case| case.keys == keys),
            "{keys}"
        );
    }
}
