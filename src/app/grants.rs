//! Grants at work: made for callers who ask, used by exchanges, revoked.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use tracing::{error, warn};
use uuid::Uuid;

use super::{approvals, live::Live};
#[cfg(feature = "saml")]
use crate::identity::saml::{self, SamlError};
use crate::{
    approval::{
        Approval, Asked, Binding, Claimed, Event, Fate, Id, Ignored, LONGEST_GRANT, Party, Placed,
        Requirement, Revoked, State, Use, share,
    },
    audit::{
        Durability,
        record::{Entry, Event as Recorded, GrantEvent},
    },
    exchange::{NotAsked, NotClaimed, NotUsed, identity_of_record, of_record},
    grant::{OAuthError, Subject, Terms, TokenRequest},
    http::{
        Unavailable,
        oauth::{Active, Granted},
    },
    identity::{
        Bound, GrantClaims, MAX_TOKEN_BYTES, Presented, Principal, Purpose, Scheme, Scope, Token,
        TokenError, peek,
    },
    runtime::{control::Control, grants::Grants},
};

/// Whether the control log cannot be reached: the code that callers see.
const UNAVAILABLE: &str = "grants_unavailable";

/// Takes a use of a grant.
pub(super) async fn take_use(control: Option<Control>, wanted: Use) -> Result<u32, NotUsed> {
    let control = control.ok_or(NotUsed::Unavailable)?;
    match control.append(Event::Used(wanted)).await {
        Ok(Fate::Used(number)) => Ok(number),
        Ok(Fate::Ignored(Ignored::Revoked)) => Err(NotUsed::Revoked),
        Ok(Fate::Ignored(Ignored::UsedUp | Ignored::Late)) => Err(NotUsed::Over),
        Ok(Fate::Ignored(Ignored::TooManyGrants)) => Err(NotUsed::TooMany),
        Ok(fate) => {
            error!(?fate, "a grant could not be used");
            Err(NotUsed::Unavailable)
        }
        Err(_) => Err(NotUsed::Unavailable),
    }
}

/// Makes a grant for whoever shows that they may have it.
pub(super) async fn grant(
    live: Arc<Live>,
    request: TokenRequest,
    proof: Option<SecretString>,
) -> Result<Granted, OAuthError> {
    let (grants, rules) = live.grants().ok_or(OAuthError::UnsupportedGrantType)?;
    // Without its scheme, as proofs are compared with it.
    let target = grants
        .issuer()
        .split_once("://")
        .map(|(_, host)| format!("{host}/oauth2/token"));
    let shown = Presented {
        token: None,
        proof,
        purpose: Purpose::Inference,
        method: "POST".to_owned(),
        target,
        certificate: None,
        again: false,
    };
    let (caller, jkt, once) = match request.subject {
        Subject::Token(token) => {
            let (caller, jkt) = holder(&live, token, shown).await?;
            (caller, jkt, None)
        }
        Subject::Assertion(assertion) => {
            let (caller, once) = asserted(&live, &assertion).await?;
            // Behind what is asked of the assertion: a proof is used by who may have something for it.
            let key = match &shown.proof {
                Some(_) => Some(live.possessed_key(&caller, &shown).map_err(invalid)?),
                None => None,
            };
            (caller, key.map(|key| URL_SAFE_NO_PAD.encode(key)), once)
        }
    };
    // Asked at once, so that a used one asks nobody for an approval; what decides is the claim below.
    let used = |once: &Use| grants.control.look(|register| register.used(&once.grant)) > 0;
    if once.as_ref().is_some_and(used) {
        return Err(used_before());
    }
    let in_force = live.rules_in_force();
    let _place = in_force
        .admission
        .enter(&caller.issuer, &caller.subject)
        .map_err(|_| OAuthError::Unavailable("overloaded"))?;
    let now = live.now();
    let time = in_force.local_time(now);
    let decided = rules.decide(&caller, &request.ask, jkt, now, time);
    let making = Making {
        live: &live,
        grants: &grants,
        caller: &caller,
    };
    let terms = match decided {
        Ok(terms) => terms,
        Err(not) => {
            if let crate::grant::NotGiven::CannotEvaluate(why) = &not {
                warn!(
                    why,
                    "a rule for grants could not be evaluated, so it gave nothing"
                );
            }
            let mut told = making.told("refused");
            // What was asked for is the caller's text.
            told.connection = live.masked("", &request.ask.connection);
            told.code = not.code().to_owned();
            making.record(told).await?;
            return Err(OAuthError::AccessDenied(
                not.code(),
                not.message().to_owned(),
            ));
        }
    };
    // As people and records may see it: models and reason are the caller's text.
    let masked = |text: &String| live.masked(&terms.scope.connection, text);
    let shown = Terms {
        scope: Scope {
            models: terms.scope.models.iter().map(masked).collect(),
            ..terms.scope.clone()
        },
        reason: masked(&terms.reason),
        ..terms.clone()
    };
    // Nobody is asked about what could not be made anyhow.
    making.sign(&terms, live.now(), Some(Uuid::nil().to_string()))?;
    let approval = match &terms.approval {
        None => None,
        Some(requirement) => Some(
            making
                .approved(&terms, &shown, requirement, rules.issuer.as_str())
                .await?,
        ),
    };
    if let Some(once) = once {
        // Only now: until the grant is made the same assertion may ask how its approval stands. A crash after this line wastes
        // it, and the approval.
        take_use(live.control().cloned(), once)
            .await
            .map_err(|not| match not {
                NotUsed::Unavailable => OAuthError::Unavailable(UNAVAILABLE),
                NotUsed::Over | NotUsed::Revoked => used_before(),
                NotUsed::TooMany => {
                    let why =
                        "too many of your grants and assertions were used and have not expired yet";
                    OAuthError::AccessDenied("too_many_grants", why.to_owned())
                }
            })?;
    }
    making.issue(&terms, shown, approval).await
}

