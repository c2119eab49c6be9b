//! The table of built-in detectors, in priority order: where two match at the same place the upper one wins.
//!
//! What is told by its own shape comes first, then what a word before it tells, then what only looks like something.

use super::{
    DetectorError, assigned, card, crypto, device, email, grouped, iban, ip, national,
    pattern::{Check, Pattern, Rule},
    personal, phone, secrets, ssn, url, us,
};

/// Name, shape, length limit that the shape does not spell out, check.
struct Row(&'static str, &'static str, Option<usize>, Rule);

/// Looked for only where a policy names them: what they find is mostly nobody's, and hides other values inside it.
pub(crate) const OPTIONAL: &[&str] = &["URL"];

#[rustfmt::skip]
const TABLE: &[Row] = &[
    Row("URL", url::SHAPE, None, url::check),
    // secrets with a shape of their issuer
    Row("PRIVATE_KEY", secrets::PRIVATE_KEY, None, secrets::private_key),
    Row("JWT", secrets::JWT, None, secrets::jwt),
    Row("AWS_ACCESS_KEY", secrets::AWS_ACCESS_KEY, Some(secrets::AWS_REACH), secrets::aws),
    Row("GITHUB_TOKEN", secrets::GITHUB_TOKEN, None, secrets::github),
    Row("ANTHROPIC_KEY", secrets::ANTHROPIC_KEY, None, secrets::anthropic),
    Row("OPENAI_KEY", secrets::OPENAI_KEY, None, secrets::openai),
    Row("GOOGLE_API_KEY", secrets::GOOGLE_API_KEY, None, secrets::google),
    Row("SLACK_TOKEN", secrets::SLACK_TOKEN, None, secrets::slack),
    Row("STRIPE_KEY", secrets::STRIPE_KEY, None, secrets::stripe),
    // what has a shape or a checksum nobody else's number has by chance
    Row("EMAIL_ADDRESS", email::SHAPE, Some(email::REACH), email::check),
    Row("CRYPTO", crypto::BASE58, Some(crypto::BASE58_REACH), crypto::base58),
    Row("CRYPTO", crypto::SEGWIT, Some(crypto::SEGWIT_REACH), crypto::segwit),
    Row("IBAN_CODE", iban::SHAPE, Some(iban::REACH), iban::check),
    Row("CREDIT_CARD", card::SHAPE, Some(card::REACH), card::check),
    Row("IT_FISCAL_CODE", national::IT_FISCAL_CODE, None, national::it_fiscal_code),
    Row("FR_NIR", national::FR_NIR, None, national::fr_nir),
    Row("MAC_ADDRESS", device::MAC, Some(device::MAC_REACH), device::mac),
    Row("MAC_ADDRESS", device::MAC_DOTTED, None, device::mac),
    Row("VIN", device::VIN, Some(device::VIN_REACH), device::vin),
    // numbers with a checksum, most of them behind a word
    Row("ABA_ROUTING_NUMBER", grouped::SHAPE, Some(grouped::REACH), us::aba_routing_number),
    Row("UK_NHS", grouped::SHAPE, Some(grouped::REACH), national::uk_nhs),
    Row("AU_TFN", grouped::SHAPE, Some(grouped::REACH), national::au_tfn),
    Row("CA_SIN", grouped::SHAPE, Some(grouped::REACH), national::ca_sin),
    Row("IN_AADHAAR", grouped::SHAPE, Some(grouped::REACH), national::in_aadhaar),
    Row("DE_TAX_ID", grouped::SHAPE, Some(grouped::REACH), national::de_tax_id),
    Row("ES_NIF", national::ES_NIF, None, national::es_nif),
    Row("ES_NIE", national::ES_NIE, None, national::es_nie),
    // numbers of a known form
    Row("UK_NINO", national::UK_NINO, None, national::uk_nino),
    Row("IN_PAN", national::IN_PAN, None, national::in_pan),
    Row("US_SSN", ssn::PARTED, None, ssn::parted),
    Row("US_SSN", ssn::BARE, Some(ssn::BARE_REACH), ssn::bare),
    Row("US_ITIN", us::ITIN_PARTED, None, us::itin_parted),
    Row("US_ITIN", ssn::BARE, Some(ssn::BARE_REACH), us::itin_bare),
    // numbers that only a word tells
    Row("DATE_OF_BIRTH", personal::NUMBERS, None, personal::numbers),
    Row("DATE_OF_BIRTH", personal::DAY_FIRST, Some(personal::DAY_FIRST_REACH), personal::words),
    Row("DATE_OF_BIRTH", personal::MONTH_FIRST, Some(personal::MONTH_FIRST_REACH), personal::words),
    Row("US_PASSPORT", us::PASSPORT, Some(us::PASSPORT_REACH), us::passport),
    Row("MEDICAL_RECORD", personal::LABELLED, Some(personal::LABELLED_REACH), personal::medical_record),
    Row("US_DRIVER_LICENSE", personal::LABELLED, Some(personal::LABELLED_REACH), us::driver_license),
    Row("US_BANK_NUMBER", grouped::SHAPE, Some(grouped::REACH), us::bank_number),
    // what a plan of numbers or addresses tells
    Row("PHONE_NUMBER", phone::INTERNATIONAL, Some(phone::INTERNATIONAL_REACH), phone::international),
    Row("PHONE_NUMBER", phone::NANP, None, phone::nanp),
    Row("PHONE_NUMBER", phone::BARE, Some(phone::BARE_REACH), phone::bare),
    Row("IP_ADDRESS", ip::V4, None, ip::v4),
    Row("PHONE_NUMBER", phone::NATIONAL, Some(phone::NATIONAL_REACH), phone::national),
    Row("UK_NHS", grouped::SHAPE, Some(grouped::REACH), national::uk_nhs_written),
    Row("IP_ADDRESS", ip::V6, Some(ip::V6_REACH), ip::v6),
    // what only a name before it tells
    Row("AWS_SECRET_KEY", assigned::SHAPE, Some(assigned::REACH), assigned::aws),
    Row("GENERIC_SECRET", assigned::SHAPE, Some(assigned::REACH), assigned::generic),
];

