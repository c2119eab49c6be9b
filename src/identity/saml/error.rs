//! Why an assertion was refused, in words for the caller and a code for machines.

/// Why a SAML assertion was refused. The words are for the caller and contain nothing of the assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SamlError {
    /// Not base64url (RFC 7522, 2.1).
    #[error("the assertion is not base64url")]
    NotBase64Url,
    /// Longer than [`MAX_ASSERTION_BYTES`](super::MAX_ASSERTION_BYTES).
    #[error("the assertion is larger than 256 KiB")]
    TooLarge,
    /// Not UTF-8, or an XML declaration that says so.
    #[error("the assertion is not XML 1.0 in UTF-8")]
    NotUtf8,
    /// A document type declaration, and with it every way to define entities.
    #[error("the assertion has a document type declaration")]
    Doctype,
    /// A comment: it would be cut from what is signed, and readers differ in what they then read around it.
    #[error("the assertion has a comment")]
    Comment,
    /// A CDATA section.
    #[error("the assertion has a CDATA section")]
    Cdata,
    /// A processing instruction.
    #[error("the assertion has a processing instruction")]
    ProcessingInstruction,
    /// Not well-formed, with namespaces.
    #[error("the assertion is not well-formed XML")]
    NotXml,
    /// Elements nest too deep.
    #[error("the assertion nests too deep")]
    TooDeep,
    /// Too many elements, or attributes or namespaces of one element, or one start tag is too long.
    #[error("the assertion has too many elements, attributes or namespaces")]
    TooComplex,
    /// Two elements have the same id.
    #[error("two elements of the assertion have the same id")]
    DuplicateId,
    /// The document is neither an assertion nor a response that holds one as its child.
    #[error("there is no SAML 2.0 assertion")]
    NoAssertion,
    /// More than one assertion anywhere in the document; which of them counts would be a guess.
    #[error("there is more than one assertion")]
    SeveralAssertions,
    /// The assertion, its subject or an attribute is encrypted.
    #[error("the assertion is encrypted; only signed ones are read")]
    Encrypted,
    /// What every assertion must have is missing or malformed: `Version` 2.0, `ID`, `IssueInstant`, `Issuer`.
    #[error("the assertion lacks its version, id, issue instant or issuer")]
    Invalid,
    /// The issuer is none of the configured ones.
    #[error("the issuer of the assertion is not accepted")]
    UnknownIssuer,
    /// The issuer's keys cannot be had at the moment. Not the caller's fault, and worth a retry.
    #[error("the keys of the assertion's issuer are not available")]
    IssuerUnavailable,
    /// The `validUntil` of the issuer's metadata has passed.
    #[error("the metadata of the assertion's issuer has expired")]
    MetadataExpired,
    /// The assertion itself has no signature, whatever else in the document has one.
    #[error("the assertion is not signed")]
    Unsigned,
    /// The assertion has more than one signature.
    #[error("the assertion has more than one signature")]
    SeveralSignatures,
    /// The signature has parts it must not have, or lacks one it must have.
    #[error("the signature of the assertion is malformed")]
    SignatureMalformed,
    /// A canonicalization other than exclusive C14N without comments.
    #[error(
        "the canonicalization of the signature is not accepted; use exclusive C14N without comments"
    )]
    CanonicalizationRefused,
    /// A signature method other than RSA, RSA-PSS or ECDSA with SHA-256 or better.
    #[error(
        "the signature method of the assertion is not accepted; use RSA or ECDSA with SHA-256 or better"
    )]
    AlgorithmRefused,
    /// A digest other than SHA-256, SHA-384 and SHA-512.
    #[error("the digest method of the assertion is not accepted; use SHA-256 or better")]
    DigestRefused,
    /// The signature covers several things.
    #[error("the signature of the assertion has more than one reference")]
    SeveralReferences,
    /// The signature covers something other than the assertion it stands in.
    #[error("the signature of the assertion is for something else")]
    WrongReference,
    /// Transforms other than enveloped-signature followed by exclusive C14N.
    #[error(
        "the transforms of the signature are not accepted; use enveloped-signature and exclusive C14N"
    )]
    TransformRefused,
    /// The signature is not that of a key of the issuer's.
    #[error("the signature of the assertion is not valid")]
    BadSignature,
    /// The assertion is not what was signed.
    #[error("the assertion was changed after it was signed")]
    BadDigest,
    /// A statement or a condition of a kind that is not known.
    #[error("the assertion has a statement or a condition that is not known")]
    NotUnderstood,
    /// No subject, or no name of it.
    #[error("the assertion names no subject")]
    SubjectMissing,
    /// The name is not text of 1 to 255 bytes without control characters and blanks at its ends, or is qualified by somebody
    /// else.
    #[error("the subject of the assertion is not valid")]
    SubjectInvalid,
    /// The format of the name is not one the operator listed for the issuer.
    #[error("the name format of the assertion's subject is not accepted")]
    NameFormatRefused,
    /// No bearer confirmation of the subject.
    #[error("the assertion is not a bearer assertion")]
    NotBearer,
    /// The confirmation answers a request that this service did not make.
    #[error("the assertion answers a request; send one that was made for this service unasked")]
    Solicited,
    /// The recipient is missing or another.
    #[error("the assertion is meant for another recipient")]
    WrongRecipient,
    /// No audience.
    #[error("the assertion names no audience")]
    AudienceMissing,
    /// The audience is another.
    #[error("the assertion is meant for another audience")]
    WrongAudience,
    /// The bearer confirmation has no expiry.
    #[error("the assertion has no expiry")]
    ExpiryMissing,
    /// An instant is not an `xs:dateTime` in UTC.
    #[error("a time in the assertion is not valid")]
    TimeInvalid,
    /// It has expired.
    #[error("the assertion has expired")]
    Expired,
    /// Its time has not come.
    #[error("the assertion is not valid yet")]
    NotYetValid,
    /// It was issued in the future.
    #[error("the assertion was issued in the future")]
    IssuedInFuture,
    /// It is good for longer than [`MAX_LIFETIME`](super::MAX_LIFETIME).
    #[error("the assertion is good for more than 4 hours")]
    LivesTooLong,
    /// More than one statement of how the subject signed in.
    #[error("the assertion says more than once how its subject signed in")]
    AuthnInvalid,
    /// An attribute that is read is there twice, or has values that are not text, or there are too many.
    #[error("the attributes of the assertion are not valid")]
    AttributesInvalid,
    /// The groups are over their bounds.
    #[error("the groups of the assertion are not valid")]
    GroupsInvalid,
    /// The person that an attribute names is not one.
    #[error("the person that the assertion names is not valid")]
    PersonInvalid,
}

