//! Where traces go.

use url::Url;

use super::{
    Otlp, raw,
    understand::{At, Notes, secret},
};

pub(super) fn otlp(raw: raw::Otlp, at: &At, notes: &mut Notes<'_>) -> Option<Otlp> {
    let at_headers = at.key("headers");
    let mut headers = std::collections::BTreeMap::new();
    for (name, source) in raw.headers {
        let at = at_headers.key(&name);
        // RFC 9110, section 5.6.2. In lower case, as HTTP/2 has them.
        let token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
        if name.is_empty() || !name.bytes().all(token) {
            notes.fault(&at, "not a header's name; write it in lower case");
        }
        if let Some(source) = secret(source.file.as_deref(), source.env.as_deref(), &at, notes) {
            headers.insert(name, source);
        }
    }
    let at = at.key("endpoint");
    let endpoint = raw
        .endpoint
        .map(|text| endpoint(&text, !headers.is_empty(), &at, notes));
    let endpoint = match endpoint {
        Some(endpoint) => Some(endpoint?),
        None => None,
    };
    Some(Otlp {
        endpoint,
        headers,
        sample_ratio: raw.sample_ratio,
        principals: raw.principals,
    })
}

fn endpoint(text: &str, secrets: bool, at: &At, notes: &mut Notes<'_>) -> Option<Url> {
    let url = Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "https" | "http") && url.has_host());
    let Some(url) = url else {
        notes.fault(at, "not a URL; write `https://HOST:PORT`");
        return None;
    };
    if !url.username().is_empty() || url.password().is_some() {
        notes.fault(
            at,
            "a URL shows in logs; put what is secret under `headers`",
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        notes.fault(at, "takes no query and no fragment");
    }
    if url.scheme() == "http" && secrets {
        notes.fault(at, "`headers` must not go over `http://`");
    }
    if url.path().ends_with("/v1/traces") {
        notes.fault(at, "`/v1/traces` is added; leave it out");
    }
    Some(url)
}
