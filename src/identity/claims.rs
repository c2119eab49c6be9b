//! The claims of a token (RFC 7519, section 4) held against the rules of its issuer.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Bound, IssuerRules, TokenError, json, jws::Typ, person};

/// Most groups a token may name. More is refused, not cut: a rule may deny by the group that was cut away.
pub(super) const MAX_GROUPS: usize = 512;
/// Longest name of a group, in bytes.
pub(super) const MAX_GROUP_BYTES: usize = 256;
/// Longest subject, in bytes (OIDC Core, section 2: 255 ASCII characters).
pub(super) const MAX_SUBJECT_BYTES: usize = 255;
/// Claims that only ID tokens are given.
const ID_TOKEN_CLAIMS: [&str; 4] = ["nonce", "at_hash", "c_hash", "s_hash"];

/// The claims as they were written.
pub(super) struct Claims(Map<String, Value>);

// Written by hand: claims are personal data.
impl std::fmt::Debug for Claims {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Claims")
            .field(&format_args!("{} members", self.0.len()))
            .finish()
    }
}

/// What was taken from claims that passed.
pub(super) struct Accepted {
    pub(super) subject: String,
    pub(super) audiences: Vec<String>,
    pub(super) groups: Vec<String>,
    pub(super) claims: BTreeMap<String, Value>,
    pub(super) expires_at: Timestamp,
    pub(super) authenticated_at: Option<Timestamp>,
    pub(super) issued_at: Option<Timestamp>,
    pub(super) also: BTreeSet<String>,
    pub(super) person_missing: bool,
    pub(super) bound: Bound,
}

/// When things happened to the token, and will.
struct Times {
    expires_at: Timestamp,
    authenticated_at: Option<Timestamp>,
    issued_at: Option<Timestamp>,
}

impl Claims {
    pub(super) fn parse(payload: &[u8]) -> Result<Self, TokenError> {
        Ok(Self(json::object(payload)?))
    }

