//! What each built-in detector finds and what it leaves, a table each.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{collections::BTreeMap, sync::LazyLock};

use super::*;
use crate::mask::{Masker, Plan, mask};

mod fronts;
mod ids;

static SCANNER: LazyLock<Arc<Scanner>> = LazyLock::new(|| {
    let catalog = Catalog::builtin().unwrap();
    catalog.scanner(catalog.defaults()).unwrap()
});

/// In each text the values between `«` and `»` are found as `entity`, and nothing else is; and masked alike wherever
/// the text is cut in two.
fn check(entity: &str, texts: &[&str]) {
    check_with(&SCANNER, entity, texts);
}

fn check_with(scanner: &Arc<Scanner>, entity: &str, texts: &[&str]) {
    let plan = Arc::new(Plan::new(scanner.clone(), &BTreeMap::new()));
    for marked in texts {
        let text = marked.replace(['«', '»'], "");
        let findings = scanner.find(&text);
        let found: Vec<_> = findings
            .iter()
            .map(|f| (&*f.entity, text.get(f.start..f.end).unwrap()))
            .collect();
        let expected: Vec<_> = marked
            .split('«')
            .skip(1)
            .map(|rest| (entity, rest.split('»').next().unwrap()))
            .collect();
        assert_eq!(found, expected, "{entity} in {text:?}");
        let (whole, _) = mask(&plan, &text);
        for (at, _) in text.char_indices() {
            let (mut masker, mut out) = (Masker::new(plan.clone()), String::new());
            masker.push(&text[..at], &mut out);
            masker.push(&text[at..], &mut out);
            masker.finish(&mut out);
            assert_eq!(out, whole, "{text:?} cut at {at}");
        }
    }
}

#[test]
fn credit_card() {
    check(
        "CREDIT_CARD",
        &[
            "«4111 1111 1111 1111»",
            "«4111-1111-1111-1111»",
            "«4111111111111111»",
            "«4222222222222»",
            "«5500005555555559»",
            "«2223003122003222»",
            "«378282246310005»",
            "«3714 496353 98431»",
            "«6011000990139424»",
            "«3530111333300000»",
            "«30569309025904»",
            "«6200000000000005»",
            "«6759649826438453»",
            // 19 digits, both ends of the Mastercard 2-series, Diners, JCB, Discover, Mir, RuPay, UnionPay from 81
            "«4000123456789012343»",
            "«2221123456789014»",
            "«2720123456789010»",
            "«36123456789013»",
            "«3528123456789012»",
            "«3589123456789012346»",
            "«6441234567890123»",
            "«6512345678901234562»",
            "«2204123456789015»",
            "«5081234567890120»",
            "«8100123456789017»",
            "«6212345678901234569»",
            "«676312345678»",
            // what follows a card is neither part of it nor hides it
            "card «4111 1111 1111 1111» 12/27 999",
            "«4111111111111111» 3 items",
            "«4111 1111 1111 1111» 1227 123",
            "«4111 1111 1111 1111» 737",
            "«3714 496353 98431» 1234",
            "12 «4111 1111 1111 1111»",
            "«4111 1111 1111 1111»  1234 5678",
            // fours where a card has others, other groupings that are printed
            "«3782 8224 6310 005»",
            "«3056 930902 5904»",
            "«4000 1234 5678 9012 343»",
            "«621234 5678901234569»",
            "«4222-2222-2222-2»",
            // just outside a range or a length of one, the check digit right
            "2220123456789015",
            "2721123456789019",
            "«3527123456789013»",
            "«3590123456789015»",
            "6431234567890125",
            "400012345678909",
            "40001234567890124",
            "«5612345678901230»",
            "«571234567899»",
            "«213112345678904»",
            "5912345678901237",
            "213012345678906",
            "351234567890124",
            "3712345678901234",
            // wrong check digit, nobody's range, wrong length for the range, a fraction, letters around
            "4111 1111 1111 1112",
            "1234567812345670",
            "9111111111111119",
            "37828224631000",
            "41111111111111111",
            "0.4111111111111111",
            "23 58 50 42 34 26 18",
            "x4111111111111111",
            "4111111111111111x",
            "4111  1111  1111  1111",
            // joined to a name by what counts as a letter elsewhere
            "card_«4111111111111111».pdf",
            "__«4111-1111-1111-1111»_1",
            "«4111111111111111»_copy",
            "x_y4111111111111111",
            "_4111111111111112",
            // no card is written so
            "4111 1111-1111 1111",
            "41111 11111 111111",
            "411 111 111 111 111 1",
            "4111111 111111111",
            "3714-49635-398431",
            // rows of numbers, before and behind
            "4111 1111 1111 1111 1234 5678",
            "4111-1111-1111-1111-1234-5678-9012",
            "1234 5678 4111 1111 1111 1111",
            "7 9 4111-1111-1111-1111",
        ],
    );
}

