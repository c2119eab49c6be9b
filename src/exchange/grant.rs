//! A caller who holds a grant: what it narrows them to, and the use that is taken before anything is forwarded.

use jiff::Timestamp;

use super::{
    Exchange, NotUsed, Output, Phase, Refusal,
    approval::Claiming,
    head::Head,
    request::{Caller, Forward, Read, Request},
};
use crate::{
    approval::{Use, share},
    dialect::Endpoint,
    identity::{Principal, TokenError},
    policy::ModelPattern,
};

/// A request that may go, while the use of the caller's grant is taken.
pub(super) struct Using {
    then: Then,
    read: Box<Read>,
}

/// What comes after the use was taken.
pub(super) enum Then {
    /// It goes on record, and upstream.
    Open(Box<Forward>),
    /// Its approval is claimed.
    Claim(Box<Claiming>),
}

impl Using {
    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        let then = match &self.then {
            Then::Open(forward) => forward.memory(),
            Then::Claim(claiming) => claiming.memory(),
        };
        then + self.read.memory()
    }
}

/// Whether the caller's grant, if they came with one, is good for this endpoint of this connection.
pub(super) fn covers_endpoint(
    principal: &Principal,
    head: &Head,
    endpoint: &Endpoint,
) -> Result<(), Refusal> {
    let Some(grant) = &principal.grant else {
        return Ok(());
    };
    let scope = &grant.scope;
    if scope.connection != head.connection.name {
        return Err(Refusal::OutsideGrant("connection"));
    }
    let methods = &scope.methods;
    // Behind an upgrade nobody could tell which method or model is used, or how often.
    if head.upgrade || !methods.is_empty() && !methods.iter().any(|method| method == endpoint.name)
    {
        return Err(Refusal::OutsideGrant("method"));
    }
    Ok(())
}

/// Whether the caller's grant, if they came with one, still counts at `now`, when the whole body is here, and is used once where it says so.
pub(super) fn still_counts(caller: &Caller, now: Timestamp) -> Result<(), Refusal> {
    let Some(grant) = &caller.principal.grant else {
        return Ok(());
    };
    if now >= caller.principal.expires_at {
        return Err(Refusal::BadToken(TokenError::Expired));
    }
    // Envoy would send it again and again under one use.
    if grant.scope.max_uses.is_some() && caller.head.asks_for_retries() {
        return Err(Refusal::RetriesAsked);
    }
    Ok(())
}

/// Whether the caller's grant, if they came with one, is good for this model.
pub(super) fn covers_model(principal: &Principal, model: &str) -> bool {
    let Some(grant) = &principal.grant else {
        return true;
    };
    let fits =
        |pattern: &String| ModelPattern::new(pattern).is_some_and(|pattern| pattern.matches(model));
    grant.scope.models.is_empty() || grant.scope.models.iter().any(fits)
}

impl Exchange {
    /// Takes a use of the caller's grant where its uses are counted, and then does `then`.
    pub(super) fn take_use(
        &mut self,
        principal: &Principal,
        then: Then,
        read: Box<Read>,
        out: &mut Vec<Output>,
    ) {
        let counted = principal
            .grant
            .as_ref()
            .and_then(|grant| Some((grant.id.clone(), grant.scope.max_uses?)));
        let Some((grant, max_uses)) = counted else {
            return self.after_use(then, read, out);
        };
        let wanted = Use {
            grant,
            max_uses,
            until: principal.expires_at.as_second(),
            session: self.session().to_owned(),
            share: share(&principal.issuer, &principal.subject),
        };
        self.enter(Phase::Claim);
        self.request = Request::AwaitingUse(Box::new(Using { then, read }));
        out.push(Output::Use(wanted));
    }

    fn after_use(&mut self, then: Then, read: Box<Read>, out: &mut Vec<Output>) {
        match then {
            Then::Open(forward) => self.open(*forward, read, out),
            Then::Claim(claiming) => self.claim(claiming, read, out),
        }
    }

    /// The use is in the control log, or it is not known whether.
    pub(super) fn on_used(&mut self, result: Result<u32, NotUsed>, out: &mut Vec<Output>) {
        let Using { then, mut read } = match std::mem::replace(&mut self.request, Request::Refused)
        {
            Request::AwaitingUse(using) => *using,
            other => {
                self.request = other;
                return self.protocol_error(out);
            }
        };
        match result {
            Ok(number) => read.used(number),
            Err(not) => {
                let refusal = match not {
                    NotUsed::Over => Refusal::GrantUsedUp,
                    NotUsed::Revoked => Refusal::BadToken(TokenError::GrantRevoked),
                    NotUsed::TooMany => Refusal::TooManyGrants,
                    NotUsed::Unavailable => Refusal::GrantsUnavailable,
                };
                return self.refuse(refusal, Some(read), out);
            }
        }
        if let Some(refusal) = self.unwanted.take() {
            // The use is spent all the same: whether it was forwarded must not be a matter of doubt.
            return self.refuse(refusal, Some(read), out);
        }
        self.after_use(then, read, out);
    }
}
