//! Approvals at work: asked for and waited for by exchanges, put on record in the order of the control log, and told of when
//! time has run out.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{grants, live::Live};
use crate::{
    approval::{Approval, Asked, Claimed, Event, Fate, Id, Ignored, Party, State},
    audit::{
        Durability,
        record::{ApprovalEvent, Entry, Event as Recorded},
    },
    exchange::{Held, NotAsked, NotClaimed, of_record},
    identity::Presented,
    runtime::control::{Control, ControlError, Happened},
};

/// How often it is looked whether time has run out.
const EXPIRY: Duration = Duration::from_secs(1);
/// How long to wait where the audit log does not take what happened.
const AGAIN: Duration = Duration::from_millis(250);
/// Events put on record together, at most.
const TOGETHER: usize = 64;

/// Asks for an approval, or joins the one that the same request has asked for.
pub(super) async fn ask(
    control: Option<Control>,
    asked: Box<Asked>,
) -> Result<Arc<Approval>, NotAsked> {
    let control = control.ok_or(NotAsked::Unavailable(ControlError::Unreachable.code()))?;
    let unavailable = |error: ControlError| NotAsked::Unavailable(error.code());
    control.usable().map_err(unavailable)?;
    // Most repeats are known here already; where two come at once the log decides.
    if let Some(known) = control.for_request(&asked.request) {
        return Ok(known);
    }
    match control
        .append(Event::Asked(asked))
        .await
        .map_err(unavailable)?
    {
        Fate::Counts(approval) | Fate::Joins(approval) => Ok(approval),
        Fate::Used(_) | Fate::Revoked(_) => {
            Err(NotAsked::Unavailable(ControlError::Unknown.code()))
        }
        Fate::Ignored(Ignored::TooManyPending) => Err(NotAsked::TooMany),
        Fate::Ignored(why) => {
            error!(%why, "an approval could not be asked for");
            Err(NotAsked::Unavailable(match why {
                Ignored::Full => "approvals_full",
                // The clock of this replica, or a requirement that no fold takes: trying again changes neither.
                _ => "approvals_refused",
            }))
        }
    }
}

/// Waits for a decision, at most as long as `patience`.
pub(super) async fn hold(
    live: Arc<Live>,
    id: Id,
    presented: Presented,
    patience: Duration,
) -> Held {
    let Some(control) = live.control().cloned() else {
        return Held::Unavailable(ControlError::Unreachable.code());
    };
    let deadline = live.clock().monotonic().saturating_add(patience);
    let Some(mut watched) = control.watch(&id) else {
        // Forgotten between asking and looking: its time is long over.
        return Held::Unavailable(ControlError::Unknown.code());
    };
    loop {
        if let Err(error) = control.usable() {
            return Held::Unavailable(error.code());
        }
        let approval = watched.borrow_and_update().clone();
        let now = live.clock().now();
        match approval.state_at(now) {
            State::Pending => {}
            State::Approved => {
                let principal = live.check(presented).await;
                let rules = live.rules_in_force();
                return Held::Approved {
                    approval,
                    rules,
                    principal,
                    now,
                };
            }
            state => return Held::Over(approval, state),
        }
        let until = approval.until.duration_since(now).unsigned_abs();
        let expires = live
            .clock()
            .monotonic()
            .saturating_add(until + Duration::from_millis(1));
        tokio::select! {
            changed = watched.changed() => if changed.is_err() {
                return Held::Unavailable(ControlError::Unreachable.code());
            },
            () = live.clock().sleep_until(deadline) => return Held::Pending(approval),
            () = live.clock().sleep_until(expires) => {}
            // Held any longer, they would hold up the others' end; the ticket is good for another replica, or the next start.
            () = live.drains() => return Held::Draining(approval),
        }
    }
}