#[test]
fn cards_in_a_row_are_all_found() {
    let text = "4111 1111 1111 1111 5500 0055 5555 5559 1227 4000 1234 5678 9017";
    let found = SCANNER.find(text);
    let found: Vec<&str> = found.iter().map(|f| &text[f.start..f.end]).collect();
    let expected = [
        "4111 1111 1111 1111",
        "5500 0055 5555 5559",
        "4000 1234 5678 9017",
    ];
    assert_eq!(found, expected);
}

#[test]
fn email_address() {
    let long = format!("{}@example.com", "a".repeat(65));
    check(
        "EMAIL_ADDRESS",
        &[
            "write to «jane.doe+tag@mail.example.co.uk».",
            "<«a@b.co»>",
            "mailto:«a_b%c@x-y.org»?subject=",
            // letters written as several characters, in names, in labels, in a top-level domain
            "«jose\u{301}@mu\u{308}ller.de»",
            "«e\u{301}@x.fr»",
            "\u{301}«a@b.co»",
            "«अभिषेक@डाटामेल.भारत»",
            // files and units
            "icon@2x.png and «a@b.com».png",
            "logo@3x.SVG",
            "getty@tty1.service",
            "«me@pages.dev»",
            "«me@files.zip»",
            "«o'brien@x.ie»",
            "«jürgen@müller.de»",
            "«用户@例子.广告»",
            "请联系«john@x.com»谢谢",
            "«a@b.co».",
            "«a@xn--fiqs8s.xn--fiqs8s»",
            "“«a@b.co»”",
            "«a@b.co»-",
            "--«a@b.co»",
            "«a@b.co».1",
            "a@b",
            "a@b.c",
            "a@1.2.3.4x",
            "@b.co",
            "a@.co",
            "a..«b@c.co»",
            "a.@b.co",
            "a@-b.co",
            &long,
        ],
    );
}

#[test]
fn phone_number() {
    check(
        "PHONE_NUMBER",
        &[
            "call «+1 (212) 555-0100» now",
            "«+12125550100»",
            "«+44 20 7946 0958»",
            "«+49 30 901820»",
            "«+33 1 42 68 53 00»",
            "«+81 3-3224-5111»",
            "«(212) 555-0187»",
            "«212-555-0187»",
            "«212.555.0187»",
            "«1-212-555-0187»",
            "phone: «2125550187»",
            "phone_«2125550187»",
            "order_2125550187",
            "«(212)555-0187x42»",
            "«212-555-0187 ext. 42»",
            "Phone: «020 7946 0958»",
            "call «030 901820» now",
            "mobile «(11) 91234-5678»",
            "tel. «01 42 68 53 00»",
            "«020 7946 0958»",
            "ring «(0)20 7946 0958»",
            "«01 42 68 53 00» merci",
            "Munich: «(089) 901820»",
            "«089 72 63 41» office",
            "Fax «(32) 484-557»",
            "«166-684-7899» fax",
            "«61 51 81»-Office",
            "«2546712361» mobile",
            "«001-748-088-2851x818»",
            "«+1-962-819-8200» fax",
            "«555-234-4567»",
            "221 395 1838",
            "call 2024-05-06",
            "09 2013",
            "2019-2020 work",
            "1 200 000 home owners",
            "+002016-07-08",
            "+82701-05-6",
            "x = y + 907133923",
            "+3.140000",
            "«+44.2079460958»",
            "call stack (CVE-2026-9358)",
            "48 96 192 384 768 1536 3072",
            "68 00 67 00 61 00 64 00 73 00",
            "016.016.016.016",
            "Tel-«020 7946 0958»",
            "211-555-0187",
            "212-911-0187",
            "2546712361 mobiles",
            "«001-212-555-0187x55»",
            "«0049 30 901820»",
            "«+1-212-555-0187 ext 5»",
            "0012125550187",
            "call «0477 11 28 98»",
            "call 06.05.2024",
            "call 12 34",
            "«+44 20 7946 0958» 2024",
            "tel «12125550187»",
            "my mobile is «07911123456»",
            "you can reach me on «09330083701»",
            "at «(0118) 4960273»",
            "«+441632 960497»",
            "«+044 20 7946 0958»",
            "phone number: «5552345678»",
            "Tel «901820301»",
            "2125550187",
            "call 901820301",
            "please call me at «37504310».",
            "my number is «90109281», thanks",
            "order 2125550187",
            "+999 123 456 789",
            "112-555-0187",
            "212-155-0187",
            "+1 212 555",
            "99-212-555-0187",
            "212-555-01878",
            "555-0187",
        ],
    );
}

