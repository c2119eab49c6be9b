//! What the API acts on. Until approvals are kept there are none, and nobody has a role.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture, future::ready};
use jiff::Timestamp;
use secrecy::SecretString;

use super::live::Live;
use crate::{
    approval::{Approval, Decided, Fate, Freshness, Id, Party, Stop},
    grpc,
    http::{
        Backing, Unavailable,
        access::Access,
        list::{Filter, Page},
    },
    identity::{Principal, TokenError},
};

/// There is no control log.
const OFF: Unavailable = Unavailable("approvals_off");

impl Backing for Live {
    fn now(&self) -> Timestamp {
        self.clock().now()
    }

    fn access(&self) -> Arc<Access> {
        Arc::default()
    }

    fn freshness(&self) -> Freshness {
        Freshness {
            within: Duration::ZERO,
            or_issued: false,
        }
    }

    fn authenticate(
        &self,
        token: SecretString,
    ) -> BoxFuture<'static, Result<Arc<Principal>, TokenError>> {
        grpc::Backing::authenticate(self, token)
    }

    fn list(&self, _: Filter) -> BoxFuture<'static, Result<Page, Unavailable>> {
        ready(Err(OFF)).boxed()
    }

    fn approval(&self, _: Id) -> BoxFuture<'static, Result<Option<Arc<Approval>>, Unavailable>> {
        ready(Ok(None)).boxed()
    }

    fn decide(&self, _: Decided) -> BoxFuture<'static, Result<Fate, Unavailable>> {
        ready(Err(OFF)).boxed()
    }

    fn cancel(&self, _: Stop) -> BoxFuture<'static, Result<Fate, Unavailable>> {
        ready(Err(OFF)).boxed()
    }

    fn seen(&self, _: Arc<Approval>, _: Party) -> BoxFuture<'static, Result<(), Unavailable>> {
        ready(Err(OFF)).boxed()
    }
}