/// Claims an approval.
pub(super) async fn claim(
    control: Option<Control>,
    claimed: Claimed,
) -> Result<Arc<Approval>, NotClaimed> {
    let control = control.ok_or(NotClaimed::Unavailable(ControlError::Unreachable.code()))?;
    let fate = control.append(Event::Claimed(claimed)).await;
    match fate.map_err(|error| NotClaimed::Unavailable(error.code()))? {
        Fate::Counts(approval) => Ok(approval),
        Fate::Joins(_) | Fate::Used(_) | Fate::Revoked(_) => {
            Err(NotClaimed::Unavailable(ControlError::Unknown.code()))
        }
        Fate::Ignored(Ignored::Over(state)) => Err(NotClaimed::Over(state)),
        Fate::Ignored(_) => Err(NotClaimed::Over(State::Expired)),
    }
}

/// Puts on record what happens to approvals, in the order it happens, until told to stop and nothing is left.
pub(super) async fn record(live: Arc<Live>, control: Control, stop: CancellationToken) {
    loop {
        let happened = tokio::select! {
            happened = control.happened(TOGETHER) => happened,
            () = stop.cancelled() => {
                if control.unrecorded() == 0 {
                    return;
                }
                control.happened(TOGETHER).await
            }
        };
        let entries: Vec<Entry> = happened.iter().map(entry).collect();
        match live.ledger().append_all(entries, Durability::Disk).await {
            Ok(_) => {
                for one in &happened {
                    live.tell(one);
                }
                let noted = control.clone();
                // A small file, on a disk that may hang.
                let noting = tokio::task::spawn_blocking(move || noted.recorded(&happened));
                if let Err(error) = noting.await {
                    error!(%error, "how far approvals are on record was not noted; they are recorded again");
                }
            }
            Err(error) => {
                warn!(
                    code = error.code(),
                    "what happened to approvals is not on record yet"
                );
                if stop.is_cancelled() {
                    // The next start finds it in the control log.
                    return;
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Says what has run out, until told to stop.
pub(super) async fn expire(control: Control, stop: CancellationToken) {
    let mut due = tokio::time::interval(EXPIRY);
    loop {
        tokio::select! {
            _ = due.tick() => {}
            () = stop.cancelled() => return,
        }
        if let Err(error) = control.expire().await {
            warn!(%error, "that approvals have expired could not be said");
        }
    }
}

/// What happened, as a record: of an approval, of the session that asked for it.
fn entry(happened: &Happened) -> Entry {
    let Happened {
        placed,
        nonce,
        event,
        approval,
    } = happened;
    let Some(approval) = approval else {
        return grants::revoked(event, *placed, nonce);
    };
    let nobody = || (String::new(), String::new());
    let named = |party: &Party| (party.issuer.clone(), party.subject.clone());
    let (action, by) = match event {
        Event::Asked(_) => ("asked", nobody()),
        Event::Decided(decided) => {
            let action = match approval.state {
                State::Pending => "voted",
                state => state.name(),
            };
            (action, named(&decided.by.who))
        }
        Event::Cancelled(stop) => ("cancelled", stop.by.as_ref().map_or_else(nobody, named)),
        Event::Expired(_) => ("expired", nobody()),
        Event::Claimed(_) | Event::Used(_) | Event::Revoked(_) => ("consumed", nobody()),
    };
    let mut told = about(approval, approval.state, action);
    (told.issuer, told.subject) = by;
    told.control_offset = placed.offset;
    told.control_nonce.clone_from(nonce);
    if let Event::Asked(asked) = event {
        (told.caller_issuer, told.caller_subject) = named(&asked.caller);
        let slots = asked.requirement.slots.iter();
        told.seats = slots
            .map(|slot| (slot.group.clone(), u32::from(slot.distinct)))
            .collect();
    }
    Entry {
        session: approval.asked.session.clone(),
        event: Recorded::Approval(Box::new(told)),
    }
}

/// A record of `action` on an approval.
pub(super) fn about(approval: &Approval, state: State, action: &str) -> ApprovalEvent {
    ApprovalEvent {
        action: action.to_owned(),
        approval: of_record(approval, state),
        until: approval.until.to_string(),
        seats: BTreeMap::new(),
        ..ApprovalEvent::default()
    }
}
