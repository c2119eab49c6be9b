//! Numbers that states give to people: the United Kingdom, Canada, Australia, India, Germany, Spain, Italy, France.
//! Those of the United States are in [`us`](super::us) and [`ssn`](super::ssn).

use super::{
    checksum::{luhn, mod_11_10, verhoeff, weighted},
    context, grouped,
    grouped::Number,
};

/// `UK_NHS`: ten digits, the last making the sum of each times 10, 9, … 1 a multiple of 11 (NHS Data Model and
/// Dictionary, attribute "NHS NUMBER"). Not all digits are the same.
const NHS: Number = Number {
    digits: 10,
    issued: |digits| {
        weighted(digits, &[10, 9, 8, 7, 6, 5, 4, 3, 2, 1]).is_multiple_of(11) && !is_uniform(digits)
    },
    words: &["nhs", "national health", "health service"],
    notations: &[],
};

/// The notation of the NHS, which a telephone number may have too: it comes after those.
const NHS_WRITTEN: Number = Number {
    words: &[],
    notations: &[(' ', &[3, 3, 4]), ('-', &[3, 3, 4])],
    ..NHS
};

/// `CA_SIN`: nine digits right by the Luhn formula, the first a region's: not 0, not 8 (Service Canada, "Social
/// Insurance Number Code of Practice", annex on the format). In threes it is read without a word before it.
const SIN: Number = Number {
    digits: 9,
    issued: |digits| luhn(digits) && !matches!(digits.first(), Some(0 | 8)),
    words: &["sin", "social insurance", "nas", "assurance sociale"],
    notations: &[('-', &[3, 3, 3]), (' ', &[3, 3, 3])],
};

/// `AU_TFN`: nine digits, whose sum by the weights 1, 4, 3, 7, 5, 8, 6, 9, 10 is a multiple of 11 (Australian Taxation
/// Office, "Tax file number (TFN) algorithm"). The eight digits of numbers from before 1990 are not looked for.
const TFN: Number = Number {
    digits: 9,
    issued: |digits| {
        weighted(digits, &[1, 4, 3, 7, 5, 8, 6, 9, 10]).is_multiple_of(11) && !is_uniform(digits)
    },
    words: &["tfn", "tax file", "tax file number"],
    notations: &[],
};

/// `IN_AADHAAR`: twelve digits right by Verhoeff's scheme, the first 2 to 9, no palindrome (UIDAI, "A UID Numbering
/// Scheme", 2010). In fours it is read without a word before it.
const AADHAAR: Number = Number {
    digits: 12,
    issued: |digits| {
        verhoeff(digits)
            && digits.first().is_some_and(|&first| first > 1)
            && !digits.iter().eq(digits.iter().rev())
    },
    words: &["aadhaar", "aadhar", "adhaar", "uidai"],
    notations: &[(' ', &[4, 4, 4]), ('-', &[4, 4, 4])],
};

/// `DE_TAX_ID`: eleven digits, the first not 0, right by ISO/IEC 7064 MOD 11,10 (section 139b AO; Bundeszentralamt für
/// Steuern, "Aufbau der Identifikationsnummer").
const TAX_ID: Number = Number {
    digits: 11,
    issued: |digits| digits.first() != Some(&0) && mod_11_10(digits),
    words: &[
        "steuer id",
        "steuerid",
        "idnr",
        "steuer idnr",
        "steueridentifikationsnummer",
        "steuerliche identifikationsnummer",
        "tax id",
    ],
    notations: &[],
};

/// The same where no word tells: among the first ten digits exactly one comes twice or three times, as the law has it.
/// One random number in 300 is one of these.
const TAX_ID_WRITTEN: Number = Number {
    issued: |digits| {
        let mut counts = [0; 10];
        digits
            .iter()
            .take(10)
            .for_each(|&digit| counts[digit as usize] += 1);
        let mut repeated = counts.into_iter().filter(|&count| count > 1);
        matches!((repeated.next(), repeated.next()), (Some(2 | 3), None)) && (TAX_ID.issued)(digits)
    },
    words: &[],
    notations: &[(' ', &[11]), (' ', &[2, 3, 3, 3])],
    ..TAX_ID
};

pub(crate) fn uk_nhs(before: &str, found: &str) -> Option<usize> {
    NHS.keep(before, found)
}

pub(crate) fn uk_nhs_written(before: &str, found: &str) -> Option<usize> {
    NHS_WRITTEN.keep(before, found)
}

