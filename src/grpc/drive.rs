//! One stream: what Envoy says goes into an exchange, what comes out is done.

use std::{convert::Infallible, future, sync::Arc, time::Duration};

use envoy_types::pb::envoy::service::ext_proc::v3::ProcessingRequest;
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::Semaphore,
    time::{Interval, MissedTickBehavior, interval},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Status;

use super::{Backing, answers::Teller, convert, fault};
use crate::{
    audit::record::Event,
    exchange::{Exchange, Held, Input, Output, RECORD_EVERY},
};

/// From here on a body is worth a thread of its own to look through, in bytes.
const LARGE: usize = 256 << 10;

/// Drives one exchange to its end. Never returns before what was opened is closed, whatever becomes of the stream; dropped
/// or panicking, it leaves the stream ending in an error, and closes what was opened as `unknown`.
pub(super) async fn drive<B: Backing>(
    backing: Arc<B>,
    tasks: TaskTracker,
    large: Arc<Semaphore>,
    inbound: impl Stream<Item = Result<ProcessingRequest, Status>> + Send + Unpin,
    trace: String,
    teller: Teller,
    drain: CancellationToken,
) {
    let began = backing.monotonic();
    backing.began();
    let clock = backing.clone();
    let mut driver = Driver {
        exchange: Exchange::new(
            backing.rules(),
            backing.session(),
            backing.seed(),
            backing.now(),
        )
        .timed_by(Box::new(move || clock.monotonic().saturating_sub(began))),
        trace,
        backing,
        tasks,
        large,
        began,
        waiting: None,
        session: Session::Unopened,
        outputs: Vec::new(),
        weight: Weight::default(),
        untold: false,
        otherwise: ("unfinished", ""),
    };
    let end = driver.run(inbound, &teller, &drain).await;
    // The caller's place is free and the stream counted before Envoy is told.
    drop(driver);
    let told = async {
        match end {
            End::Finished => teller.finish().await,
            End::Failed(status) => teller.fail(status).await,
        }
    };
    tokio::select! {
        biased;
        () = told => {}
        // Untold, the stream ends in an error too.
        () = drain.cancelled() => {}
    }
}

enum End {
    Finished,
    Failed(Status),
}

struct Driver<B: Backing> {
    exchange: Exchange,
    backing: Arc<B>,
    tasks: TaskTracker,
    /// Places for bodies that take long.
    large: Arc<Semaphore>,
    began: Duration,
    /// Where the stream stands in Envoy's trace, until the exchange is told.
    trace: String,
    /// The one thing the exchange waits for besides Envoy: a token being checked, an approval being decided, or a record being
    /// written.
    waiting: Option<BoxFuture<'static, Input>>,
    outputs: Vec<Output>,
    weight: Weight,
    /// What the ledger holds, as far as it said so: what the exchange makes of that may have come to nothing.
    session: Session,
    /// Envoy did not take an answer in time.
    untold: bool,
    /// Outcome and code where the exchange came to none by itself.
    otherwise: (&'static str, &'static str),
}

/// How far the ledger is with the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    Unopened,
    /// It was given the `opened`. Where that fails or is not waited for, the ledger itself closes what it holds.
    Opening,
    Open,
    /// It was given the `closed`, and sees to it itself.
    Closing,
}

/// However it ends, by a panic or with its task too: it is counted, and what was opened is closed.
impl<B: Backing> Drop for Driver<B> {
    fn drop(&mut self) {
        let waiting = self.waiting.take();
        let last = match self.session {
            Session::Unopened | Session::Opening => None,
            Session::Open => {
                // Of what was being recorded nobody would hear any more; it may be missing, as after a kill.
                drop(waiting);
                let (entries, durability) = self.exchange.abandon();
                let recorded = self.backing.record(entries, Vec::new(), durability);
                Some(recorded.map(Input::Recorded).boxed())
            }
            // It may not have begun.
            Session::Closing => waiting,
        };
        if let (Some(last), Ok(runtime)) = (last, Handle::try_current()) {
            // Where this fails too, recovery closes it.
            self.tasks.spawn_on(last.map(drop), &runtime);
        }
        let mut summary = self.exchange.summary().clone();
        if summary.outcome.is_empty() {
            (summary.outcome, summary.code) = self.otherwise;
        }
        let took = self.backing.monotonic().saturating_sub(self.began);
        self.backing.ended(self.exchange.session(), &summary, took);
    }
}

