//! Panics on purpose, so that tests of the whole service see what becomes of them at each phase. `COUNTERSIGN_PANIC_EVERY=n` makes each
//! point end in one the first time it is passed, and then one time of n, over all exchanges: points that are passed once in an exchange have
//! their turn as those passed with every piece of an answer. Only builds with debug assertions have it: nothing that is shipped does.

use crate::exchange::Input;

/// A point where an exchange may panic: before it is told of `what`, or behind that, when nothing has come of it yet.
#[cfg(debug_assertions)]
#[allow(
    clippy::panic,
    clippy::disallowed_methods,
    reason = "it is what this is for, and no setting of the service"
)]
pub(super) fn point(when: &'static str, what: &'static str) {
    use std::{
        collections::BTreeMap,
        sync::{LazyLock, Mutex, PoisonError},
    };

    static EVERY: LazyLock<Option<u64>> = LazyLock::new(|| {
        let every = std::env::var("COUNTERSIGN_PANIC_EVERY").ok()?;
        every.parse().ok().filter(|every| *every > 0)
    });
    static PASSED: Mutex<BTreeMap<(&str, &str), u64>> = Mutex::new(BTreeMap::new());
    let Some(every) = *EVERY else { return };
    let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
    let count = passed.entry((when, what)).or_default();
    let number = *count;
    *count += 1;
    drop(passed);
    // Spread, as what is asked for comes in turns.
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
