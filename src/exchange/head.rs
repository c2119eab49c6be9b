//! The request's head: whose it is, whether everyone would read it the same way, and what of it goes upstream.
//!
//! Promises: no caller credential that SDKs are known to send goes upstream, in whatever spelling; nothing of ours does
//! but the lent credential, and that only where it may be lent; what is recorded of the head is short and masked.
//! Can miss: a credential in a header or parameter that no SDK we know of uses.

use std::sync::Arc;

use super::{
    Attributes, Mutation, Refusal, Rules, TraceParent,
    headers::Headers,
    lending::Lending,
    rules::{self, CREDENTIAL_HEADERS, CREDENTIAL_PARAMETERS, CREDENTIAL_PROTOCOLS, Connection},
    upgrade,
};
use crate::{
    audit::record,
    identity::{Presented, Principal, Purpose, TokenError},
    mask,
};

/// The header of a DPoP proof (RFC 9449, 4.1).
const PROOF_HEADER: &str = "dpop";

/// The header that offers protocols for a WebSocket (RFC 6455, 11.3.4).
const PROTOCOLS_HEADER: &str = "sec-websocket-protocol";

/// Headers of the caller that never go upstream besides those that carry credentials. `accept-encoding` because an answer
/// must arrive as plain text to be read.
const DROPPED_HEADERS: [&str; 6] = [
    "accept-encoding",
    "grpc-accept-encoding",
    "cookie",
    "proxy-authorization",
    "prefer",
    PROOF_HEADER,
];

/// Fields that tell how a request travels and by which try, and nothing of what is asked for. Method, authority and path stand
/// for themselves.
const TRAVELS: [&str; 30] = [
    ":method",
    ":authority",
    ":path",
    ":scheme",
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "via",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-port",
    "user-agent",
    "grpc-timeout",
    "x-request-id",
    "idempotency-key",
    "traceparent",
    "tracestate",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "x-amzn-trace-id",
];

/// And two families: what Envoy notes, and what SDKs count of their tries. No others: upstreams obey many an `x-forwarded-…`.
const TRAVELS_PREFIXES: [&str; 2] = ["x-envoy-", "x-stainless-"];

/// Beginnings of fields by which a caller asks Envoy's router to send a request again. They should be gone before any filter
/// sees them (docs/add-to-an-existing-envoy.md); where they are not, one approval must not become two requests.
const RETRIES: [&str; 4] = [
    "x-envoy-retry-",
    "x-envoy-max-retries",
    "x-envoy-hedge-",
    "x-envoy-retriable-",
];

/// Prefixes of headers that are ours alone, either way.
pub(super) const OUR_PREFIXES: [&str; 2] = ["countersign-", "x-countersign-"];

/// The most of a path or an authority that is put on record, in bytes.
const RECORDED: usize = 4096;

/// What the head said.
pub(super) struct Head {
    pub(super) connection: Arc<Connection>,
    /// What the connection lent when it was last looked at.
    pub(super) lending: Arc<Lending>,
    pub(super) method: String,
    pub(super) authority: String,
    /// Without the query.
    pub(super) path: String,
    headers: Headers,
    attributes: Attributes,
    query: Option<String>,
    /// Whether it asks for a WebSocket, which some policy of the connection could allow.
    pub(super) upgrade: bool,
}

/// Method, authority, path and query, each of which everyone reads the same way.
pub(super) struct Target {
    method: String,
    authority: String,
    path: String,
    query: Option<String>,
}

impl Target {
    /// Reads the pseudo-headers.
    ///
    /// # Errors
    /// [`Refusal`] where two readers could take one differently.
    pub(super) fn read(headers: &Headers) -> Result<Self, Refusal> {
        let single = |name| one(headers, name).map(Option::unwrap_or_default);
        let target = single(":path")?;
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        if !is_plain_path(path) || !query.is_none_or(is_plain_query) {
            return Err(Refusal::OddPath);
        }
        Ok(Self {
            method: single(":method")?.to_owned(),
            authority: single(":authority")?.to_owned(),
            path: path.to_owned(),
            query: query.map(str::to_owned),
        })
    }

