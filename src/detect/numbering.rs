//! The numbering plans of the world, as libphonenumber's metadata describes them (in the `phonenumber` crate).
//!
//! Only the metadata is used, not the crate's parser: that one keeps its regular expressions behind a global lock in
//! a cache of 100, so that a text with numbers of many countries makes it compile at every number; it takes a foreign
//! number's first digit for the default region's trunk prefix; and it accepts a number with digits too many. Here each
//! country's plan is an anchored automaton and one for each of its notations, built at their first use and kept.

use std::{
    collections::BTreeMap,
    sync::{LazyLock, OnceLock},
};

use phonenumber::metadata::{DATABASE, Descriptor, Descriptors};
use regex_automata::{meta, util::syntax};

/// Bytes of lazily built automaton per country and thread.
const CACHE_BYTES: usize = 128 << 10;

/// By country calling code, which is one to three digits long and a prefix of no other (ITU-T E.164).
static PLANS: LazyLock<BTreeMap<u16, OnceLock<Option<Plan>>>> = LazyLock::new(|| {
    (1..1000)
        .filter(|code| DATABASE.by_code(code).is_some())
        .map(|code| (code, OnceLock::new()))
        .collect()
});

/// The numbers of one country code.
struct Plan {
    assigned: meta::Regex,
    notations: Vec<Notation>,
}

/// How some of them are written in groups.
struct Notation {
    /// What they begin with.
    leading: Option<meta::Regex>,
    /// Each group of digits is a group of the expression.
    groups: meta::Regex,
}

/// Whether the digits behind a `+` are a number that some country assigns. A trunk `0` that people write behind the
/// country code, as in `+44 (0)20`, is passed over.
pub(crate) fn is_assigned(digits: &str) -> bool {
    codes(digits).any(|(code, rest)| {
        is_national(code, rest)
            || rest
                .strip_prefix('0')
                .is_some_and(|rest| is_national(code, rest))
    })
}

/// Whether the digits are a national number of the country with this calling code.
pub(crate) fn is_national(code: u16, digits: &str) -> bool {
    plan(code).is_some_and(|plan| plan.assigned.is_match(digits))
}

/// Whether the digits are such a number, and the country writes it in groups of these lengths: libphonenumber's
/// leniency `STRICT_GROUPING`.
pub(crate) fn is_written(code: u16, digits: &str, groups: &[usize]) -> bool {
    plan(code).is_some_and(|plan| {
        plan.assigned.is_match(digits)
            && plan
                .notations
                .iter()
                .any(|notation| notation.is(digits, groups))
    })
}

/// Whether some country has this code and numbers as long as the rest: `isPossibleNumber` of libphonenumber.
pub(crate) fn is_possible(digits: &str) -> bool {
    codes(digits)
        .filter_map(|(code, rest)| Some((DATABASE.by_code(&code)?, rest.len())))
        .any(|(regions, len)| {
            regions
                .iter()
                .flat_map(|region| kinds(region.descriptors()))
                .flat_map(Descriptor::possible_length)
                .any(|&possible| usize::from(possible) == len)
        })
}

/// Whether these digits are the calling code of a country.
pub(crate) fn is_country(digits: &str) -> bool {
    codes(digits).any(|(code, rest)| rest.is_empty() && PLANS.contains_key(&code))
}

/// The fronts that may be a country code, and what follows each. People write `+044` too.
fn codes(digits: &str) -> impl Iterator<Item = (u16, &str)> {
    (1..=3)
        .filter_map(|len| digits.split_at_checked(len))
        .filter_map(|(code, rest)| Some((code.parse().ok()?, rest)))
}

fn plan(code: u16) -> Option<&'static Plan> {
    PLANS.get(&code)?.get_or_init(|| plan_of(code)).as_ref()
}

/// Every kind of number of every region with this calling code.
fn plan_of(code: u16) -> Option<Plan> {
    let regions = DATABASE.by_code(&code)?;
    let kinds: Vec<&str> = regions
        .iter()
        .flat_map(|region| kinds(region.descriptors()))
        .map(|kind| kind.national_number().as_str())
        .collect();
    let formats = regions.iter().flat_map(|region| {
        region
            .formats()
            .iter()
            .chain(region.international_formats())
    });
    let notations = formats.map(|format| {
        let leading = format.leading_digits().last();
        Some(Notation {
            leading: match leading {
                Some(leading) => Some(compile(&format!("^(?:{})", leading.as_str()))?),
                None => None,
            },
            groups: compile(&format!("^(?:{})$", format.pattern().as_str()))?,
        })
    });
    Some(Plan {
        assigned: compile(&format!("^(?:{})$", kinds.join("|")))?,
        notations: notations.collect::<Option<_>>()?,
    })
}

fn compile(regex: &str) -> Option<meta::Regex> {
    meta::Builder::new()
        .syntax(syntax::Config::new().unicode(false).ignore_whitespace(true))
        .configure(meta::Config::new().hybrid_cache_capacity(CACHE_BYTES))
        .build(regex)
        .ok()
}

impl Notation {
    fn is(&self, digits: &str, groups: &[usize]) -> bool {
        let led = self
            .leading
            .as_ref()
            .is_none_or(|leading| leading.is_match(digits));
        let mut captures = self.groups.create_captures();
        if led {
            self.groups.captures(digits, &mut captures);
        }
        captures.is_match()
            && captures
                .iter()
                .skip(1)
                .map(|group| group.map_or(0, |group| group.len()))
                .eq(groups.iter().copied())
    }
}

fn kinds(of: &Descriptors) -> impl Iterator<Item = &Descriptor> {
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
    kinds.into_iter().flatten()
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