    /// What an issuer answered about a token. A client that calls for itself has no `sub` at some issuers.
    pub(super) fn answered(mut members: Map<String, Value>) -> Self {
        if !members.contains_key("sub")
            && let Some(client) = members.get("client_id").cloned()
        {
            members.insert("sub".to_owned(), client);
        }
        Self(members)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether `token_type`, where an answer has it, is a kind that counts here: `Bearer`, or `DPoP` of a token that is bound to a key
    /// (RFC 9449, 6.2). What the token is bound to is looked at with the other claims, whatever this says.
    pub(super) fn check_token_type(&self) -> Result<(), TokenError> {
        let counts = |kind: &Value| {
            let kind = kind.as_str().unwrap_or_default();
            let bound_to_key = || {
                self.0
                    .get("cnf")
                    .is_some_and(|cnf| cnf.get("jkt").is_some())
            };
            kind.eq_ignore_ascii_case("bearer")
                || kind.eq_ignore_ascii_case("dpop") && bound_to_key()
        };
        // What some servers call the kind of token in their own way: of a refresh token they say that it is active, too.
        let used_for_access =
            |kind: &Value| matches!(kind.as_str(), Some("access_token" | "access"));
        let access = self.0.get("token_use").is_none_or(used_for_access);
        match access && self.0.get("token_type").is_none_or(counts) {
            true => Ok(()),
            false => Err(TokenError::WrongType),
        }
    }

    pub(super) fn issuer(&self) -> Result<&str, TokenError> {
        self.0
            .get("iss")
            .and_then(Value::as_str)
            .ok_or(TokenError::IssuerMissing)
    }

    pub(super) fn accept(
        mut self,
        typ: Typ,
        rules: &IssuerRules,
        now: Timestamp,
    ) -> Result<Accepted, TokenError> {
        self.check_type(typ, rules)?;
        let audiences = self.audiences(rules)?;
        let times = self.check_times(rules, now)?;
        let subject = self.subject()?;
        let claims = rules
            .claims
            .iter()
            .filter_map(|name| self.lookup(name).map(|value| (name.clone(), value.clone())))
            .collect();
        let (also, person_missing) = self.also(rules)?;
        let bound = self.bound(rules)?;
        // The last, as it takes them out: there may be hundreds.
        let groups = rules
            .groups_claim
            .as_deref()
            .map_or(Ok(Vec::new()), |name| self.take_groups(name))?;
        Ok(Accepted {
            subject,
            audiences,
            groups,
            claims,
            expires_at: times.expires_at,
            authenticated_at: times.authenticated_at,
            issued_at: times.issued_at,
            also,
            person_missing,
            bound,
        })
    }

    /// The rule told at [`IssuerRules::allow_id_tokens`]; further, what says that it is a refresh, logout or event token
    /// never passes.
    pub(super) fn check_type(&self, typ: Typ, rules: &IssuerRules) -> Result<(), TokenError> {
        // Keycloak puts the kind of token into a claim and the same `JWT` into every header.
        let kind = self.0.get("typ").and_then(Value::as_str);
        let other = matches!(typ, Typ::Other | Typ::Grant | Typ::Proof)
            || matches!(kind, Some("Refresh" | "Offline" | "Logout"))
            // A logout token (OIDC Back-Channel Logout 2.4) or another security event (RFC 8417).
            || self.0.contains_key("events");
        if other {
            return Err(TokenError::WrongType);
        }
        let id_token = kind == Some("ID")
            || typ == Typ::Jwt
                && ID_TOKEN_CLAIMS
                    .iter()
                    .any(|claim| self.0.contains_key(*claim));
        if id_token && !rules.allow_id_tokens {
            return Err(TokenError::IdToken);
        }
        Ok(())
    }

    /// Those of ours that it is for.
    fn audiences(&self, rules: &IssuerRules) -> Result<Vec<String>, TokenError> {
        let named: Vec<&str> = match self.0.get("aud") {
            None => return Err(TokenError::AudienceMissing),
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(list)) => list
                .iter()
                .map(Value::as_str)
                .collect::<Option<_>>()
                .ok_or(TokenError::AudienceInvalid)?,
            Some(_) => return Err(TokenError::AudienceInvalid),
        };
        let ours = named.into_iter().filter(|audience| rules.knows(audience));
        let ours: BTreeSet<String> = ours.map(str::to_owned).collect();
        if ours.is_empty() {
            return Err(TokenError::WrongAudience);
        }
        Ok(ours.into_iter().collect())
    }

    fn check_times(&self, rules: &IssuerRules, now: Timestamp) -> Result<Times, TokenError> {
        let skew = i64::try_from(rules.skew().as_secs()).unwrap_or(i64::MAX);
        let exp = self.0.get("exp").ok_or(TokenError::ExpiryMissing)?;
        let expires_at = instant(exp, f64::floor).ok_or(TokenError::ExpiryInvalid)?;
        if now.as_second() >= expires_at.as_second().saturating_add(skew) {
            return Err(TokenError::Expired);
        }
        let latest = now.as_second().saturating_add(skew);
        if let Some(nbf) = self.0.get("nbf") {
            let nbf = instant(nbf, f64::ceil).ok_or(TokenError::NotBeforeInvalid)?;
            if nbf.as_second() > latest {
                return Err(TokenError::NotYetValid);
            }
        }
        let moment = |name: &str, fault: TokenError| {
            let value = self.0.get(name);
            value
                .map(|value| instant(value, f64::floor).ok_or(fault))
                .transpose()
        };
        let issued_at = moment("iat", TokenError::IssuedAtInvalid)?;
        if issued_at.is_some_and(|iat| iat.as_second() > latest) {
            return Err(TokenError::IssuedInFuture);
        }
        // One that lies ahead is no reason to refuse a call; whoever asks how fresh it is must ask that too.
        let authenticated_at = moment("auth_time", TokenError::AuthTimeInvalid)?;
        Ok(Times {
            expires_at,
            authenticated_at,
            issued_at,
        })
    }

