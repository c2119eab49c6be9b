//! One reading of a field in Vault's key-value store, version 2 (or OpenBao's), with a token or a login for one.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use reqwest::{Client, RequestBuilder, header::HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    ask,
    credential::FetchError,
    secret::{SecretSource, header_safe},
    source::{Vault, VaultLogin},
};

/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// How long a login counts whose token does not expire.
const FOREVER: Duration = Duration::from_secs(60 * 60);

/// A login that was made, and until when its token is used.
#[derive(Default)]
pub(super) struct Login(Option<(SecretString, Duration)>);

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    data: Option<Versioned<'a>>,
    /// There in refusals: empty where there simply is no such secret.
    errors: Option<Vec<serde::de::IgnoredAny>>,
}

#[derive(Deserialize)]
struct Versioned<'a> {
    #[serde(borrow)]
    data: Option<BTreeMap<Cow<'a, str>, &'a RawValue>>,
    metadata: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct LoggedIn<'a> {
    #[serde(borrow)]
    auth: Auth<'a>,
}

#[derive(Deserialize)]
struct Auth<'a> {
    #[serde(borrow)]
    client_token: Cow<'a, str>,
    /// In seconds; 0 for ever.
    #[serde(default)]
    lease_duration: u64,
}

/// Borrowed where it can be: what is copied is not wiped.
#[derive(Deserialize)]
#[serde(transparent)]
struct Plain<'a>(#[serde(borrow)] Cow<'a, str>);

/// The field's value. `login` is kept from one reading to the next; `now` is monotonic.
pub(super) async fn fetch(
    from: &Vault,
    login: &mut Login,
    now: Duration,
) -> Result<SecretString, FetchError> {
    let client = ask::client(&from.server).await?;
    let kept = login.0.as_ref().is_some_and(|(_, until)| now < *until);
    match attempt(from, &client, login, now).await {
        // The token may have been revoked before its time; once more with another.
        Err(FetchError::Status(403)) if kept => {
            login.0 = None;
            attempt(from, &client, login, now).await
        }
        result => result,
    }
}

async fn attempt(
    from: &Vault,
    client: &Client,
    login: &mut Login,
    now: Duration,
) -> Result<SecretString, FetchError> {
    let token = match &from.login {
        VaultLogin::Token(source) => super::credential::read(source.clone()).await?,
        VaultLogin::Jwt { mount, role, jwt } => match &login.0 {
            Some((token, until)) if now < *until => token.clone(),
            _ => {
                let jwt = super::credential::read(SecretSource::File(jwt.clone())).await?;
                let (token, good_for) = log_in(from, client, mount, role, &jwt).await?;
                // Two thirds of its time: never with one that ends on the way.
                login.0 = Some((token.clone(), now + good_for / 3 * 2));
                token
            }
        },
    };
    let value = ask::header(&token).ok_or(FetchError::NotHeaderSafe)?;
    let request = client.get(from.address(&[&from.mount, "data", &from.path]));
    let request = asking(from, request)?.header("x-vault-token", value);
    let (status, body) = ask::ask(request, MAX_ANSWER_BYTES).await?;
    read(status, &body, &from.field)
}

async fn log_in(
    from: &Vault,
    client: &Client,
    mount: &str,
    role: &str,
    jwt: &SecretString,
) -> Result<(SecretString, Duration), FetchError> {
    let body = serde_json::json!({"role": role, "jwt": jwt.expose_secret()}).to_string();
    let login = from.address(&["auth", mount, "login"]);
    let request = client.post(login).body(body);
    let request = asking(from, request)?.header("content-type", "application/json");
    let (status, body) = ask::ask(request, MAX_ANSWER_BYTES).await?;
    if status != 200 {
        return Err(FetchError::Login(status));
    }
    let answer: LoggedIn<'_> = serde_json::from_slice(&body).map_err(|_| FetchError::NotVault)?;
    let token = answer.auth.client_token.as_bytes();
    let token = header_safe(token).ok_or(FetchError::NotHeaderSafe)?;
    let good_for = match answer.auth.lease_duration {
        0 => FOREVER,
        seconds => Duration::from_secs(seconds).min(FOREVER),
    };
    Ok((token, good_for))
}

