//! `countersign verify --proof`: does a proof that was handed over hold?

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use serde_json::json;

use crate::audit::{
    note::VerifierKey,
    proof::{Proof, Shown},
};

/// Exit code 0: it holds; 1: it does not; 2: it cannot be read.
pub(super) fn check(file: &Path, trust: &[PathBuf], json: bool) -> ExitCode {
    match read(file, trust) {
        Ok((proof, trusted)) => tell(&proof, &trusted, json),
        Err(error) => {
            eprintln!("countersign verify: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn read(file: &Path, trust: &[PathBuf]) -> anyhow::Result<(Proof, Vec<VerifierKey>)> {
    let text = fs::read(file).with_context(|| format!("`{}` cannot be read", file.display()))?;
    let proof = serde_json::from_slice(&text)
        .with_context(|| format!("`{}` is no proof", file.display()))?;
    Ok((proof, super::keys(trust)?))
}

fn tell(proof: &Proof, trusted: &[VerifierKey], json: bool) -> ExitCode {
    let shown = proof.check(trusted);
    if json {
        let shown = shown.as_ref().map_err(ToString::to_string);
        println!("{:#}", as_json(proof, shown, !trusted.is_empty()));
    } else {
        match &shown {
            Ok(shown) => {
                for (chain, seq) in &shown.records {
                    println!("record {seq} of chain {chain} is in the log");
                }
                for checkpoint in &shown.checkpoints {
                    println!(
                        "by the checkpoint of `{}` at {} records",
                        checkpoint.origin(),
                        checkpoint.size
                    );
                }
                if trusted.is_empty() {
                    println!(
                        "note: signatures of checkpoints were not looked at: no --trust was given"
                    );
                }
                println!(
                    "proven: {} records of session {}",
                    shown.records.len(),
                    proof.session
                );
            }
            Err(fault) => println!("NOT PROVEN: {fault}"),
        }
    }
    ExitCode::from(u8::from(shown.is_err()))
}

fn as_json(proof: &Proof, shown: Result<&Shown, String>, signed: bool) -> serde_json::Value {
    let signatures = if signed { "checked" } else { "not checked" };
    match shown {
        Ok(shown) => {
            let records: Vec<_> = shown
                .records
                .iter()
                .map(|(chain, seq)| json!({"chain": chain.to_string(), "seq": seq}))
                .collect();
            let checkpoints: Vec<_> = shown
                .checkpoints
                .iter()
                .map(|c| json!({"origin": c.origin(), "size": c.size, "root": c.root.to_string()}))
                .collect();
            json!({"verdict": "proven", "signatures": signatures, "session": proof.session, "records": records, "checkpoints": checkpoints})
        }
        Err(fault) => json!({"verdict": "not proven", "session": proof.session, "fault": fault}),
    }
}
