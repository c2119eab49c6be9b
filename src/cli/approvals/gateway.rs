//! The gateway's API, as this program asks it.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use reqwest::{Client, Method, RequestBuilder, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use url::{Host, Url, form_urlencoded};

use super::Stop;
use crate::{
    approval::Id,
    http::wire::{Decide, Failure, List, Shown, Status},
};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);
/// Most bytes of an answer that are read.
const MAX_ANSWER: usize = 32 << 20;

/// A client that goes to `url`, which secrets may go to, and nowhere else. Through the environment's proxy only where TLS keeps what is
/// said from it.
pub(in crate::cli) fn client(url: &Url) -> anyhow::Result<Client> {
    check(url)?;
    let mut builder = Client::builder()
        .redirect(redirect::Policy::none())
        .timeout(ANSWER)
        .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")));
    if url.scheme() != "https" {
        builder = builder.no_proxy();
    }
    builder.build().context("TLS cannot be had")
}

/// Whether a secret may go to `url`: over TLS, or to this machine.
///
/// # Errors
/// Where it may not.
pub(super) fn check(url: &Url) -> anyhow::Result<()> {
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => Ok(()),
        "http" if loopback => Ok(()),
        "http" => bail!(
            "no secret is sent to `{}` in the clear: use https",
            url.origin().ascii_serialization()
        ),
        other => bail!("an address begins with https, not with `{other}`"),
    }
}

/// The body of an answer, at most [`MAX_ANSWER`] bytes, with its status.
pub(in crate::cli) async fn answer(request: RequestBuilder) -> anyhow::Result<(u16, Vec<u8>)> {
    let mut answer = request.send().await.map_err(reqwest::Error::without_url)?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        anyhow::ensure!(
            body.len() + chunk.len() <= MAX_ANSWER,
            "the answer is larger than {MAX_ANSWER} bytes"
        );
        body.extend_from_slice(&chunk);
    }
    Ok((answer.status().as_u16(), body))
}

/// A gateway, and who asks.
#[derive(Debug)]
pub(super) struct Gateway {
    base: Url,
    token: SecretString,
    client: Client,
}

impl Gateway {
    pub(super) fn new(base: &Url, token: SecretString) -> anyhow::Result<Self> {
        let client = client(base)?;
        let mut base = base.clone();
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        Ok(Self {
            base,
            token,
            client,
        })
    }

    pub(super) async fn list(
        &self,
        query: &[(&str, String)],
        limit: usize,
        cursor: Option<String>,
    ) -> Result<List, Stop> {
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        pairs.extend_pairs(query);
        pairs.append_pair("limit", &limit.to_string());
        if let Some(cursor) = cursor {
            pairs.append_pair("cursor", &cursor);
        }
        let path = format!("api/v1/approvals?{}", pairs.finish());
        self.ask(Method::GET, &path, None).await
    }

    pub(super) async fn approval(&self, id: &Id) -> Result<Shown, Stop> {
        self.ask(Method::GET, &format!("api/v1/approvals/{id}"), None)
            .await
    }

    pub(super) async fn decide(&self, id: &Id, body: &Decide) -> Result<Status, Stop> {
        let path = format!("api/v1/approvals/{id}/decision");
        self.ask(Method::POST, &path, Some(body)).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Decide>,
    ) -> Result<T, Stop> {
        let url = self.base.join(path)?;
        let mut request = self
            .client
            .request(method, url)
            .bearer_auth(self.token.expose_secret());
        if let Some(body) = body {
            request = request.json(body);
        }
        let unreachable = || format!("the gateway at {} did not answer", self.base);
        let (status, body) = answer(request).await.with_context(unreachable)?;
        if status == 200 {
            let unknown =
                "the gateway's answer is none that this program knows; is it of the same version?";
            return Ok(serde_json::from_slice(&body).context(unknown)?);
        }
        let failure = serde_json::from_slice(&body).ok();
        let told = match failure {
            Some(Failure { error }) => format!("{} ({})", error.message, error.code),
            None => format!("the gateway answers with status {status}"),
        };
        Err(match status {
            401 => Stop::SignIn(told),
            400..=499 => Stop::Refused(told),
            _ => anyhow!("{}", super::one_line(&told)).into(),
        })
    }
}
