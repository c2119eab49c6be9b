//! What the API reaches of the live handles.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use secrecy::SecretString;
use url::Url;

use super::{approvals, grants, live::Live};
use crate::{
    approval::{Approval, Decided, Event, Fate, Freshness, Id, Party, Stop},
    audit::{
        Durability,
        record::{ApprovalEvent, Entry, Event as Recorded},
    },
    config::Config,
    grant::{self, OAuthError, TokenRequest},
    http::{
        Backing, Unavailable,
        access::Access,
        list::{Filter, Page},
        oauth::{Active, Granted, Issuing},
    },
    identity::{Presented, Principal, TokenError},
    mask,
    runtime::control::ControlError,
};

/// Who may do what at the API, as the configuration in force says.
#[derive(Debug)]
pub(super) struct Desk {
    access: Arc<Access>,
    freshness: Freshness,
    /// Who may have which grant; `None` where none are made.
    pub(super) grants: Option<Arc<grant::Rules>>,
}

impl Desk {
    pub(super) fn of(config: &Config) -> Self {
        let access = Access {
            auditor: config.access.auditor.clone(),
            approver: config.access.approver.clone(),
            admin: config.access.admin.clone(),
            issuers: config.access.issuers.clone(),
            address: config
                .approvals
                .as_ref()
                .and_then(|approvals| address(approvals.public_url.as_ref()?)),
        };
        let freshness = config
            .approvals
            .as_ref()
            .map(|approvals| approvals.freshness);
        Self {
            access: Arc::new(access),
            grants: config
                .grants
                .as_ref()
                .map(|grants| Arc::new(grants.rules.clone())),
            // Without approvals there is nothing to decide.
            freshness: freshness.unwrap_or(Freshness {
                within: std::time::Duration::ZERO,
                or_issued: false,
            }),
        }
    }
}

/// A URL without its scheme, and without a slash at its end.
fn address(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    let port = url
        .port()
        .map_or_else(String::new, |port| format!(":{port}"));
    Some(format!("{host}{port}{}", url.path().trim_end_matches('/')))
}

impl Backing for Live {
    fn now(&self) -> Timestamp {
        self.clock().now()
    }

    fn access(&self) -> Arc<Access> {
        self.desk().access.clone()
    }

    fn freshness(&self) -> Freshness {
        self.desk().freshness
    }

    fn authenticate(
        &self,
        presented: Presented,
    ) -> BoxFuture<'static, Result<Arc<Principal>, TokenError>> {
        crate::grpc::Backing::authenticate(self, presented)
    }

    fn list(&self, filter: Filter) -> BoxFuture<'static, Result<Page, Unavailable>> {
        let page = self.control().map_or_else(
            || Ok(Page::default()),
            |control| {
                control.usable().map_err(unavailable)?;
                Ok(control.look(|all| filter.page(all.iter(), self.clock().now())))
            },
        );
        std::future::ready(page).boxed()
    }

    fn approval(&self, id: Id) -> BoxFuture<'static, Result<Option<Arc<Approval>>, Unavailable>> {
        let found = self.control().map_or(Ok(None), |control| {
            control.usable().map_err(unavailable)?;
            Ok(control.approval(&id))
        });
        std::future::ready(found).boxed()
    }

    fn decide(&self, decided: Decided) -> BoxFuture<'static, Result<Fate, Unavailable>> {
        let reason = match self
            .control()
            .and_then(|control| control.approval(&decided.id))
        {
            Some(approval) => self.masked(&approval.asked.view.connection, &decided.reason),
            None => String::new(),
        };
        self.append(Event::Decided(Box::new(Decided { reason, ..decided })))
    }

    fn cancel(&self, stop: Stop) -> BoxFuture<'static, Result<Fate, Unavailable>> {
        self.append(Event::Cancelled(stop))
    }

    fn issuing(&self) -> Option<Issuing> {
        let (grants, _) = self.grants()?;
        Some(Issuing {
            issuer: grants.issuer().to_owned(),
            jwks: grants.keys.jwks().clone(),
            takes_assertions: self.takes_assertions(),
        })
    }

    fn public_url(&self) -> String {
        self.rules_in_force().approvals.public_url.clone()
    }

    fn grant(
        &self,
        asked: TokenRequest,
        proof: Option<SecretString>,
    ) -> BoxFuture<'static, Result<Granted, OAuthError>> {
        match self.shared() {
            Some(live) => async move {
                let answer = grants::grant(live.clone(), asked, proof).await;
                live.granted(&answer);
                answer
            }
            .boxed(),
            None => std::future::ready(Err(OAuthError::Unavailable("shutting_down"))).boxed(),
        }
    }

    fn introspect(
        &self,
        token: SecretString,
    ) -> BoxFuture<'static, Result<Option<Active>, Unavailable>> {
        std::future::ready(grants::introspect(self, &token)).boxed()
    }

    fn revoke(&self, token: SecretString) -> BoxFuture<'static, Result<(), Unavailable>> {
        match self.shared() {
            Some(live) => grants::revoke(live, token).boxed(),
            None => std::future::ready(Err(Unavailable("shutting_down"))).boxed(),
        }
    }

    fn revoke_id(&self, id: Id, by: Party) -> BoxFuture<'static, Result<(), Unavailable>> {
        match self.shared() {
            Some(live) => grants::revoke_id(live, id, by).boxed(),
            None => std::future::ready(Err(Unavailable("shutting_down"))).boxed(),
        }
    }

    fn seen(
        &self,
        approval: Arc<Approval>,
        by: Party,
    ) -> BoxFuture<'static, Result<(), Unavailable>> {
        self.put_on_record(&approval, by, "seen", "")
    }

    fn rejected(
        &self,
        approval: Arc<Approval>,
        by: Party,
        code: &'static str,
    ) -> BoxFuture<'static, Result<(), Unavailable>> {
        self.put_on_record(&approval, by, "rejected", code)
    }
}

impl Live {
    fn append(&self, event: Event) -> BoxFuture<'static, Result<Fate, Unavailable>> {
        let control = self.control().cloned();
        async move {
            let control = control.ok_or(unavailable(ControlError::Unreachable))?;
            control.append(event).await.map_err(unavailable)
        }
        .boxed()
    }

    /// What somebody wrote about a connection, as records may show it.
    pub(super) fn masked(&self, name: &str, text: &str) -> String {
        let rules = self.rules_in_force();
        let mut connections = rules.connections.iter();
        // Where it is gone, by the rules of any other: what a detector knows is the same to all.
        let connection = connections
            .find(|connection| connection.name == name)
            .or(rules.connections.first());
        connection.map_or_else(String::new, |known| {
            mask::mask(known.lender.current().guard.record_plan(), text).0
        })
    }

    fn put_on_record(
        &self,
        approval: &Approval,
        by: Party,
        action: &str,
        code: &str,
    ) -> BoxFuture<'static, Result<(), Unavailable>> {
        let ledger = self.ledger().clone();
        let state = approval.state_at(self.clock().now());
        let told = ApprovalEvent {
            issuer: by.issuer,
            subject: by.subject,
            code: code.to_owned(),
            ..approvals::about(approval, state, action)
        };
        let entry = Entry {
            session: approval.asked.session.clone(),
            event: Recorded::Approval(Box::new(told)),
        };
        async move {
            let appended = ledger.append(entry, Durability::Disk).await;
            appended
                .map(drop)
                .map_err(|error| Unavailable(error.code()))
        }
        .boxed()
    }
}

fn unavailable(error: ControlError) -> Unavailable {
    Unavailable(error.code())
}
