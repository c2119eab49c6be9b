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
    envoy_lint::{Finding, Lending, Severity, lint},
};

/// Largest file that is read, in bytes.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Find what in an Envoy configuration would let traffic pass ungoverned. Exits 0 if there is nothing, 1 if there is
/// something, 2 if the file cannot be read.
///
/// Reads a bootstrap, or what Envoy's admin endpoint answers to `GET /config_dump`, which also shows what Envoy was sent by
/// its control plane: `curl -s 127.0.0.1:9901/config_dump | countersign lint-envoy -`. Every HTTP connection manager that
/// leads to a cluster must have the filter and both guards, in order and not overridden.
///
/// Not looked at: whether time limits suit the longest hold, path rewrites, and what Envoy reads from further files.
#[derive(Clone, Debug, clap::Args)]
pub struct LintEnvoyArgs {
    /// The configuration, YAML (up to 1 MiB, without anchors) or JSON (up to 64 MiB); `-` is standard input.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// Countersign's own configuration: what it lends credentials to must be there, and be one cluster.
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
    let lending = match &args.config {
        Some(path) => lending(path)?,
        None => Lending::default(),
    };
    let found =
        lint(&tree, &args.service, &lending).map_err(|error| anyhow::anyhow!("{file}: {error}"))?;
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

fn lending(path: &Path) -> anyhow::Result<Lending> {
    let ours = config::load_with_builtins(path)?;
    let mut lending = Lending::default();
    for connection in ours.connections {
        lending.routes.extend(connection.route.lend_to_routes);
        lending.clusters.extend(connection.route.lend_to_clusters);
    }
    Ok(lending)
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
