//! Text to measure with: chats as JSON, made from a seed, with the variety of real ones: questions, prose, lists, code,
//! amounts, dates, identifiers. The same seed gives the same text everywhere.

use std::fmt::Write as _;

/// Words in no order.
#[rustfmt::skip]
const WORDS: &[&str] = &[
    "the", "of", "and", "to", "in", "is", "that", "for", "it", "with", "as", "was", "on", "be", "by", "this", "are",
    "from", "at", "or", "an", "have", "not", "which", "you", "we", "can", "will", "their", "has", "more", "if", "our",
    "would", "about", "when", "they", "there", "one", "been", "other", "its", "some", "than", "into", "could",
    "these", "only", "also", "after", "between", "most", "should", "because", "through", "where", "each", "before",
    "such", "report", "customer", "market", "growth", "quarter", "revenue", "budget", "project", "deadline",
    "meeting", "schedule", "delivery", "product", "design", "feature", "release", "engineer", "database", "server",
    "request", "response", "latency", "cache", "thread", "memory", "function", "variable", "compiler", "network",
    "packet", "protocol", "message", "stream", "token", "model", "training", "dataset", "accuracy", "gradient",
    "layer", "garden", "kitchen", "recipe", "butter", "flour", "oven", "minute", "degree", "sauce", "onion", "pepper",
    "water", "mountain", "river", "village", "museum", "castle", "train", "station", "ticket", "flight", "airport",
    "hotel", "doctor", "patient", "symptom", "treatment", "medicine", "hospital", "insurance", "policy", "claim",
    "contract", "history", "century", "empire", "treaty", "revolution", "parliament", "election", "minister",
    "economy", "trade", "physics", "energy", "particle", "quantum", "orbit", "planet", "telescope", "galaxy",
    "gravity", "velocity", "music", "orchestra", "melody", "rhythm", "guitar", "concert", "theatre", "painting",
    "sculpture", "novel", "explain", "describe", "compare", "summarise", "translate", "improve", "rewrite",
    "calculate", "recommend", "analyse", "generate", "continue", "understand", "consider", "provide", "require",
    "include", "support", "remain", "important", "different", "possible", "available", "necessary", "recent",
    "several", "general", "particular", "significant", "original", "current", "previous", "simple", "complex",
    "modern", "local", "public", "private", "quickly", "usually", "often", "always", "perhaps", "however",
    "therefore", "although", "instead", "finally",
];

const CODE: &[&str] = &[
    "```python\\nfor i in range(10):\\n    print(items[i], end=', ')\\n```",
    "```rust\\nlet total: u64 = orders.iter().map(|o| o.amount).sum();\\n```",
    "`SELECT id, name FROM users WHERE created_at > '2023-01-01' LIMIT 50;`",
    "```js\\nconst res = await fetch(`/api/v2/items?page=${page}&size=20`);\\n```",
    "`git rebase -i HEAD~3 && git push --force-with-lease`",
    "<div class=\\\"row mt-4\\\"><span id=\\\"total\\\">0.00</span></div>",
    "https://docs.example.org/guide/getting-started.html#step-2",
    "`if (x >= 0x7f && flags[1] != 3) { return -1; }`",
];

/// A simple generator of numbers (Steele and Vigna, SplitMix64).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn digits(&mut self, n: usize) -> String {
        (0..n)
            .map(|_| char::from(b'0' + self.below(10) as u8))
            .collect()
    }

    fn letters(&mut self, n: usize, of: &[u8]) -> String {
        (0..n).map(|_| char::from(self.pick(of))).collect()
    }
}

/// About so many bytes of chats, of which one byte in `1 / share` belongs to a value that is to be masked.
pub(crate) fn chats(seed: u64, bytes: usize, share: f64) -> String {
    let dice = &mut Dice::new(seed);
    let mut out = String::with_capacity(bytes + 4096);
    let mut values = 0;
    while out.len() < bytes {
        let id = dice.letters(24, b"abcdefghijklmnopqrstuvwxyzABCDEFGH0123456789");
        let created = 1_690_000_000 + dice.below(50_000_000);
        let model = dice.pick(&[
            "gpt-4o-mini",
            "claude-sonnet-4",
            "llama-3.1-8b",
            "gemini-2.0-flash",
        ]);
        let _ = write!(
            out,
            "{{\"id\":\"chatcmpl-{id}\",\"created\":{created},\"model\":\"{model}\",\"messages\":["
        );
        for turn in 0..2 + dice.below(5) {
            let role = ["user", "assistant"][turn % 2];
            let _ = write!(
                out,
                "{}{{\"role\":\"{role}\",\"content\":\"",
                if turn == 0 { "" } else { "," }
            );
            for _ in 0..1 + dice.below(8) {
                sentence(dice, &mut out);
                if (values as f64) < share * out.len() as f64 {
                    let value = value(dice);
                    values += value.len();
                    let _ = write!(
                        out,
                        "{}{value}. ",
                        dice.pick(&["It is ", "Please use ", "We have: ", "Try "])
                    );
                }
            }
            out.push_str("\"}");
        }
        let used = (dice.below(900), dice.below(2000));
        let _ = writeln!(
            out,
            "],\"usage\":{{\"prompt_tokens\":{},\"completion_tokens\":{}}}}}",
            used.0, used.1
        );
    }
    out
}

