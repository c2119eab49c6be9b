//! One access token by OAuth 2.0 client credentials (RFC 6749, section 4.4).

use std::{borrow::Cow, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{Client, RequestBuilder};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use serde::Deserialize;
use url::form_urlencoded;

use super::{
    ask,
    credential::FetchError,
    secret::header_safe,
    source::{ClientAuth, OAuth2},
};

/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// What a token is good for where the server does not say. RFC 6749, section 5.1, leaves that to other means; this is short
/// enough to be safe with any server we know of.
const UNSAID: Duration = Duration::from_secs(300);
/// The longest that a token is kept, whatever the server says.
const LONGEST: u64 = 24 * 60 * 60;

/// RFC 6749, section 5.2, and RFC 8707, section 2. Only these are told: whatever else a server writes could repeat the secret.
const ERRORS: [&str; 7] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_target",
];

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    access_token: Cow<'a, str>,
    #[serde(borrow)]
    token_type: Cow<'a, str>,
    expires_in: Option<Seconds>,
}

/// A number, as RFC 6749 has it, or its digits as a text, as some servers do.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(u64),
    Text(String),
}

#[derive(Deserialize)]
struct Fault<'a> {
    #[serde(borrow)]
    error: Cow<'a, str>,
}

/// A token, and for how long it is good from the moment it was asked for.
pub(super) async fn fetch(from: &OAuth2) -> Result<(SecretString, Duration), FetchError> {
    let secret = super::credential::read(from.client_secret.clone()).await?;
    let client = ask::client(&from.token_url).await?;
    let request = request(from, &client, &secret)?;
    let (status, body) = ask::ask(request, MAX_ANSWER_BYTES).await?;
    read(status, &body)
}

fn request(
    from: &OAuth2,
    client: &Client,
    secret: &SecretString,
) -> Result<RequestBuilder, FetchError> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    for (name, value) in from.parameters() {
        form.append_pair(name, value);
    }
    let mut request = client.post(from.token_url.url().clone());
    match from.auth {
        ClientAuth::Basic => {
            let basic = basic(&from.client_id, secret);
            let value = ask::header(&basic).ok_or(FetchError::NotHeaderSafe)?;
            request = request.header("authorization", value);
        }
        ClientAuth::Post => {
            form.append_pair("client_id", &from.client_id);
            form.append_pair("client_secret", secret.expose_secret());
        }
    }
    Ok(request
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form.finish()))
}

/// RFC 6749, section 2.3.1: both are form-encoded before they are joined.
pub(super) fn basic(client_id: &str, secret: &SecretString) -> SecretString {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let secret = Zeroizing::new(encoded(secret.expose_secret()));
    let pair = Zeroizing::new(format!("{}:{}", encoded(client_id), *secret));
    SecretString::from(format!("Basic {}", BASE64_STANDARD.encode(pair.as_bytes())))
}

fn read(status: u16, body: &[u8]) -> Result<(SecretString, Duration), FetchError> {
    if status != 200 {
        let fault = serde_json::from_slice::<Fault<'_>>(body).ok();
        let known = |fault: Fault<'_>| ERRORS.iter().find(|known| ***known == *fault.error);
        return Err(match fault.and_then(known) {
            Some(error) => FetchError::OAuth2(error),
            None => FetchError::Status(status),
        });
    }
    let answer: Answer<'_> = serde_json::from_slice(body).map_err(|_| FetchError::NotAToken)?;
    // RFC 6749, section 7.1: a token of a type that is not understood must not be used.
    if !answer.token_type.eq_ignore_ascii_case("bearer") {
        return Err(FetchError::NotBearer);
    }
    let good_for = match answer.expires_in {
        None => UNSAID,
        Some(seconds) => {
            let seconds = match seconds {
                Seconds::Number(seconds) => Some(seconds),
                Seconds::Text(text) => text.parse().ok(),
            };
            let seconds = seconds.filter(|seconds| *seconds > 0);
            Duration::from_secs(seconds.ok_or(FetchError::NotAToken)?.min(LONGEST))
        }
    };
    let token = header_safe(answer.access_token.as_bytes()).ok_or(FetchError::NotHeaderSafe)?;
    Ok((token, good_for))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_bearer_token_with_a_lifetime_or_a_fault_that_shows_none_of_it() {
        let token = |rest: &str| format!(r#"{{"access_token":"canary-1",{rest}}}"#);
        let bearer = |expires: &str| token(&format!(r#""token_type":"Bearer"{expires}"#));
        for (status, body, expected) in [
            (200, bearer(r#","expires_in":3600"#), Ok(3600)),
            (200, bearer(r#","expires_in":"3600""#), Ok(3600)),
            (
                200,
                bearer(r#","expires_in":18446744073709551615"#),
                Ok(LONGEST),
            ),
            (200, bearer(""), Ok(300)),
            (200, token(r#""token_type":"bEaReR","scope":"a""#), Ok(300)),
            (200, bearer(r#","expires_in":0"#), Err("not a token's")),
            (200, bearer(r#","expires_in":-5"#), Err("not a token's")),
            (200, bearer(r#","expires_in":1.5"#), Err("not a token's")),
            (
                200,
                bearer(r#","expires_in":"canary""#),
                Err("not a token's"),
            ),
            (200, token(r#""expires_in":1"#), Err("not a token's")),
            (200, token(r#""token_type":"DPoP""#), Err("not of the type")),
            (
                200,
                bearer(r#","access_token":"canary-2""#),
                Err("not a token's"),
            ),
            (
                200,
                r#"{"access_token":"","token_type":"Bearer"}"#.into(),
                Err("header"),
            ),
            (
                200,
                r#"{"access_token":"canary\r\nx: y","token_type":"Bearer"}"#.into(),
                Err("header"),
            ),
            (200, "<html>canary</html>".into(), Err("not a token's")),
            (200, String::new(), Err("not a token's")),
            (201, bearer(""), Err("status 201")),
            (302, bearer(""), Err("status 302")),
            (
                401,
                r#"{"error":"invalid_client","error_description":"canary"}"#.into(),
                Err("`invalid_client`"),
            ),
            (400, r#"{"error":"canary"}"#.into(), Err("status 400")),
            (503, "canary".into(), Err("status 503")),
        ] {
            let got = read(status, body.as_bytes());
            match (got, expected) {
                (Ok((token, good_for)), Ok(seconds)) => {
                    assert_eq!(
                        (token.expose_secret(), good_for.as_secs()),
                        ("canary-1", seconds)
                    );
                }
                (Err(error), Err(word)) => {
                    let told = format!("{error} {error:?}");
                    assert!(
                        told.contains(word) && !told.contains("canary"),
                        "{body}: {told}"
                    );
                }
                (got, _) => panic!("{body}: {got:?}"),
            }
        }
    }

    #[test]
    fn a_clients_name_and_secret_are_encoded_before_they_are_joined() {
        // RFC 6749, section 2.3.1: what stands in them cannot be taken for the `:` between.
        let basic = basic("a:b c", &SecretString::from("p:+%é"));
        let joined = basic
            .expose_secret()
            .strip_prefix("Basic ")
            .unwrap()
            .to_owned();
        let joined = BASE64_STANDARD.decode(joined).unwrap();
        assert_eq!(joined, b"a%3Ab+c:p%3A%2B%25%C3%A9");
    }
}
