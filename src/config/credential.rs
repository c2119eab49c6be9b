//! An upstream's credential: what it is sent as, and where it comes from.

use std::{path::PathBuf, time::Duration};

use super::{
    Credential, ForModels, raw,
    understand::{At, Notes, secret},
    units,
};
use crate::{
    keys::source::{ClientAuth, CredentialSource, Endpoint, OAuth2, Vault, VaultLogin},
    policy::ModelPattern,
};

/// Headers that are the proxies' business, or that tell what the body is and how it travels.
const NOT_FOR_CREDENTIALS: [&str; 21] = [
    "accept",
    "accept-encoding",
    "connection",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "max-forwards",
    "prefer",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// Families of such headers, Envoy's and ours.
const NOT_FOR_CREDENTIALS_PREFIXES: [&str; 5] = [
    "content-",
    "countersign-",
    "x-countersign-",
    "x-envoy-",
    "x-forwarded-",
];

/// Where Kubernetes puts a pod's token.
const POD_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A source as it is written, of a connection or of some models.
struct Written<'r> {
    file: Option<&'r str>,
    env: Option<&'r str>,
    vault: Option<&'r raw::VaultSecret>,
    oauth2: Option<&'r raw::OAuth2>,
}

pub(super) fn credential(
    raw: &raw::Credential,
    at: &At,
    notes: &mut Notes<'_>,
) -> Option<Credential> {
    let header = raw.header.to_ascii_lowercase();
    // RFC 9110, section 5.6.2: a field name is a token.
    if http::HeaderName::from_bytes(header.as_bytes()).is_err() {
        notes.fault(&at.key("header"), "not the name of a header");
    } else if NOT_FOR_CREDENTIALS.contains(&header.as_str())
        || NOT_FOR_CREDENTIALS_PREFIXES
            .iter()
            .any(|prefix| header.starts_with(prefix))
    {
        notes.fault(
            &at.key("header"),
            format!("`{header}` cannot carry a credential"),
        );
    }
    let written = Written {
        file: raw.file.as_deref(),
        env: raw.env.as_deref(),
        vault: raw.vault.as_ref(),
        oauth2: raw.oauth2.as_ref(),
    };
    let source = source(&written, at, notes);
    let models = models(&raw.models, at, notes);
    let (prefix, suffix) = format(raw.format.as_deref(), &header, at, notes)?;
    Some(Credential {
        header,
        prefix,
        suffix,
        source: source?,
        models,
    })
}

/// What stands before and behind the secret.
fn format(
    raw: Option<&str>,
    header: &str,
    at: &At,
    notes: &mut Notes<'_>,
) -> Option<(String, String)> {
    let default = if header == "authorization" {
        "Bearer {}"
    } else {
        "{}"
    };
    let visible = |text: &str| text.chars().all(|c| c == ' ' || c.is_ascii_graphic());
    match raw.unwrap_or(default).split_once("{}") {
        Some((prefix, suffix)) if !suffix.contains("{}") && visible(prefix) && visible(suffix) => {
            Some((prefix.to_owned(), suffix.to_owned()))
        }
        _ => {
            let message = "the format is visible ASCII with `{}` in it once, where the secret goes: `Bearer {}`";
            notes.fault(&at.key("format"), message);
            None
        }
    }
}

fn models(raw: &[raw::ModelCredential], at: &At, notes: &mut Notes<'_>) -> Vec<ForModels> {
    let mut all = Vec::with_capacity(raw.len());
    for (i, entry) in raw.iter().enumerate() {
        let at = at.key("models").index(i);
        let mut models = Vec::with_capacity(entry.models.len());
        for (j, model) in entry.models.iter().enumerate() {
            let at = at.key("models").index(j);
            match ModelPattern::new(model) {
                Some(_) if model.chars().all(|c| c == '*') => {
                    notes.fault(
                        &at,
                        "every model: name that credential as the connection's own",
                    );
                }
                Some(pattern) if known(&all, &models).any(|known| *known == pattern) => {
                    notes.fault(&at, format!("`{model}` has its credential already"));
                }
                Some(pattern) => models.push(pattern),
                None => notes.fault(&at, "a model's name has 1 to 200 characters on one line"),
            }
        }
        let written = Written {
            file: entry.file.as_deref(),
            env: entry.env.as_deref(),
            vault: entry.vault.as_ref(),
            oauth2: entry.oauth2.as_ref(),
        };
        if let Some(source) = source(&written, &at, notes) {
            all.push(ForModels { models, source });
        }
    }
    all
}

/// The patterns so far.
fn known<'m>(
    before: &'m [ForModels],
    here: &'m [ModelPattern],
) -> impl Iterator<Item = &'m ModelPattern> {
    before.iter().flat_map(|entry| &entry.models).chain(here)
}

/// Exactly one of them.
fn source(raw: &Written<'_>, at: &At, notes: &mut Notes<'_>) -> Option<CredentialSource> {
    let servers = usize::from(raw.vault.is_some()) + usize::from(raw.oauth2.is_some());
    let plain = usize::from(raw.file.is_some()) + usize::from(raw.env.is_some());
    match (servers, plain) {
        (0, 0) => {
            let message = "say where the secret is: `file`, `env`, `vault` or `oauth2`";
            notes.fault(at, message);
            None
        }
        (0, 1) => secret(raw.file, raw.env, at, notes).map(CredentialSource::Plain),
        (1, 0) => match (raw.vault, raw.oauth2) {
            (Some(raw), _) => {
                let vault = vault(raw, &at.key("vault"), notes)?;
                Some(CredentialSource::Vault(Box::new(vault)))
            }
            (_, Some(raw)) => {
                let oauth2 = oauth2(raw, &at.key("oauth2"), notes)?;
                Some(CredentialSource::OAuth2(Box::new(oauth2)))
            }
            (None, None) => None,
        },
        _ => {
            notes.fault(at, "name one of `file`, `env`, `vault` and `oauth2`");
            None
        }
    }
}

