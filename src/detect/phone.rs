//! `PHONE_NUMBER`. What libphonenumber's metadata calls a number, in a notation that tells it is one:
//!
//! - international, with `+` or `00` (ITU-T E.164, at most 15 digits; E.123 section 3);
//! - as written in the North American Numbering Plan, NXX-NXX-XXXX with N from 2 to 9 (ATIS-0300051, section 3),
//!   assigned today or not, as new area codes come every year;
//! - national, from a trunk `0` on or with its area code in parentheses (E.123 section 2), in the groups in which one
//!   of the countries of [`PLANS`] writes such a number;
//! - any national number of those countries behind a word such as `phone`, or in front of one such as `fax` (the
//!   labels of RFC 6350 section 6.4.1).
//!
//! Ten digits in a row are an id like any other unless such a word stands beside them.

use super::{
    context::{Phrases, Words},
    grouped, numbering,
};

/// What people write behind a number, to say where it rings.
macro_rules! label {
    () => {
        r"(?:[ ,-]{0,2}[(\[]?(?i:office|fax|mobile|cell|home|work|phone|voice|pager|landline|direct)\b)?"
    };
}

/// `+` or `00` and digits, at most two separators between any two, an extension and a label. The check counts them.
pub(crate) const INTERNATIONAL: &str = concat!(
    r"(?:\+|\b00)\d?(?:[ ()./-]{0,2}\d)+",
    r"(?: ?(?:x|ext\.?) ?\d+)?\b",
    label!()
);
/// `00` and 15 digits, two separators before each but the first, an extension of 6 digits and a label, in bytes.
pub(crate) const INTERNATIONAL_REACH: usize = 2 + 15 + 28 + 12 + 11;
/// `(212) 555-0123`, `212-555-0123`, `212.555.0123`, `212 555 0123`, with or without `1` before.
pub(crate) const NANP: &str = r"(?:\b1[ .-]?)?(?:\([2-9]\d{2}\) ?|\b[2-9]\d{2}[ ./-])[2-9]\d{2}[ .-]\d{4}(?: ?(?:x|ext\.?) ?\d{1,6})?\b";
/// Two or more groups of digits, the first perhaps in parentheses, an extension and a label. The check counts them.
pub(crate) const NATIONAL: &str = concat!(
    r"(?:\(\d+\)[ -]?|\b\d+[ ./-])\d+(?:[ .-]\d+)*",
    r"(?: ?(?:x|ext\.?) ?\d+)?\b",
    label!()
);
/// 15 digits, a separator before each but the first, parentheses, an extension of 6 digits and a label, in bytes.
pub(crate) const NATIONAL_REACH: usize = 15 + 14 + 2 + 12 + 11;
/// Six to fifteen digits in a row, and a label: shorter ones, of which text is full, are passed over.
pub(crate) const BARE: &str = concat!(r"\b\d{6,15}", edge!(), label!());
/// 15 digits and a label, in bytes.
pub(crate) const BARE_REACH: usize = 15 + 11;

/// The fewest digits of a number that nothing else than its digits tells.
const SHORTEST: usize = 7;
/// The fewest digits of a number that a label behind it tells.
const SHORTEST_LOCAL: usize = 6;

/// Calling codes of the plans whose national notations are looked for: the G20, the European Union and its neighbours,
/// Israel, New Zealand.
const PLANS: &[u16] = &[
    1, 7, 27, 30, 31, 32, 33, 34, 36, 39, 40, 41, 43, 44, 45, 46, 47, 48, 49, 52, 54, 55, 61, 62,
    64, 81, 82, 86, 90, 91, 351, 352, 353, 354, 356, 357, 358, 359, 370, 371, 372, 380, 385, 386,
    420, 421, 423, 966, 972,
];

/// Words that say a number is one to call.
const NOUNS: Phrases = Phrases::new(&[
    "phone",
    "phones",
    "telephone",
    "tel",
    "cellphone",
    "mobile number",
    "cell number",
    "mobile no",
    "landline",
    "fax",
    "whatsapp",
    "my number",
    "his number",
    "her number",
    "call me",
    "call us",
    "reach me",
    "reach us",
    "ring me",
    "text me",
]);

/// Words that may say other things too.
const VERBS: Phrases = Phrases::new(&["mobile", "cell", "call", "dial", "sms"]);

fn is_announced(before: &str) -> bool {
    let words = Words::before(before);
    words.match_any(&NOUNS) || words.match_any(&VERBS)
}

/// A match of one of the shapes, taken apart.
struct Parts<'t> {
    /// Without extension and label.
    number: &'t str,
    /// With the extension: what is kept.
    whole: usize,
    extended: bool,
    labelled: bool,
}

