//! `countersign check`: every fault of a configuration at once, without starting anything.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::ValueHint;

use crate::config::{Config, Fault, Known, LoadError, load};

/// Check a configuration: every fault at once, each with its line. Exits 0 if there is none, 1 otherwise.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The configuration file.
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_CONFIG", value_hint = ValueHint::FilePath)]
    pub config: PathBuf,
    /// Print one JSON object instead of lines: `{"file", "valid", "digest", "faults", "warnings"}`.
    #[arg(long)]
    pub json: bool,
}

/// What was found.
#[derive(Debug, serde::Serialize)]
struct Report {
    file: String,
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
}

/// Checks the file and reports to `out` (what a script would read) and `err` (faults and warnings, one line each).
/// True where the file could be served: no fault, and all that it names is there.
///
/// # Errors
/// Where the file cannot be read, or the report cannot be written.
pub fn run(
    args: &Args,
    known: &Known<'_>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<bool> {
    let file = args.config.display().to_string();
    let report = match load(&args.config, known) {
        Ok(config) => found(file, &config),
        Err(LoadError::Faulty(faults)) => Report {
            file,
            valid: false,
            digest: None,
            faults: faults.faults,
            warnings: Vec::new(),
        },
        Err(error @ LoadError::Unreadable { .. }) => {
            return Err(io::Error::other(error.to_string()));
        }
    };
    if args.json {
        serde_json::to_writer(&mut *out, &report)?;
        writeln!(out)?;
        return Ok(report.valid);
    }
    for fault in &report.faults {
        writeln!(err, "{}:{fault}", report.file)?;
    }
    for warning in &report.warnings {
        writeln!(err, "{}:{warning} [warning]", report.file)?;
    }
    match report.faults.len() {
        0 => writeln!(
            out,
            "{}: valid, sha256 {}",
            report.file,
            report.digest.as_deref().unwrap_or_default()
        )?,
        1 => writeln!(err, "{}: 1 fault", report.file)?,
        n => writeln!(err, "{}: {n} faults", report.file)?,
    }
    Ok(report.valid)
}

fn found(file: String, config: &Config) -> Report {
    let faults = config.missing();
    Report {
        file,
        valid: faults.is_empty(),
        digest: Some(hex::encode(config.digest)),
        faults,
        warnings: config.warnings.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Runs `check` on `text`; yields the verdict, what went to `out` and what went to `err`.
    fn check(text: &str, json: bool) -> (bool, String, String) {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("c.yaml");
        fs::write(&config, text).unwrap();
        let known = Known {
            dialects: &[],
            entities: &[],
            detector: &|_| Ok(()),
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let valid = run(&Args { config, json }, &known, &mut out, &mut err).unwrap();
        let text = |bytes: Vec<u8>| {
            String::from_utf8(bytes)
                .unwrap()
                .replace(&dir.path().display().to_string(), "DIR")
        };
        (valid, text(out), text(err))
    }

    #[test]
    fn faults_are_lines_that_editors_can_jump_to() {
        let (valid, out, err) = check("audit: { dir: x }\nlisen: {}\n", false);
        assert!(!valid);
        assert_eq!(out, "");
        assert_eq!(
            err,
            "DIR/c.yaml:1: `connections` is missing\nDIR/c.yaml:1: `identity` is missing\n\
             DIR/c.yaml:2: unknown key `lisen` (did you mean `listen`?)\nDIR/c.yaml: 3 faults\n"
        );
    }

    #[test]
    fn a_script_reads_one_object() {
        let (valid, out, err) = check("a: [", true);
        assert!(!valid && err.is_empty());
        let report: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(report["valid"], false);
        assert_eq!(report["faults"][0]["line"], 2);
        assert_eq!(report["warnings"], serde_json::json!([]));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let known = Known {
            dialects: &[],
            entities: &[],
            detector: &|_| Ok(()),
        };
        let args = Args {
            config: "/nowhere/c.yaml".into(),
            json: false,
        };
        let error = run(&args, &known, &mut Vec::new(), &mut Vec::new()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot read `/nowhere/c.yaml`: "),
            "{error}"
        );
    }
}
