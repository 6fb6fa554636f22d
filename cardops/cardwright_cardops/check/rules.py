"""Every finding there is: its code, how grave it is at each level, the section it rests on, what it says.

The letters are the severities at piv, piv-i, civ and basic: E error, W warning, I info, - not reported.
docs/findings.md is made from this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .model import Level, Severity

_LETTERS: Mapping[str, Severity | None] = {
    "E": Severity.ERROR, "W": Severity.WARNING, "I": Severity.INFO, "-": None
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table. ``grades`` are four letters, one per level in the order of Level."""

    code: str
    grades: str
    reference: str
    title: str

    def severity(self, level: Level) -> Severity | None:
        """How grave it is at ``level``; None when it is not reported there."""
        return _LETTERS[self.grades[list(Level).index(level)]]


_73 = "SP 800-73-5 part 1 "
_76 = "SP 800-76-2 "
_78 = "SP 800-78-5 "
_201 = "FIPS 201-3 "
_COMMON = "Common Policy SSP profiles "
_5280 = "RFC 5280 "

_ROWS = (
    # what the card answers, and how the containers are built
    ("NO_OBJECTS", "EEEE", _73 + "table 1", "There is nothing on the card at all."),
    ("FACTORY_SECRET", "EEEE", _201 + "section 4.3.1", "A PIN, PUK or management key is the factory's."),
    ("OBJECT_UNREADABLE", "EEEE", "SP 800-73-5 part 2 section 3.1.2", "The answer is not one BER-TLV data object."),
    ("OBJECT_MALFORMED", "EEEE", _73 + "appendix A", "The content of the container cannot be read."),
    ("OBJECT_ABSENT", "EEEW", _73 + "table 1", "A container that has to be there is not."),
    ("OBJECT_EMPTY", "WWWI", _73 + "appendix A", "The container is there but empty."),
    ("OBJECT_NOT_READ", "IIII", _73 + "table 2", "The container was not read, a PIN is missing."),
    ("OBJECT_UNKNOWN", "IIII", _73 + "table 3", "The data model has no such container."),
    ("TAG_UNKNOWN", "WWWI", _73 + "appendix A", "A data object inside that the standard does not know."),
    ("TAG_LEGACY", "IIII", _73 + "appendix A", "A data object inside that the standard has removed."),
    ("TAG_MISSING", "EEWW", _73 + "appendix A", "A data object that has to be inside is not."),
    ("TAG_ORDER", "EEWW", _73 + "appendix A", "The data objects inside are not in the standard's order."),
    ("TAG_LENGTH", "WWWI", _73 + "appendix A", "A data object inside is longer or shorter than foreseen."),
    ("LENGTH_NOT_SHORTEST", "WWWI", "ISO 7816-4 section 5.2.2.2", "A length field is longer than needed."),
    # CHUID
    ("CHUID_FASCN_MALFORMED", "EEEE", _73 + "section 3.1.2", "The FASC-N has wrong parity, LRC or separators."),
    ("CHUID_FASCN_NOT_FEDERAL", "EI--", _73 + "section 3.1.2", "The FASC-N is the all-nines one of other issuers."),
    ("CHUID_FASCN_ZERO", "WW--", _73 + "section 3.1.2", "Agency, system or credential number is zero."),
    ("CHUID_GUID_NOT_UUID", "WWWI", _73 + "section 3.4.1", "The GUID is no UUID of RFC 4122 version 1, 4 or 5."),
    ("CHUID_EXPIRED", "EEEE", _73 + "section 3.1.2", "The card's expiration date has passed."),
    ("CHUID_EXPIRATION_FAR", "WW--", _201 + "section 2.8.1", "The card expires more than six years from now."),
    ("CHUID_UNSIGNED", "EEEI", _73 + "section 3.1.2", "The CHUID carries no signature."),
    # CMS, whatever it signs
    ("SIGNATURE_MALFORMED", "EEEE", "RFC 5652 section 5", "The signature is no CMS SignedData in DER."),
    ("SIGNATURE_DIGEST_MISMATCH", "EEEE", "RFC 5652 section 5.4", "The content was changed after signing."),
    ("SIGNATURE_INVALID", "EEEE", "RFC 5652 section 5.4", "The signature value does not verify."),
    ("SIGNATURE_PROFILE", "EEWW", _73 + "section 3.1.2", "The SignedData is not built as PIV wants it."),
    ("SIGNATURE_ALGORITHM_WEAK", "EEEW", _78 + "section 3.2.1", "The signature's algorithm is not allowed."),
    ("SIGNED_ATTRIBUTE_ABSENT", "WWWI", _73 + "section 3.1.4", "A signed attribute of PIV is missing."),
    ("SIGNER_DN_MISMATCH", "EEEW", _73 + "section 3.1.2", "pivSigner-DN is not the signer's subject name."),
    ("SIGNED_FASCN_MISMATCH", "EEEE", _73 + "section 3.1.4", "The signed FASC-N is another card's."),
    ("SIGNED_UUID_MISMATCH", "EEEE", _73 + "section 3.1.4", "The signed UUID is another card's."),
    # content signers
    ("CONTENT_SIGNER_EXPIRED", "EEEE", _201 + "section 4.2.1", "The content signer's certificate has expired."),
    ("CONTENT_SIGNER_NOT_YET_VALID", "EEEE", _5280 + "section 4.1.2.5", "The content signer is not valid yet."),
    ("CONTENT_SIGNER_EKU", "EEWI", _201 + "appendix B.1", "The content signer may not sign card content."),
    ("CONTENT_SIGNER_POLICY", "WW--", _COMMON + "5, 15", "The content signer asserts no content-signing policy."),
    ("CONTENT_SIGNER_KEY", "EEEW", _78 + "section 3.2.1", "The content signer's key is too weak."),
    (
        "CONTENT_SIGNER_ENDS_EARLY",
        "EEW-",
        _201 + "section 4.2.1",
        "The content signer expires before 9E's certificate.",
    ),
    ("CONTENT_SIGNER_DIFFERS", "WWWI", _73 + "section 3.1.7", "Not the CHUID's signer has signed."),
    # Security Object
    ("SECURITY_OBJECT_HASH_MISMATCH", "EEEE", _73 + "section 3.1.7", "A container is not what was hashed."),
    ("SECURITY_OBJECT_MAP", "EEEE", _73 + "section 3.1.7", "Container map and signed hashes do not fit together."),
    ("SECURITY_OBJECT_UNKNOWN", "WWWW", _73 + "section 3.1.7", "The map names a container that does not exist."),
    ("SECURITY_OBJECT_MISSES", "EEEE", _73 + "section 3.1.7", "A container that was hashed is not on the card."),
    ("SECURITY_OBJECT_COVERAGE", "WWWI", _73 + "section 3.1.7", "An unsigned container has no hash."),
    ("SECURITY_OBJECT_DIGEST", "EEEW", _78 + "section 3.2.3", "The hash function is not the signature's, or weak."),
    # biometrics
    ("BIOMETRIC_UNSIGNED", "EEEI", _73 + "section 3.1.4", "The biometric record carries no signature."),
    ("CBEFF_HEADER", "EEWW", _76 + "section 9", "A field of the CBEFF header has a wrong value."),
    ("CBEFF_DATES", "EEWW", _76 + "section 9", "A date of the CBEFF header is none."),
    ("CBEFF_DATES_REVERSED", "WWWW", _76 + "section 9", "The record's validity ends before it begins."),
    ("CBEFF_EXPIRED", "EEEE", _76 + "section 9", "The biometric record's validity has ended."),
    ("CBEFF_NOT_YET_VALID", "WWWW", _76 + "section 9", "The biometric record's validity has not begun."),
    ("CBEFF_ENDS_BEFORE_CARD", "EEEE", _76 + "section 9", "The record's validity ends before the card's."),
    ("CBEFF_FASCN_MISMATCH", "EEEE", _76 + "section 9", "The record's FASC-N is not the CHUID's."),
    ("FINGERPRINT_RECORD", "WWWI", _76 + "section 4.2", "The fingerprint record is not built as PIV wants it."),
    ("FACE_RECORD", "WWWI", _76 + "section 7", "The face record is not built as PIV wants it."),
    # certificates
    ("CERT_EXPIRED", "EEEE", _5280 + "section 4.1.2.5", "The certificate has expired."),
    ("CERT_NOT_YET_VALID", "EEEE", _5280 + "section 4.1.2.5", "The certificate is not valid yet."),
    ("CERT_OUTLIVES_CARD", "EEEE", _201 + "section 5.2", "The certificate expires after the card."),
    ("SIGNING_CERT_OUTLIVES_CARD", "WWW-", _201 + "section 4.2.2.4", "9C's certificate expires after the card."),
    ("CERT_VALIDITY_LONG", "WW--", _COMMON + "6-9", "The certificate is valid for more than 1096 days."),
    ("CERT_UUID_MISMATCH", "EEEE", _73 + "section 3.4.1", "The certificate names another card's UUID."),
    ("CERT_UUID_ABSENT", "WWW-", _73 + "section 3.4.1", "The certificate does not name the card's UUID."),
    ("CERT_FASCN_MISMATCH", "EEEE", _73 + "section 3.1.3", "The certificate names another card's FASC-N."),
    ("CERT_FASCN_ABSENT", "E---", _201 + "section 4.2.2.1", "The certificate does not name the card's FASC-N."),
    ("CERT_FASCN_FORBIDDEN", "-E--", _COMMON + "17", "A FASC-N in a PIV-I card authentication certificate."),
    ("CERT_NAME_FORM", "WW--", _COMMON + "7, 17", "The certificate names more than the card."),
    ("CERT_KEY_USAGE", "EEEW", _COMMON + "6-9", "The key usage is not that of the slot."),
    ("CERT_EKU", "EEEW", _COMMON + "7, 17", "The extended key usage is not that of the slot."),
    ("CERT_EKU_BROAD", "WW--", _COMMON + "6, 16", "The extended key usage allows what it should not."),
    ("CERT_EKU_ABSENT", "WW--", _COMMON + "8, 9", "An extended key usage of the slot is missing."),
    ("CERT_POLICY_WRONG", "EE--", _COMMON + "6, 7, 16, 17", "The policies are not those of the slot."),
    ("CERT_POLICY_ABSENT", "WW--", _COMMON + "8, 9", "No policy of the slot is asserted."),
    ("CERT_POLICY_TEST", "II--", _COMMON + "6-9", "The policies are those of a test PKI."),
    ("CERT_KEY_ALGORITHM", "EEEW", _78 + "table 1", "The slot may not have a key of this kind or size."),
    ("CERT_KEY_SUNSET", "WWI-", _78 + "table 1", "RSA of 2048 bits beyond 2030."),
    ("CERT_SIGNATURE_WEAK", "EEEW", _78 + "section 3.2.2", "The issuer's signature algorithm is not allowed."),
    ("CERT_SKI_MISMATCH", "EEEE", _5280 + "section 4.2.1.2", "The subject key identifier is not the key's."),
    ("CERT_SKI_ABSENT", "WWW-", _5280 + "section 4.2.1.2", "There is no subject key identifier."),
    ("CERT_AKI_ABSENT", "EEW-", _5280 + "section 4.2.1.1", "There is no authority key identifier."),
    ("CERT_AIA", "EEI-", _COMMON + "6-9", "No http address for the issuer's certificate or OCSP."),
    ("CERT_CRLDP", "EEI-", _COMMON + "6-9", "No http address for the CRL."),
    ("CERT_IS_CA", "EEEW", _COMMON + "6-9", "The certificate is a CA's."),
    ("CERT_NACI", "II--", _201 + "appendix B.2", "The background investigation indicator is deprecated."),
    ("KEY_MISMATCH", "EEEE", _201 + "section 4.2.2", "The private key is not that of the certificate."),
    ("KEY_NOT_PROVED", "WWWW", _201 + "section 4.2.2", "The card would not use the key."),
    # paths
    ("PATH_NOT_CHECKED", "III-", _5280 + "section 6", "No trust anchors were given."),
    ("CERT_ISSUER_EXPIRED", "EEEE", _5280 + "section 6.1.3", "A CA certificate in the path has expired."),
    ("CERT_UNTRUSTED", "EEEE", _5280 + "section 6.1", "No path leads to a trust anchor."),
    ("CERT_PATH_INVALID", "EEEE", _5280 + "section 6.1", "The path to the trust anchor does not hold."),
    ("PATH_TOO_MANY", "WWWW", _5280 + "section 6.1", "No path held, and not every possible one was tried."),
    ("CERT_REVOKED", "EEEE", _5280 + "section 6.3", "The certificate is revoked."),
    ("CERT_ISSUER_REVOKED", "EEEE", _5280 + "section 6.3", "A CA certificate in the path is revoked."),
    ("REVOCATION_NOT_CHECKED", "IIII", _5280 + "section 6.3", "Neither CRL nor OCSP response was given."),
    ("REVOCATION_UNKNOWN", "WWWW", _5280 + "section 6.3", "No CRL or OCSP response given covers it."),
    # the rest
    ("CCC_DATA_MODEL", "EEEW", _73 + "section 3.1.1", "The data model number is not 10."),
    ("DISCOVERY_ABSENT", "IIII", _73 + "section 3.3.2", "No Discovery object: the application PIN only."),
    ("DISCOVERY_AID", "EEEE", _73 + "section 3.3.2", "The AID is not that of the PIV application."),
    ("DISCOVERY_POLICY", "EEEW", _73 + "section 3.3.2", "The PIN usage policy has a value that there is not."),
    ("DISCOVERY_NEEDS_OBJECT", "EEEE", _73 + "section 3.3.2", "The PIN usage policy promises what is not there."),
    ("KEY_HISTORY_ABSENT", "EEEI", _73 + "section 3.3.3", "Retired certificates without Key History."),
    ("KEY_HISTORY_COUNT", "EEEW", _73 + "section 3.3.3", "Key History and retired certificates do not agree."),
    ("KEY_HISTORY_URL", "EEEW", _73 + "section 3.3.3", "The address of the other certificates is wrong."),
    ("PRINTED_EXPIRATION_MISMATCH", "WWWI", _73 + "section 3.1.2", "Printed and signed expiration dates differ."),
)

RULES: Mapping[str, Rule] = MappingProxyType({row[0]: Rule(*row) for row in _ROWS})


def markdown() -> str:
    """The table of docs/findings.md."""
    lines = [
        "| Code | piv | piv-i | civ | basic | What it says | Reference |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for rule in RULES.values():
        grades = [(severity.value if severity else "") for severity in map(rule.severity, Level)]
        lines.append(f"| `{rule.code}` | {' | '.join(grades)} | {rule.title} | {rule.reference} |")
    return "\n".join(lines) + "\n"
