//! What a proved assertion says (SAML core, 2.3), held against the rules of its issuer.
//!
//! Reads the canonical form that was signed and nothing else. What it does not know it refuses: a statement or a condition
//! could say that the rest does not count.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use roxmltree::Node;
use serde_json::Value;

use super::{
    super::{
        claims::{MAX_GROUP_BYTES, MAX_GROUPS, MAX_SUBJECT_BYTES},
        person,
    },
    ASSERTION, MAX_LIFETIME, Rules, SamlError,
    rules::NameFormat,
    xml::{attribute, elements, is, named, text},
};

const BEARER: &str = "urn:oasis:names:tc:SAML:2.0:cm:bearer";
/// The attribute by which Entra ID says that the groups are not in the assertion.
const GROUPS_LINK: &str = "http://schemas.microsoft.com/claims/groups.link";
/// Most attributes of an assertion.
const MAX_ATTRIBUTES: usize = 256;

/// What was taken from an assertion that passed.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) id: String,
    pub(super) subject: String,
    pub(super) groups: Vec<String>,
    pub(super) claims: BTreeMap<String, Value>,
    pub(super) issued_at: Timestamp,
    pub(super) authenticated_at: Option<Timestamp>,
    pub(super) expires_at: Timestamp,
    pub(super) also: BTreeSet<String>,
    pub(super) person_missing: bool,
}

/// The issuer's name of an assertion, proved or not.
pub(super) fn issuer<'a>(assertion: Node<'a, '_>) -> Result<&'a str, SamlError> {
    let mut issuers = named(assertion, ASSERTION, "Issuer");
    let issuer = issuers.next().ok_or(SamlError::Invalid)?;
    let entity = "urn:oasis:names:tc:SAML:2.0:nameid-format:entity";
    let is_entity = attribute(issuer, "Format").is_none_or(|format| format == entity);
    if !is_entity || issuers.next().is_some() {
        return Err(SamlError::Invalid);
    }
    text(issuer)
        .filter(|name| !name.is_empty())
        .ok_or(SamlError::Invalid)
}

/// The id of an assertion, proved or not.
pub(super) fn id<'a>(assertion: Node<'a, '_>) -> Result<&'a str, SamlError> {
    let good =
        |id: &&str| (1..=256).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
    let version = attribute(assertion, "Version");
    attribute(assertion, "ID")
        .filter(good)
        .filter(|_| version == Some("2.0"))
        .ok_or(SamlError::Invalid)
}

/// Holds an assertion against the rules at the instant `now`.
pub(super) fn accept(
    assertion: Node<'_, '_>,
    rules: &Rules,
    now: Timestamp,
) -> Result<Accepted, SamlError> {
    if issuer(assertion)? != rules.entity_id {
        return Err(SamlError::UnknownIssuer);
    }
    only_known(assertion)?;
    let clock = Clock { rules, now };
    let issued_at = attribute(assertion, "IssueInstant").ok_or(SamlError::Invalid)?;
    let issued_at = instant(issued_at)?;
    if issued_at > clock.latest() {
        return Err(SamlError::IssuedInFuture);
    }
    let subject = one(assertion, "Subject", SamlError::SubjectMissing)?;
    let confirmed_until = confirmed(subject, rules, &clock)?;
    let conditions_until = conditions(assertion, rules, &clock)?;
    let (authenticated_at, session_until) = signed_in(assertion, &clock)?;
    let expires_at = [Some(confirmed_until), conditions_until, session_until]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(confirmed_until);
    if expires_at
        > clock
            .latest()
            .saturating_add(MAX_LIFETIME)
            .unwrap_or(Timestamp::MAX)
    {
        return Err(SamlError::LivesTooLong);
    }
    let attributes = Attributes::read(assertion)?;
    let (also, person_missing) = attributes.persons(rules)?;
    Ok(Accepted {
        id: id(assertion)?.to_owned(),
        subject: name(subject, rules)?,
        groups: attributes.groups(rules)?,
        claims: attributes.claims(rules)?,
        issued_at,
        authenticated_at,
        expires_at,
        also,
        person_missing,
    })
}

fn only_known(assertion: Node<'_, '_>) -> Result<(), SamlError> {
    // `Advice` may be ignored by definition (SAML core, 2.6).
    let known = [
        "Issuer",
        "Subject",
        "Conditions",
        "Advice",
        "AuthnStatement",
        "AttributeStatement",
    ];
    let unknown = |child: Node<'_, '_>| !known.iter().any(|name| is(child, ASSERTION, name));
    match elements(assertion).any(unknown) {
        true => Err(SamlError::NotUnderstood),
        false => Ok(()),
    }
}

/// The only child of that name.
fn one<'a, 'i>(
    parent: Node<'a, 'i>,
    name: &'static str,
    missing: SamlError,
) -> Result<Node<'a, 'i>, SamlError> {
    let mut found = named(parent, ASSERTION, name);
    let one = found.next().ok_or(missing)?;
    match found.next() {
        None => Ok(one),
        Some(_) => Err(SamlError::Invalid),
    }
}

