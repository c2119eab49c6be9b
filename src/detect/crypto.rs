//! `CRYPTO`: Bitcoin addresses, by their checksums. Those of other chains are not looked for.

use sha2::{Digest, Sha256};

/// Pay to public key hash (`1…`) and to script hash (`3…`).
pub(crate) const BASE58: &str = r"\b[13][1-9A-HJ-NP-Za-km-z]+\b";
/// 25 bytes in base 58 have at most 35 characters.
pub(crate) const BASE58_REACH: usize = 35;
/// Segregated witness, all in one case.
pub(crate) const SEGWIT: &str = r"\b(?:bc1[02-9ac-hj-np-z]+|BC1[02-9AC-HJ-NP-Z]+)\b";
/// At most 90 characters (BIP 173).
pub(crate) const SEGWIT_REACH: usize = 90;

/// A version byte, a hash of 20 bytes and the first four bytes of the double SHA-256 of both (Bitcoin Wiki,
/// "Base58Check encoding"); version 0 or 5.
pub(crate) fn base58(_before: &str, found: &str) -> Option<usize> {
    let bytes = (found.len() >= 26).then(|| decode58(found)).flatten()?;
    let (payload, check) = bytes.split_at(21);
    let digest = Sha256::digest(Sha256::digest(payload));
    (matches!(payload[0], 0 | 5) && digest.starts_with(check)).then_some(found.len())
}

/// The 25 bytes of an address. A leading `1` stands for a byte 0; more of them than there are zero bytes make it
/// longer than it is, which the checksum alone would not see.
fn decode58(text: &str) -> Option<[u8; 25]> {
    const ALPHABET: &[u8] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    let mut bytes = [0u8; 25];
    for c in text.bytes() {
        let mut carry = ALPHABET.iter().position(|&a| a == c)?;
        for byte in bytes.iter_mut().rev() {
            carry += usize::from(*byte) * 58;
            *byte = (carry % 256) as u8;
            carry /= 256;
        }
        if carry > 0 {
            return None;
        }
    }
    let ones = text.bytes().take_while(|&c| c == b'1').count();
    let zeros = bytes.iter().take_while(|&&b| b == 0).count();
    (ones == zeros).then_some(bytes)
}

/// Bech32 for version 0 (BIP 173), Bech32m for 1 to 16 (BIP 350); a program of 2 to 40 bytes, 20 or 32 in version 0
/// (BIP 141).
pub(crate) fn segwit(_before: &str, found: &str) -> Option<usize> {
    const ALPHABET: &[u8] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    let lower = found.to_ascii_lowercase();
    let data: Vec<u32> = lower
        .bytes()
        .skip(3)
        .filter_map(|c| ALPHABET.iter().position(|&a| a == c))
        .map(|value| value as u32)
        .collect();
    // `bc`, expanded: the high bits of each letter, a zero, their low bits.
    let prefix = [3, 3, 0, 2, 3];
    let residue = polymod(prefix.into_iter().chain(data.iter().copied()));
    let (&version, program) = data.get(..data.len().checked_sub(6)?)?.split_first()?;
    let bytes = program.len() * 5 / 8;
    let padded = program.len() * 5 % 8 < 5;
    let fits = match version {
        0 => residue == 1 && matches!(bytes, 20 | 32),
        1..=16 => residue == 0x2bc8_30a3 && (2..=40).contains(&bytes),
        _ => false,
    };
    (fits && padded).then_some(found.len())
}

/// The checksum of BIP 173: the remainder by a polynomial over GF(32).
fn polymod(values: impl Iterator<Item = u32>) -> u32 {
    const GENERATOR: [u32; 5] = [
        0x3b6a_57b2,
        0x2650_8e6d,
        0x1ea1_19fa,
        0x3d42_33dd,
        0x2a14_62b3,
    ];
    values.fold(1, |sum, value| {
        let top = sum >> 25;
        let next = ((sum & 0x1ff_ffff) << 5) ^ value;
        let rows = GENERATOR.iter().enumerate();
        rows.filter(|(i, _)| top >> i & 1 == 1)
            .fold(next, |sum, (_, row)| sum ^ row)
    })
}