    /// Whose it is.
    pub(super) fn connection<'r>(&self, rules: &'r Rules) -> Option<&'r Arc<Connection>> {
        rules.connection(&self.authority, &self.path)
    }
}

fn one<'h>(headers: &'h Headers, name: &'static str) -> Result<Option<&'h str>, Refusal> {
    headers
        .one(name)
        .map_err(|_| Refusal::AmbiguousHeader(name))
}

/// Whether every reader takes `path` the same way: no escapes, no empty or dot segments, visible ASCII only.
fn is_plain_path(path: &str) -> bool {
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'%' | b'\\' | b';' | b'#');
    let dots = |segment| matches!(segment, "." | "..");
    path.starts_with('/')
        && path.bytes().all(plain)
        && !path.contains("//")
        && !path.split('/').any(dots)
}

/// Whether every reader splits `query` the same way. Some still take `;` for `&` (HTML 4.01, B.2.2).
fn is_plain_query(query: &str) -> bool {
    query
        .bytes()
        .all(|b| b.is_ascii_graphic() && !matches!(b, b'#' | b';'))
}

impl Head {
    /// The head of a request to `connection`, and what it shows of the caller.
    ///
    /// # Errors
    /// [`Refusal`] for what is known before the caller is: an upgrade, a token that is missing or repeated.
    pub(super) fn of(
        target: Target,
        connection: Arc<Connection>,
        headers: Headers,
        attributes: Attributes,
    ) -> Result<(Self, Presented), Refusal> {
        let Target {
            method,
            authority,
            path,
            query,
        } = target;
        let upgrade = method == "CONNECT" || headers.has("upgrade") || headers.has(":protocol");
        if upgrade && !(connection.chain.may_upgrade() && upgrade::is_websocket(&method, &headers))
        {
            return Err(Refusal::Upgrade);
        }
        let head = Self {
            lending: connection.lender.current(),
            connection,
            method,
            authority,
            path,
            headers,
            attributes,
            query,
            upgrade,
        };
        let presented = head.presented().map_err(Refusal::BadToken)?;
        Ok((head, presented))
    }

    /// What it shows of the caller.
    fn presented(&self) -> Result<Presented, TokenError> {
        let Self {
            connection,
            headers,
            attributes,
            ..
        } = self;
        let certificate = attributes.certificate.clone();
        let token = match rules::token(headers, connection.token_header) {
            // Only where there is none: a token that is shown counts, and must.
            Err(TokenError::Missing)
                if connection.certificate_alone
                    && certificate.is_some()
                    && !CREDENTIAL_HEADERS.iter().any(|name| headers.has(name)) =>
            {
                None
            }
            token => Some(token?),
        };
        let proof = headers
            .one(PROOF_HEADER)
            .map_err(|_| TokenError::ProofRepeated)?;
        // Where the connection answers for any host, the host is the caller's word: a proof for another service would do.
        let named = connection.route.names(&self.authority);
        Ok(Presented {
            token,
            proof: proof.map(Into::into),
            purpose: Purpose::Inference,
            method: self.method.clone(),
            target: named.then(|| format!("{}{}", self.authority, self.path)),
            certificate,
            again: false,
        })
    }

    /// The content type, where there is one.
    ///
    /// # Errors
    /// [`Refusal::AmbiguousHeader`].
    pub(super) fn content_type(&self) -> Result<Option<&str>, Refusal> {
        one(&self.headers, "content-type")
    }

    /// Every field of the head.
    pub(super) fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Whether what it showed of the caller, who was accepted by it, does under the connection as it is now.
    ///
    /// # Errors
    /// [`TokenError`], as when it was first looked at.
    pub(super) fn still_shows(&self, principal: &Principal) -> Result<(), TokenError> {
        let shown = self.presented()?;
        match principal.bound.key.is_some() && shown.target.is_none() {
            true => Err(TokenError::ProofHostUnknown),
            false => Ok(()),
        }
    }