fn sentence(dice: &mut Dice, out: &mut String) {
    match dice.below(20) {
        0 => out.push_str(dice.pick(CODE)),
        1 => {
            let _ = write!(out, "\\n{}. **{}**:", 1 + dice.below(9), dice.pick(WORDS));
        }
        _ => {}
    }
    for i in 0..5 + dice.below(18) {
        let mut word = dice.pick(WORDS).to_owned();
        if dice.below(8) == 0 {
            word.push_str(dice.pick(&["s", "ing", "ed", "ly", "-based", "’s"]));
        }
        if i == 0 || dice.below(30) == 0 {
            word[..1].make_ascii_uppercase();
        }
        match dice.below(100) {
            0 => word = format!("{}", dice.below(200)),
            1 => word = format!("{}", 1900 + dice.below(140)),
            2 => word = format!("${}.{:02}", dice.below(3000), dice.below(100)),
            3 => word = format!("{}%", dice.below(100)),
            4 => word.push(','),
            5 => word = format!("({word})"),
            6 => word = format!("\\\"{word}\\\""),
            _ => {}
        }
        out.push_str(&word);
        out.push(' ');
    }
    out.pop();
    out.push_str(dice.pick(&[". ", ". ", ". ", "? ", "! ", ": ", ".\\n\\n"]));
}

/// A value that some detector finds, of any of fifteen kinds.
fn value(dice: &mut Dice) -> String {
    const ALNUM: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    match dice.below(22) {
        0..3 => format!(
            "{}-{}-{}",
            100 + dice.below(500),
            10 + dice.below(80),
            1000 + dice.below(8000)
        ),
        3..6 => {
            let digits = with_check_digit(&format!("4{}", dice.digits(14)));
            let groups: Vec<&str> = (0..4).map(|i| &digits[4 * i..4 * i + 4]).collect();
            groups.join(dice.pick(&[" ", "-", ""]))
        }
        6..11 => format!(
            "{}.{}@{}.{}",
            dice.pick(WORDS),
            dice.pick(WORDS),
            dice.pick(WORDS),
            dice.pick(&["com", "org", "co.uk"])
        ),
        11..14 => format!(
            "({}) 555-{}",
            dice.pick(&["212", "415", "312", "646"]),
            1000 + dice.below(9000)
        ),
        14 => dice
            .pick(&[
                "DE89 3704 0044 0532 0130 00",
                "GB82WEST12345698765432",
                "FR1420041010050500013M02606",
            ])
            .to_owned(),
        15 => format!(
            "{}.{}.{}.{}",
            10 + dice.below(200),
            dice.below(256),
            dice.below(256),
            dice.below(256)
        ),
        16 => format!(
            "AKIA{}",
            dice.letters(16, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
        ),
        17 => format!("ghp_{}", dice.letters(36, ALNUM)),
        18 => format!(
            "{}{}",
            dice.pick(&["sk-proj-", "sk-ant-api03-"]),
            dice.letters(40, ALNUM)
        ),
        19 => format!("AIza{}", dice.letters(35, ALNUM)),
        20 => format!(
            "{}{}",
            dice.pick(&["xoxb-123456789012-", "sk_live_"]),
            dice.letters(24, ALNUM)
        ),
        _ => format!(
            "eyJhbGciOiJIUzI1NiJ9.eyJ{}.{}",
            dice.letters(40, ALNUM),
            dice.letters(43, ALNUM)
        ),
    }
}

/// The number with the digit that makes it right by the Luhn formula.
fn with_check_digit(number: &str) -> String {
    let sum: u32 = number
        .bytes()
        .rev()
        .enumerate()
        .map(|(i, b)| {
            let d = u32::from(b - b'0') << u32::from(i % 2 == 0);
            if d > 9 { d - 9 } else { d }
        })
        .sum();
    format!("{number}{}", (10 - sum % 10) % 10)
}