impl SamlError {
    /// Every variant, for tables and for documentation.
    pub const ALL: [Self; 48] = [
        Self::NotBase64Url,
        Self::TooLarge,
        Self::NotUtf8,
        Self::Doctype,
        Self::Comment,
        Self::Cdata,
        Self::ProcessingInstruction,
        Self::NotXml,
        Self::TooDeep,
        Self::TooComplex,
        Self::DuplicateId,
        Self::NoAssertion,
        Self::SeveralAssertions,
        Self::Encrypted,
        Self::Invalid,
        Self::UnknownIssuer,
        Self::IssuerUnavailable,
        Self::MetadataExpired,
        Self::Unsigned,
        Self::SeveralSignatures,
        Self::SignatureMalformed,
        Self::CanonicalizationRefused,
        Self::AlgorithmRefused,
        Self::DigestRefused,
        Self::SeveralReferences,
        Self::WrongReference,
        Self::TransformRefused,
        Self::BadSignature,
        Self::BadDigest,
        Self::NotUnderstood,
        Self::SubjectMissing,
        Self::SubjectInvalid,
        Self::NameFormatRefused,
        Self::NotBearer,
        Self::Solicited,
        Self::WrongRecipient,
        Self::AudienceMissing,
        Self::WrongAudience,
        Self::ExpiryMissing,
        Self::TimeInvalid,
        Self::Expired,
        Self::NotYetValid,
        Self::IssuedInFuture,
        Self::LivesTooLong,
        Self::AuthnInvalid,
        Self::AttributesInvalid,
        Self::GroupsInvalid,
        Self::PersonInvalid,
    ];

