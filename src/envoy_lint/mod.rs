//! What in an Envoy configuration would let traffic pass ungoverned.
//!
//! Promises: every HTTP connection manager in the tree is found, wherever it stands, and each that leads to a cluster is
//! held against what docs/add-to-an-existing-envoy.md asks for; a value, a filter or a setting of ours that is not
//! understood counts as wrong, and a part that comes from elsewhere is named as not seen.
//! Never: reads a file, asks Envoy, or repeats a configured value other than names.
//! Can miss: what is fetched later or from files, what filters before ours do to a request (policy sees it afterwards),
//! and what a guard's own source does where it is not the one we ship (it says that it differs).

mod bootstrap;
mod clusters;
mod connection;
mod copies;
mod filters;
mod guards;
mod processor;
mod routes;
mod shape;
mod sockets;

#[cfg(test)]
mod tests;

use std::time::Duration;

use serde_json::Value;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Traffic passes ungoverned, or a credential or an approval is used for what it was not given for.
    Error,
    /// A hardening is missing, something was not seen, or calls will fail that should not.
    Warning,
}

/// One thing found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The rule; stable.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// Where, as in `static_resources.listeners[0].name`; empty where something is not there.
    pub path: String,
    /// What is wrong and what to do, lower case, no full stop.
    pub message: String,
}

/// What is known of us, which the tree is held against.
#[derive(Clone, Debug)]
pub struct Ours {
    /// The name of the cluster that Countersign is.
    pub service: String,
    /// Names of Envoy's routes that credentials are lent on.
    pub lend_to_routes: Vec<String>,
    /// Names of Envoy's clusters that credentials are lent to.
    pub lend_to_clusters: Vec<String>,
    /// Request headers that credentials are lent in, lower case, beside those that every credential is known to come in.
    pub lent_headers: Vec<String>,
    /// Whether some policy allows WebSockets.
    pub allows_websockets: bool,
    /// How long a request may be held for an approval at most.
    pub longest_hold: Duration,
    /// Whether a connection answers for a host only under a certain port.
    pub names_ports: bool,
}

/// What is wrong with `config`, a bootstrap or the answer of `/config_dump`, in the order of the tree.
///
/// # Errors
/// Where there is nothing in it to judge.
pub fn lint(config: &Value, ours: &Ours) -> Result<Vec<Finding>, String> {
    let mut found = Found(Vec::new());
    let parts = shape::Parts::of(config, &mut found)?;
    let mut reached = routes::Reached::default();
    let mut managers = 0;
    for listener in &parts.listeners {
        connection::listener(listener, &mut found);
        sockets::judge(listener, &mut found);
        listener.each(&mut |spot| {
            if spot.is_type("HttpConnectionManager") {
                managers += 1;
                manager(&spot, &parts, ours, &mut reached, &mut found);
            }
        });
    }
    if managers == 0 {
        return Err("no HTTP connection manager found; give a bootstrap with static listeners, or the answer of `/config_dump`".to_owned());
    }
    for extension in &parts.extensions {
        copies::look(extension, ours, &mut found);
    }
    reached.lending(ours, &parts, &mut found);
    clusters::service(&parts, &ours.service, &mut found);
    clusters::reached(&reached, &parts, ours, &mut found);
    bootstrap::judge(&parts, &mut found);
    Ok(found.0)
}

fn manager(
    spot: &shape::Spot<'_>,
    parts: &shape::Parts<'_>,
    ours: &Ours,
    reached: &mut routes::Reached,
    found: &mut Found,
) {
    let tables = parts.routes_of(spot, found);
    // Routes that are not seen may lead anywhere.
    let leads = tables.is_empty()
        || tables
            .iter()
            .any(|table| routes::reaches_a_cluster(table.value));
    if !leads {
        return;
    }
    connection::manager(spot, ours, found);
    copies::look(spot, ours, found);
    let names = filters::chain(spot, parts, &ours.service, found);
    let judge = routes::Judge {
        names: &names,
        allows_websockets: ours.allows_websockets,
        longest_hold: ours.longest_hold,
        idle: connection::stream_idle(spot),
    };
    for table in &tables {
        judge.table(table, reached, found);
        // What stands in the manager itself was looked at with it.
        if !table.path.starts_with(&spot.path) {
            copies::look(table, ours, found);
        }
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
