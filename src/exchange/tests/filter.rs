//! One answer's text on its way out, without the exchange around it.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    detect::Catalog,
    dialect::{Channel, TextFilter},
    exchange::filter::{Filter, Record, Treatment},
    mask::Plan,
};

fn plan() -> Arc<Plan> {
    let catalog = Catalog::builtin().unwrap();
    let scanner = catalog.scanner(catalog.entities()).unwrap();
    Arc::new(Plan::new(scanner, &BTreeMap::new()))
}

fn filter(traffic: Option<Arc<Plan>>, record: Record) -> Filter {
    Filter::new(Treatment {
        traffic,
        lent: None,
        operators: Arc::default(),
        vault: None,
        record,
    })
}

fn channel(field: &str) -> Channel {
    Channel {
        choice: 0,
        field: field.to_owned(),
    }
}

#[test]
fn a_value_that_was_masked_and_goes_on_in_the_next_message_is_spread_over_both() {
    let line = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n";
    let key = |lines: &str| format!("-----BEGIN PRIVATE KEY-----\n{lines}");
    for (first, next) in [
        (&*key(line), line),
        // Longer than what is remembered.
        (&key(&line.repeat(40)), line),
        ("key sk-ant-api03-abcdEFGH1234abcdEFGH", "5678ijklMNOP9012"),
        ("token ghp_0123456789abcdefghijABCDEFGHIJ012345", "6789abcd"),
        ("password: hunter2Zq9x", "Zq9xSecretTail77"),
        ("mail jane.doe@example.co", "m ok"),
    ] {
        let mut filter = filter(Some(plan()), Record::Nothing);
        let left = filter.message(&channel("x"), first);
        assert_ne!(left.as_deref(), Some(first));
        assert_eq!(filter.message(&channel("x"), ""), Some(String::new()));
        assert_eq!(filter.message(&channel("x"), next), None, "{first} {next}");
        // Another field's text is another text.
        assert!(filter.message(&channel("y"), next).is_some());
    }
}

#[test]
fn messages_behind_a_value_that_has_ended_leave() {
    let mut filter = filter(Some(plan()), Record::Nothing);
    let line = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n";
    let key = format!(
        "-----BEGIN PRIVATE KEY-----\n{}-----END PRIVATE KEY-----\n",
        line.repeat(40)
    );
    for (text, left) in [
        ("mail jane.doe@example.com", "mail [EMAIL_ADDRESS]"),
        (" and card 4111 1111 1111 1111", " and card [CREDIT_CARD]"),
        (", ssn 536-22-8714", ", ssn [US_SSN]"),
        (". The key:\n", ". The key:\n"),
        (&*key, "[PRIVATE_KEY]\n"),
        ("That is all.", "That is all."),
    ] {
        assert_eq!(filter.message(&channel("x"), text).as_deref(), Some(left));
    }
}

#[test]
fn a_whole_text_takes_nothing_of_one_that_is_open_in_its_channel() {
    for (traffic, record) in [
        (Some(plan()), Record::AsItLeaves),
        (None, Record::Masked(plan())),
    ] {
        let masks = traffic.is_some();
        let mut filter = filter(traffic, record);
        let (content, mut out) = (channel("content"), String::new());
        filter.push(&content, "card 4111 1111 1111 ", &mut out);
        assert_eq!(filter.whole(&content, "x"), "x");
        filter.push(&content, "1111 ok", &mut out);
        filter.finish(&content, &mut out);
        assert_eq!(out.contains("4111"), !masks);
        let left = filter.take_released();
        filter.left(left);
        filter.settle();
        let shown = filter.take_shown().remove(&content).unwrap();
        assert!(shown.contains("[CREDIT_CARD] ok"), "{shown}");
        assert!(!shown.contains("1111"), "{shown}");
    }
}