    /// The stable machine-readable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NotBase64Url => "saml_not_base64url",
            Self::TooLarge => "saml_too_large",
            Self::NotUtf8 => "saml_not_utf8",
            Self::Doctype => "saml_doctype",
            Self::Comment => "saml_comment",
            Self::Cdata => "saml_cdata",
            Self::ProcessingInstruction => "saml_processing_instruction",
            Self::NotXml => "saml_not_xml",
            Self::TooDeep => "saml_too_deep",
            Self::TooComplex => "saml_too_complex",
            Self::DuplicateId => "saml_duplicate_id",
            Self::NoAssertion => "saml_no_assertion",
            Self::SeveralAssertions => "saml_several_assertions",
            Self::Encrypted => "saml_encrypted",
            Self::Invalid => "saml_invalid",
            Self::UnknownIssuer => "saml_issuer_unknown",
            Self::IssuerUnavailable => "saml_issuer_unavailable",
            Self::MetadataExpired => "saml_metadata_expired",
            Self::Unsigned => "saml_unsigned",
            Self::SeveralSignatures => "saml_several_signatures",
            Self::SignatureMalformed => "saml_signature_malformed",
            Self::CanonicalizationRefused => "saml_canonicalization_refused",
            Self::AlgorithmRefused => "saml_algorithm_refused",
            Self::DigestRefused => "saml_digest_refused",
            Self::SeveralReferences => "saml_several_references",
            Self::WrongReference => "saml_wrong_reference",
            Self::TransformRefused => "saml_transform_refused",
            Self::BadSignature => "saml_bad_signature",
            Self::BadDigest => "saml_bad_digest",
            Self::NotUnderstood => "saml_not_understood",
            Self::SubjectMissing => "saml_subject_missing",
            Self::SubjectInvalid => "saml_subject_invalid",
            Self::NameFormatRefused => "saml_name_format_refused",
            Self::NotBearer => "saml_not_bearer",
            Self::Solicited => "saml_solicited",
            Self::WrongRecipient => "saml_recipient_wrong",
            Self::AudienceMissing => "saml_audience_missing",
            Self::WrongAudience => "saml_audience_wrong",
            Self::ExpiryMissing => "saml_expiry_missing",
            Self::TimeInvalid => "saml_time_invalid",
            Self::Expired => "saml_expired",
            Self::NotYetValid => "saml_not_yet_valid",
            Self::IssuedInFuture => "saml_issued_in_future",
            Self::LivesTooLong => "saml_lives_too_long",
            Self::AuthnInvalid => "saml_authn_invalid",
            Self::AttributesInvalid => "saml_attributes_invalid",
            Self::GroupsInvalid => "saml_groups_invalid",
            Self::PersonInvalid => "saml_person_invalid",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_refusal_has_a_code_of_its_own_and_words_fit_for_an_error_description() {
        let codes: BTreeSet<_> = SamlError::ALL.iter().map(|error| error.code()).collect();
        assert_eq!(codes.len(), SamlError::ALL.len());
        for error in SamlError::ALL {
            let words = error.to_string();
            // RFC 6749, 5.2: %x20-21 / %x23-5B / %x5D-7E
            let plain = |b: u8| matches!(b, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e);
            assert!(words.bytes().all(plain) && !words.ends_with('.'), "{words}");
            assert!(error.code().starts_with("saml_"), "{error:?}");
        }
    }
}
