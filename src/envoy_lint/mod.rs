//! What in an Envoy configuration would let traffic pass ungoverned.
//!
//! Promises: every HTTP connection manager in the tree is found, wherever it stands, and each that routes to a cluster is
//! held against what docs/add-to-an-existing-envoy.md asks for; a value that is not understood counts as wrong.
//! Never: reads a file, asks Envoy, or repeats a configured value other than names.
//! Can miss: what is fetched later (xDS in a bootstrap, files a filter names; reported as unseen where it decides something),
//! what filters of others do, path rewrites in routes, and whether a time limit suits the longest hold.

mod routes;
mod rules;
mod shape;

#[cfg(test)]
mod tests;

use serde_json::Value;

use shape::{Spot, field};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Traffic passes ungoverned, or a credential or an approval is used for what it was not given for.
    Error,
    /// A hardening is missing, or calls will fail that should not.
    Warning,
}

/// One thing found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The rule; stable.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// Where, as in `static_resources.listeners[0].name`.
    pub path: String,
    /// What is wrong and what to do, lower case, no full stop.
    pub message: String,
}

/// Names a credential of a connection may be lent to.
#[derive(Clone, Debug, Default)]
pub struct Lending {
    /// Names of Envoy's routes.
    pub routes: Vec<String>,
    /// Names of Envoy's clusters.
    pub clusters: Vec<String>,
}

/// What is wrong with `config`, a bootstrap or the answer of `/config_dump`, in the order of the tree. `service` names the
/// cluster that Countersign is; `lending` is every name that our configuration lends credentials to.
///
/// # Errors
/// Where there is nothing in it to judge.
pub fn lint(config: &Value, service: &str, lending: &Lending) -> Result<Vec<Finding>, String> {
    let parts = shape::Parts::of(config)?;
    let mut found = Found(Vec::new());
    let mut names = routes::Names::default();
    let mut managers = 0;
    for listener in &parts.listeners {
        rules::tls(listener, &mut found);
        listener.each(&mut |spot| {
            if spot.is_type("HttpConnectionManager") {
                managers += 1;
                manager(&spot, &parts, service, &mut names, &mut found);
            } else if spot.is_type("TcpProxy") {
                found.error("tcp_proxy", &spot.path, "bytes pass without any filter of HTTP; route to models through an HTTP connection manager");
            }
        });
    }
    if managers == 0 {
        return Err("no HTTP connection manager found; give a bootstrap with static listeners, or the answer of `/config_dump`".to_owned());
    }
    rules::service_cluster(&parts, service, &mut found);
    names.judge(lending, &parts, &mut found);
    Ok(found.0)
}

fn manager(
    spot: &Spot<'_>,
    parts: &shape::Parts<'_>,
    service: &str,
    names: &mut routes::Names,
    found: &mut Found,
) {
    let tables = parts.routes_of(spot, found);
    let unseen = tables.is_empty();
    if !unseen
        && !tables
            .iter()
            .any(|table| routes::reaches_a_cluster(table.value))
    {
        return;
    }
    rules::connection(spot, found);
    let ours = rules::filters(spot, service, found);
    for table in &tables {
        routes::table(table, &ours, names, found);
    }
    let mark = field(spot.value, "local_reply_config").is_some_and(|config| {
        shape::any(config, &|value| {
            value.as_str() == Some(rules::LOCAL_REPLY_MARK)
        })
    });
    if !mark {
        found.warning("local_reply_mark", &spot.path, "Envoy's own answers are not marked, so the response guard replaces them; add `local_reply_config` of envoy/envoy.yaml");
    }
}

/// What was found so far.
struct Found(Vec<Finding>);

impl Found {
    fn error(&mut self, code: &'static str, path: &str, message: impl Into<String>) {
        self.add(code, Severity::Error, path, message.into());
    }

    fn warning(&mut self, code: &'static str, path: &str, message: impl Into<String>) {
        self.add(code, Severity::Warning, path, message.into());
    }

    fn add(&mut self, code: &'static str, severity: Severity, path: &str, message: String) {
        self.0.push(Finding {
            code,
            severity,
            path: path.to_owned(),
            message,
        });
    }
}