fn vault(raw: &raw::VaultSecret, at: &At, notes: &mut Notes<'_>) -> Option<Vault> {
    let server = endpoint(
        (&raw.address, "address"),
        raw.ca_file.as_deref(),
        raw.insecure,
        at,
        notes,
    );
    let mount = raw.mount.as_deref().unwrap_or("secret");
    segments(mount, &at.key("mount"), notes);
    segments(&raw.path, &at.key("path"), notes);
    if raw.field.is_empty() {
        notes.fault(&at.key("field"), "the field has no name");
    }
    let namespace = raw.namespace.as_deref();
    if namespace.is_some_and(|name| name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()))
    {
        notes.fault(&at.key("namespace"), "not the name of a namespace");
    }
    let login = login(raw, at, notes);
    let refresh = raw.refresh.as_deref();
    let refresh = between(refresh, 60 * SECOND, SECOND, DAY, &at.key("refresh"), notes);
    let stale = raw.stale.as_deref();
    let stale = between(
        stale,
        HOUR,
        Duration::ZERO,
        30 * DAY,
        &at.key("stale"),
        notes,
    );
    Some(Vault {
        server: server?,
        namespace: namespace.map(str::to_owned),
        mount: mount.to_owned(),
        path: raw.path.clone(),
        field: raw.field.clone(),
        login: login?,
        refresh: refresh?,
        stale: stale?,
    })
}

fn login(raw: &raw::VaultSecret, at: &At, notes: &mut Notes<'_>) -> Option<VaultLogin> {
    match (&raw.token, &raw.login) {
        (Some(token), None) => {
            let at = at.key("token");
            let token = secret(token.file.as_deref(), token.env.as_deref(), &at, notes);
            token.map(VaultLogin::Token)
        }
        (None, Some(login)) => {
            let at = at.key("login");
            let mount = login.mount.as_deref().unwrap_or("kubernetes");
            segments(mount, &at.key("mount"), notes);
            if login.role.is_empty() {
                notes.fault(&at.key("role"), "the role has no name");
            }
            let jwt = login.jwt_file.as_deref().unwrap_or(POD_TOKEN);
            let jwt = notes.existing(jwt, &at.key("jwt_file"));
            Some(VaultLogin::Jwt {
                mount: mount.to_owned(),
                role: login.role.clone(),
                jwt,
            })
        }
        _ => {
            notes.fault(at, "say who asks: exactly one of `token` and `login`");
            None
        }
    }
}

fn oauth2(raw: &raw::OAuth2, at: &At, notes: &mut Notes<'_>) -> Option<OAuth2> {
    let token_url = endpoint(
        (&raw.token_url, "token_url"),
        raw.ca_file.as_deref(),
        raw.insecure,
        at,
        notes,
    );
    if raw.client_id.is_empty() {
        notes.fault(&at.key("client_id"), "the client has no name");
    }
    let said = &raw.client_secret;
    let client_secret = secret(
        said.file.as_deref(),
        said.env.as_deref(),
        &at.key("client_secret"),
        notes,
    );
    Some(OAuth2 {
        token_url: token_url?,
        client_id: raw.client_id.clone(),
        client_secret: client_secret?,
        auth: match raw.auth {
            None | Some(raw::ClientAuth::Basic) => ClientAuth::Basic,
            Some(raw::ClientAuth::Post) => ClientAuth::Post,
        },
        scope: raw.scope.clone(),
        audience: raw.audience.clone(),
        resource: raw.resource.clone(),
    })
}

fn endpoint(
    (url, key): (&str, &str),
    ca_file: Option<&str>,
    insecure: bool,
    at: &At,
    notes: &mut Notes<'_>,
) -> Option<Endpoint> {
    let ca_file: Option<PathBuf> = ca_file.map(|file| notes.existing(file, &at.key("ca_file")));
    let endpoint = Endpoint::new(url, insecure, ca_file);
    if insecure
        && endpoint
            .as_ref()
            .is_ok_and(|of| of.url().scheme() == "http")
    {
        let message = "insecure: whoever is on the way reads what is asked for, and can change it";
        notes.warn(&at.key("insecure"), message);
    }
    endpoint
        .map_err(|error| notes.fault(&at.key(key), format!("the address {error}")))
        .ok()
}

/// A path of segments that stay as they are in an address.
fn segments(path: &str, at: &At, notes: &mut Notes<'_>) {
    let odd = |segment: &str| matches!(segment, "" | "." | "..");
    if path.split('/').any(odd) || path.chars().any(char::is_control) {
        let message = "not a path: write it as in `team/openai`, without a slash at either end";
        notes.fault(at, message);
    }
}

fn between(
    raw: Option<&str>,
    default: Duration,
    least: Duration,
    most: Duration,
    at: &At,
    notes: &mut Notes<'_>,
) -> Option<Duration> {
    let Some(text) = raw else {
        return Some(default);
    };
    match units::duration(text) {
        Ok(time) if (least..=most).contains(&time) => Some(time),
        Ok(_) => {
            let (least, most) = (least.as_secs(), most.as_secs() / 3600);
            notes.fault(at, format!("must be between {least}s and {most}h"));
            None
        }
        Err(message) => {
            notes.fault(at, message);
            None
        }
    }
}