fn used_before() -> OAuthError {
    let why = "the assertion was used before; get a new one";
    OAuthError::InvalidGrant("saml_used", why.to_owned())
}

/// Whose assertion this is, and what to claim so that it counts once.
#[cfg(feature = "saml")]
async fn asserted(
    live: &Live,
    shown: &SecretString,
) -> Result<(Arc<Principal>, Option<Use>), OAuthError> {
    let invalid = |error: SamlError| match error {
        SamlError::IssuerUnavailable => OAuthError::Unavailable(error.code()),
        _ => OAuthError::InvalidGrant(error.code(), error.to_string()),
    };
    let authenticator = live.authenticator();
    let assertions = authenticator.assertions();
    if assertions.is_empty() {
        return Err(OAuthError::UnsupportedGrantType);
    }
    let document = saml::decode(shown.expose_secret()).map_err(invalid)?;
    let verified = assertions.verify(&document, live.now()).await;
    let verified = verified.map_err(invalid)?;
    let once = Use {
        grant: verified.claim(),
        max_uses: 1,
        until: verified.claim_until.as_second(),
        session: Uuid::now_v7().to_string(),
        share: share(&verified.principal.issuer, &verified.principal.subject),
    };
    Ok((Arc::new(verified.principal), Some(once)))
}

#[cfg(not(feature = "saml"))]
async fn asserted(_: &Live, _: &SecretString) -> Result<(Arc<Principal>, Option<Use>), OAuthError> {
    Err(OAuthError::UnsupportedGrantType)
}

/// Whose token this is, and the key that the grant is to be bound to: the one that the token is bound to itself, whose holder must prove to
/// have it, or else the one of the proof that came along. A grant is nobody's to get another with.
async fn holder(
    live: &Live,
    token: SecretString,
    shown: Presented,
) -> Result<(Arc<Principal>, Option<String>), OAuthError> {
    let token = Token {
        scheme: Scheme::Bare,
        text: token,
    };
    let shown = Presented {
        token: Some(token),
        ..shown
    };
    let (caller, key) = live.exchanged(&shown).await.map_err(invalid)?;
    if caller.grant.is_some() {
        return Err(invalid(TokenError::WrongType));
    }
    Ok((caller, key.map(|key| URL_SAFE_NO_PAD.encode(key))))
}

fn invalid(error: TokenError) -> OAuthError {
    let challenge = error.challenge();
    match (challenge.status, challenge.error) {
        (503, _) => OAuthError::Unavailable(error.code()),
        (_, Some("invalid_dpop_proof")) => {
            OAuthError::InvalidProof(error.code(), error.to_string())
        }
        _ => OAuthError::InvalidGrant(error.code(), error.to_string()),
    }
}

/// A grant while it is made.
struct Making<'a> {
    live: &'a Live,
    grants: &'a Grants,
    caller: &'a Principal,
}