/// What each value begins with, by entity and shape, where its check wants more than the shape does. It is what lets text
/// with short numbers be passed over; what a check would find all the same is then missed.
const FRONTS: &[(&str, &str, &str)] = &[
    ("CRYPTO", crypto::BASE58, r"\w{26}"),
    (
        "IBAN_CODE",
        iban::SHAPE,
        r"[A-Za-z]{2}\d{2}[A-Za-z0-9 +%-]{11}",
    ),
    ("CREDIT_CARD", card::SHAPE, r"\d[\d -]{11}"),
    ("VIN", device::VIN, r"\w{17}"),
    ("ABA_ROUTING_NUMBER", grouped::SHAPE, NINE),
    ("UK_NHS", grouped::SHAPE, NINE),
    ("AU_TFN", grouped::SHAPE, NINE),
    ("CA_SIN", grouped::SHAPE, NINE),
    ("IN_AADHAAR", grouped::SHAPE, NINE),
    ("DE_TAX_ID", grouped::SHAPE, NINE),
    ("US_BANK_NUMBER", grouped::SHAPE, r"\d[\d -]{7}"),
    ("US_PASSPORT", us::PASSPORT, r"\w\d{8}"),
    ("MEDICAL_RECORD", personal::LABELLED, r"[\w-]{5}"),
    ("US_DRIVER_LICENSE", personal::LABELLED, r"[\w-]{5}"),
    // seven digits, and what makes them international
    ("PHONE_NUMBER", phone::INTERNATIONAL, r"[+0][\d ()./-]{7}"),
    // six digits, and what parts them
    ("PHONE_NUMBER", phone::NATIONAL, r"[\d(][\d ()./-]{6}"),
    ("PHONE_NUMBER", phone::BARE, r"\d{7}"),
    ("AWS_SECRET_KEY", assigned::SHAPE, r"[!-~]{16}"),
    ("GENERIC_SECRET", assigned::SHAPE, r"[!-~]{6}"),
];

/// Nine digits, perhaps in groups.
const NINE: &str = r"\d[\d -]{8}";

/// Numbers that are looked for right behind an `_` too, and end where one stands, as in names: `card_4111…`, `536-22-8714_`.
/// An expression cannot look at what is before it but to ask whether it is a letter, as which `_` counts; so each has a
/// second one, which takes the `_` along. Tokens that have `_` in them are left as they are.
const JOINED: &[&str] = &[
    card::SHAPE,
    iban::SHAPE,
    grouped::SHAPE,
    ssn::PARTED,
    ssn::BARE,
    us::ITIN_PARTED,
    personal::NUMBERS,
    phone::BARE,
    ip::V4,
];

fn front(entity: &str, shape: &str) -> Option<&'static str> {
    let mut fronts = FRONTS.iter();
    let known = fronts.find(|known| (known.0, known.1) == (entity, shape));
    known.map(|known| known.2)
}

/// Every built-in detector.
pub(crate) fn patterns() -> Result<Vec<Pattern>, DetectorError> {
    let mut patterns = Vec::with_capacity(2 * TABLE.len());
    for Row(entity, shape, reach, rule) in TABLE {
        let front = front(entity, shape).unwrap_or_default();
        if JOINED.contains(shape) {
            let check = || Check::Joined(*rule);
            let reach = |more| reach.map(|reach| reach + more);
            patterns.push(pattern(entity, shape, reach(1), check(), front)?);
            let joined = |shape: &str| format!("_{}", shape.trim_start_matches(r"\b"));
            let front = if front.is_empty() {
                front
            } else {
                &joined(front)
            };
            patterns.push(pattern(entity, &joined(shape), reach(2), check(), front)?);
        } else {
            patterns.push(pattern(entity, shape, *reach, Check::Rule(*rule), front)?);
        }
    }
    Ok(patterns)
}

fn pattern(
    entity: &str,
    shape: &str,
    reach: Option<usize>,
    check: Check,
    front: &str,
) -> Result<Pattern, DetectorError> {
    let pattern = Pattern::builtin(entity, shape, reach, check)?;
    if front.is_empty() {
        return Ok(pattern);
    }
    pattern.led_by(front)
}