impl<B: Backing> Driver<B> {
    async fn run(
        &mut self,
        mut inbound: impl Stream<Item = Result<ProcessingRequest, Status>> + Send + Unpin,
        teller: &Teller,
        drain: &CancellationToken,
    ) -> End {
        let (mut first, mut gone, mut drained) = (true, false, false);
        let mut ticks = every(RECORD_EVERY);
        loop {
            let input = tokio::select! {
                // What is known already counts before what comes next: of a token that is remembered, whose it is.
                biased;
                () = drain.cancelled(), if !drained => { drained = true; Some(Input::Shutdown) }
                input = wait(&mut self.waiting) => { self.waiting = None; Some(input) }
                _ = ticks.tick(), if self.exchange.wants_tick() => Some(Input::Tick),
                message = inbound.next(), if !gone && self.exchange.takes_more() => match message {
                    Some(Ok(message)) => {
                        if std::mem::take(&mut first) && let Err(why) = self.look_at_envoy(&message) {
                            self.otherwise = ("misconfigured", why);
                            return End::Failed(Status::failed_precondition(why));
                        }
                        convert::input(message, &mut self.trace)
                    }
                    // How Envoy ended it proves nothing (envoy.md): what counts is whether both directions had ended.
                    Some(Err(_)) | None => { gone = true; Some(Input::Gone) }
                },
                () = teller.gone(), if !gone => { gone = true; Some(Input::Gone) }
            };
            let Some(input) = input else { continue };
            self.take(input).await;
            if let Some(end) = self.carry_out(teller, drain).await {
                return end;
            }
        }
    }

    /// Whether Envoy is as it must be, by the stream's first message.
    fn look_at_envoy(&self, first: &ProcessingRequest) -> Result<(), &'static str> {
        if let Some(version) = convert::outdated(first) {
            self.backing.outdated(&version);
        }
        convert::check_modes(first).inspect_err(|why| self.backing.misconfigured(why))
    }

    async fn take(&mut self, input: Input) {
        if let (Session::Opening, Input::Recorded(opened)) = (self.session, &input) {
            self.session = match opened {
                Ok(()) => Session::Open,
                Err(_) => Session::Unopened,
            };
        }
        let what = fault::name(&input);
        fault::point("before", what);
        let elapsed = self.backing.monotonic().saturating_sub(self.began);
        // Of messages one may become whole with any piece.
        let large = self.weight.takes(&input) || self.exchange.answer_held() >= LARGE;
        if large && Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread {
            let _place = tokio::select! {
                biased;
                place = self.large.acquire() => place,
                never = go_on(&mut self.waiting) => match never {},
            };
            tokio::task::block_in_place(|| {
                self.exchange.handle(elapsed, input, &mut self.outputs);
            });
        } else {
            self.exchange.handle(elapsed, input, &mut self.outputs);
        }
        fault::point("behind", what);
    }

    async fn carry_out(&mut self, teller: &Teller, drain: &CancellationToken) -> Option<End> {
        for output in std::mem::take(&mut self.outputs) {
            match output {
                Output::Authenticate(presented) => {
                    let checked = self.backing.authenticate(*presented);
                    self.waiting = Some(checked.map(Input::Authenticated).boxed());
                }
                Output::Ask(asked) => {
                    self.waiting = Some(self.backing.ask(asked).map(Input::Asked).boxed());
                }
                Output::Hold(approval, presented, patience) => {
                    let held = self.backing.hold(approval, *presented, patience);
                    self.waiting = Some(held.map(Input::Held).boxed());
                }
                Output::Use(wanted) => {
                    self.waiting = Some(self.backing.take_use(wanted).map(Input::Used).boxed());
                }
                Output::Claim(claimed) => {
                    self.waiting = Some(self.backing.claim(claimed).map(Input::Claimed).boxed());
                }
                Output::Record(entries, sealed, durability) => {
                    for entry in &entries {
                        match entry.event {
                            Event::Opened(_) => self.session = Session::Opening,
                            Event::Closed(_) => self.session = Session::Closing,
                            _ => {}
                        }
                    }
                    let recorded = self.backing.record(entries, sealed, durability);
                    self.waiting = Some(recorded.map(Input::Recorded).boxed());
                }
                // INVARIANT: behind one that was not told comes none: what Envoy has is a front of what was said.
                Output::Answer(_) if self.untold => {}
                Output::Answer(answer) => tokio::select! {
                    biased;
                    // Where Envoy reads no more the loop learns of it by itself; the exchange must still come to its end.
                    _ = teller.answer(convert::message(answer)) => {}
                    // Nor is one waited for that reads too slowly when our time is over: it never has the whole answer.
                    () = drain.cancelled() => self.untold = true,
                    // What was let out before is recorded meanwhile, however slowly Envoy reads.
                    never = go_on(&mut self.waiting) => match never {},
                },
                Output::Finished if self.untold => {
                    return Some(End::Failed(Status::aborted("shutting_down")));
                }
                Output::Finished => return Some(End::Finished),
                Output::Abort(code) => return Some(End::Failed(Status::aborted(code))),
            }
        }
        None
    }
}

