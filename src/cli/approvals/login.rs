//! Signing in where there is no browser: the device authorization grant (RFC 8628).

use std::{fmt, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use reqwest::{Client, header};
use serde::{Deserialize, de::DeserializeOwned};
use url::{Url, form_urlencoded};

use super::{
    gateway::{answer, check, client},
    token::{Login, keep, state_file},
};
use crate::{cli::terminal::one_line, runtime::clock::Clock};

/// Longest that a login is waited for, whatever the issuer says.
const LONGEST: Duration = Duration::from_secs(1_800);

/// Who to sign in with.
#[derive(Args, Debug)]
pub(super) struct LoginArgs {
    /// The issuer, whose discovery document is asked where to sign in.
    #[arg(long, value_name = "URL")]
    issuer: String,
    /// What this program is called there.
    #[arg(long, value_name = "ID")]
    client_id: String,
    /// Scopes to ask for.
    #[arg(long, default_value = "openid")]
    scope: String,
    /// The audience that the token must be for, where the issuer wants to be told (RFC 8707).
    #[arg(long, value_name = "URI")]
    resource: Option<String>,
    /// Ask the issuer to let you sign in anew where you last did so longer ago than this (RFC 9470).
    #[arg(long, value_name = "SECONDS")]
    max_age: Option<u32>,
}

#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    device_authorization_endpoint: Option<String>,
    token_endpoint: String,
}

#[derive(Deserialize)]
struct Device {
    device_code: String,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_in: u64,
    interval: Option<u64>,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    token_type: String,
}

#[derive(Deserialize)]
struct Denied {
    error: String,
}

/// Why the issuer gave nothing.
enum Refused {
    Code(String),
    Other(anyhow::Error),
}

/// Signs in and keeps the token for the gateway at `gateway`.
///
/// # Errors
/// Where that cannot be done.
pub(super) async fn run(args: &LoginArgs, gateway: &Url) -> anyhow::Result<()> {
    check(gateway)?;
    let clock = Clock::system();
    let wait = async |time: Duration| clock.sleep_until(clock.monotonic() + time).await;
    let token = device_login(args, &|told| eprintln!("{told}"), wait).await?;
    let state = state_file();
    let login = Login {
        gateway: gateway.origin().ascii_serialization(),
        issuer: args.issuer.clone(),
        token,
    };
    keep(&state, &login)?;
    eprintln!(
        "signed in; the token is kept in `{}` and is sent to {} only",
        state.display(),
        login.gateway
    );
    Ok(())
}

/// The token that the issuer gives once its user has agreed. `wait` lets time pass.
pub(super) async fn device_login(
    args: &LoginArgs,
    tell: &dyn Fn(&dyn fmt::Display),
    wait: impl AsyncFn(Duration),
) -> anyhow::Result<String> {
    let base = args.issuer.strip_suffix('/').unwrap_or(&args.issuer);
    let document = Url::parse(&format!("{base}/.well-known/openid-configuration"))
        .context("the issuer is no address")?;
    let client = client(&document)?;
    let discovered = discover(&client, document.clone(), &args.issuer).await?;
    let endpoint = discovered
        .device_authorization_endpoint
        .context("the issuer offers no sign-in for devices (`device_authorization_endpoint`)")?;
    let (endpoint, token_endpoint) = (
        beside(&document, &endpoint)?,
        beside(&document, &discovered.token_endpoint)?,
    );
    let mut form = vec![("client_id", &*args.client_id), ("scope", &args.scope)];
    form.extend(args.resource.as_deref().map(|uri| ("resource", uri)));
    let max_age = args.max_age.map(|seconds| seconds.to_string());
    form.extend(max_age.as_deref().map(|seconds| ("max_age", seconds)));
    let device: Device = match post(&client, endpoint, &form).await {
        Ok(device) => device,
        Err(Refused::Code(code)) => bail!("the issuer refuses: {}", one_line(&code)),
        Err(Refused::Other(error)) => return Err(error),
    };
    let complete = device.verification_uri_complete.as_ref();
    tell(&format_args!(
        "Go to {} and enter the code {}{}",
        one_line(&device.verification_uri),
        one_line(&device.user_code),
        match complete {
            Some(uri) => format!(", or to {}", one_line(uri)),
            None => String::new(),
        }
    ));
    poll(args, &client, &token_endpoint, &device, wait).await
}

async fn poll(
    args: &LoginArgs,
    client: &Client,
    endpoint: &Url,
    device: &Device,
    wait: impl AsyncFn(Duration),
) -> anyhow::Result<String> {
    // RFC 8628, 3.5: five seconds where the issuer does not say, and five more each time it finds that too fast.
    let mut interval = Duration::from_secs(device.interval.unwrap_or(5).clamp(1, 60));
    let mut left = Duration::from_secs(device.expires_in).min(LONGEST);
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ("device_code", &device.device_code),
        ("client_id", &args.client_id),
    ];
    while left >= interval {
        wait(interval).await;
        left -= interval;
        match post::<Granted>(client, endpoint.clone(), &form).await {
            Ok(granted) if granted.token_type.eq_ignore_ascii_case("bearer") => {
                return Ok(granted.access_token);
            }
            Ok(_) => bail!("the issuer gave a token that is no bearer token"),
            Err(Refused::Code(code)) => match code.as_str() {
                "authorization_pending" => {}
                "slow_down" => interval += Duration::from_secs(5),
                "access_denied" => bail!("the sign-in was refused"),
                "expired_token" => break,
                code => bail!("the issuer refuses: {}", one_line(code)),
            },
            // RFC 8628, 3.5: a connection that fails is no answer; asked less often, it may be one.
            Err(Refused::Other(_)) => interval *= 2,
        }
    }
    bail!("nobody signed in in time")
}

async fn discover(client: &Client, document: Url, issuer: &str) -> anyhow::Result<Discovered> {
    let (status, body) = answer(client.get(document))
        .await
        .context("the issuer did not answer")?;
    anyhow::ensure!(status == 200, "the issuer answers with status {status}");
    let discovered: Discovered = serde_json::from_slice(&body)
        .context("the issuer's discovery document is not what one is")?;
    anyhow::ensure!(
        discovered.issuer == issuer,
        "the discovery document is that of another issuer"
    );
    Ok(discovered)
}

/// An address that the issuer refers to. Who was reached over TLS sends nobody out of it.
fn beside(document: &Url, text: &str) -> anyhow::Result<Url> {
    let url = Url::parse(text).context("what the issuer refers to is no address")?;
    check(&url)?;
    anyhow::ensure!(
        url.scheme() == document.scheme(),
        "the issuer refers to an address that is not {}",
        document.scheme()
    );
    Ok(url)
}

async fn post<T: DeserializeOwned>(
    client: &Client,
    url: Url,
    form: &[(&str, &str)],
) -> Result<T, Refused> {
    let body = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form)
        .finish();
    let request = client
        .post(url)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::ACCEPT, "application/json")
        .body(body);
    let (status, body) = answer(request).await.map_err(Refused::Other)?;
    if status == 200 {
        let parsed = serde_json::from_slice(&body).context("the issuer's answer cannot be read");
        return parsed.map_err(Refused::Other);
    }
    match serde_json::from_slice(&body) {
        Ok(Denied { error }) => Err(Refused::Code(error)),
        Err(_) => Err(Refused::Other(anyhow::anyhow!(
            "the issuer answers with status {status}"
        ))),
    }
}