impl Making<'_> {
    /// The approval that the grant is made under, used up by it; an error where there is none yet.
    async fn approved(
        &self,
        terms: &Terms,
        shown: &Terms,
        requirement: &Requirement,
        issuer: &str,
    ) -> Result<Arc<Approval>, OAuthError> {
        let unavailable = |_| OAuthError::Unavailable(UNAVAILABLE);
        let party = Party::from(self.caller);
        let lines = shown.lines();
        // What is masked alike must not be taken for the same.
        let bound = (&lines, &terms.scope, &terms.reason, requirement);
        let bound = serde_json::to_string(&bound).map_err(unavailable)?;
        let id =
            Id::new(&Uuid::now_v7().to_string()).ok_or(OAuthError::Unavailable(UNAVAILABLE))?;
        let asked = Asked {
            session: id.to_string(),
            id,
            request: terms.digest(&party, issuer, &bound),
            caller: party,
            requirement: requirement.clone(),
            most_pending: self.live.rules_in_force().approvals.most_pending,
            view: shown.view(lines, issuer),
        };
        let control = self.live.control().cloned();
        let asked = approvals::ask(control.clone(), Box::new(asked)).await;
        let approval = asked.map_err(|not| match not {
            NotAsked::TooMany => OAuthError::AccessDenied(
                "too_many_approvals",
                "too many of your requests wait for an approval".to_owned(),
            ),
            NotAsked::Unavailable(code) => OAuthError::Unavailable(code),
        })?;
        let denied = |code: &'static str, why: &str| OAuthError::AccessDenied(code, why.to_owned());
        match approval.state_at(self.live.now()) {
            State::Approved => {}
            State::Pending => return Err(OAuthError::Pending(approval.asked.id.to_string())),
            State::Denied => {
                return Err(denied("approval_denied", "somebody said no to this grant"));
            }
            State::Expired | State::Cancelled | State::Consumed => {
                return Err(denied("approval_expired", "the approval is over; ask anew"));
            }
        }
        let claimed = Claimed {
            id: approval.asked.id.clone(),
            binding: Binding(&approval.asked).digest(),
            session: approval.asked.session.clone(),
        };
        let claimed = approvals::claim(control, claimed).await;
        claimed.map_err(|not| match not {
            NotClaimed::Over(_) => denied("approval_used", "the approval was used; ask anew"),
            NotClaimed::Unavailable(code) => OAuthError::Unavailable(code),
        })
    }

    /// A token of these terms, by its id, made at `now`.
    fn sign(
        &self,
        terms: &Terms,
        now: Timestamp,
        approval: Option<String>,
    ) -> Result<(String, String), OAuthError> {
        let failed = |why: &dyn std::fmt::Display| {
            error!(%why, "a grant could not be made");
            OAuthError::Unavailable(UNAVAILABLE)
        };
        let id = Uuid::now_v7().to_string();
        let cnf = terms.jkt.as_ref();
        let cnf = cnf.map(|jkt| Bound::read(&serde_json::json!({ "jkt": jkt })));
        let claims = GrantClaims {
            iss: self.grants.issuer().to_owned(),
            aud: self.grants.issuer().to_owned(),
            sub: self.caller.subject.clone(),
            jti: id.clone(),
            iat: now.as_second(),
            nbf: terms.begins(now),
            exp: terms.ends(now),
            authorization_details: [terms.scope.clone()],
            cnf: cnf.transpose().map_err(|why| failed(&why))?,
            holder: self.caller.holder(approval),
        };
        let token = self.grants.keys.sign(&claims).map_err(|why| failed(&why))?;
        if token.len() > MAX_TOKEN_BYTES {
            let why = "your token says too much of you for a grant to carry it over";
            return Err(OAuthError::AccessDenied("grant_too_large", why.to_owned()));
        }
        Ok((id, token))
    }

    /// Signs the grant, puts it on record as it may be `shown`, and gives it away.
    async fn issue(
        &self,
        terms: &Terms,
        shown: Terms,
        approval: Option<Arc<Approval>>,
    ) -> Result<Granted, OAuthError> {
        let now = self.live.now();
        let (begins, ends) = (terms.begins(now), terms.ends(now));
        let under = approval.as_ref();
        let under = under.map(|approval| approval.asked.id.to_string());
        let (id, token) = self.sign(terms, now, under)?;
        let spelled = |second| {
            Timestamp::from_second(second).map_or_else(|_| String::new(), |at| at.to_string())
        };
        let scope = &terms.scope;
        let told = GrantEvent {
            id,
            connection: scope.connection.clone(),
            models: shown.scope.models,
            methods: scope.methods.clone(),
            max_uses: scope.max_uses.unwrap_or(0),
            not_before: spelled(begins),
            until: spelled(ends),
            rule: terms.rule.clone(),
            reason: shown.reason,
            bound_to: terms.jkt.clone().unwrap_or_default(),
            approval: approval.map(|approval| of_record(&approval, approval.state)),
            ..self.told("issued")
        };
        // INVARIANT: on record before anybody can use it.
        self.record(told).await?;
        Ok(Granted {
            token: token.into(),
            scope: scope.clone(),
            expires_in: ends - now.as_second(),
            bound: terms.jkt.is_some(),
        })
    }

    fn told(&self, action: &str) -> GrantEvent {
        GrantEvent {
            action: action.to_owned(),
            identity: Some(identity_of_record(self.caller)),
            ..GrantEvent::default()
        }
    }

    async fn record(&self, told: GrantEvent) -> Result<(), OAuthError> {
        let entry = Entry {
            session: String::new(),
            event: Recorded::Grant(Box::new(told)),
        };
        let appended = self.live.ledger().append(entry, Durability::Disk).await;
        appended
            .map(drop)
            .map_err(|error| OAuthError::Unavailable(error.code()))
    }
}