/// How much of a body has come, of the direction that is under way, in bytes.
#[derive(Default)]
struct Weight(usize);

impl Weight {
    /// Whether `input` may take long to look through. INVARIANT: what does never runs where streams are driven: Envoy's pings
    /// would go unanswered there, and it would cut every stream of the connection.
    fn takes(&mut self, input: &Input) -> bool {
        match input {
            // A body is looked through as a whole at its end, however small its last piece is.
            Input::RequestBody(bytes, end) | Input::ResponseBody(bytes, end) => {
                self.0 = self.0.saturating_add(bytes.len());
                bytes.len() >= LARGE || *end && self.0 >= LARGE
            }
            Input::ResponseHeaders(..) => {
                self.0 = 0;
                false
            }
            // The body may have come while it was looked who sends it.
            Input::Authenticated(_) | Input::ResponseTrailers(_) => self.0 >= LARGE,
            // Its whole body is looked through again.
            Input::Held(Held::Approved { .. }) => true,
            _ => false,
        }
    }
}

async fn wait(waiting: &mut Option<BoxFuture<'static, Input>>) -> Input {
    match waiting {
        Some(input) => input.await,
        None => future::pending().await,
    }
}

/// Goes on with what is waited for, without telling what came of it yet.
async fn go_on(waiting: &mut Option<BoxFuture<'static, Input>>) -> Infallible {
    if let Some(going) = waiting {
        let input = going.await;
        *waiting = Some(future::ready(input).boxed());
    }
    future::pending().await
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::exchange::Headers;

    fn body(length: usize, end: bool, of_answer: bool) -> Input {
        let bytes = Bytes::from(vec![b' '; length]);
        if of_answer {
            Input::ResponseBody(bytes, end)
        } else {
            Input::RequestBody(bytes, end)
        }
    }

    #[test]
    fn what_comes_in_small_pieces_is_large_at_its_end() {
        for of_answer in [false, true] {
            let mut weight = Weight::default();
            for _ in 0..16 {
                assert!(!weight.takes(&body(LARGE / 16, false, of_answer)));
            }
            assert!(weight.takes(&body(0, true, of_answer)));
        }
        let mut weight = Weight::default();
        assert!(weight.takes(&body(LARGE, false, true)));
        assert!(weight.takes(&Input::ResponseTrailers(Headers::default())));
    }

    #[test]
    fn a_large_prompt_makes_no_answer_large() {
        let mut weight = Weight::default();
        assert!(weight.takes(&body(LARGE, true, false)));
        assert!(!weight.takes(&Input::ResponseHeaders(Headers::default(), false)));
        assert!(!weight.takes(&body(100, true, true)));
    }

    #[test]
    fn small_bodies_are_never_large() {
        let mut weight = Weight::default();
        assert!(!weight.takes(&body(2048, true, false)));
        assert!(!weight.takes(&Input::RequestTrailers));
    }
}
