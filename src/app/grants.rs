//! Grants at work: made for callers who ask, used by exchanges, revoked.

use jiff::Timestamp;

use crate::{
    approval::{Event, Fate, Ignored, Placed, Use},
    audit::record::{Entry, Event as Recorded, GrantEvent},
    exchange::NotUsed,
    runtime::control::Control,
};

/// Takes a use of a grant.
pub(super) async fn take_use(control: Option<Control>, wanted: Use) -> Result<u32, NotUsed> {
    let control = control.ok_or(NotUsed::Unavailable)?;
    match control.append(Event::Used(wanted)).await {
        Ok(Fate::Used(number)) => Ok(number),
        Ok(Fate::Ignored(Ignored::Revoked)) => Err(NotUsed::Revoked),
        Ok(Fate::Ignored(Ignored::UsedUp | Ignored::Late)) => Err(NotUsed::Over),
        Ok(_) | Err(_) => Err(NotUsed::Unavailable),
    }
}

/// That a grant was revoked, as a record.
pub(super) fn revoked(event: &Event, placed: Placed, nonce: &str) -> Entry {
    let mut told = GrantEvent {
        action: "revoked".to_owned(),
        control_offset: placed.offset,
        control_nonce: nonce.to_owned(),
        ..GrantEvent::default()
    };
    if let Event::Revoked(revoked) = event {
        told.id.clone_from(&revoked.grant);
        told.until = Timestamp::from_second(revoked.until)
            .map_or_else(|_| String::new(), |at| at.to_string());
        if let Some(by) = &revoked.by {
            told.by_issuer.clone_from(&by.issuer);
            told.by_subject.clone_from(&by.subject);
        }
    }
    Entry {
        session: String::new(),
        event: Recorded::Grant(Box::new(told)),
    }
}
