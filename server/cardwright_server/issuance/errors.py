"""What can go wrong with certificates."""

from __future__ import annotations

from collections.abc import Sequence

from cardwright_cardops.errors import CardwrightError


class IssuanceError(CardwrightError):
    """Base of the errors of issuance; raised as one of its kinds only."""

    code = "ISSUANCE_FAILED"
    default_effect = "No certificate was issued."
    default_advice = "See the message."


class CertificateRefused(IssuanceError):
    """What was asked for is not certified. ``reason`` is a stable word: profile, key, algorithm, proof, origin, ..."""

    code = "CERTIFICATE_REFUSED"
    default_advice = "Correct what the message names and ask again, under a new request."

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class NameMissing(CertificateRefused):
    """A certificate has to say something of its holder or card that is not known.

    ``missing``: kinds of names, as profiles have them. ``attributes``: those of the person that they are made of.
    """

    code = "CERTIFICATE_NAME_MISSING"
    default_advice = "Add the attribute to the person, or change the mapping, or have the policy use another profile."

    def __init__(self, profile: str, missing: Sequence[str], attributes: Sequence[str] = ()) -> None:
        made_of = f" (made of the person's {', '.join(attributes)})" if attributes else ""
        super().__init__("names", f"Profile {profile} needs what is not known: {', '.join(missing)}{made_of}.")
        self.profile = profile
        self.missing = tuple(missing)
        self.attributes = tuple(attributes)


class RequestReused(IssuanceError):
    """A request's id came again with other content."""

    code = "REQUEST_REUSED"
    default_effect = "The certificate of the first request stays as it is."
    default_advice = "Use a new id for a new request."


class NoSuchCertificate(IssuanceError):
    """There is no such certificate."""

    code = "CERTIFICATE_UNKNOWN"
    default_effect = "Nothing was changed."
    default_advice = "Look for it by its serial number or by its holder."


class NoSuchAuthority(IssuanceError):
    """There is no authority of this name, or none for this purpose."""

    code = "AUTHORITY_UNKNOWN"
    default_effect = "Nothing was changed."
    default_advice = "'cardwright server init' makes the authorities; look which ones there are."


class WrongRole(IssuanceError):
    """A certificate is no certificate for what it was shown for. ``reason``: issuer, time, usage, status or holder."""

    code = "CERTIFICATE_WRONG_ROLE"
    default_effect = "Who shows it is not let in."
    default_advice = "Use a certificate of the authority for this purpose, that is neither expired nor revoked."

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ProfileMalformed(IssuanceError):
    """A certificate profile's document says something unknown or contradictory."""

    code = "PROFILE_MALFORMED"
    default_effect = "The server does not start with it."
    default_advice = "Correct the document that the message names."


class OriginRefused(IssuanceError):
    """Evidence of where a key was made that does not hold. ``reason``: chain, key, slot, device or policy."""

    code = "ORIGIN_REFUSED"
    default_advice = "Make the key anew in the slot; if it happens again, the card or the workstation is not honest."

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class OcspMalformed(IssuanceError):
    """No OCSP request, or one that is too large."""

    code = "OCSP_MALFORMED"
    default_effect = "The answer is malformedRequest."
    default_advice = "Send a request as in RFC 6960, about 1 to 20 certificates of one authority."
