//! Panics on purpose, so that tests of the whole service see what becomes of them at each phase. `COUNTERSIGN_PANIC_EVERY=n` makes one
//! of n points that are passed end in one, drawn by their number over all exchanges. Only builds with debug assertions have it: nothing that is
//! shipped does.

use crate::exchange::Input;

/// A point where an exchange may panic: before it is told of `what`, or behind that, when nothing has come of it yet.
#[cfg(debug_assertions)]
#[allow(
    clippy::panic,
    clippy::disallowed_methods,
    reason = "it is what this is for, and no setting of the service"
)]
pub(super) fn point(when: &str, what: &str) {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    };

    static EVERY: LazyLock<Option<u64>> = LazyLock::new(|| {
        let every = std::env::var("COUNTERSIGN_PANIC_EVERY").ok()?;
        every.parse().ok().filter(|every| *every > 0)
    });
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let Some(every) = *EVERY else { return };
    let number = PASSED.fetch_add(1, Ordering::Relaxed);
    // Spread, as points come in turns.
    if (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).is_multiple_of(every) {
        panic!("injected {when} {what}");
    }
}

#[cfg(not(debug_assertions))]
pub(super) fn point(_: &str, _: &str) {}

/// The name of what an exchange is told.
pub(super) fn name(input: &Input) -> &'static str {
    match input {
        Input::RequestHeaders(..) => "request_headers",
        Input::RequestBody(..) => "request_body",
        Input::RequestTrailers => "request_trailers",
        Input::ResponseHeaders(..) => "response_headers",
        Input::ResponseBody(..) => "response_body",
        Input::ResponseTrailers(_) => "response_trailers",
        Input::Authenticated(_) => "authenticated",
        Input::Asked(_) => "asked",
        Input::Held(_) => "held",
        Input::Used(_) => "used",
        Input::Claimed(_) => "claimed",
        Input::Recorded(_) => "recorded",
        Input::Tick => "tick",
        Input::Gone => "gone",
        Input::Shutdown => "shutdown",
    }
}
