"""From a certificate to a trust anchor, and whether anything on the way is revoked. Never touches the network.

pyhanko-certvalidator builds and validates the paths (RFC 5280 section 6). Revocation is asked in passes of
its own, so that a missing CRL of one CA does not hide that another certificate is revoked.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Coroutine, Sequence
from typing import Any, TypeVar

from asn1crypto import crl as asn1_crl
from asn1crypto import ocsp as asn1_ocsp
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from pyhanko_certvalidator import ValidationContext, find_valid_path
from pyhanko_certvalidator.errors import (
    ExpiredError,
    InsufficientRevinfoError,
    InvalidCertificateError,
    PathBuildingError,
    PathValidationError,
    RevokedError,
    ValidationError,
)
from pyhanko_certvalidator.path import ValidationPath
from pyhanko_certvalidator.policy_decl import (
    CertRevTrustPolicy,
    RevocationCheckingPolicy,
    RevocationCheckingRule,
)
from pyhanko_certvalidator.registry import CertificateRegistry
from pyhanko_certvalidator.validate import async_validate_path

from .. import asn1
from ..piv.containers import Container
from .bundle import TrustUnreadable
from .candidate_paths import CandidatePaths
from .certificates import CURRENT
from .context import Context

T = TypeVar("T")

# It logs each attempt that fails, with traceback; findings say what matters.
logging.getLogger("pyhanko_certvalidator").addHandler(logging.NullHandler())

# What asn1crypto raises where it first reads a field, far from where the certificate was loaded.
_NOT_UNDERSTOOD = (ValueError, TypeError, KeyError, NotImplementedError, InvalidSignature, UnsupportedAlgorithm)
_NEVER, _DECLARED = RevocationCheckingRule.NO_CHECK, RevocationCheckingRule.CHECK_IF_DECLARED


def check(context: Context, trust: Sequence[x509.Certificate], crls: Sequence[bytes], ocsp: Sequence[bytes]) -> None:
    """Validate the path of every current certificate and of every content signer on the card.

    Of ``trust`` the self-signed certificates are the anchors, the others only help to build paths. ``crls``
    and ``ocsp`` are DER. Certificates that have expired, as reported elsewhere, are not looked at. Raises
    TrustUnreadable.
    """
    wanted = [
        (container, context.certificates[container]) for container in CURRENT if container in context.certificates
    ]
    wanted += [(container, signer) for container, signer in context.signers.items()]
    judge = _Judge(context, trust, crls, ocsp)
    if not trust:
        for container, _ in wanted:
            context.report("PATH_NOT_CHECKED", container, "no trust anchors were given")
        return
    for container, certificate in wanted:
        if certificate.not_valid_before_utc <= context.at <= certificate.not_valid_after_utc:
            judge.examine(container, certificate)


class _Judge:
    """One set of anchors, helpers and revocation data at one time."""

    def __init__(
        self, context: Context, trust: Sequence[x509.Certificate], crls: Sequence[bytes], ocsp: Sequence[bytes]
    ) -> None:
        self._context = context
        self._anchors = [_convert(each) for each in trust if is_self_signed(each)]
        self._helpers = [_convert(each) for each in trust if not is_self_signed(each)]
        self._crls = [_load(asn1_crl.CertificateList, der) for der in crls]
        self._ocsp = [_load(asn1_ocsp.OCSPResponse, der) for der in ocsp]
        self._ocsp_serials = [_serials(each) for each in self._ocsp]
        self._plain = self._validation(_NEVER, _NEVER)
        self._kept: dict[tuple[Any, ...], ValidationContext] = {}

    def examine(self, container: Container, certificate: x509.Certificate) -> None:
        """Report what is wrong with the path of one certificate, at ``container``."""
        context, seen = self._context, _convert(certificate)
        candidates = CandidatePaths(seen, self._plain)
        try:
            path = _now(find_valid_path(seen, candidates, self._plain))
        except ExpiredError as cause:
            context.report("CERT_ISSUER_EXPIRED", container, f"an issuing CA expired {cause.expired_dt:%Y-%m-%d}")
        except (PathBuildingError, InvalidCertificateError):
            context.report("CERT_UNTRUSTED", container, "no path leads to a trust anchor")
        except ValidationError as cause:
            context.report("CERT_PATH_INVALID", container, _one_line(cause))
        except _NOT_UNDERSTOOD as cause:
            context.report("CERT_PATH_INVALID", container, f"the path cannot be judged: {type(cause).__name__}")
        else:
            self._revocation(container, path)
            return
        if candidates.cut:
            message = f"{candidates.emitted} paths were tried; the certificates given allow more than a check looks at"
            context.report("PATH_TOO_MANY", container, message)

    def _revocation(self, container: Container, path: ValidationPath) -> None:
        if not self._crls and not self._ocsp:
            self._context.report("REVOCATION_NOT_CHECKED", container, "no CRL or OCSP response was given")
            return
        passes = (
            ("CERT_REVOKED", "the certificate is revoked", _DECLARED, _NEVER),
            ("CERT_ISSUER_REVOKED", "an issuing CA's certificate is revoked", _NEVER, _DECLARED),
        )
        issuers = frozenset(each.issuer.dump() for each in path.iter_certs(include_root=False))
        for code, message, leaf, others in passes:
            rules = (leaf, others, issuers)
            if rules not in self._kept:
                self._kept[rules] = self._validation(*rules)
            try:
                _now(async_validate_path(self._kept[rules], path))
                self._contradiction(path, *rules)
            except RevokedError as cause:
                self._context.report(code, container, f"{message}, {cause.revocation_dt:%Y-%m-%d}")
            except _OnHold:
                message = "one source has a certificate on hold, another calls it good"
                self._context.report("REVOCATION_UNKNOWN", container, message)
            except InsufficientRevinfoError as cause:
                self._context.report("REVOCATION_UNKNOWN", container, _one_line(cause))
            except PathValidationError as cause:
                self._context.report("CERT_PATH_INVALID", container, _one_line(cause))
            except _NOT_UNDERSTOOD as cause:
                message = f"revocation data cannot be judged: {type(cause).__name__}"
                self._context.report("REVOCATION_UNKNOWN", container, message)

    def _contradiction(
        self,
        path: ValidationPath,
        leaf: RevocationCheckingRule,
        issuers: RevocationCheckingRule,
        names: frozenset[bytes],
    ) -> None:
        """Raise what one source says against a path that another calls good: the validator takes the first good word.

        A revocation is final, whichever source is newer. A hold may have ended since: then the status is not known.
        Raises RevokedError, _OnHold.
        """
        serials = {each.serial_number for each in path.iter_certs(include_root=False)}
        told = [each for each, about in zip(self._ocsp, self._ocsp_serials, strict=True) if serials & about]
        for one in ([each] for each in told) if len(told) > 1 else ():
            self._ask(path, self._validation(leaf, issuers, names, one))
        if told and self._crls:
            self._ask(path, self._validation(leaf, issuers, names, []))

    @staticmethod
    def _ask(path: ValidationPath, context: ValidationContext) -> None:
        try:
            _now(async_validate_path(context, path))
        except RevokedError as cause:
            if cause.reason.native != "certificate_hold":
                raise
            raise _OnHold from cause
        except (PathValidationError, *_NOT_UNDERSTOOD):
            pass  # this source says nothing; another one was enough

    def _validation(
        self, leaf: RevocationCheckingRule, issuers: RevocationCheckingRule, names: Collection[bytes] | None = None,
        ocsp: Sequence[asn1_ocsp.OCSPResponse] | None = None,
    ) -> ValidationContext:  # fmt: skip
        """A context with these rules for the certificate and its issuers, and all OCSP responses or ``ocsp``.

        With ``names`` only what those issuers (by name) made or own is in it: pyhanko-certvalidator would try
        every certificate as issuer of every CRL.
        """

        def wanted(name: asn1_x509.Name) -> bool:
            return names is None or name.dump() in names

        anchors = [each for each in self._anchors if wanted(each.subject)]
        helpers = [each for each in self._helpers if wanted(each.subject) or wanted(each.issuer)]
        crls = [each for each in self._crls if wanted(each.issuer)]
        return ValidationContext(
            trust_roots=anchors,
            moment=self._context.at,
            allow_fetching=False,
            crls=crls,
            ocsps=self._ocsp if ocsp is None else ocsp,
            revinfo_policy=CertRevTrustPolicy(RevocationCheckingPolicy(leaf, issuers)),
            certificate_registry=CertificateRegistry.build(helpers),
        )


class _OnHold(Exception):
    """A source that is believed has a certificate of the path on hold."""


def is_self_signed(certificate: x509.Certificate) -> bool:
    """Whether issuer and subject are one and the signature is by the certificate's own key."""
    if certificate.issuer != certificate.subject:
        return False
    try:
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _serials(response: asn1_ocsp.OCSPResponse) -> frozenset[int]:
    """The serial numbers that a response speaks of; none if it cannot be read."""
    try:
        rows = response["response_bytes"]["response"].parsed["tbs_response_data"]["responses"]
        return frozenset(row["cert_id"]["serial_number"].native for row in rows)
    except _NOT_UNDERSTOOD:
        return frozenset()


def _convert(certificate: x509.Certificate) -> asn1_x509.Certificate:
    return asn1_x509.Certificate.load(certificate.public_bytes(Encoding.DER))


def _load(kind: type[T], der: bytes) -> T:
    try:
        return asn1.load(kind, der)
    except asn1.MalformedAsn1 as cause:
        raise TrustUnreadable(f"a CRL or OCSP response cannot be read: {cause}") from cause


def _one_line(cause: Exception) -> str:
    return str(cause).partition("\n")[0]


def _now(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for: there is no network, so no event loop either."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise RuntimeError("path validation tried to wait for something")