    /// What the token is bound to. INVARIANT: a `cnf` that is not understood refuses; taken for a bearer token, it would be good in
    /// a thief's hands.
    fn bound(&self, rules: &IssuerRules) -> Result<Bound, TokenError> {
        match self.0.get("cnf") {
            Some(cnf) => Bound::read(cnf),
            None if rules.require_bound_tokens => Err(TokenError::NotBound),
            None => Ok(Bound::default()),
        }
    }

    /// Who is behind the account, and whether the token says nothing of that although its issuer's do.
    fn also(&self, rules: &IssuerRules) -> Result<(BTreeSet<String>, bool), TokenError> {
        let mut also = BTreeSet::new();
        let named = [&rules.person_claim, &rules.owner_claim];
        for name in named.into_iter().flatten() {
            if let Some(value) = self.lookup(name) {
                person::names(value, &mut also)?;
            }
        }
        let missing = also.is_empty() && named.into_iter().any(Option::is_some);
        if let Some(actor) = self.0.get("act") {
            person::actors(actor, &rules.issuer, &mut also)?;
        }
        Ok((also, missing))
    }

    fn subject(&self) -> Result<String, TokenError> {
        let subject = self.0.get("sub").ok_or(TokenError::SubjectMissing)?;
        let subject = plain(subject, MAX_SUBJECT_BYTES).ok_or(TokenError::SubjectInvalid)?;
        Ok(subject.to_owned())
    }

    fn take_groups(&mut self, name: &str) -> Result<Vec<String>, TokenError> {
        let Some(value) = self.take(name) else {
            let named = step(name).map_or_else(|| name.to_owned(), |(first, _)| first);
            let elsewhere = self
                .0
                .get("_claim_names")
                .and_then(|names| names.get(named))
                .is_some();
            return if elsewhere {
                Err(TokenError::GroupsElsewhere)
            } else {
                Ok(Vec::new())
            };
        };
        let names = match value {
            // Some issuers write "none" so.
            Value::String(none) if none.is_empty() => Vec::new(),
            Value::String(_) => vec![value],
            Value::Array(list) if list.len() <= MAX_GROUPS => list,
            _ => return Err(TokenError::GroupsInvalid),
        };
        names
            .into_iter()
            .map(|name| match name {
                Value::String(name) if (1..=MAX_GROUP_BYTES).contains(&name.len()) => Ok(name),
                _ => Err(TokenError::GroupsInvalid),
            })
            .collect()
    }

    fn lookup(&self, name: &str) -> Option<&Value> {
        match step(name) {
            None => self.0.get(name),
            Some((first, rest)) => self.0.get(&first)?.pointer(rest),
        }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        match step(name) {
            None => self.0.remove(name),
            Some((first, rest)) => Some(self.0.get_mut(&first)?.pointer_mut(rest)?.take()),
        }
    }
}

/// Where a claim is named by a pointer (RFC 6901), its first step, which has to be taken apart because the outermost object is a Map
/// and no Value, and the rest.
fn step(name: &str) -> Option<(String, &str)> {
    let pointer = name.strip_prefix('/')?;
    let (first, rest) = pointer.split_at(pointer.find('/').unwrap_or(pointer.len()));
    Some((first.replace("~1", "/").replace("~0", "~"), rest))
}

/// A string of 1 to `most` bytes without control characters.
pub(super) fn plain(value: &Value, most: usize) -> Option<&str> {
    let text = value.as_str()?;
    let good = (1..=most).contains(&text.len()) && !text.chars().any(char::is_control);
    good.then_some(text)
}

/// RFC 7519's NumericDate: seconds since 1970, whole or fractional, to the whole second that errs towards refusing.
pub(super) fn instant(value: &Value, round: fn(f64) -> f64) -> Option<Timestamp> {
    let seconds = match value.as_i64() {
        Some(whole) => whole,
        // Looked at before rounding, or half a second before 1970 would become 1970. The cast saturates, and what lies beyond
        // the calendar is refused below.
        None => round(value.as_f64().filter(|seconds| *seconds >= 0.0)?) as i64,
    };
    (seconds >= 0).then(|| Timestamp::from_second(seconds).ok())?
}
