//! Which connection a request belongs to: the first in file order whose host and path match.

use crate::dialect::Endpoint;

/// What a connection answers for, and where its credential may be lent.
#[derive(Clone, Debug)]
pub struct Route {
    /// Hosts and paths it answers for.
    pub territory: Territory,
    /// The dialect's endpoints that are open; never empty.
    pub endpoints: Vec<Endpoint>,
    /// Envoy routes the credential may be lent on.
    pub lend_to_routes: Vec<String>,
    /// Envoy clusters the credential may be lent to.
    pub lend_to_clusters: Vec<String>,
}

/// The hosts a connection answers for. Host names compare without regard to case and to a dot at their end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    name: Name,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Any,
    /// `.example.com`, for `*.example.com`.
    Under(String),
    Exact(String),
}

impl HostPattern {
    /// Reads `*`, `*.example.com`, `api.example.com`, `api.example.com:8443`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            "not a host; write `api.example.com`, `*.example.com` or `*`, without scheme or path"
                .to_owned()
        };
        let (host, port) = split_authority(text).ok_or_else(wrong)?;
        let name = match host.strip_prefix('*') {
            Some("") => Name::Any,
            Some(under) if under.len() > 1 && under.starts_with('.') && is_host(&under[1..]) => {
                Name::Under(under.to_owned())
            }
            None if is_host(&host) => Name::Exact(host),
            _ => return Err(wrong()),
        };
        Ok(Self { name, port })
    }

    /// Whether it matches under one port only.
    pub(crate) fn names_a_port(&self) -> bool {
        self.port.is_some()
    }

    fn matches(&self, host: &str, port: Option<u16>) -> bool {
        let name = match &self.name {
            Name::Any => true,
            Name::Under(under) => host.len() > under.len() && host.ends_with(under),
            Name::Exact(exact) => host == exact,
        };
        name && self.port.is_none_or(|wanted| port == Some(wanted))
    }

    /// Whether every host that matches `other` matches this.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let name = match (&self.name, &other.name) {
            (Name::Any, _) => true,
            (_, Name::Any) => false,
            (Name::Under(under), Name::Under(other) | Name::Exact(other)) => {
                other == under || (other.len() > under.len() && other.ends_with(under))
            }
            (Name::Exact(exact), Name::Exact(other)) => exact == other,
            (Name::Exact(_), Name::Under(_)) => false,
        };
        name && (self.port.is_none() || self.port == other.port)
    }
}

fn is_host(host: &str) -> bool {
    let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let ipv6 = host.starts_with('[') && host.ends_with(']');
    !host.is_empty()
        && (ipv6 || (host.chars().all(name) && !host.starts_with('.') && !host.contains("..")))
}

/// An authority's host, folded, and its port (RFC 3986, section 3.2). `None` where it has another form.
fn split_authority(authority: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port.parse().ok()?)),
        _ => (authority, None),
    };
    if host.contains(':') && !host.starts_with('[') {
        return None;
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    Some((host.to_ascii_lowercase(), port))
}

/// Whether `path` is `prefix` or lies below it.
fn lies_below<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

impl Route {
    /// Whether a request is for this connection, by its `:authority` and its path without query.
    #[must_use]
    pub fn matches(&self, authority: &str, path: &str) -> bool {
        let Some((host, port)) = split_authority(authority) else {
            return false;
        };
        let host = |pattern: &HostPattern| pattern.matches(&host, port);
        let Territory { hosts, path_prefix } = &self.territory;
        hosts.iter().any(host) && lies_below(path, path_prefix).is_some()
    }

    /// Whether the configuration names `authority`, rather than that any host would do. Nothing but a host and a port is named:
    /// `evil.example/x.example.com` is below `example.com` to who looks at its end only.
    #[must_use]
    pub fn names(&self, authority: &str) -> bool {
        let Some((host, port)) = split_authority(authority).filter(|(host, _)| is_host(host))
        else {
            return false;
        };
        let names =
            |pattern: &HostPattern| pattern.name != Name::Any && pattern.matches(&host, port);
        self.territory.hosts.iter().any(names)
    }

    /// The endpoint called by `method` on `path` (without query), where this connection allows it.
    #[must_use]
    pub fn endpoint(&self, method: &str, path: &str) -> Option<&Endpoint> {
        let rest = lies_below(path, &self.territory.path_prefix)?;
        self.endpoints
            .iter()
            .find(|endpoint| endpoint.method == method && endpoint.is_at(rest))
    }

    /// Whether the credential may be lent to the route or cluster that Envoy chose.
    #[must_use]
    pub fn may_lend(&self, route: &str, cluster: &str) -> bool {
        let named = |names: &[String], name: &str| {
            !name.is_empty() && names.iter().any(|known| known == name)
        };
        named(&self.lend_to_routes, route) || named(&self.lend_to_clusters, cluster)
    }
}

/// The hosts and paths a connection answers for.
#[derive(Clone, Debug)]
pub struct Territory {
    /// Never empty.
    pub hosts: Vec<HostPattern>,
    /// The path's beginning without a slash at its end: empty, or `/v1`.
    pub path_prefix: String,
}

impl Territory {
    /// Whether this takes every request that `other` could by `host`.
    pub fn takes(&self, other: &Self, host: &HostPattern) -> bool {
        lies_below(&other.path_prefix, &self.path_prefix).is_some()
            && self.hosts.iter().any(|pattern| pattern.covers(host))
    }
}
