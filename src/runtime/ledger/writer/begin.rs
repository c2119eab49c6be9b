//! How a chain begins: what earlier processes left is made whole, and what there is to say of it is written first.

use std::{collections::VecDeque, io, sync::Arc};

use super::{Writer, closed_unknown};
use crate::{
    audit::{
        ChainId,
        record::{Entry, Event, Genesis, Rotated},
    },
    kafka::{heir::Estate, publisher::Live},
    runtime::ledger::{
        LedgerOptions, OpenError, Opening, holders::Holders, now, queue::MAX_BATCH_RECORDS,
        retention::Relief, room::Room, signing::Signer,
    },
    store::{
        StoreError,
        checkpoints::CheckpointFile,
        cursor,
        disk::Disk,
        keyfile,
        layout::{self, ChainDir},
        lock::DirLock,
        recover::{self, Recovered},
        wal::Wal,
    },
};

impl Writer {
    /// Recovers the directory and begins the new chain; on return its genesis and the closings of orphans are on disk.
    pub(in crate::runtime::ledger) fn begin(
        options: &LedgerOptions,
        chain: ChainId,
        lock: DirLock,
        estate: Estate,
        holders: Holders,
        relief: Relief,
        disk: &dyn Fn() -> Box<dyn Disk>,
    ) -> Result<(Self, Opening), OpenError> {
        let dir = options.dir.clone();
        let key_path = options
            .signing_key
            .clone()
            .unwrap_or_else(|| dir.join("signing.key"));
        let key = keyfile::load_or_create(
            &key_path,
            &format!("countersign/{}/{}", options.deployment, options.replica),
        )?;
        let published = cursor::load(&dir).map_err(StoreError::io(&dir))?;
        let mut recovered = recover::recover(&dir, published)?;
        if recovered.previous.is_none() {
            (recovered.previous, recovered.orphans) = (estate.previous, estate.orphans);
        }
        let introductions = keyfile::introductions(&key_path)?;
        keyfile::must_follow(&key_path, &key, &introductions, recovered.previous.as_ref())?;

        let chain_dir = ChainDir::new(&dir, recovered.next_ordinal, chain);
        layout::create_chain(&chain_dir.path).map_err(StoreError::io(&chain_dir.path))?;
        let chains = layout::chains_dir(&dir);
        layout::sync_dir(&chains)
            .and_then(|()| layout::sync_dir(&dir))
            .map_err(StoreError::io(&chains))?;
        let (files, begun) = (disk(), now());
        let checkpoints = CheckpointFile::create(files.as_ref(), &chain_dir.checkpoints())
            .map_err(OpenError::Begin)?;
        let wal =
            Wal::create(disk(), chain_dir, options.segment_bytes).map_err(OpenError::Begin)?;
        let mut writer = Self {
            wal,
            disk: files,
            room: Room::new(dir.clone(), options.spool_cap_bytes, relief.clone()),
            dir,
            deployment: options.deployment.clone(),
            replica: options.replica.clone(),
            signer: Signer::new(options, key, checkpoints, holders),
            group_commit_delay: options.group_commit_delay,
            opened_at: begun,
            unsynced_since: None,
            probed_at: begun,
            closing: VecDeque::new(),
            waiting: Vec::new(),
            waiting_for: None,
            relief,
            live: Arc::new(Live::new(chain)),
            _lock: lock,
        };
        writer
            .first_records(&recovered, &options.build, introductions)
            .map_err(OpenError::Begin)?;
        // A crash before this line closes them once more in the next chain's stead: the closings are read back, and what
        // they close is closed.
        recover::mark(&recovered.to_mark)?;
        // At once, since a checkpoint of this chain that is held outside covers all chains before it.
        if let Err(error) = writer.checkpoint() {
            tracing::warn!(%error, "an audit checkpoint could not be written");
        }
        writer.room.count();
        writer.publish_state();
        let opening = Opening {
            chain,
            previous: recovered
                .previous
                .as_ref()
                .map(|previous| previous.head.chain),
            previous_clean: recovered
                .previous
                .as_ref()
                .is_some_and(|previous| previous.clean),
            orphans_closed: recovered.orphans.len(),
            cuts: recovered.cuts,
            verifier: writer.signer.verifier().clone(),
        };
        Ok((writer, opening))
    }

    fn first_records(
        &mut self,
        recovered: &Recovered,
        build: &str,
        introductions: Vec<String>,
    ) -> io::Result<()> {
        let mut genesis = Genesis {
            deployment: self.deployment.clone(),
            replica: self.replica.clone(),
            build: build.to_owned(),
            ..Genesis::default()
        };
        if let Some(previous) = &recovered.previous {
            genesis.previous_chain = previous.head.chain.to_string();
            genesis.previous_size = previous.head.size;
            genesis.previous_head = previous.head.hash.to_string();
            genesis.previous_root = previous
                .root
                .map(|root| root.to_string())
                .unwrap_or_default();
            genesis.previous_checkpoint.clone_from(&previous.checkpoint);
            genesis.previous_clean = previous.clean;
            genesis.previous_torn_bytes = previous.torn_bytes;
        }
        self.write_own(&[Entry {
            session: String::new(),
            event: Event::Genesis(genesis),
        }])?;
        if !introductions.is_empty() {
            // In every chain, so that each verifies by itself, whatever was pruned.
            let rotated = Rotated {
                key: self.signer.verifier().to_string(),
                introductions,
            };
            self.write_own(&[Entry {
                session: String::new(),
                event: Event::Rotated(rotated),
            }])?;
        }
        for sessions in recovered.orphans.chunks(MAX_BATCH_RECORDS) {
            let entries: Vec<Entry> = sessions
                .iter()
                .map(|session| closed_unknown(session))
                .collect();
            self.write_own(&entries)?;
        }
        self.wal.sync()
    }
}
