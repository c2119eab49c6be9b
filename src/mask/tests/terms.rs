//! Lists of terms, among all else that is looked for.

use super::*;

/// Terms that begin like others, end in them, or look like what patterns find.
static TERMS: LazyLock<Arc<Plan>> = LazyLock::new(|| {
    let list = |entity: &str, terms: &[&str], fold_case, whole_word| Terms {
        entity: entity.into(),
        terms: terms.iter().map(|&term| term.into()).collect(),
        fold_case,
        whole_word,
    };
    let catalog = Catalog::builtin().unwrap().with_terms(&[
        list(
            "PROJECT",
            &[
                "Blue Heron",
                "blue heron two",
                "Straße",
                "heron",
                "Nord\u{2013}Süd",
            ],
            true,
            true,
        ),
        list("CODE", &["x1", "x12", "1234", "a@b"], false, false),
    ]);
    let catalog = catalog.unwrap();
    let scanner = catalog.scanner(catalog.defaults()).unwrap();
    Arc::new(Plan::new(scanner, &BTreeMap::new()))
});

#[test]
fn terms_are_found_among_all_else() {
    for (text, masked) in [
        ("BLUE HERON", "[PROJECT]"),
        ("blue heron two", "[PROJECT]"),
        ("Blue Heron twofold", "[PROJECT] twofold"),
        ("Blue Herons", "Blue Herons"),
        ("in der STRAẞE", "in der [PROJECT]"),
        ("x1 x12 x123 X1", "[CODE] [CODE] [CODE]3 X1"),
        ("a@b a@b.co", "[CODE] [EMAIL_ADDRESS]"),
        ("SSN 123-45-6789 heron x1", "SSN [US_SSN] [PROJECT] [CODE]"),
        ("Blue\u{a0}Her\u{ad}on", "[PROJECT]"),
        ("Nord-Süd and Nord\u{2013}Süd", "[PROJECT] and [PROJECT]"),
    ] {
        assert_eq!(mask(&TERMS, text).0, masked, "{text}");
    }
    let taken = Catalog::builtin().unwrap().with_terms(&[Terms {
        entity: "US_SSN".into(),
        terms: vec!["a".into()],
        fold_case: true,
        whole_word: true,
    }]);
    assert!(taken.is_err());
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn terms_are_masked_the_same_however_the_text_is_cut(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "Blue", " ", "heron", "HERON", "Two", "x1", "2", "34", "Straß", "e", "é", "a@b", ".co", "123-45-6789", "\u{ad}",
        ]), 0..14),
        lengths in prop::collection::vec(1usize..8, 1..6),
    ) {
        let text = pieces.concat();
        let (whole, counts) = mask(&TERMS, &text);
        for lengths in [&lengths[..], &[1]] {
            let (out, masker) = stream(&TERMS, &cut(&text, lengths));
            prop_assert_eq!(&out, &whole, "{:?} cut by {:?}", text, lengths);
            prop_assert_eq!(masker.counts(), counts.clone());
        }
    }
}
