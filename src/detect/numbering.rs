//! The numbering plans of the world, as libphonenumber's metadata describes them (in the `phonenumber` crate).
//!
//! Only the metadata is used, not the crate's parser: that one keeps its regular expressions behind a global lock in
//! a cache of 100, so that a text with numbers of many countries makes it compile at every number; it takes a foreign
//! number's first digit for the default region's trunk prefix; and it accepts a number with digits too many. Here each
//! country's plan is one anchored automaton, built at its first use and kept.

use std::{
    collections::BTreeMap,
    sync::{LazyLock, OnceLock},
};

use phonenumber::metadata::{DATABASE, Descriptors};
use regex_automata::{meta, util::syntax};

/// Bytes of lazily built automaton per country and thread.
const CACHE_BYTES: usize = 128 << 10;

/// By country calling code, which is one to three digits long and a prefix of no other (ITU-T E.164).
static PLANS: LazyLock<BTreeMap<u16, OnceLock<Option<meta::Regex>>>> = LazyLock::new(|| {
    (1..1000)
        .filter(|code| DATABASE.by_code(code).is_some())
        .map(|code| (code, OnceLock::new()))
        .collect()
});

/// Whether the digits behind a `+` are a number that some country assigns. A trunk `0` that people write behind the
/// country code, as in `+44 (0)20`, is passed over.
pub(crate) fn is_assigned(digits: &str) -> bool {
    let codes = (1..=3).filter_map(|len| digits.split_at_checked(len));
    codes
        .filter_map(|(code, rest)| Some((code.parse().ok()?, rest)))
        .any(|(code, rest)| {
            is_national(code, rest)
                || rest
                    .strip_prefix('0')
                    .is_some_and(|rest| is_national(code, rest))
        })
}

/// Whether the digits are a national number of the country with this calling code.
pub(crate) fn is_national(code: u16, digits: &str) -> bool {
    let plan = PLANS
        .get(&code)
        .and_then(|plan| plan.get_or_init(|| plan_of(code)).as_ref());
    plan.is_some_and(|plan| plan.is_match(digits))
}

/// Every kind of number of every region with this calling code.
fn plan_of(code: u16) -> Option<meta::Regex> {
    let regions = DATABASE.by_code(&code)?;
    let kinds: Vec<&str> = regions
        .iter()
        .flat_map(|region| kinds(region.descriptors()))
        .collect();
    meta::Builder::new()
        .syntax(syntax::Config::new().unicode(false).ignore_whitespace(true))
        .configure(meta::Config::new().hybrid_cache_capacity(CACHE_BYTES))
        .build(&format!("^(?:{})$", kinds.join("|")))
        .ok()
}

fn kinds(of: &Descriptors) -> impl Iterator<Item = &str> {
    let kinds = [
        of.fixed_line(),
        of.mobile(),
        of.toll_free(),
        of.premium_rate(),
        of.shared_cost(),
        of.personal_number(),
        of.voip(),
        of.pager(),
        of.uan(),
        of.voicemail(),
    ];
    kinds
        .into_iter()
        .flatten()
        .map(|kind| kind.national_number().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plan_compiles_and_knows_its_own_examples() {
        for region in DATABASE.iter() {
            let of = region.descriptors();
            for example in [of.fixed_line(), of.mobile(), of.toll_free()]
                .into_iter()
                .flatten()
                .filter_map(|k| k.example())
            {
                let code = region.country_code();
                assert!(
                    is_assigned(&format!("{code}{example}")),
                    "{} +{code} {example}",
                    region.id()
                );
                assert!(
                    !is_assigned(&format!("{code}{example}{example}")),
                    "{} twice",
                    region.id()
                );
            }
        }
    }
}
