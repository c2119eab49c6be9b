//! Sends the log to the topic once more, for brokers that lost what they had acknowledged.
//!
//! Reads the directory as the publisher does and leaves the publisher's cursor alone, so that it can be done beside a running
//! gateway. Consumers drop what they have seen, by (chain, seq).

use std::{io, path::Path, sync::Arc};

use super::{
    Live, Prepared,
    run::{Kept, Outcome, Run},
};
use crate::{
    audit::{ChainId, checkpoint::Checkpoint},
    store::{
        checkpoints,
        cursor::Cursor,
        layout::{self, ChainDir},
        lock::DirLock,
    },
};

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// With the oldest record that the directory has.
    Beginning,
    /// With this record of a chain, of the newest where none is named; later chains follow whole.
    Record(Option<ChainId>, u64),
}

/// What was sent and acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Republished {
    /// Records.
    pub records: u64,
    /// Chains they are of.
    pub chains: u64,
}

/// Why not all was sent.
#[derive(Debug, thiserror::Error)]
pub enum RepublishError {
    /// The directory cannot be read.
    #[error("the ledger's directory: {0}")]
    Io(#[from] io::Error),
    /// It holds no such chain.
    #[error("there is no such chain in the directory")]
    NoChain,
    /// Kafka did not take it, several times over.
    #[error("kafka: {error}; {sent} records were taken, begin again behind them")]
    Kafka {
        /// What it said last.
        error: String,
        /// Records taken until then.
        sent: u64,
    },
}

/// Failures in a row after which it is given up.
const ATTEMPTS: u32 = 3;

/// Sends the chains of ledger directory `dir` and their checkpoints. Of a chain that a gateway is writing, what its last
/// checkpoint covers: what is newer is the gateway's to send. Blocks until Kafka has acknowledged all of it.
///
/// # Errors
/// [`RepublishError`].
pub fn republish(
    prepared: Prepared,
    dir: &Path,
    deployment: &str,
    replica: &str,
    from: From,
) -> Result<Republished, RepublishError> {
    let chains = layout::chains(dir)?;
    let (first, seq) = match from {
        From::Beginning => (chains.first(), 0),
        From::Record(None, seq) => (chains.last(), seq),
        From::Record(Some(id), seq) => (chains.iter().find(|chain| chain.chain == id), seq),
    };
    let begin = Cursor {
        chain: first.ok_or(RepublishError::NoChain)?.chain,
        seq,
        checkpoint_bytes: 0,
    };
    // No chain is the one being written as far as this run knows.
    let nobody = Arc::new(Live::new(ChainId([0; 16])));
    let source = format!("countersign/{deployment}/{replica}");
    let kept = Kept::Memory(begin);
    let mut run = Run::new(
        prepared,
        dir.to_owned(),
        source,
        nobody,
        Arc::default(),
        kept,
    );
    let written = DirLock::is_held(dir).then(|| chains.last()).flatten();
    let (mut sent, mut failures) = (Republished::default(), 0);
    loop {
        let Some(mut pass) = run.next_pass()? else {
            return Ok(sent);
        };
        run.limit = limit(&pass.dir, written)?;
        let before = pass.cursor.seq;
        let outcome = run.publish(&mut pass);
        sent.records += pass.cursor.seq - before;
        let error = match &outcome {
            Outcome::Failed(error) => Some(error.clone()),
            Outcome::Done | Outcome::Stop => None,
        };
        let goes_on = run.settle(&mut pass, outcome);
        match error {
            Some(error) => {
                failures += 1;
                if failures == ATTEMPTS {
                    let sent = sent.records;
                    return Err(RepublishError::Kafka { error, sent });
                }
            }
            None => {
                (sent.chains, failures) = (sent.chains + 1, 0);
                if !goes_on {
                    return Ok(sent);
                }
            }
        }
    }
}

/// How far a chain may be sent.
fn limit(chain: &ChainDir, written: Option<&ChainDir>) -> io::Result<u64> {
    if written != Some(chain) {
        return Ok(u64::MAX);
    }
    // Everything a checkpoint covers is on disk.
    let last = checkpoints::last(&chain.checkpoints())?;
    Ok(last
        .and_then(|(_, note)| Checkpoint::read_unchecked(&note).ok())
        .map_or(0, |checkpoint| checkpoint.size))
}
