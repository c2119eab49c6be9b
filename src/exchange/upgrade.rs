//! WebSockets: decided on at the request's head, and from then on passed through unseen.
//!
//! Promises: none is made unless a policy says so in its own words, nothing is owed that would have to see behind it, and an
//! `opened` that says `websocket` under `unscanned` is durable; its `closed` says `unseen` where the upstream ended the session.
//! Never: looks into a frame, masks or counts anything in one.
//! Can miss: what the upstream says right before it hangs up. Envoy resets the stream then, with what is on its way to us.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::{
    Answer, Ending, Exchange, Mutation, Output, PIECE, Phase, Refusal, SESSION_HEADER,
    head::OUR_PREFIXES,
    headers::Headers,
    lending::Guard,
    request::{Body, Caller, Forward, Masked, Parts, Read, identity},
    response::Response,
};
use crate::{
    audit::record,
    dialect::{Endpoint, ShapeError},
    policy::{self, Call, Outcome},
};

/// What records say was not looked into, and conditions see as the endpoint.
const WEBSOCKET: &str = "websocket";

/// The code of a session of which nothing was seen behind its head.
pub(super) const UNSEEN: &str = "unseen";

/// What is called by an upgrade: it has no endpoint of the dialect's.
pub(super) const ENDPOINT: Endpoint = Endpoint {
    name: WEBSOCKET,
    method: "GET",
    path: "*",
};

/// Whether the head asks for a WebSocket and nothing else (RFC 6455, section 4.1). Envoy shows one of HTTP/2 (RFC 8441) in
/// this form too.
pub(super) fn is_websocket(method: &str, headers: &Headers) -> bool {
    let asked = headers.one("upgrade").ok().flatten();
    method == "GET"
        && !headers.has(":protocol")
        && asked.is_some_and(|asked| asked.eq_ignore_ascii_case(WEBSOCKET))
}

/// An answer that does not fit what was asked for: no switch where one was, or one where none was.
pub(super) fn not_made(status: u16) -> Refusal {
    Refusal::ResponseShape(ShapeError {
        code: "unexpected_status",
        reason: format!("the upstream answered {status}, which does not fit the request"),
    })
}

impl Exchange {
    /// What does policy say of the upgrade? Nothing of what follows will be seen, so nothing but the head is asked about.
    pub(super) fn decide_upgrade(&mut self, caller: Caller, body: Body, out: &mut Vec<Output>) {
        let Caller {
            mut head,
            principal,
            place,
            ..
        } = caller;
        if !body.is_untouched() {
            return self.refuse(Refusal::Upgrade, None, out);
        }
        let connection = head.connection.clone();
        head.stand_under(connection.clone());
        self.journal.known(identity(&principal), head.record());
        self.journal.guarded(head.lending.guard.clone());
        let call = Call {
            method: head.method.clone(),
            authority: head.authority.clone(),
            path: head.path.clone(),
            endpoint: WEBSOCKET.to_owned(),
            upgrade: true,
            ..Call::default()
        };
        let findings = BTreeMap::new();
        self.enter(Phase::Decide);
        let verdict = connection.chain.evaluate(&policy::Request {
            principal: &principal,
            call: &call,
            findings: &findings,
            connection: &connection.name,
            dialect: connection.dialect.name(),
            risk: self.rules.risk.score(&call, &findings),
            time: Some(self.rules.local_time(self.now)),
        });
        self.note_verdict(&verdict);
        self.leave();
        let read = Box::new(Read {
            decision: record::Decision {
                policies: verdict.decided_by,
                exempt_from: verdict.exempt_from,
                faults: verdict.faults,
                ..record::Decision::default()
            },
            request: record::RequestRecord {
                payload: "omit".into(),
                unscanned: vec![WEBSOCKET.to_owned()],
                ..record::RequestRecord::default()
            },
            original: None,
        });
        let permit = match verdict.outcome {
            Outcome::Allow(permit) => permit,
            Outcome::Deny(denial) => return self.refuse(Refusal::Denied(denial), Some(read), out),
            Outcome::Hold(_) => return self.refuse(Refusal::Upgrade, Some(read), out),
        };
        match head.mutation("") {
            Ok(mutation) => {
                let parts = Parts {
                    head: mutation,
                    lent: head.lent_from(""),
                    body: Masked::default(),
                    response: Response::Upgrading(head.lending.guard.clone()),
                };
                self.open(Forward::new(permit, parts, place), read, out);
            }
            Err(refusal) => self.refuse(refusal, Some(read), out),
        }
    }

    /// The upstream's answer to the upgrade: only a switch passes. What it says instead has no shape we know.
    pub(super) fn on_switched(
        &mut self,
        guard: Arc<Guard>,
        headers: &Headers,
        end: bool,
        out: &mut Vec<Output>,
    ) {
        self.leave();
        self.answered = headers.text(":status").parse().unwrap_or(0);
        if self.answered != 101 || end {
            self.response = Response::Upgrading(guard);
            return self.end(Ending::Refuse(not_made(self.answered)), out);
        }
        self.response = Response::Passed;
        let ours = |name: &str| {
            name != SESSION_HEADER && OUR_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        };
        let remove = headers
            .iter()
            .filter(|(name, value)| guard.finds(value) || ours(name))
            .map(|(name, _)| name.to_owned())
            .collect();
        let set = self.marks();
        self.give_head(Some(Mutation { set, remove }), out);
    }

    /// What the caller sends behind the head. Before the switch there may be none: an upstream that declines would take it
    /// for another request, which nobody decided on.
    pub(super) fn pass_request(&mut self, bytes: &Bytes, end: bool, out: &mut Vec<Output>) {
        // Some releases of Envoy send an empty piece first.
        let early = !self.response.is_passed();
        if self.ending.is_some() || (early && bytes.is_empty()) {
            return;
        }
        if early {
            return self.end(Ending::Refuse(Refusal::Upgrade), out);
        }
        let whole = pieces(bytes).map(|piece| Answer::RequestBody(piece, false));
        out.extend(whole.map(Output::Answer));
        if end {
            out.push(Output::Answer(Answer::RequestBody(Bytes::new(), true)));
        }
    }

    /// What the upstream sends behind the switch.
    pub(super) fn pass_answer(&mut self, bytes: &Bytes, end: bool, out: &mut Vec<Output>) {
        self.journal.received(bytes);
        let pieces = pieces(bytes).map(|piece| Answer::ResponseBody(piece, false));
        out.extend(pieces.map(Output::Answer));
        if end {
            self.end(Ending::Complete, out);
        }
    }
}

/// `bytes` in pieces Envoy takes.
fn pieces(bytes: &Bytes) -> impl Iterator<Item = Bytes> {
    let starts = (0..bytes.len()).step_by(PIECE);
    starts.map(|at| bytes.slice(at..bytes.len().min(at + PIECE)))
}