pub(crate) fn ca_sin(before: &str, found: &str) -> Option<usize> {
    SIN.keep(before, found)
}

pub(crate) fn au_tfn(before: &str, found: &str) -> Option<usize> {
    TFN.keep(before, found)
}

pub(crate) fn in_aadhaar(before: &str, found: &str) -> Option<usize> {
    AADHAAR.keep(before, found)
}

pub(crate) fn de_tax_id(before: &str, found: &str) -> Option<usize> {
    TAX_ID
        .keep(before, found)
        .or_else(|| TAX_ID_WRITTEN.keep(before, found))
}

fn is_uniform(digits: &[u32]) -> bool {
    digits.windows(2).all(|pair| pair[0] == pair[1])
}

/// `UK_NINO`: two letters, six digits in pairs, a letter from A to D. With spaces in capitals only, or every word of
/// two letters would be waited for.
pub(crate) const UK_NINO: &str = concat!(
    r"\b[A-Za-z]{2}(?:-\d\d-\d\d-\d\d-|\d{6} ?)[A-Da-d]\b",
    r"|\b[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] (?:\d\d \d\d \d\d|\d{6}) ?[A-D]\b"
);

/// Which prefixes are given out: HMRC National Insurance Manual NIM39110. In small letters it is one behind a word
/// that says so.
pub(crate) fn uk_nino(before: &str, found: &str) -> Option<usize> {
    let prefix = found.get(..2)?.to_ascii_uppercase();
    let letters = !prefix.contains(['D', 'F', 'I', 'Q', 'U', 'V']) && !prefix.ends_with('O');
    let withheld = ["BG", "GB", "KN", "NK", "NT", "TN", "ZZ"].contains(&prefix.as_str());
    let words = &["nino", "national insurance", "ni number", "ni no"];
    (letters && !withheld && is_sure(before, found, words)).then_some(found.len())
}

/// `IN_PAN`: five letters, four digits, a letter.
pub(crate) const IN_PAN: &str = r"\b[A-Za-z]{5}\d{4}[A-Za-z]\b";

/// The fourth letter is the kind of holder, the digits count from 0001 (Income Tax Department of India, "Permanent
/// Account Number", structure); behind a word it may be any. Its check letter is not published.
pub(crate) fn in_pan(before: &str, found: &str) -> Option<usize> {
    let holder = found.chars().nth(3)?.to_ascii_uppercase();
    let words = &["pan", "permanent account"];
    let issued = "ABCFGHJKLPT".contains(holder) && found.get(5..9) != Some("0000");
    let sure = issued && !found.contains(|c: char| c.is_ascii_lowercase());
    (sure || context::precedes(before, words)).then_some(found.len())
}

/// `ES_NIF`: seven or eight digits, or K, L, M and seven, then a letter.
pub(crate) const ES_NIF: &str = r"\b(?:[KLMklm]\d{7}|\d{7,8})[ -]?[A-Za-z]\b";
/// `ES_NIE`: X, Y or Z, seven digits, a letter.
pub(crate) const ES_NIE: &str = r"\b[XYZxyz][ -]?\d{7}[ -]?[A-Za-z]\b";

const NIF_WORDS: &[&str] = &["nif", "dni", "nie", "documento nacional", "extranjero"];

/// The letter is the number modulo 23 (Real Decreto 1553/2005, article 11; the table is the Ministerio del Interior's,
/// "Cálculo del dígito de control del NIF/NIE").
pub(crate) fn es_nif(before: &str, found: &str) -> Option<usize> {
    // Seven digits are an old form, and a short one: only behind a word.
    let short = found.bytes().filter(u8::is_ascii_digit).count() < 8
        && found.starts_with(|c: char| c.is_ascii_digit());
    let sure = is_sure(before, found, NIF_WORDS)
        && (!(short || found.contains(' ')) || context::precedes(before, NIF_WORDS));
    (sure && !grouped::is_piece(before) && is_nif(found)).then_some(found.len())
}

/// As for a citizen, X, Y, Z counting as a first digit 0, 1, 2 (Orden INT/2058/2008).
pub(crate) fn es_nie(before: &str, found: &str) -> Option<usize> {
    (is_nif(found) && is_sure(before, found, NIF_WORDS)).then_some(found.len())
}

