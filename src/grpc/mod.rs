//! The `ext_proc` service: one task per stream, driving an [`Exchange`](crate::exchange::Exchange).
//!
//! Envoy takes a clean end of our stream for leave to go on ungoverned, whatever `failure_mode_allow` says. So a stream
//! ends well only when its exchange said it was finished: [`answers`] makes every other end an error.

mod answers;
mod convert;
mod drive;
mod fault;
#[cfg(test)]
mod tests;

use std::{fmt, num::NonZero, pin::Pin, sync::Arc, time::Duration};

use envoy_types::pb::envoy::service::ext_proc::v3::{
    ProcessingRequest, external_processor_server::ExternalProcessor,
};
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    approval::{Approval, Asked, Claimed, Id, Use},
    audit::{
        Durability,
        record::Entry,
        seal::{Frame, Seed},
    },
    exchange::{Held, NotAsked, NotClaimed, NotUsed, Rules, Summary},
    identity::{Presented, Principal, TokenError},
};

/// What the service leans on. The application gives it; tests give their own.
pub trait Backing: Send + Sync + 'static {
    /// The rules in force now.
    fn rules(&self) -> Arc<Rules>;
    /// A new session's id.
    fn session(&self) -> String;
    /// 32 random bytes for a new session; `None` where there are none to be had.
    fn seed(&self) -> Option<Seed>;
    /// Time since some fixed point; never goes back.
    fn monotonic(&self) -> Duration;
    /// Checks who is calling.
    fn authenticate(
        &self,
        presented: Presented,
    ) -> BoxFuture<'static, Result<Arc<Principal>, TokenError>>;
    /// The instant by the wall clock.
    fn now(&self) -> Timestamp;
    /// Asks for an approval, or joins the one that the same request has asked for.
    fn ask(&self, asked: Box<Asked>) -> BoxFuture<'static, Result<Arc<Approval>, NotAsked>>;
    /// Waits for a decision on an approval, at most so long; where it is yes, the caller is checked again.
    fn hold(
        &self,
        approval: Id,
        presented: Presented,
        patience: Duration,
    ) -> BoxFuture<'static, Held>;
    /// Takes a use of a grant, before what it is for is forwarded; which one it is.
    fn take_use(&self, wanted: Use) -> BoxFuture<'static, Result<u32, NotUsed>>;
    /// Claims an approval, before what it is for is forwarded.
    fn claim(&self, claimed: Claimed) -> BoxFuture<'static, Result<Arc<Approval>, NotClaimed>>;
    /// Makes sealed frames durable, then records, in order; a stable code where that failed.
    fn record(
        &self,
        entries: Vec<Entry>,
        sealed: Vec<Frame>,
        durability: Durability,
    ) -> BoxFuture<'static, Result<(), &'static str>>;
    /// A stream began.
    fn began(&self);
    /// A stream ended.
    fn ended(&self, session: &str, summary: &Summary, took: Duration);
    /// Envoy is not configured as it must be; `why` is a stable code.
    fn misconfigured(&self, why: &'static str);
    /// Envoy is of this version, which is older than the oldest that was tried.
    fn outdated(&self, version: &str);
}

/// The service.
pub struct Service<B> {
    backing: Arc<B>,
    tasks: TaskTracker,
    /// How many bodies that take long are looked through at once: as many as there are cores. What a document is parsed into
    /// for that while is in no budget, and more at once would be done no sooner.
    large: Arc<Semaphore>,
    drain: CancellationToken,
}

impl<B> fmt::Debug for Service<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("streams", &self.tasks.len())
            .finish_non_exhaustive()
    }
}

impl<B: Backing> Service<B> {
    /// A service over `backing`. Streams run on `tasks`; when `drain` is cancelled, those still open are cut.
    #[must_use]
    pub fn new(backing: Arc<B>, tasks: TaskTracker, drain: CancellationToken) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            backing,
            tasks,
            large: Arc::new(Semaphore::new(cores)),
            drain,
        }
    }
}

#[tonic::async_trait]
impl<B: Backing> ExternalProcessor for Service<B> {
    type ProcessStream = Pin<Box<answers::Answers>>;

    async fn process(
        &self,
        request: Request<Streaming<ProcessingRequest>>,
    ) -> Result<Response<Self::ProcessStream>, Status> {
        let (teller, answers) = answers::channel();
        // Where Envoy traces, each of its streams is a span of its own.
        let trace = request.metadata().get("traceparent");
        let trace = trace
            .and_then(|trace| trace.to_str().ok())
            .unwrap_or_default();
        let trace = trace.to_owned();
        let driving = drive::drive(
            self.backing.clone(),
            self.tasks.clone(),
            self.large.clone(),
            request.into_inner(),
            trace,
            teller,
            // Of its own: a stream looks at it in each step, and all of them would wait for one lock.
            self.drain.child_token(),
        );
        self.tasks.spawn(driving);
        Ok(Response::new(Box::pin(answers)))
    }
}