fn name(subject: Node<'_, '_>, rules: &Rules) -> Result<String, SamlError> {
    if named(subject, ASSERTION, "EncryptedID").next().is_some() {
        return Err(SamlError::Encrypted);
    }
    let name = one(subject, "NameID", SamlError::SubjectMissing)?;
    let format = NameFormat::of(attribute(name, "Format"));
    if !format.is_some_and(|format| rules.name_formats.contains(&format)) {
        return Err(SamlError::NameFormatRefused);
    }
    // SAML core, 8.3.7: a persistent name is one of its qualifiers' names, which are the issuer's and ours where not said.
    let ours = |spelled: &str| rules.audiences.iter().any(|audience| audience == spelled);
    let qualified = attribute(name, "NameQualifier").is_none_or(|by| by == rules.entity_id)
        && attribute(name, "SPNameQualifier").is_none_or(ours);
    let name = text(name).filter(|name| {
        (1..=MAX_SUBJECT_BYTES).contains(&name.len())
            && name.trim() == *name
            && !name.chars().any(char::is_control)
    });
    match name {
        Some(name) if qualified => Ok(name.to_owned()),
        _ => Err(SamlError::SubjectInvalid),
    }
}

/// Until when the last bearer confirmation holds that is for us, where one holds now; what is wrong with the first where none does.
/// An assertion is used up as a whole, so the use must be remembered for as long as any of them could bring it again.
fn confirmed(
    subject: Node<'_, '_>,
    rules: &Rules,
    clock: &Clock<'_>,
) -> Result<Timestamp, SamlError> {
    let (mut last, mut fault, mut holds) = (None, None, false);
    for confirmation in named(subject, ASSERTION, "SubjectConfirmation") {
        if attribute(confirmation, "Method") != Some(BEARER) {
            continue;
        }
        match confirmation_of(confirmation, rules) {
            Ok((data, until)) => {
                last = last.max(Some(until));
                let now = clock.begun(data).and(clock.ends(data, "NotOnOrAfter"));
                holds |= now.is_ok();
                fault = fault.or(now.err());
            }
            Err(first) => fault = fault.or(Some(first)),
        }
    }
    match last.filter(|_| holds) {
        Some(until) => Ok(until),
        None => Err(fault.unwrap_or(SamlError::NotBearer)),
    }
}

/// What a confirmation says that is for us, at whatever time, and until when.
fn confirmation_of<'a, 'i>(
    confirmation: Node<'a, 'i>,
    rules: &Rules,
) -> Result<(Node<'a, 'i>, Timestamp), SamlError> {
    let data = one(
        confirmation,
        "SubjectConfirmationData",
        SamlError::WrongRecipient,
    )?;
    let recipient = attribute(data, "Recipient");
    if !rules
        .recipients
        .iter()
        .any(|ours| Some(ours.as_str()) == recipient)
    {
        return Err(SamlError::WrongRecipient);
    }
    // Nobody asked: a token endpoint sends no requests, so what answers one was meant for somebody else.
    if attribute(data, "InResponseTo").is_some() {
        return Err(SamlError::Solicited);
    }
    let until = attribute(data, "NotOnOrAfter").ok_or(SamlError::ExpiryMissing)?;
    Ok((data, instant(until)?))
}

/// Until when the conditions hold, where they say so.
fn conditions(
    assertion: Node<'_, '_>,
    rules: &Rules,
    clock: &Clock<'_>,
) -> Result<Option<Timestamp>, SamlError> {
    let conditions = one(assertion, "Conditions", SamlError::AudienceMissing)?;
    clock.begun(conditions)?;
    let until = clock.ends(conditions, "NotOnOrAfter")?;
    let mut restricted = false;
    for condition in elements(conditions) {
        if is(condition, ASSERTION, "AudienceRestriction") {
            restricted = true;
            let ours = |audience: Node<'_, '_>| {
                text(audience).is_some_and(|named| rules.audiences.iter().any(|ours| ours == named))
            };
            // One of each restriction (SAML core, 2.5.1.4).
            if !named(condition, ASSERTION, "Audience").any(ours) {
                return Err(SamlError::WrongAudience);
            }
        } else if !is(condition, ASSERTION, "OneTimeUse") {
            // Used once is what every assertion is here.
            return Err(SamlError::NotUnderstood);
        }
    }
    match restricted {
        true => Ok(until),
        false => Err(SamlError::AudienceMissing),
    }
}

/// When the subject signed in and until when that session lasts.
fn signed_in(
    assertion: Node<'_, '_>,
    clock: &Clock<'_>,
) -> Result<(Option<Timestamp>, Option<Timestamp>), SamlError> {
    let mut statements = named(assertion, ASSERTION, "AuthnStatement");
    let Some(statement) = statements.next() else {
        return Ok((None, None));
    };
    if statements.next().is_some() {
        return Err(SamlError::AuthnInvalid);
    }
    let at = attribute(statement, "AuthnInstant").ok_or(SamlError::AuthnInvalid)?;
    let until = clock.ends(statement, "SessionNotOnOrAfter")?;
    Ok((Some(instant(at)?), until))
}