fn asking(from: &Vault, request: RequestBuilder) -> Result<RequestBuilder, FetchError> {
    // Vault's agents and proxies may ask for it, so that no browser can be made to send a request.
    let request = request.header("x-vault-request", "true");
    Ok(match &from.namespace {
        Some(namespace) => {
            let value = HeaderValue::from_str(namespace).map_err(|_| FetchError::NotHeaderSafe)?;
            request.header("x-vault-namespace", value)
        }
        None => request,
    })
}

fn read(status: u16, body: &[u8], field: &str) -> Result<SecretString, FetchError> {
    let answer = serde_json::from_slice::<Answer<'_>>(body);
    let found = match (status, answer) {
        (
            200,
            Ok(Answer {
                data: Some(Versioned {
                    data: Some(found), ..
                }),
                ..
            }),
        ) => found,
        (200, _) => return Err(FetchError::NotVault),
        // A deleted version says so in its metadata; a secret that never was, by an empty list. A proxy in between says neither.
        (404, Ok(answer)) => {
            let deleted = answer.data.is_some_and(|data| data.metadata.is_some());
            let none = answer.errors.is_some_and(|errors| errors.is_empty());
            return Err(match deleted || none {
                true => FetchError::Gone,
                false => FetchError::Status(404),
            });
        }
        (status, _) => return Err(FetchError::Status(status)),
    };
    let value = found.get(field).ok_or(FetchError::NoField)?;
    let Plain(value) = serde_json::from_str(value.get()).map_err(|_| FetchError::NotText)?;
    header_safe(value.as_bytes()).ok_or(FetchError::NotHeaderSafe)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::keys::source::Endpoint;

    #[test]
    fn an_answer_is_a_field_of_text_or_a_fault_that_shows_none_of_it() {
        let of = |data: &str| {
            format!(
                r#"{{"request_id":"r","lease_duration":0,"data":{{"data":{data},"metadata":{{"version":3}}}},"warnings":null}}"#
            )
        };
        for (status, body, expected) in [
            (
                200,
                of(r#"{"key":"canary-1","other":{"a":[1]}}"#),
                Ok("canary-1"),
            ),
            (200, of(r#"{"key":"canary\u002d1"}"#), Ok("canary-1")),
            (200, of(r#"{"kex":"canary"}"#), Err("has no such field")),
            (200, of(r#"{"key":5}"#), Err("not text")),
            (200, of(r#"{"key":{"canary":1}}"#), Err("not text")),
            (200, of(r#"{"key":"canary\nx"}"#), Err("header")),
            (200, of(r#"{"key":""}"#), Err("header")),
            (200, of("null"), Err("not Vault's")),
            // Version 1 of the store has its fields one level higher.
            (
                200,
                r#"{"data":{"key":"canary"}}"#.into(),
                Err("not Vault's"),
            ),
            (200, "<html>canary</html>".into(), Err("not Vault's")),
            (404, of("null"), Err("is not there")),
            (404, r#"{"errors":[]}"#.into(), Err("is not there")),
            (
                404,
                r#"{"errors":["no handler for route canary"]}"#.into(),
                Err("status 404"),
            ),
            (404, "<html>canary</html>".into(), Err("status 404")),
            (
                403,
                r#"{"errors":["permission denied canary"]}"#.into(),
                Err("status 403"),
            ),
            (
                503,
                r#"{"errors":["Vault is sealed canary"]}"#.into(),
                Err("status 503"),
            ),
            (301, "canary".into(), Err("status 301")),
        ] {
            match (read(status, body.as_bytes(), "key"), expected) {
                (Ok(value), Ok(expected)) => assert_eq!(value.expose_secret(), expected),
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
    fn mount_and_path_are_segments_below_the_servers_own_path() {
        let vault = |server: &str, path: &str| Vault {
            server: Endpoint::new(server, false, None).unwrap(),
            namespace: None,
            mount: "team/kv".into(),
            path: path.into(),
            field: "key".into(),
            login: VaultLogin::Token(SecretSource::Env("T".into())),
            refresh: Duration::from_secs(60),
            stale: Duration::from_secs(60),
        };
        for (server, path, expected) in [
            (
                "https://v.example",
                "llm/openai",
                "https://v.example/v1/team/kv/data/llm/openai",
            ),
            (
                "https://v.example/vault/",
                "a b?c#d",
                "https://v.example/vault/v1/team/kv/data/a%20b%3Fc%23d",
            ),
        ] {
            let vault = vault(server, path);
            let url = vault.address(&[&vault.mount, "data", &vault.path]);
            assert_eq!(url.as_str(), expected);
        }
    }
}