/// The grant that `token` is, if it counts now.
pub(super) fn introspect(live: &Live, token: &SecretString) -> Result<Option<Active>, Unavailable> {
    let Some((grants, _)) = live.grants() else {
        return Ok(None);
    };
    let Some(holder) = held(&grants, token, live.now()) else {
        return Ok(None);
    };
    let Some(grant) = &holder.grant else {
        return Ok(None);
    };
    match grants.check(&holder) {
        Ok(()) => {}
        Err(TokenError::GrantRevoked) => return Ok(None),
        Err(error) => return Err(Unavailable(error.code())),
    }
    let used = grants.control.look(|register| register.used(&grant.id));
    if grant.scope.max_uses.is_some_and(|most| used >= most) {
        return Ok(None);
    }
    Ok(Some(Active {
        id: grant.id.clone(),
        holder: (holder.issuer.clone(), holder.subject.clone()),
        scope: grant.scope.clone(),
        used: grant.scope.max_uses.map(|_| used),
        times: (
            holder.issued_at.map(Timestamp::as_second),
            holder.expires_at.as_second(),
        ),
    }))
}

/// Revokes the grant that `token` is, also one that has not begun. What is none, is over or was revoked before needs no revoking.
pub(super) async fn revoke(live: Arc<Live>, token: SecretString) -> Result<(), Unavailable> {
    let Some((grants, _)) = live.grants() else {
        return Ok(());
    };
    let read = peek(token.expose_secret()).and_then(|token| grants.read(&token));
    let Ok(claims) = read else {
        return Ok(());
    };
    let is_over = claims.exp <= live.now().as_second();
    // One event is enough: repeats would fill the log.
    if is_over || grants.control.is_revoked(&claims.jti) == Ok(true) {
        return Ok(());
    }
    let revoked = Revoked {
        grant: claims.jti,
        until: claims.exp,
        by: None,
        share: share(&claims.holder.iss, &claims.sub),
    };
    put(&grants, revoked).await
}

/// Revokes the grant of this id, should there be one: for as long as one could last that was made a moment ago.
pub(super) async fn revoke_id(live: Arc<Live>, id: Id, by: Party) -> Result<(), Unavailable> {
    let Some((grants, _)) = live.grants() else {
        return Err(Unavailable(UNAVAILABLE));
    };
    // A little less than what is remembered at most: this clock may be ahead of the log's.
    let longest = SignedDuration::try_from(LONGEST_GRANT).unwrap_or(SignedDuration::ZERO);
    let until = live.now() + longest - SignedDuration::from_mins(5);
    let revoked = Revoked {
        grant: id.to_string(),
        until: until.as_second(),
        by: Some(by),
        share: String::new(),
    };
    put(&grants, revoked).await
}

fn held(grants: &Grants, token: &SecretString, now: Timestamp) -> Option<Principal> {
    let token = peek(token.expose_secret()).ok()?;
    grants.verify(&token, now).ok()
}

async fn put(grants: &Grants, revoked: Revoked) -> Result<(), Unavailable> {
    match grants.control.append(Event::Revoked(revoked)).await {
        Ok(Fate::Revoked(_)) => Ok(()),
        // It is over by the log's time, or somebody else was faster.
        Ok(Fate::Ignored(Ignored::Late | Ignored::Revoked)) => Ok(()),
        Ok(Fate::Ignored(Ignored::TooManyGrants)) => Err(Unavailable("too_many_grants")),
        Ok(fate) => {
            error!(?fate, "a grant could not be revoked");
            Err(Unavailable(UNAVAILABLE))
        }
        Err(_) => Err(Unavailable(UNAVAILABLE)),
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
        let until = Timestamp::from_second(revoked.until);
        told.until = until.map_or_else(|_| String::new(), |at| at.to_string());
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
