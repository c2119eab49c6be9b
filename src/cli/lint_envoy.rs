//! `countersign lint-envoy`: what in an Envoy configuration would let traffic pass ungoverned.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::ValueHint;
use serde_json::Value;

use super::terminal::{Paint, one_line};
use crate::{
    config,
    envoy_lint::{Finding, Ours, Severity, lint},
    exchange::HostPattern,
    policy::Effect,
};

/// Largest file that is read, in bytes.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Find what in an Envoy configuration would let traffic pass ungoverned.
///
/// Exits 0 if there is nothing, 1 if there is something, 2 if a file cannot be read or understood.
///
/// Reads a bootstrap, or what Envoy's admin endpoint answers to `GET /config_dump`, which also shows what Envoy was sent by
/// its control plane: `curl -s 127.0.0.1:9901/config_dump | countersign lint-envoy -`. Every HTTP connection manager that
/// leads to a cluster must have the filter and its guards, in order, for every request and not overridden; what would send
/// a request again, elsewhere, or under another path than policy read is found, as are an open admin address, weak TLS
/// towards clusters, and all that cannot be told.
///
/// An `error` lets traffic pass ungoverned, or a credential or an approval be used for what it was not given for. A `warning`
/// is a hardening that is missing, something that was not seen, or calls that fail for no need. Both count.
///
/// Not looked at: files that the configuration names, what a control plane may send later, and what filters before
/// Countersign do. A connection manager that leads to other services than models is judged as well.
#[derive(Clone, Debug, clap::Args)]
pub struct LintEnvoyArgs {
    /// The configuration, YAML (up to 1 MiB, without anchors) or JSON (up to 64 MiB); `-` is standard input.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// Countersign's own configuration: what it lends credentials to must be there and be one cluster, and no route may cut
    /// its longest `max_hold`. Without it, the longest that can be configured is taken.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// The name of Envoy's cluster that is Countersign.
    #[arg(long, value_name = "CLUSTER", default_value = "countersign")]
    service: String,
    /// Print one JSON object instead of lines: `{"file", "findings": [{"code", "severity", "path", "message"}]}`.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Where a file cannot be read or understood.
pub fn run(args: &LintEnvoyArgs) -> anyhow::Result<ExitCode> {
    let file = one_line(&args.file.display().to_string());
    let tree = read(&args.file).with_context(|| format!("cannot read `{file}`"))?;
    let ours = ours(args.service.clone(), args.config.as_deref())?;
    let found = lint(&tree, &ours).map_err(|error| anyhow::anyhow!("{file}: {error}"))?;
    let mut out = io::stdout().lock();
    if args.json {
        let report = serde_json::json!({ "file": file, "findings": found });
        writeln!(out, "{report}")?;
    } else {
        print(&mut out, &file, &found, Paint::of_stdout())?;
    }
    Ok(ExitCode::from(u8::from(!found.is_empty())))
}

fn print(out: &mut dyn Write, file: &str, found: &[Finding], paint: Paint) -> io::Result<()> {
    for finding in found {
        let severity = match finding.severity {
            Severity::Error => paint.bad("error"),
            Severity::Warning => paint.bold("warning"),
        };
        let (path, message) = (one_line(&finding.path), one_line(&finding.message));
        let colon = if path.is_empty() { "" } else { ": " };
        writeln!(
            out,
            "{severity}[{}] {}{colon}{message}",
            finding.code,
            paint.dim(&path)
        )?;
    }
    match found.len() {
        0 => writeln!(out, "{file}: nothing found"),
        n => writeln!(out, "{file}: {n} found"),
    }
}

fn ours(service: String, config: Option<&Path>) -> anyhow::Result<Ours> {
    let mut ours = Ours {
        service,
        lend_to_routes: Vec::new(),
        lend_to_clusters: Vec::new(),
        lent_headers: Vec::new(),
        allows_websockets: false,
        longest_hold: config::LONGEST_HOLD,
        names_ports: false,
    };
    let Some(path) = config else {
        return Ok(ours);
    };
    let connections = config::load_with_builtins(path)?.connections;
    let policies = connections
        .iter()
        .flat_map(|connection| connection.chain.policies());
    let holds = policies.filter_map(|policy| match &policy.then {
        Effect::RequireApproval(rule) => Some(rule.max_hold),
        _ => None,
    });
    ours.longest_hold = holds.max().unwrap_or_default();
    ours.allows_websockets = connections
        .iter()
        .flat_map(|connection| connection.chain.policies())
        .any(|policy| policy.then == Effect::AllowUpgrade);
    for connection in connections {
        let credentials = connection.credential.into_iter();
        ours.lent_headers.extend(credentials.map(|one| one.header));
        ours.lend_to_routes.extend(connection.route.lend_to_routes);
        ours.lend_to_clusters
            .extend(connection.route.lend_to_clusters);
        ours.names_ports |= connection
            .route
            .territory
            .hosts
            .iter()
            .any(HostPattern::names_a_port);
    }
    Ok(ours)
}

fn read(path: &Path) -> anyhow::Result<Value> {
    let source: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(path)?),
    };
    let mut text = String::new();
    source.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        bail!("it is larger than {MAX_BYTES} bytes");
    }
    if text.trim_start().starts_with('{')
        && let Ok(tree) = serde_json::from_str(&text)
    {
        return Ok(tree);
    }
    config::yaml(&text).map_err(|faults| {
        let all: Vec<_> = faults.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", all.join("; "))
    })
}
