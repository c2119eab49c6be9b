//! Masking: exact for every way of cutting the input, holding back the shortest suffix an exact algorithm may keep.

/// What takes the place of a found value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Operator {
    /// `[US_SSN]`: the entity's name in brackets.
    #[default]
    Replace,
    /// Nothing: the value is removed.
    Redact,
    /// Asterisks but for the last `n` characters; separators stay. A value of `n` characters or fewer is all asterisks.
    KeepLast(u8),
}