impl<'t> Parts<'t> {
    fn of(found: &'t str) -> Self {
        let is_digit = |c: char| c.is_ascii_digit();
        let whole = found.rfind(is_digit).map_or(0, |last| last + 1);
        let kept = &found[..whole];
        let letter = kept.find(|c: char| c.is_ascii_alphabetic());
        Self {
            number: kept[..letter.unwrap_or(whole)].trim_end(),
            whole,
            extended: letter.is_some(),
            labelled: found[whole..].contains(|c: char| c.is_ascii_alphabetic()),
        }
    }

    /// What to keep of the match if its number is kept up to `end`.
    fn keep(&self, end: usize) -> usize {
        if end == self.number.len() {
            self.whole
        } else {
            end
        }
    }
}

/// The longest front that is valid in some country and ends where a group of digits ends. Where something else says
/// that it is a number to call, its length is enough.
pub(crate) fn international(before: &str, found: &str) -> Option<usize> {
    let parts = Parts::of(found);
    let number = parts.number;
    let parted = number.contains([' ', '.', '-', '/', '(']);
    let plus = number.starts_with('+');
    let fits = if plus {
        is_signed(number) || parts.labelled
    } else {
        // Without separators it is an id that starts with zeros.
        parted && !before.ends_with('+') && !goes_on(before)
    };
    if !fits {
        return None;
    }
    let digits = |end: usize| {
        let digits = digits(&number[..end]);
        digits[if plus { 0 } else { 2 }..].to_owned()
    };
    let told = parts.extended
        || parts.labelled
        || (plus && (leads_with_country(number) || digits(number.len()).len() >= 10));
    let valid = fronts(number).find(|&end| numbering::is_assigned(&digits(end)));
    let possible = || {
        let digits = digits(number.len());
        let fits = told && digits.len() >= SHORTEST && numbering::is_possible(&digits);
        fits.then_some(number.len())
    };
    valid.or_else(possible).map(|end| parts.keep(end))
}

/// The sign belongs to a number to call: no space behind it (E.123 section 3), and what has one point, and nothing
/// else between its digits, has it behind the country (RFC 5733 section 2.5).
fn is_signed(number: &str) -> bool {
    let decimal = number.matches('.').count() == 1 && !number.contains([' ', '-', '/', '(']);
    !number.starts_with("+ ") && (!decimal || leads_with_country(number))
}

/// The first group is the code of a country.
fn leads_with_country(number: &str) -> bool {
    let behind = number.trim_start_matches('+');
    let end = behind
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(behind.len());
    numbering::is_country(&behind[..end])
}

/// The number is the end of a row of numbers, or of a name such as `CVE-2024-12345`.
fn goes_on(before: &str) -> bool {
    let row = before
        .trim_end_matches(' ')
        .ends_with(|c: char| c.is_ascii_digit());
    let name = before.strip_suffix('-').is_some_and(|b| {
        let word = b.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len();
        word < b.len() && !NOUNS.contains(&b[word..]) && !VERBS.contains(&b[word..])
    });
    row || name
}

/// A number without its country: told by its notation, or by a word before or behind it.
pub(crate) fn national(before: &str, found: &str) -> Option<usize> {
    // Most numbers of a text are amounts and dates.
    if count(found) < SHORTEST_LOCAL {
        return None;
    }
    let parts = Parts::of(found);
    if grouped::is_piece(before) || before.ends_with('+') {
        return None;
    }
    let end = if parts.labelled {
        (is_local(parts.number) && !is_count(parts.number)).then_some(parts.number.len())
    } else if goes_on(before) {
        None
    } else if count(parts.number) >= SHORTEST && is_announced(before) {
        fronts(parts.number).find(|&end| is_some_national(&parts.number[..end]))
    } else {
        let extended = parts.extended && is_local(parts.number) && !is_count(parts.number);
        (extended || is_notation(parts.number)).then_some(parts.number.len())
    };
    end.filter(|_| !is_date(parts.number))
        .map(|end| parts.keep(end))
}

/// The digits, or what remains without a trunk `0`, are a number of one of the plans.
fn is_some_national(number: &str) -> bool {
    let digits = digits(number);
    let significant = digits.strip_prefix('0').unwrap_or(&digits);
    PLANS.iter().any(|&code| {
        numbering::is_national(code, significant) || numbering::is_national(code, &digits)
    })
}

/// As long as the shortest and the longest number that can be dialled.
fn is_local(number: &str) -> bool {
    (SHORTEST_LOCAL..=15).contains(&count(number))
}