fn is_nif(found: &str) -> bool {
    const LETTERS: &[u8] = b"TRWAGMYFPDXBNJZSQVHLCKE";
    let upper = found.to_ascii_uppercase();
    let first = match upper.as_bytes().first() {
        Some(b'Y') => 1,
        Some(b'Z') => 2,
        _ => 0,
    };
    let number = upper
        .bytes()
        .filter(u8::is_ascii_digit)
        .fold(first, |n, digit| n * 10 + usize::from(digit - b'0'));
    upper.as_bytes().last() == LETTERS.get(number % 23)
}

/// `IT_FISCAL_CODE`: six letters, year, month, day, place, check letter; letters may stand for digits where two people
/// would have the same.
pub(crate) const IT_FISCAL_CODE: &str =
    r"(?i)\b[A-Z]{6}[0-9L-NP-V]{2}[A-EHLMPRST][0-9L-NP-V]{2}[A-Z][0-9L-NP-V]{3}[A-Z]\b";

/// Decreto ministeriale 23 dicembre 1976 (n. 13813): the day is 1 to 31, for women 41 to 71; the check letter is the
/// sum of what each character counts in its place, modulo 26.
pub(crate) fn it_fiscal_code(_before: &str, found: &str) -> Option<usize> {
    /// What `0` to `9` and `A` to `J`, then `K` to `Z`, count in the first, third, … place.
    const ODD: [u32; 26] = [
        1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24,
        23,
    ];
    let values: Vec<usize> = found
        .bytes()
        .map(|b| match b.to_ascii_uppercase() {
            digit @ b'0'..=b'9' => usize::from(digit - b'0'),
            letter => usize::from(letter - b'A'),
        })
        .collect();
    let (&check, front) = values.split_last()?;
    let counts = front.iter().enumerate().map(
        |(i, &value)| {
            if i % 2 == 0 { ODD[value] } else { value as u32 }
        },
    );
    let day = omocodia(found.as_bytes()[9]) * 10 + omocodia(found.as_bytes()[10]);
    let is_day = (1..=31).contains(&day) || (41..=71).contains(&day);
    (is_day && counts.sum::<u32>() % 26 == check as u32).then_some(found.len())
}

/// The digit that a character of the day stands for.
fn omocodia(byte: u8) -> u32 {
    match byte.to_ascii_uppercase() {
        digit @ b'0'..=b'9' => u32::from(digit - b'0'),
        letter => b"LMNPQRSTUV"
            .iter()
            .position(|&l| l == letter)
            .map_or(99, |digit| digit as u32),
    }
}

/// `FR_NIR`: sex, year, month, department, commune, order, key; together or in these groups. And the start of a
/// fraction, so that the check can turn a decimal number down.
pub(crate) const FR_NIR: &str = concat!(
    r"\b[1-478](?:\d{4}(?:\d\d|2[ABab])\d{8}| \d\d \d\d (?:\d\d|2[ABab]) \d{3} \d{3} \d\d)",
    r"(?:\.\d|\b)"
);

/// The key is 97 minus the number modulo 97, with 2A and 2B counting as 19 and 18 (Décret n° 82-103 of 22 January
/// 1982; INSEE, "Numéro d'inscription au répertoire"). A month that is not known is 20 to 42 or 50 to 99.
pub(crate) fn fr_nir(before: &str, found: &str) -> Option<usize> {
    if found.contains('.') || grouped::is_piece(before) {
        return None;
    }
    let code: String = found.chars().filter(|&c| c != ' ').collect();
    let month: u32 = code.get(3..5)?.parse().ok()?;
    let department = match code.get(5..7)?.to_ascii_uppercase().as_str() {
        "2A" => 19,
        "2B" => 18,
        digits => digits.parse::<u64>().ok()?,
    };
    let front: u64 = code.get(..5)?.parse().ok()?;
    let behind: u64 = code.get(7..13)?.parse().ok()?;
    let key: u64 = code.get(13..)?.parse().ok()?;
    let number = (front * 100 + department) * 1_000_000 + behind;
    let plausible = matches!(month, 1..=12 | 20..=42 | 50..=99) && department > 0;
    (plausible && key == 97 - number % 97).then_some(found.len())
}

/// A code in capitals tells for itself; in small letters a word must say what it is.
fn is_sure(before: &str, found: &str, words: &[&str]) -> bool {
    !found.contains(|c: char| c.is_ascii_lowercase()) || context::precedes(before, words)
}
