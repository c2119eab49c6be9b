//! What each value begins with, as the table of built-in detectors says: what begins otherwise is passed over unread, so
//! that a wrong entry would be a silent miss.

use std::collections::BTreeMap;

use regex_automata::{Anchored, Input, meta};
use regex_syntax::hir::{Class, Hir, HirKind};

use super::super::{builtin, iban, pattern::Pattern};

/// Texts made of each shape.
const TEXTS: u32 = 60_000;
/// What tells a value that does not tell itself.
const BEFORE: &[(&str, &str)] = &[
    ("VIN", "vin "),
    ("ABA_ROUTING_NUMBER", "routing "),
    ("UK_NHS", "nhs "),
    ("AU_TFN", "tfn "),
    ("CA_SIN", "sin "),
    ("IN_AADHAAR", "aadhaar "),
    ("DE_TAX_ID", "tax id "),
    ("US_BANK_NUMBER", "account "),
    ("US_PASSPORT", "passport "),
    ("MEDICAL_RECORD", "mrn "),
    ("US_DRIVER_LICENSE", "driver license "),
    ("PHONE_NUMBER", "phone "),
    ("AWS_SECRET_KEY", "secret access key "),
    ("GENERIC_SECRET", "password="),
];

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % u64::from(n)) as u32
    }

    /// Adds a text of this shape, in which what repeats does so few times more than it must, and what may be there is so
    /// often of ten.
    fn text(&mut self, shape: &Hir, few: u32, often: u32, text: &mut Vec<u8>) {
        match shape.kind() {
            HirKind::Empty | HirKind::Look(_) => {}
            HirKind::Literal(literal) => text.extend_from_slice(&literal.0),
            HirKind::Class(Class::Bytes(class)) => {
                let range = class.ranges()[self.below(class.ranges().len() as u32) as usize];
                let more = self.below(u32::from(range.end() - range.start()) + 1);
                text.push(range.start() + more as u8);
            }
            HirKind::Class(Class::Unicode(class)) => {
                let range = class.ranges()[self.below(class.ranges().len() as u32) as usize];
                let most = u32::from(range.end()) - u32::from(range.start());
                let c = char::from_u32(u32::from(range.start()) + self.below(most.min(99) + 1));
                text.extend(c.unwrap().to_string().bytes());
            }
            HirKind::Repetition(repetition) => {
                let most = repetition.max.unwrap_or(u32::MAX);
                let more = if most == 1 {
                    u32::from(self.below(10) < often)
                } else {
                    self.below(few)
                };
                let times = most.min(repetition.min + more);
                (0..times).for_each(|_| self.text(&repetition.sub, few, often, text));
            }
            HirKind::Capture(capture) => self.text(&capture.sub, few, often, text),
            HirKind::Concat(subs) => subs.iter().for_each(|sub| self.text(sub, few, often, text)),
            HirKind::Alternation(subs) => {
                let chosen = self.below(subs.len() as u32) as usize;
                self.text(&subs[chosen], few, often, text);
            }
        }
    }
}

/// Matches that pass the check, made by chance.
fn passing(pattern: &Pattern, dice: &mut Dice) -> Vec<String> {
    let regex = anchored(&pattern.shape);
    let before = BEFORE
        .iter()
        .find(|(entity, _)| *entity == &*pattern.entity);
    let before = before.map(|(_, before)| before);
    let texts = (0..TEXTS).filter_map(|i| {
        let few = [2, 5, 9, 16][(i % 4) as usize];
        let often = [0, 1, 5, 9][(i / 4 % 4) as usize];
        let mut text = Vec::new();
        dice.text(&pattern.shape, few, often, &mut text);
        let text = String::from_utf8(text).unwrap();
        let told = |before: &&str| pattern.check.keep(before, &text).is_some();
        [""].iter().chain(before).find(|before| told(before))?;
        // A generated text has no regard for assertions, nor for how far the detector reaches.
        let fits = text.len() <= pattern.reach && end(&regex, &text) == Some(text.len());
        fits.then_some(text)
    });
    texts.collect()
}

fn anchored(shape: &Hir) -> meta::Regex {
    let config = meta::Config::new().utf8_empty(false);
    meta::Builder::new()
        .configure(config)
        .build_from_hir(shape)
        .unwrap()
}

fn end(regex: &meta::Regex, text: &str) -> Option<usize> {
    let found = regex.search(&Input::new(text).anchored(Anchored::Yes));
    found.map(|found| found.end())
}

/// Of these nobody makes one by chance: they have tests of their own, here or in the table of examples.
const RARE: &[&str] = &["IBAN_CODE", "CRYPTO", "AWS_SECRET_KEY", "VIN"];

#[test]
fn every_value_begins_as_its_table_says() {
    let (mut dice, mut made) = (Dice(1), BTreeMap::new());
    for pattern in builtin::patterns().unwrap() {
        let Some(front) = &pattern.front else {
            continue;
        };
        let texts = passing(&pattern, &mut dice);
        let entity = &*pattern.entity;
        let regex = anchored(front);
        for text in &texts {
            assert!(end(&regex, text).is_some(), "{text:?} is a {entity}");
        }
        let least = front.properties().minimum_len().unwrap();
        let short = texts.iter().any(|text| text.len() <= least + 3);
        *made.entry(entity.to_owned()).or_insert(false) |= short;
    }
    // Chance makes the shortest, or nearly, or the test would say nothing.
    made.retain(|entity, made| !*made && !RARE.contains(&&**entity));
    assert_eq!(made, BTreeMap::new());
}

#[test]
fn every_account_number_begins_as_the_table_says() {
    let fronts = builtin::patterns().unwrap().into_iter();
    let front = fronts
        .filter(|pattern| &*pattern.entity == "IBAN_CODE")
        .find_map(|pattern| pattern.front);
    let front = anchored(&front.unwrap());
    for code in iban::examples() {
        assert_eq!(iban::check("", &code), Some(code.len()), "{code}");
        assert!(end(&front, &code).is_some(), "{code}");
        // Every digit and letter counts, and so does the length.
        let shorter = &code[..code.len() - 1];
        assert_eq!(iban::check("", shorter), None, "{shorter}");
        let longer = format!("{code}0");
        assert_eq!(iban::check("", &longer), None, "{longer}");
    }
}