/// `1 200 000`: thousands, which `home` or `mobile` may well follow.
fn is_count(number: &str) -> bool {
    let in_threes = groups(number).iter().skip(1).all(|&group| group == 3);
    in_threes && !number.contains('-') && !number.starts_with(['0', '('])
}

/// From a trunk `0` on or with parentheses, at least eight digits in the groups of some plan. From `0` on, ten digits
/// in three groups or with parentheses are enough, as people group them as they like; a point parts at least five
/// groups, or it is an address or a fraction.
fn is_notation(number: &str) -> bool {
    let trunk = number.trim_start_matches('(').starts_with('0');
    let area = number.starts_with('(');
    if !(trunk || area) || count(number) < 8 {
        return false;
    }
    let groups = groups(number);
    if number.contains(['.', '/']) && groups.len() < 5 {
        return false;
    }
    let digits = digits(number);
    let long = trunk
        && (area || (3..=5).contains(&groups.len()))
        && (10..=12).contains(&digits.len())
        && groups.iter().all(|&group| group > 1);
    let significant = digits.strip_prefix('0').unwrap_or(&digits);
    let mut without_trunk = groups.clone();
    without_trunk[0] -= usize::from(trunk);
    without_trunk.retain(|&group| group > 0);
    PLANS.iter().any(|&code| {
        numbering::is_written(code, significant, &without_trunk)
            || numbering::is_written(code, &digits, &groups)
            || (long && numbering::is_national(code, significant))
    })
}

/// Lengths of the groups of digits.
fn groups(number: &str) -> Vec<usize> {
    number
        .split(|c: char| !c.is_ascii_digit())
        .map(str::len)
        .filter(|&len| len > 0)
        .collect()
}

/// Where groups of digits end, from the last to the one with the seventh digit.
fn fronts(found: &str) -> impl Iterator<Item = usize> {
    let bytes = found.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let ends = (1..=bytes.len())
        .rev()
        .filter(move |&end| is_digit(end - 1) && !is_digit(end));
    ends.take_while(|&end| count(&found[..end]) >= SHORTEST)
}

/// `2024-05-06`, `06.05.2024`, also with more behind it, and `2019-2020`.
fn is_date(found: &str) -> bool {
    let groups: Vec<&str> = found.split([' ', '.', '-', '/']).collect();
    let lengths: Vec<usize> = groups.iter().take(3).map(|group| group.len()).collect();
    let years = lengths == [4, 4] && groups.iter().all(|group| ("1900".."2100").contains(group));
    (lengths == [4, 2, 2] && found.starts_with(['1', '2'])) || lengths == [2, 2, 4] || years
}

/// How many digits there are.
fn count(number: &str) -> usize {
    number.bytes().filter(u8::is_ascii_digit).count()
}

fn digits(number: &str) -> String {
    number.chars().filter(char::is_ascii_digit).collect()
}

/// Not a piece of a longer number. `211` and the like are services, not exchanges. With dashes, points or parentheses
/// it need not be assigned today; three numbers in a row must be.
pub(crate) fn nanp(before: &str, found: &str) -> Option<usize> {
    let parts = Parts::of(found);
    let digits = digits(parts.number);
    let national = digits.strip_prefix('1').unwrap_or(&digits);
    let told = parts.extended || parts.number.contains(['-', '.', '(']);
    let fits = if told {
        is_north_american(national)
    } else {
        numbering::is_national(1, national) && !goes_on(before)
    };
    (fits && !grouped::is_piece(before)).then_some(found.len())
}

/// NXX-NXX-XXXX, no area or exchange ending in 11.
fn is_north_american(national: &str) -> bool {
    let digit = |at: usize| national.as_bytes().get(at).copied().unwrap_or(b'0');
    let code = |at: usize| digit(at) >= b'2' && (digit(at + 1), digit(at + 2)) != (b'1', b'1');
    national.len() == 10 && code(0) && code(3)
}

/// Digits in a row with a label behind them or a word before them: a number of one of the plans, which a weaker word
/// makes one only from a trunk `0` on or in North America.
pub(crate) fn bare(before: &str, found: &str) -> Option<usize> {
    let parts = Parts::of(found);
    let digits = parts.number;
    if grouped::is_piece(before) || !(SHORTEST..=15).contains(&digits.len()) {
        return None;
    }
    let north_american = || is_north_american(digits.strip_prefix('1').unwrap_or(digits));
    let told = || {
        let words = Words::before(before);
        let noun = words.match_any(&NOUNS);
        (noun || words.match_any(&VERBS))
            && (north_american() || ((noun || digits.starts_with('0')) && is_some_national(digits)))
    };
    (parts.labelled || told()).then_some(parts.whole)
}
