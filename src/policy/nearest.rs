//! What was probably meant by a name that is not known.

use std::collections::BTreeSet;

/// The known name that is closest to `name`; `None` where none is close.
pub(crate) fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<String> {
    let folded = name.to_lowercase();
    let known: BTreeSet<&str> = known.into_iter().collect();
    let scored = known.into_iter().map(|known| {
        let candidate = known.to_lowercase();
        (
            strsim::jaro_winkler(&folded, &candidate),
            strsim::osa_distance(&folded, &candidate),
            known,
        )
    });
    scored
        .filter(|(likeness, distance, known)| {
            *likeness >= 0.8 && (*distance <= 3 || known.to_lowercase().contains(&folded))
        })
        .min_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)))
        .map(|(_, _, known)| known.to_owned())
}
