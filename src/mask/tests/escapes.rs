//! What is written as an escape of a link or of a terminal.

use super::*;

fn assert_masked(table: &[(&str, &str)]) {
    for (text, expected) in table {
        assert_eq!(&mask(&BUILTIN, text).0, expected);
        for piece in [1, 2, 3, 5] {
            let (out, _) = stream(&BUILTIN, &cut(text, &[piece]));
            assert_eq!(&out, expected, "cut by {piece}");
        }
    }
}

#[test]
fn a_value_in_a_link_is_masked_with_its_escapes() {
    assert_masked(&[
        ("?ssn%3D123-45-6789%26x", "?ssn%3D[US_SSN]%26x"),
        (
            "q=%22123-45-6789%22%20and%20%7B4111111111111111%7D",
            "q=%22[US_SSN]%22%20and%20%7B[CREDIT_CARD]%7D",
        ),
        (
            "card%3D4111%201111%201111%201111&x",
            "card%3D[CREDIT_CARD]&x",
        ),
        ("tel=%2B1%20(212)%20555-0100", "tel=[PHONE_NUMBER]"),
        ("born%2003%2F12%2F1985.", "born%20[DATE_OF_BIRTH]."),
        ("mac=00%3A1A%3A2B%3A3C%3A4D%3A5E", "mac=[MAC_ADDRESS]"),
        ("?u=jane%2540x.co%26", "?u=[EMAIL_ADDRESS]%26"),
        ("x%253D123-45-6789", "x%253D[US_SSN]"),
        // a password and a link go on behind what ends neither
        ("password=hunter2%22x%20y9&b", "password=[GENERIC_SECRET]"),
        (
            "%22token%22%3A%22Zf3D0LXCM3EIMbgTpUSI%22",
            "%22token%22%3A[GENERIC_SECRET]",
        ),
        // a number behind a percent sign
        ("5%4012888888881881", "5%[CREDIT_CARD]"),
        ("ssn LIKE '%123-45-6789%'", "ssn LIKE '%[US_SSN]%'"),
        ("tel LIKE '%212-555-0100%'", "tel LIKE '%[PHONE_NUMBER]%'"),
        (
            "card LIKE '%6011111111111117%'",
            "card LIKE '%[CREDIT_CARD]%'",
        ),
        (
            "card LIKE '%4012 8888 8888 1881%'",
            "card LIKE '%[CREDIT_CARD]%'",
        ),
        ("ip LIKE '%10.20.30.40%'", "ip LIKE '%[IP_ADDRESS]%'"),
        ("%25123-45-6789%25", "%25[US_SSN]%25"),
        // whose first two digits are those of an escape, but that is grouped as numbers are
        ("ssn LIKE '%221-45-6789%'", "ssn LIKE '%[US_SSN]%'"),
        ("%25221-45-6789%25", "%25[US_SSN]%25"),
        ("tel LIKE '%202-555-0143%'", "tel LIKE '%[PHONE_NUMBER]%'"),
        (
            "card LIKE '%2221 0000 0000 0009%'",
            "card LIKE '%[CREDIT_CARD]%'",
        ),
        ("ip LIKE '%20.30.40.50%'", "ip LIKE '%[IP_ADDRESS]%'"),
        // and not grouped so
        ("?q=ssn%20123-45-6789", "?q=ssn%20[US_SSN]"),
        ("+1%20202-555-0143", "[PHONE_NUMBER]"),
        ("%22202-555-0143%22", "%22[PHONE_NUMBER]%22"),
        ("'%1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa'", "'%[CRYPTO]'"),
    ]);
}

#[test]
fn a_value_in_colours_is_masked_with_them() {
    assert_masked(&[
        (
            "ssn \u{1B}[31m123-45-6789\u{1B}[0m.",
            "ssn \u{1B}[31m[US_SSN]\u{1B}[0m.",
        ),
        (
            r"\u001b[0;32m4111 1111 1111 1111\u001b[0m",
            r"\u001b[0;32m[CREDIT_CARD]\u001b[0m",
        ),
        (
            r"\\x1b[38;5;196mjane@\\x1b[1mexample.com\\x1b[0m x",
            r"\\x1b[38;5;196m[EMAIL_ADDRESS]\\x1b[0m x",
        ),
        (
            r"\033[1m123-45-6789 \e[4mAKIAIOSFODNN7EXAMPLE\e[m",
            r"\033[1m[US_SSN] \e[4m[AWS_ACCESS_KEY]\e[m",
        ),
    ]);
    // More colours than text: each is then a blank.
    let text = "\u{1B}[0;32m123-45-6789\u{1B}[0;31m\u{1B}[0;32m\n".repeat(100);
    let out = stream(&BUILTIN, &cut(&text, &[7])).0;
    assert_eq!(out, mask(&BUILTIN, &text).0);
    assert_eq!(out.matches("[US_SSN]").count(), 100);
}