struct Clock<'a> {
    rules: &'a Rules,
    now: Timestamp,
}

impl Clock<'_> {
    fn latest(&self) -> Timestamp {
        self.now
            .saturating_add(self.rules.skew())
            .unwrap_or(Timestamp::MAX)
    }

    /// Refuses what has a `NotBefore` that has not come.
    fn begun(&self, node: Node<'_, '_>) -> Result<(), SamlError> {
        match attribute(node, "NotBefore").map(instant).transpose()? {
            Some(begin) if begin > self.latest() => Err(SamlError::NotYetValid),
            _ => Ok(()),
        }
    }

    /// The instant that ends it, which has not come.
    fn ends(&self, node: Node<'_, '_>, name: &str) -> Result<Option<Timestamp>, SamlError> {
        let end = attribute(node, name).map(instant).transpose()?;
        let skewed = end.map(|end| {
            end.saturating_add(self.rules.skew())
                .unwrap_or(Timestamp::MAX)
        });
        match skewed {
            Some(end) if self.now >= end => Err(SamlError::Expired),
            _ => Ok(end),
        }
    }
}

/// `xs:dateTime` in UTC (SAML core, 1.3.3): `2030-01-31T23:59:59Z`, with up to nine digits of a fraction.
pub(super) fn instant(text: &str) -> Result<Timestamp, SamlError> {
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    let fraction = shape
        .strip_prefix("0000-00-00T00:00:00")
        .and_then(|rest| rest.strip_suffix('Z'));
    let good = match fraction {
        Some("") => true,
        Some(fraction) => fraction.strip_prefix('.').is_some_and(|digits| {
            (1..=9).contains(&digits.len()) && digits.bytes().all(|d| d == b'0')
        }),
        None => false,
    };
    good.then(|| text.parse().ok())
        .flatten()
        .ok_or(SamlError::TimeInvalid)
}

/// The attributes, by `Name`. Which of two of one name counts would be a guess, but only where one is asked for.
struct Attributes<'a, 'i> {
    named: Vec<(&'a str, Node<'a, 'i>)>,
}

impl<'a, 'i> Attributes<'a, 'i> {
    fn read(assertion: Node<'a, 'i>) -> Result<Self, SamlError> {
        let mut all = Vec::new();
        for statement in named(assertion, ASSERTION, "AttributeStatement") {
            for child in elements(statement) {
                if is(child, ASSERTION, "EncryptedAttribute") {
                    return Err(SamlError::Encrypted);
                }
                let name = attribute(child, "Name").filter(|_| is(child, ASSERTION, "Attribute"));
                all.push((name.ok_or(SamlError::AttributesInvalid)?, child));
            }
        }
        match all.len() > MAX_ATTRIBUTES {
            true => Err(SamlError::AttributesInvalid),
            false => Ok(Self { named: all }),
        }
    }

    /// The values of the attribute; none where it is not there.
    fn values(&self, name: &str) -> Result<Vec<&'a str>, SamlError> {
        let mut found = self.named.iter().filter(|(known, _)| *known == name);
        let Some((_, attribute)) = found.next() else {
            return Ok(Vec::new());
        };
        if found.next().is_some() {
            return Err(SamlError::AttributesInvalid);
        }
        elements(*attribute)
            .map(|value| text(value).filter(|_| is(value, ASSERTION, "AttributeValue")))
            .collect::<Option<_>>()
            .ok_or(SamlError::AttributesInvalid)
    }

    fn groups(&self, rules: &Rules) -> Result<Vec<String>, SamlError> {
        let Some(name) = &rules.groups_attribute else {
            return Ok(Vec::new());
        };
        // What Entra ID writes where there are too many to list: a link to where they can be asked for.
        if self.named.iter().any(|(known, _)| *known == GROUPS_LINK) {
            return Err(SamlError::GroupsInvalid);
        }
        let groups = self.values(name)?;
        let good = |group: &&str| {
            (1..=MAX_GROUP_BYTES).contains(&group.len()) && !group.chars().any(char::is_control)
        };
        if groups.len() > MAX_GROUPS || !groups.iter().all(good) {
            return Err(SamlError::GroupsInvalid);
        }
        Ok(groups.into_iter().map(str::to_owned).collect())
    }

    fn claims(&self, rules: &Rules) -> Result<BTreeMap<String, Value>, SamlError> {
        let mut claims = BTreeMap::new();
        for name in &rules.claims {
            let values = self.values(name)?;
            if !values.is_empty() {
                claims.insert(name.clone(), values.into());
            }
        }
        Ok(claims)
    }

    fn persons(&self, rules: &Rules) -> Result<(BTreeSet<String>, bool), SamlError> {
        let mut also = BTreeSet::new();
        let Some(name) = &rules.person_attribute else {
            return Ok((also, false));
        };
        let values = Value::from(self.values(name)?);
        person::names(&values, &mut also).map_err(|_| SamlError::PersonInvalid)?;
        let missing = also.is_empty();
        Ok((also, missing))
    }
}