    /// What it showed of the caller, who was accepted by it.
    pub(super) fn presented_again(&self) -> Option<Presented> {
        let presented = self.presented().ok()?;
        Some(Presented {
            again: true,
            ..presented
        })
    }

    /// The connection this request belongs to under other rules.
    pub(super) fn connection_under(&self, rules: &Rules) -> Option<Arc<Connection>> {
        rules.connection(&self.authority, &self.path).cloned()
    }

    /// Whether it asks Envoy for retries.
    pub(super) fn asks_for_retries(&self) -> bool {
        let asks = |name: &str| RETRIES.iter().any(|prefix| name.starts_with(prefix));
        self.headers.names().any(asks)
    }

    /// Goes on under `connection` and what that lends now.
    pub(super) fn stand_under(&mut self, connection: Arc<Connection>) {
        self.lending = connection.lender.current();
        self.connection = connection;
    }

    /// The cluster that Envoy chose.
    pub(super) fn cluster(&self) -> &str {
        &self.attributes.cluster
    }

    /// The fields that go upstream and may mean something there, in their order: all but those that only tell how the request
    /// travels, which differ with every try.
    pub(super) fn meaningful(&self) -> Vec<(&str, &[u8])> {
        let lent = self.lending.header();
        let travels = |name: &str| {
            TRAVELS.contains(&name)
                || TRAVELS_PREFIXES
                    .iter()
                    .chain(&OUR_PREFIXES)
                    .any(|prefix| name.starts_with(prefix))
                || CREDENTIAL_HEADERS.contains(&name)
                || DROPPED_HEADERS.contains(&name)
                || name == self.connection.token_header
                || lent == Some(name)
        };
        self.headers
            .iter()
            .filter(|(name, _)| !travels(name))
            .collect()
    }

    /// Whether the body is sent as it is.
    pub(super) fn is_unencoded(&self) -> bool {
        self.headers.is_unencoded()
    }

    /// Whether the query names a model: what the body says might then not be what the upstream reads.
    pub(super) fn query_names_model(&self) -> bool {
        self.pairs()
            .any(|pair| name_of(pair).eq_ignore_ascii_case("model"))
    }

    /// The head of a request to `model` as it goes upstream.
    ///
    /// # Errors
    /// [`Refusal::RouteNotAllowed`] where there is a credential and Envoy's choice is none it may be lent to,
    /// [`Refusal::CredentialUnavailable`] where there should be one.
    pub(super) fn mutation(&self, model: &str) -> Result<Mutation, Refusal> {
        let connection = &self.connection;
        let mut set = Vec::new();
        if let Some(choice) = self.lending.choice(model) {
            let Attributes { route, cluster, .. } = &self.attributes;
            if !connection.route.may_lend(route, cluster) {
                return Err(Refusal::RouteNotAllowed);
            }
            let Some(lent) = &choice.lent else {
                return Err(Refusal::CredentialUnavailable);
            };
            set.push((self.lending.header.clone(), lent.value.clone()));
        }
        if let Some(target) = self.clean_target() {
            set.push((":path".to_owned(), target.into()));
        }
        let lent = self.lending.header();
        let unwanted: Vec<&str> = CREDENTIAL_HEADERS
            .into_iter()
            .chain(DROPPED_HEADERS)
            .chain([connection.token_header])
            .collect();
        // As a CGI-minded upstream reads it: `x_api_key` is `x-api-key`.
        let spelled = |name: &&str| {
            let name = name.replace('_', "-");
            unwanted.contains(&&*name)
                || lent == Some(&name)
                || OUR_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        };
        // Those by name are removed whether they were seen or not: Envoy may be configured not to show us all.
        let present: Vec<&str> = self.headers.names().filter(spelled).collect();
        let mut remove: Vec<String> = unwanted
            .iter()
            .chain(&present)
            .filter(|name| lent != Some(**name))
            .map(|name| (*name).to_owned())
            .collect();
        match self.clean_protocols() {
            None => {}
            Some(clean) if clean.is_empty() => remove.push(PROTOCOLS_HEADER.to_owned()),
            Some(clean) => set.push((PROTOCOLS_HEADER.to_owned(), clean.into())),
        }
        remove.sort_unstable();
        remove.dedup();
        Ok(Mutation { set, remove })
    }

