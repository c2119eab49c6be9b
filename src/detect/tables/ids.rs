//! Numbers that states, banks and hospitals give to people.

use super::check;

#[test]
fn us_ssn() {
    check(
        "US_SSN",
        &[
            "my SSN is «123-45-6789».",
            "SSN «123 45 6789»",
            "_«536-22-8145»_",
            "ssn_«536228145».pdf",
            "order_536228145",
            "_536-22-81456",
            "employeeSsn: «123456789»",
            "«899-99-9999»",
            "«001-01-0001»",
            "SSN: «123456789»",
            "social security number «078051120»",
            "-«219-09-9999»",
            // never issued
            "000-12-3456",
            "666-12-3456",
            "900-12-3456",
            "123-00-4567",
            "123-45-0000",
            // mixed separators, longer numbers, other groupings
            "123-45 6789",
            "123 45-6789",
            "123-45-67890",
            "9123-45-6789",
            "1-123-45-6789",
            "123-45-6789-1",
            "123.45.6789",
            // three numbers in a row are just that
            "123 45 6789",
            "100 20 3000",
            "123456789",
            "order 123456789",
            "ssn one two three four five 123456789",
        ],
    );
}

#[test]
fn us_itin() {
    check(
        "US_ITIN",
        &[
            "«912-90-3456»",
            "ITIN «900 70 0001»",
            "900 70 0001",
            "«999-88-9999»",
            "ITIN: «912903456»",
            "my tax ID is «950650001»",
            // 4th and 5th digit that are never given out, other area
            "912-93-3456",
            "912-89-3456",
            "912-49-3456",
            "912-66-3456",
            "912903456",
            "1-912-90-3456",
            "912-90-3456-1",
            "ITIN: 912933456",
        ],
    );
}

#[test]
fn us_passport() {
    check(
        "US_PASSPORT",
        &[
            "Passport No. «123456789»",
            "my passport is «A12345678», valid",
            "travel document: «987654321»",
            "passport 12345678",
            "passport AB1234567",
            "passport one two three four five 123456789",
            "123456789",
            "A12345678",
        ],
    );
}

#[test]
fn us_driver_license() {
    check(
        "US_DRIVER_LICENSE",
        &[
            "Driver's license: «D1234567»",
            "driver license number «A123-456-78-901-0»",
            "DL «12345678»",
            "my driving licence «LH329609T»",
            "D1234567",
            "driver license 1234",
            "driver license renewal",
            "driver license issued 2024-01-15",
            "a software license D1234567",
        ],
    );
}

#[test]
fn medical_record() {
    check(
        "MEDICAL_RECORD",
        &[
            "MRN: «00123456»",
            "MRN-«123456»",
            "medical record number «AB-1234567»",
            "Patient ID «P1029384»",
            "patientMRN: «00123456»",
            "MRN 1234",
            "MRN of 2024-01-15",
            "00123456",
            "the patient has 12345 hairs",
        ],
    );
}

#[test]
fn us_bank_number() {
    check(
        "US_BANK_NUMBER",
        &[
            "account number «12345678»",
            "checking account no. «1234 5678 9012»",
            "acct: «12345678901234567»",
            "account number 1234567",
            "account «12345678»",
            "acct_«12345678»",
            "billingAccount: «12345678»",
            "account 2024-01-15",
            "account closed 15-01-2024",
            "12345678",
        ],
    );
}

#[test]
fn aba_routing_number() {
    check(
        "ABA_ROUTING_NUMBER",
        &[
            "routing number «111000025»",
            "ABA «0210-0002-1»",
            "RTN: «322271627» for wires",
            // check digit, district
            "routing number 112000025",
            "routing number 500000005",
            "routing number 000000000",
            "111000025",
        ],
    );
}

#[test]
fn uk_nhs() {
    check(
        "UK_NHS",
        &[
            "NHS number: «9434765870»",
            "nhs_«9434765870»_x",
            "NHS «943-476-5870»",
            "the national health number «943 476 5870»",
            "patient «123 456 7806» came",
            "«221 395 1837»",
            "«401-023-2137»",
            "NHS 9434765871",
            "NHS 0000000000",
            "9434765870",
            "1 123 456 7806",
        ],
    );
}

#[test]
fn uk_nino() {
    check(
        "UK_NINO",
        &[
            "«AB123456C»",
            "«AB 12 34 56 C»",
            "«AB123456 C»",
            "nino: «PR 123612C»",
            "«AA-12-34-56-A»",
            "my NI number is «ab123456c»",
            // letters that are not used, prefixes withheld, no suffix
            "DA123456C",
            "AO123456C",
            "GB123456C",
            "AB123456E",
            "AB123456",
            "ab123456c",
            "xAB123456C",
        ],
    );
}

