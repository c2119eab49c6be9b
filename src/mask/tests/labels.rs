//! What a key says of the value under it.

use super::*;

/// Found by its shape, whatever stands before it.
const ALONE: &[&str] = &[
    "ANTHROPIC_KEY",
    "AWS_ACCESS_KEY",
    "CREDIT_CARD",
    "CRYPTO",
    "EMAIL_ADDRESS",
    "FR_NIR",
    "GITHUB_TOKEN",
    "GOOGLE_API_KEY",
    "IBAN_CODE",
    "IP_ADDRESS",
    "IT_FISCAL_CODE",
    "JWT",
    "MAC_ADDRESS",
    "OPENAI_KEY",
    "PRIVATE_KEY",
    "SLACK_TOKEN",
    "STRIPE_KEY",
    "URL",
    "VIN",
];

/// Found by what stands before it: entity, key, value.
const TOLD: &[(&str, &str, &str)] = &[
    ("ABA_ROUTING_NUMBER", "routing_number", "021000021"),
    ("AU_TFN", "tfn", "123456782"),
    (
        "AWS_SECRET_KEY",
        "aws_secret_key",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzKq8TLp2V",
    ),
    ("CA_SIN", "sin", "130692544"),
    ("DATE_OF_BIRTH", "dob", "1985-03-12"),
    ("DATE_OF_BIRTH", "date_of_birth", "12 March 1985"),
    ("DATE_OF_BIRTH", "dateOfBirth", "March 12, 1985"),
    ("DE_TAX_ID", "steuer_id", "11223344553"),
    ("ES_NIE", "nie", "x1234567l"),
    ("ES_NIF", "dni", "12345678z"),
    ("GENERIC_SECRET", "accessToken", "kJ8sd7Fh2Lq9Zx3W"),
    ("GENERIC_SECRET", "api_key", "kJ8sd7Fh2Lq9Zx3W"),
    ("GENERIC_SECRET", "client_secret", "kJ8sd7Fh2Lq9Zx3W"),
    ("GENERIC_SECRET", "dbPassword", "hunter2Zq9x"),
    ("GENERIC_SECRET", "password", "hunter2Zq9x"),
    ("GENERIC_SECRET", "password", "hunter2.Zq9x"),
    ("GENERIC_SECRET", "pwd", "hunter2Zq9x"),
    ("GENERIC_SECRET", "secret", "3f9ac07be1d24685"),
    ("GENERIC_SECRET", "token", "kJ8sd7Fh2Lq9Zx3W"),
    ("IN_AADHAAR", "aadhaar", "234123412346"),
    ("IN_PAN", "pan", "abcpe1234f"),
    ("MEDICAL_RECORD", "mrn", "00482913"),
    ("PHONE_NUMBER", "phone", "02079460958"),
    ("UK_NHS", "nhs_number", "9434765919"),
    ("UK_NINO", "national_insurance", "ab123456c"),
    ("US_BANK_NUMBER", "account", "000123456789"),
    ("US_DRIVER_LICENSE", "driver_license", "D1234562"),
    ("US_ITIN", "itin", "912781234"),
    ("US_ITIN", "itin", "912 78 1234"),
    ("US_PASSPORT", "passport", "C03005988"),
    ("US_SSN", "ssn", "536228145"),
    ("US_SSN", "ssn", "536 22 8145"),
];

fn plan() -> Arc<Plan> {
    let catalog = Catalog::builtin().unwrap();
    let scanner = catalog.scanner(catalog.entities()).unwrap();
    Arc::new(Plan::new(scanner, &[].into()))
}

#[test]
fn what_is_found_behind_a_word_is_found_under_it_as_a_key() {
    let plan = plan();
    let faults = TOLD.iter().filter(|(entity, key, value)| {
        let (_, bare) = mask(&plan, value);
        let (_, behind) = mask(&plan, &format!("{{\"{key}\": \"{value}\"}}"));
        let (_, under) = mask_under(&plan, key, value);
        let (_, deeper) = mask_under(&plan, &format!("customer {key}"), value);
        let found = !bare.contains_key(*entity) && behind.contains_key(*entity);
        !found || under != behind || deeper != behind
    });
    assert_eq!(
        faults.collect::<Vec<_>>(),
        Vec::<&(&str, &str, &str)>::new()
    );
}

#[test]
fn every_detector_is_told_by_its_shape_or_tried_under_a_key() {
    let told = TOLD.iter().map(|(entity, ..)| *entity);
    let known: BTreeSet<Entity> = told.chain(ALONE.iter().copied()).map(Into::into).collect();
    assert_eq!(*Catalog::builtin().unwrap().entities(), known);
}

#[test]
fn what_only_stands_for_a_secret_stays_under_a_key_too() {
    let plan = plan();
    for (key, value) in [
        ("password", "new_password_2"),
        ("password", "changeme1"),
        ("token_type", "kJ8sd7Fh2Lq9Zx3W"),
        ("public_key", "kJ8sd7Fh2Lq9Zx3W"),
        ("note", "hunter2Zq9x"),
    ] {
        assert_eq!(mask_under(&plan, key, value).0, value, "{key}");
    }
}
