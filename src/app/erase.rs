//! Carrying out erasures: `countersign erase` asks for them in the ledger's directory, whose owner alone writes to its chain.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::live::Live;
use crate::{
    audit::{
        Durability,
        record::{Entry, Erased, Event},
    },
    store::{
        erasures::{self, Erasure, Stage},
        sealed,
    },
};

/// How often the directory is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Carries out what is asked for in ledger directory `dir`, until `stop`. Nothing is where nothing is sealed.
pub(super) async fn follow(live: Arc<Live>, dir: PathBuf, stop: CancellationToken) {
    let mut due = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            _ = due.tick() => {}
            () = stop.cancelled() => return,
        }
        let pending = match erasures::pending(&dir) {
            Ok(pending) => pending,
            Err(error) => {
                warn!(%error, "what is to be erased cannot be read");
                continue;
            }
        };
        for erasure in pending {
            let session = erasure.session.clone();
            match carry_out(&live, dir.clone(), erasure).await {
                Ok(true) => info!(session, "what was sealed is erased"),
                Ok(false) => warn!(session, "there is nothing sealed to erase"),
                // Tried again at the next look.
                Err(error) => error!(session, error = format!("{error:#}"), "not erased yet"),
            }
        }
    }
}

/// On record first, then destroyed: a crash between leaves the request, and the keys are destroyed by the next start.
async fn carry_out(live: &Live, dir: PathBuf, mut erasure: Erasure) -> anyhow::Result<bool> {
    if erasure.stage == Stage::Asked {
        if !has_keys(dir.clone(), erasure.session.clone()).await? {
            erasures::advance(&dir, &erasure, Stage::Refused)?;
            return Ok(false);
        }
        let entry = Entry {
            session: erasure.session.clone(),
            event: Event::Erased(Erased {
                reason: erasure.reason.clone(),
                asked_by: format!("uid {}", erasure.uid),
            }),
        };
        live.ledger().append(entry, Durability::Disk).await?;
        erasures::advance(&dir, &erasure, Stage::Recorded)?;
        erasure.stage = Stage::Recorded;
    }
    destroy(dir.clone(), erasure.session.clone()).await?;
    erasures::done(&dir, &erasure.session)?;
    Ok(true)
}

async fn has_keys(dir: PathBuf, session: String) -> anyhow::Result<bool> {
    let look = move || sealed::keys_of(&sealed::sealed_dir(&dir), &session);
    Ok(tokio::task::spawn_blocking(look).await??.is_some())
}

async fn destroy(dir: PathBuf, session: String) -> anyhow::Result<usize> {
    let erase = move || sealed::erase(&sealed::sealed_dir(&dir), &session);
    Ok(tokio::task::spawn_blocking(erase).await??)
}
