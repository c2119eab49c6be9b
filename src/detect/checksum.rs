//! Check digits: the arithmetic that tells a number somebody issued from a number.

/// The values of the ASCII digits in `text`, in order.
pub(crate) fn digits(text: &str) -> Vec<u32> {
    text.bytes()
        .filter(u8::is_ascii_digit)
        .map(|digit| u32::from(digit - b'0'))
        .collect()
}

/// The Luhn formula (ISO/IEC 7812-1, annex B).
pub(crate) fn luhn(digits: &[u32]) -> bool {
    let doubled = |d: u32| if d > 4 { 2 * d - 9 } else { 2 * d };
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(i, &d)| if i % 2 == 1 { doubled(d) } else { d })
        .sum();
    sum.is_multiple_of(10)
}

/// The sum of the digits, each times its weight.
pub(crate) fn weighted(digits: &[u32], weights: &[u32]) -> u32 {
    digits.iter().zip(weights).map(|(d, w)| d * w).sum()
}

/// ISO/IEC 7064 MOD 11,10: a hybrid system whose check character is the last digit.
pub(crate) fn mod_11_10(digits: &[u32]) -> bool {
    let Some((check, front)) = digits.split_last() else {
        return false;
    };
    let product = front.iter().fold(10, |product, digit| {
        let sum = match (product + digit) % 10 {
            0 => 10,
            sum => sum,
        };
        sum * 2 % 11
    });
    (product + check) % 10 == 1
}

/// J. Verhoeff, "Error Detecting Decimal Codes" (1969): the digits, permuted by their place, multiply to the identity
/// of the dihedral group of order ten.
pub(crate) fn verhoeff(digits: &[u32]) -> bool {
    const PERMUTATION: [u32; 10] = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4];
    let permuted = |place: usize, digit: u32| {
        (0..place % 8).fold(digit, |digit, _| PERMUTATION[digit as usize])
    };
    let product = digits
        .iter()
        .rev()
        .enumerate()
        .fold(0, |product, (place, &digit)| {
            dihedral(product, permuted(place, digit))
        });
    product == 0
}

/// The product of two elements of the dihedral group of order ten: 0 to 4 are turns, 5 to 9 are reflections.
fn dihedral(a: u32, b: u32) -> u32 {
    match (a < 5, b < 5) {
        (true, true) => (a + b) % 5,
        (true, false) => 5 + (a + b) % 5,
        (false, true) => 5 + (a - b) % 5,
        (false, false) => (a + 5 - b) % 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number that is right, of which every change of one digit is wrong.
    fn holds(rule: fn(&[u32]) -> bool, number: &str) {
        let right = digits(number);
        assert!(rule(&right), "{number}");
        for at in 0..right.len() {
            for digit in (0..10).filter(|&digit| digit != right[at]) {
                let mut wrong = right.clone();
                wrong[at] = digit;
                assert!(!rule(&wrong), "{number} with {digit} at {at}");
            }
        }
    }

    #[test]
    fn each_formula_accepts_its_published_examples_and_no_digit_else() {
        holds(luhn, "79927398713"); // Luhn's patent, US 2,950,048, as commonly quoted
        holds(verhoeff, "2363"); // Verhoeff's own example, 236 with check digit 3
        holds(verhoeff, "84736430954837284567892"); // as quoted with many programs
        holds(verhoeff, "234123412346"); // UIDAI
        holds(mod_11_10, "36574261809"); // Bundeszentralamt für Steuern
        holds(mod_11_10, "86095742719"); // the same
    }
}