#[test]
fn iban_code() {
    check(
        "IBAN_CODE",
        &[
            "«DE89 3704 0044 0532 0130 00»",
            "«DE89370400440532013000»",
            "«GB82 WEST 1234 5698 7654 32»",
            "«FR1420041010050500013M02606»",
            "«NO9386011117947»",
            "«MT84MALT011000012345MTLCAST001S»",
            "«RU0204452560040702810412345678901»",
            "«HN88 CABF 0000 0000 0002 5000 5469»",
            "IBAN «DE89370400440532013000» BIC COBADEFF",
            "iban_«DE89370400440532013000»_1",
            "«DE89370400440532013000»,",
            // the check digits are right, but letters stand for digits, or a digit for a letter
            "DE243704A0440532013000",
            "GB731EST12345698765432",
            "DE89370400440532013001",
            "XX89370400440532013000",
            "DE8937040044053201300",
            "DE893704004405320130000",
            // right by the modulus, but no remainder gives these check digits
            "DK0040044011600065",
            "DE89370400440532013000x",
            "my iban is «de89370400440532013000» and",
            "«AL47-2121-1009-0000-0002-3569-8741»",
            // in a link or a form
            "?iban=«GB82%20WEST%201234%205698%207654%2032»&x=1",
            "?iban=«GB82+WEST+1234+5698+7654+32»&x=1",
            "LIKE '%«DE89 3704 0044 0532 0130 00»%'",
            "«NO9386011117947»% of it",
            "DE89%203704%200044%200532%200130%2001",
        ],
    );
}

#[test]
fn ip_address() {
    check(
        "IP_ADDRESS",
        &[
            "from «10.0.0.1».",
            "«255.255.255.255»",
            "http://«192.168.0.1»:8080/",
            "«10.0.0.0»/8",
            "«2001:db8::ff00:42:8329»",
            "[«::1»]:80",
            "«fe80::1»%eth0",
            "«::ffff:10.0.0.1»",
            "«1:2:3:4:5:6:7:8»",
            "«2001:db8:0:0:1::1»",
            "«64:ff9b::192.0.2.33»",
            "«2001:DB8::1»/32",
            "section 6.2.3.2",
            "RFC 5280 §4.2.1.10",
            "rfc8032 5.1.5.1",
            "f64::from_str",
            "from «2001:db8::1»: no answer",
            "1:2:3:4:5:6:7:8:9:",
            "f64::trunc",
            "a1::2::3",
            "«2001:db8::»",
            "256.1.1.1",
            "1.2.3",
            "1.2.3.4.5",
            "01.2.3.4",
            "version 1.2.3.4",
            "v1.2.3.4",
            "v 1.2.3.4",
            "Chrome/120.0.0.0",
            "\"appVersion\": \"1.2.3.4\"",
            "buildVersion=1.2.3.4",
            "v_1.2.3.4",
            "host_«10.0.0.1»_",
            "clientAddress=«1.2.3.4»",
            "1.2.3.4567",
            "12:30:45",
            "std::vec",
            "a::b",
            "Foo::bad1",
            "::",
            "1:2:3:4:5:6:7",
            "1:2:3:4:5:6:7:8:9",
            "dead:beef",
        ],
    );
}

