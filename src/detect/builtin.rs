//! The table of built-in detectors, in priority order: where two match at the same place the upper one wins.

use super::{
    DetectorError, card, email, iban, ip,
    pattern::{Check, Pattern},
    phone, secrets, ssn,
};

/// Name, shape, length limit that the shape does not spell out, check.
struct Row(&'static str, &'static str, Option<usize>, Check);

const TABLE: &[Row] = &[
    Row("PRIVATE_KEY", secrets::PRIVATE_KEY, None, Check::Always),
    Row("JWT", secrets::JWT, None, Check::Rule(secrets::jwt)),
    Row(
        "AWS_ACCESS_KEY",
        secrets::AWS_ACCESS_KEY,
        Some(secrets::AWS_REACH),
        Check::Rule(secrets::aws),
    ),
    Row(
        "GITHUB_TOKEN",
        secrets::GITHUB_TOKEN,
        None,
        Check::Rule(secrets::github),
    ),
    Row(
        "ANTHROPIC_KEY",
        secrets::ANTHROPIC_KEY,
        None,
        Check::Rule(secrets::anthropic),
    ),
    Row(
        "OPENAI_KEY",
        secrets::OPENAI_KEY,
        None,
        Check::Rule(secrets::openai),
    ),
    Row(
        "GOOGLE_API_KEY",
        secrets::GOOGLE_API_KEY,
        None,
        Check::Rule(secrets::google),
    ),
    Row(
        "SLACK_TOKEN",
        secrets::SLACK_TOKEN,
        None,
        Check::Rule(secrets::slack),
    ),
    Row(
        "STRIPE_KEY",
        secrets::STRIPE_KEY,
        None,
        Check::Rule(secrets::stripe),
    ),
    Row(
        "EMAIL_ADDRESS",
        email::SHAPE,
        Some(email::REACH),
        Check::Rule(email::check),
    ),
    Row(
        "IBAN_CODE",
        iban::SHAPE,
        Some(iban::REACH),
        Check::Rule(iban::check),
    ),
    Row(
        "CREDIT_CARD",
        card::SHAPE,
        Some(card::REACH),
        Check::Rule(card::check),
    ),
    Row("US_SSN", ssn::PARTED, None, Check::Rule(ssn::parted)),
    Row(
        "US_SSN",
        ssn::BARE,
        Some(ssn::BARE_REACH),
        Check::Rule(ssn::bare),
    ),
    Row(
        "PHONE_NUMBER",
        phone::INTERNATIONAL,
        Some(phone::INTERNATIONAL_REACH),
        Check::Rule(phone::international),
    ),
    Row("PHONE_NUMBER", phone::NANP, None, Check::Rule(phone::nanp)),
    Row(
        "PHONE_NUMBER",
        phone::BARE,
        Some(phone::BARE_REACH),
        Check::Rule(phone::bare),
    ),
    Row("IP_ADDRESS", ip::V4, None, Check::Rule(ip::v4)),
    Row(
        "PHONE_NUMBER",
        phone::NATIONAL,
        Some(phone::NATIONAL_REACH),
        Check::Rule(phone::national),
    ),
    Row(
        "IP_ADDRESS",
        ip::V6,
        Some(ip::V6_REACH),
        Check::Rule(ip::v6),
    ),
];

/// The fewest bytes of a value, by shape, where each check that is asked about the shape wants more than the shape does.
/// It is what lets text with short numbers be passed over; what a check would find all the same is then missed.
const LEAST: &[(&str, usize)] = &[
    (card::SHAPE, 12),
    (iban::SHAPE, 15),
    // seven digits, and what makes them international or parts them
    (phone::INTERNATIONAL, 8),
    (phone::NATIONAL, 8),
];

fn least(shape: &str) -> usize {
    let known = LEAST.iter().find(|(known, _)| *known == shape);
    known.map_or(0, |&(_, bytes)| bytes)
}

/// Every built-in detector.
pub(crate) fn patterns() -> Result<Vec<Pattern>, DetectorError> {
    TABLE
        .iter()
        .map(|Row(entity, regex, reach, check)| {
            let pattern = Pattern::builtin(entity, regex, *reach, check.clone())?;
            Ok(pattern.at_least(least(regex)))
        })
        .collect()
}