    /// The protocols offered for a WebSocket without those that carry a credential; none where none does.
    fn clean_protocols(&self) -> Option<String> {
        let fields = self.headers.iter();
        let values: Vec<_> = fields
            .filter(|(name, _)| name.replace('_', "-") == PROTOCOLS_HEADER)
            .map(|(_, value)| String::from_utf8_lossy(value))
            .collect();
        let offered = values
            .iter()
            .flat_map(|value| value.split(',').map(str::trim));
        let carries = |protocol: &&str| {
            let protocol = protocol.to_ascii_lowercase();
            CREDENTIAL_PROTOCOLS
                .iter()
                .any(|prefix| protocol.starts_with(prefix))
        };
        let (secret, clean): (Vec<_>, Vec<_>) = offered.partition(carries);
        (!secret.is_empty()).then(|| clean.join(", "))
    }

    /// Where the credential comes from that a request to `model` is lent; empty where none is.
    pub(super) fn lent_from(&self, model: &str) -> String {
        let choice = self.lending.choice(model);
        choice.map_or_else(String::new, |choice| choice.name.clone())
    }

    /// What is recorded of it: credentials gone from the query, and masked what a detector knows.
    pub(super) fn record(&self) -> record::Endpoint {
        let endpoint = self.connection.route.endpoint(&self.method, &self.path);
        let target = self.clean_target().unwrap_or_else(|| self.target());
        let (target, _) = mask::mask(self.lending.guard.record_plan(), &target);
        record::Endpoint {
            connection: self.connection.name.clone(),
            authority: short(&self.authority).to_owned(),
            method: short(&self.method).to_owned(),
            path: short(&target).to_owned(),
            endpoint: endpoint
                .map(|endpoint| endpoint.name.to_owned())
                .unwrap_or_default(),
            route: self.attributes.route.clone(),
            cluster: self.attributes.cluster.clone(),
            source_address: self.attributes.source_address.clone(),
            trace_id: TraceParent::of(&self.headers, &self.attributes)
                .map_or_else(String::new, |trace| format!("{:032x}", trace.trace_id)),
        }
    }

    /// Path and query as received.
    pub(super) fn target(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }

    /// Path and query without credentials, where that differs from what came.
    fn clean_target(&self) -> Option<String> {
        let kept: Vec<_> = self.pairs().filter(|pair| !is_credential(pair)).collect();
        if kept.len() == self.pairs().count() {
            return None;
        }
        Some(if kept.is_empty() {
            self.path.clone()
        } else {
            format!("{}?{}", self.path, kept.join("&"))
        })
    }

    fn pairs(&self) -> impl Iterator<Item = &str> {
        self.query.iter().flat_map(|query| query.split('&'))
    }
}

fn is_credential(pair: &str) -> bool {
    let name = name_of(pair);
    CREDENTIAL_PARAMETERS
        .iter()
        .any(|credential| name.eq_ignore_ascii_case(credential))
}

/// The name of a query's pair with its percent escapes resolved, as an upstream would read it (WHATWG URL section 5.1).
fn name_of(pair: &str) -> String {
    let name = pair.split('=').next().unwrap_or_default();
    url::form_urlencoded::parse(name.as_bytes())
        .next()
        .map(|(name, _)| name.into_owned())
        .unwrap_or_default()
}

fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(RECORDED)]
}