#[test]
fn secrets() {
    check(
        "AWS_ACCESS_KEY",
        &[
            "«AKIAIOSFODNN7EXAMPLE»",
            "key=«ASIAIOSFODNN7EXAMPLE»;",
            "AKIAIOSFODNN7EXAMPL",
            "AKIAIOSFODNN7EXAMPLEX",
            "xAKIAIOSFODNN7EXAMPLE",
            "akiaiosfodnn7example",
        ],
    );
    check(
        "GITHUB_TOKEN",
        &[
            "«ghp_0123456789abcdefghijABCDEFGHIJ012345»",
            "«ghs_0123456789abcdefghijABCDEFGHIJ012345».",
            "«ghs_eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJnaXRodWIifQ.c2ln-bmF0_dXJl»",
            "«github_pat_11ABCDEFG0abcdefghijkl_0123456789»",
            "ghp_0123456789",
            "ghx_0123456789abcdefghijABCDEFGHIJ012345",
        ],
    );
    check(
        "ANTHROPIC_KEY",
        &["«sk-ant-api03-abcdefghij_klmnop-qrst»", "sk-ant-api03"],
    );
    check(
        "OPENAI_KEY",
        &[
            "«sk-proj-abcdefghijklmnopqrstuvwx»",
            "«sk-abcdefghijklmnopqrstuvwx»",
            "«sk-svcacct-IUXtc5gIZK-2cBfB-nTgEWbD8mi_fi»",
            "«sk-or-v1-0123456789abcdef0123»",
            "sk-learn",
            "task-abcdefghijklmnopqrstuvwx",
        ],
    );
    check(
        "GOOGLE_API_KEY",
        &["«AIzaSyA1234567890abcdefghijklmnopqrstuv»", "AIzaSy"],
    );
    check(
        "SLACK_TOKEN",
        &[
            "«xoxb-123456789012-abcdef»",
            "«xapp-1-A052FGTS2DL-5171572773297-610b6a11f4b7»",
            "«xoxe.xoxp-1-Mi0yLTM0MTQwNDE0MDE3Ni0z»",
            "xoxb-",
        ],
    );
    check(
        "STRIPE_KEY",
        &[
            "«sk_live_0123456789abcdefghijklmn»",
            "«rk_test_0123456789abcdefghijklmn»",
            "«whsec_0123456789abcdefghijklmn»",
            "pk_live_0123456789abcdefghijklmn",
            "sk_live_",
        ],
    );
    check(
        "JWT",
        &[
            "Bearer «eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N»",
            "eyJhbGciOiJIUzI1NiJ9",
        ],
    );
    check(
        "PRIVATE_KEY",
        &[
            "x «-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIE\nabc=\n-----END RSA PRIVATE KEY-----»\n",
            "«-----BEGIN PRIVATE KEY-----\\nMIIE\\n-----END PRIVATE KEY-----»\\n",
            "starts with «-----BEGIN PRIVATE KEY-----» and goes on",
            // in a link or a form
            "?key=«-----BEGIN%20RSA%20PRIVATE%20KEY-----%0D%0AProc-Type%3A%204%2CENCRYPTED%0D%0A%0D%0AMII%2FE%0D%0A12%3D%0D%0A-----END%20RSA%20PRIVATE%20KEY-----»%0D%0A&x=1",
            "key=«-----BEGIN+PRIVATE+KEY-----%0AMIIE%2B1%0A-----END+PRIVATE+KEY-----»&x=1",
            "«-----BEGIN%2520PRIVATE%2520KEY-----%250AMIIE%250A-----END%2520PRIVATE%2520KEY-----»%250A",
            "-----BEGIN CERTIFICATE-----\nMIIE\n",
        ],
    );
}

#[test]
fn crypto() {
    check(
        "CRYPTO",
        &[
            "«1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa»",
            "«3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy»",
            "send to «1NEDqZPvTWRaoho48qXuLLsrYomMXPABfD».",
            // BIP 173 and BIP 350
            "«BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4»",
            "«bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq»",
            "«bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0»",
            "«bc1zw508d6qejxtdg4y5r3zarvaryvaxxpcs»",
            "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb",
            "1NEDqZPvTWRaoho48qXuLLsrYomMXPABfX",
            "11A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
            "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdz",
            // the other checksum for its version
            "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqh2y7hd",
            "bc1qw508d6qejxtdg4y5r3zarvaryvaxxpcs",
            "BC1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq",
        ],
    );
}

#[test]
fn mac_address() {
    check(
        "MAC_ADDRESS",
        &[
            "«00:1A:2B:3C:4D:5E»",
            "«00-1a-2b-3c-4d-5e»",
            "ether «52:54:00:12:34:56» brd",
            "«001a.2b3c.4d5e»",
            "MAC «0012.3456.7890»",
            "00:00:00:00:00:00",
            "ff:ff:ff:ff:ff:ff",
            "00:1A:2B:3C:4D",
            "00:1A-2B:3C-4D:5E",
            "a1:b2:c3:d4:e5:f6:07:18:29:30:41:52:63:74:85:96",
            "0012.3456.7890",
            "12:30:45",
        ],
    );
}