#[test]
fn ca_sin() {
    check(
        "CA_SIN",
        &[
            "«123-456-782»",
            "SIN: «123456782»",
            "social insurance number «123 456 782»",
            "numéro d'assurance sociale «123 456 782»",
            // check digit, fictitious and business numbers
            "«130 692 544»",
            "123-456-789",
            "sin: 046454286",
            "5 130 692 544",
            "sin 823456785",
            "123456782",
            "123-456-782-9",
            "9-123-456-782",
        ],
    );
}

#[test]
fn au_tfn() {
    check(
        "AU_TFN",
        &[
            "TFN «123 456 782»",
            "tax file number: «123456782»",
            "TFN 123 456 783",
            "TFN 000 000 000",
            "876 543 210",
        ],
    );
}

#[test]
fn in_aadhaar() {
    check(
        "IN_AADHAAR",
        &[
            "«2341 2341 2346»",
            "«2341-2341-2346»",
            "Aadhaar «234123412346»",
            // check digit, first digit, palindrome, the front of something longer
            "2341 2341 2347",
            "Aadhaar 123412341234",
            "Aadhaar 222222222222",
            "2341 2341 2346 9999",
            "234123412346",
        ],
    );
}

#[test]
fn in_pan() {
    check(
        "IN_PAN",
        &[
            "«ACUPA7085R»",
            "PAN «acupa7085r»",
            "PAN «AAASA1111R»",
            "«QOXKW8555K»",
            "ABMXA3211G",
            "ACUPA0000R",
            "acupa7085r",
            "ACUPA7085RR",
        ],
    );
}

#[test]
fn de_tax_id() {
    check(
        "DE_TAX_ID",
        &[
            "«36574261809»",
            "Steuer-ID: «36 574 261 809».",
            "Steuer-ID: «12345678903»",
            "12345678903",
            "«86095742719»",
            // check digit, two repeated digits, a leading zero
            "36574261890",
            "36554266806",
            "01234567899",
        ],
    );
}

#[test]
fn es_nif_and_nie() {
    check(
        "ES_NIF",
        &[
            "«54362315K»",
            "DNI «54362315-K»",
            "dni: «54362315k»",
            "54362315Z",
            "1.54362315K",
            "54362315k",
            "4362315K",
        ],
    );
    check(
        "ES_NIE",
        &[
            "«X2482300W»",
            "NIE «X-2482300-W»",
            "«Z8327649K»",
            "X2482300A",
            "x2482300w",
        ],
    );
}

#[test]
fn it_fiscal_code() {
    check(
        "IT_FISCAL_CODE",
        &[
            "«RCCMNL83S18D969H»",
            "codice fiscale «rccmnl83s18d969h»",
            "«CNTCHR83T41D969D»",
            // check letter, month, day
            "RCCMNL83S18D969J",
            "RCCMNL83F18D969H",
            "RCCMNL83S00D969H",
        ],
    );
}

#[test]
fn fr_nir() {
    check(
        "FR_NIR",
        &[
            "«295109912611193»",
            "NIR «2 95 10 99 126 111 93»",
            "«253072B07300470»",
            "«253072A07300443»",
            // key, department, month
            "0.295109912611193",
            "295109912611193.5",
            "«295109912611193».",
            "295109912611199",
            "253072C07300443",
            "295159912611193",
        ],
    );
}

#[test]
fn date_of_birth() {
    check(
        "DATE_OF_BIRTH",
        &[
            "DOB: «1985-03-12»",
            "dateOfBirth: «1985-03-12»",
            "date_of_birth: «1985-03-12»",
            "dob_«1985-03-12»_",
            "{\"patientDOB\": \"«1985-03-12»\"}",
            "updateOfBirthplace: 1985-03-12",
            "dateOfDeath: 1985-03-12",
            "born on «03/12/1985» in Paris",
            "date of birth «12.3.85»",
            "Birthday: «March 12, 1985»",
            "she was born «12th of March 1985»",
            "geboren am «12. März 1985»",
            "né le «1er août 1985»",
            "nacido el «12 de marzo de 1985»",
            "born «Sept. 3 1999»",
            "1985-03-12",
            "due on 03/12/1985",
            "DOB: 1985-13-12",
            "DOB: 40/40/1985",
            "born 12 apples 1985",
            "DOB: 1485-03-12",
            "born 12 March 3985",
        ],
    );
}
