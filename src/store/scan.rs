//! Goes through a chain record by record and checks every link: what recovery and pruning have in common.

use std::{borrow::Cow, collections::BTreeSet};

use serde::{Deserialize, de::IgnoredAny};

use super::{
    Damage, StoreError,
    layout::ChainDir,
    prune,
    reader::{Step, Tail},
};
use crate::audit::{
    Hash,
    chain::Head,
    tree::{Commitment, Frontier},
};

/// Sessions open at once that are kept in memory.
const MAX_OPEN: usize = 1_000_000;

/// What a chain was found to be.
pub(super) struct Scan {
    pub(super) head: Head,
    pub(super) tree: Frontier,
    /// Whether the last record is a `shutdown`.
    pub(super) clean: bool,
    pub(super) end: End,
}

pub(super) enum End {
    Clean,
    Torn(Tail),
    Damaged(Damage),
}

#[derive(Deserialize)]
struct Peek<'a> {
    #[serde(default, borrow)]
    session: Cow<'a, str>,
    opened: Option<IgnoredAny>,
    closed: Option<IgnoredAny>,
    shutdown: Option<IgnoredAny>,
}

/// Reads the first `until` records of a chain, or what is there of them and was not pruned. `open` is left with the sessions
/// that they and the pruned ones open and do not close, beside those it held. `each` is told of a record and of the tree before
/// it.
///
/// # Errors
/// [`StoreError`]; also where a record was changed together with its checksum, which no crash does.
pub(super) fn scan(
    dir: &ChainDir,
    until: u64,
    open: &mut BTreeSet<String>,
    mut each: impl FnMut(&Frontier, &Commitment, &[u8]),
) -> Result<Scan, StoreError> {
    let (stump, mut reader) = prune::begin(dir.clone()).map_err(StoreError::io(&dir.path))?;
    let (mut head, mut tree, mut clean) = (Head::empty(dir.chain), Frontier::default(), false);
    if let Some((stump, _)) = stump {
        (head, tree, clean) = (stump.head, stump.tree, stump.clean);
        open.extend(stump.open);
    }
    let mut end = End::Clean;
    while head.size < until {
        let stored = match reader.step().map_err(StoreError::io(&dir.path))? {
            Step::Record(stored) => stored,
            Step::End(tail) if tail.torn == 0 => break,
            Step::End(tail) => {
                end = End::Torn(tail);
                break;
            }
            Step::Damaged(damage) => {
                end = End::Damaged(damage);
                break;
            }
        };
        let hash = head.hash_next(&stored.bytes);
        let event = serde_json::from_slice::<Peek<'_>>(&stored.bytes);
        let (Ok(event), true) = (event, stored.seq == head.size && hash == stored.record_hash)
        else {
            let what =
                "its checksum is right but its hash is not: it was changed on purpose".to_owned();
            let file = reader.current_file().unwrap_or(&dir.path).to_owned();
            return Err(StoreError::Damaged(Box::new(Damage {
                file,
                offset: stored.offset,
                chain: dir.chain,
                seq: head.size,
                what,
            })));
        };
        let leaf = Commitment {
            chain: dir.chain,
            seq: head.size,
            record_hash: hash,
            payload_hash: Hash::ZERO,
        };
        each(&tree, &leaf, &stored.bytes);
        tree.push(&leaf.bytes());
        head = head.after(hash);
        clean = event.shutdown.is_some();
        if event.opened.is_some() {
            open.insert(event.session.into_owned());
        } else if event.closed.is_some() {
            open.remove(event.session.as_ref());
        }
        if open.len() > MAX_OPEN {
            return Err(StoreError::TooManyOpen(MAX_OPEN));
        }
    }
    Ok(Scan {
        head,
        tree,
        clean,
        end,
    })
}