#[test]
fn vin() {
    check(
        "VIN",
        &[
            "«1M8GDM9AXKP042788»",
            "VIN: «WVWZZZ1JZXW000001»",
            "«5GZCZ43D13S812715»",
            // check digit, letters that are not used, no letter, length
            "1M8GDM9A1KP042788",
            "1M8GDM9AXKQ042788",
            "11111111111111111",
            "1M8GDM9AXKP04278",
            "WVWZZZ1JZXW000001",
        ],
    );
}

#[test]
fn url() {
    let catalog = Catalog::builtin().unwrap();
    check_with(
        &catalog.scanner(catalog.entities()).unwrap(),
        "URL",
        &[
            "see «https://example.com/a?b=c#d».",
            "(«http://x.org»)",
            "«https://en.wikipedia.org/wiki/URL_(disambiguation)» and",
            "«www.example.com», or",
            "«ftp://[2001:db8::1]/x»!",
            "«HTTP://LOCALHOST:8080»",
            "https://",
            "www.example",
            "http://x",
            "example.com",
        ],
    );
}

#[test]
fn generic_secret() {
    check(
        "GENERIC_SECRET",
        &[
            "password = «hunter2x»",
            r#""password": "«Tr0ub4dor&3»","#,
            "my password is «hunter2x».",
            "DB_PASSWORD=«p4ssw0rD!»",
            "password: «$7uR9Y%Ee#_D»",
            "\"password\": \"«)4%I_TZRww»\"",
            "pwd is «c&D8+(4n_0BVs_(w».",
            "password: '«J8iO9tkN(l»'",
            "password = new_password_2",
            "password = vault.read1(path.to2",
            "login(password=«hunter2x»)",
            "password=$DB_PASS1",
            "password = get_password2(x)",
            "let secret = Secret::new(&P_SHA256, seed)",
            "let private_key = generate_for_test(&ECDH_P256, &mut rng)",
            "api_key: «Zf3D0LXCM3EIMbgJpUNnkRtOfOueHznB»",
            r#"const API_KEY: &str = "«Zf3D0LXCM3EIMbgJpUNnkRtOfOueHznB»";"#,
            r#"{\"client_secret\": \"«q8Zx7Lk2Vb9Nm4Rt»\"}"#,
            "X-Api-Key: «34bf0e88955ff5a1c328d6a7491acc4f»",
            "Authorization: Bearer «q8Zx7Lk2Vb9Nm4RtYs6w»",
            "accessToken => '«q8Zx7Lk2Vb9Nm4Rt»'",
            // not assigned, or to something else
            "Zf3D0LXCM3EIMbgJpUNnkRtOfOueHznB",
            "key_id = Zf3D0LXCM3EIMbgJpUNnkRtOfOueHznB",
            "public_key = Zf3D0LXCM3EIMbgJpUNnkRtOfOueHznB",
            "token_type: Zf3D0LXCM3EIMbgJpUNnkRtOfOueHznB",
            "primary key = Zf3D0LXCM3EIMbgJpUNnkRtOfOueHznB",
            // too plain, too short, no digit, placeholders, expressions
            "api_key = aaaaaaaaaaaaaaaa1111",
            "api_key = a1b2c3",
            "password = abc",
            "password = correcthorse",
            "password = changeme123",
            "api_key = your_api_key_1a2b3c4d5e",
            "password = get_password2(",
            "password = settings.db1.password",
            "the password policy has 12 rules",
        ],
    );
    check(
        "AWS_SECRET_KEY",
        &[
            "aws_secret_access_key = «wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY»",
            r#""SecretAccessKey": "«wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY»""#,
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "secret access key: 0123456789012345678901234567890123456789",
        ],
    );
}

#[test]
fn optional_detectors_are_looked_for_only_by_name() {
    let catalog = Catalog::builtin().unwrap();
    let text = "https://example.com/?mail=a@b.co";
    let of = |scanner: Arc<Scanner>| -> Vec<String> {
        let found = scanner.find(text);
        found.iter().map(|found| found.entity.to_string()).collect()
    };
    assert_eq!(
        of(catalog.scanner(catalog.defaults()).unwrap()),
        ["EMAIL_ADDRESS"]
    );
    assert_eq!(
        of(catalog.scanner(&["URL".into()].into()).unwrap()),
        ["URL"]
    );
    assert!(catalog.contains("URL") && !catalog.defaults().contains("URL"));
}

#[test]
fn every_detector_is_described() {
    let path = format!("{}/docs/detectors.md", env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(path).unwrap();
    let rows: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    for entity in Catalog::builtin().unwrap().entities() {
        let described = rows.iter().any(|row| row.contains(&format!("`{entity}`")));
        assert!(described, "docs/detectors.md does not describe {entity}");
    }
}
