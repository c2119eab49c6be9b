//! Live handles: what is current right now, swapped while the service runs. The clock is here too.

pub mod alerts;
#[cfg(feature = "saml")]
pub mod assertions;
pub mod authenticator;
pub mod clock;
pub mod control;
pub mod grants;
pub mod ledger;
pub mod lending;
pub mod notify;
pub mod seals;
pub mod snapshot;
