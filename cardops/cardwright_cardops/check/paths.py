"""From a certificate to a trust anchor, and whether anything on the way is revoked. Never touches the network.

pyhanko-certvalidator builds and validates the paths (RFC 5280 section 6). Revocation is asked in passes of
its own, so that a missing CRL of one CA does not hide that another certificate is revoked.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Coroutine, Sequence
from datetime import datetime
from typing import Any, TypeAlias, TypeVar

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

# What asn1crypto raises where it first reads a field, far from where the certificate was loaded. AttributeError: the
# validator looks digests up by the name of their algorithm, as an attribute.
_NOT_UNDERSTOOD = (
    AttributeError,
    ValueError,
    TypeError,
    KeyError,
    NotImplementedError,
    InvalidSignature,
    UnsupportedAlgorithm,
)
Rules: TypeAlias = tuple[RevocationCheckingRule, RevocationCheckingRule, frozenset[bytes]]
Source: TypeAlias = tuple[datetime, list[asn1_crl.CertificateList], list[asn1_ocsp.OCSPResponse]]
MAX_SOURCES = 32
"""Sources that are heard one by one for one path, newest first; beyond, they are only heard together."""
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
        self._told = [_told(each) for each in self._ocsp]
        self._plain = self._validation(_NEVER, _NEVER)
        self._kept: dict[Rules, ValidationContext] = {}

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
            try:
                if not self._settled(path, *rules):
                    _now(async_validate_path(self._with_all(rules), path))
            except RevokedError as cause:
                held = " (on hold)" if _is_hold(cause) else ""
                self._context.report(code, container, f"{message}{held}, {cause.revocation_dt:%Y-%m-%d}")
            except InsufficientRevinfoError as cause:
                self._context.report("REVOCATION_UNKNOWN", container, _one_line(cause))
            except PathValidationError as cause:
                self._context.report("CERT_PATH_INVALID", container, _one_line(cause))
            except _NOT_UNDERSTOOD as cause:
                message = f"revocation data cannot be judged: {type(cause).__name__}"
                self._context.report("REVOCATION_UNKNOWN", container, message)

    def _with_all(self, rules: Rules) -> ValidationContext:
        if rules not in self._kept:
            self._kept[rules] = self._validation(*rules)
        return self._kept[rules]

    def _settled(
        self,
        path: ValidationPath,
        leaf: RevocationCheckingRule,
        issuers: RevocationCheckingRule,
        names: frozenset[bytes],
    ) -> bool:
        """Hear every source by itself where several speak of one issuer's certificates; True when that decides.

        The validator takes the first good word. Here a revocation is final, whichever source says it and however old
        it is. A hold can end: it counts unless a source with a later thisUpdate calls the path good (RFC 6960
        section 4.2.2.1: the time at which the status is known to be correct). Raises RevokedError.
        """
        certificates = list(path.iter_certs(include_root=False))
        asked = certificates[-1:] if leaf is _DECLARED else certificates[:-1]
        decided = False
        for issuer in dict.fromkeys(each.issuer.dump() for each in asked):
            sources = self._sources(issuer, asked, names)
            if len(sources) < 2:
                continue
            good: list[datetime] = []
            held: list[tuple[datetime, RevokedError]] = []
            newest_crl: datetime | None = None
            lists_first = sorted(sources[:MAX_SOURCES], key=lambda source: len(source[2]))
            for number, (at, crls, ocsp) in enumerate(lists_first):
                try:
                    _now(async_validate_path(self._validation(leaf, issuers, names, crls, ocsp), path))
                    if not number and not ocsp:
                        newest_crl = at
                    # Of a response that goes with a good CRL nobody tells which of them was believed.
                    good.append(min(at, newest_crl) if ocsp and newest_crl else at)
                except RevokedError as cause:
                    if not _is_hold(cause):
                        raise
                    held.append((at, cause))
                except (PathValidationError, *_NOT_UNDERSTOOD):
                    continue  # this source says nothing that can be used
            if held:
                at, last = max(held, key=lambda each: each[0])
                if not good or at >= max(good):
                    raise last
            if not good or len(sources) > MAX_SOURCES:
                return False
            decided = True
        return decided

    def _sources(
        self, issuer: bytes, asked: Sequence[asn1_x509.Certificate], names: frozenset[bytes]
    ) -> list[Source]:
        """What speaks of the certificates of ``issuer`` (a name in DER), newest first, and what goes with it.

        With each goes the newest CRL of every other issuer of the path, and with an OCSP response that of its own: the
        responder may be revoked. A delta CRL is no source of its own: it goes with every complete one of its issuer.
        """
        own: list[asn1_crl.CertificateList] = []
        deltas: list[asn1_crl.CertificateList] = []
        newest: dict[bytes, asn1_crl.CertificateList] = {}
        for one in sorted(self._crls, key=_this_update):
            name = one.issuer.dump()
            if name in names and one.delta_crl_indicator_value is not None:
                deltas.append(one)
            elif name == issuer:
                own.append(one)
            elif name in names:
                newest[name] = one
        along = [*newest.values(), *deltas]
        found: list[Source] = [(_this_update(one), [one, *along], []) for one in own]
        serials = {each.serial_number for each in asked if each.issuer.dump() == issuer}
        for response, told in zip(self._ocsp, self._told, strict=True):
            found += [(told[serial], [*own[-1:], *along], [response]) for serial in serials & told.keys()]
        return sorted(found, key=lambda source: source[0], reverse=True)

    def _validation(
        self, leaf: RevocationCheckingRule, issuers: RevocationCheckingRule, names: Collection[bytes] | None = None,
        crls: Sequence[asn1_crl.CertificateList] | None = None, ocsp: Sequence[asn1_ocsp.OCSPResponse] | None = None,
    ) -> ValidationContext:  # fmt: skip
        """A context with these rules for the certificate and its issuers, and ``crls`` and ``ocsp`` or all there are.

        With ``names`` only what those issuers (by name) made or own is in it: pyhanko-certvalidator would try
        every certificate as issuer of every CRL.
        """

        def wanted(name: asn1_x509.Name) -> bool:
            return names is None or name.dump() in names

        anchors = [each for each in self._anchors if wanted(each.subject)]
        helpers = [each for each in self._helpers if wanted(each.subject) or wanted(each.issuer)]
        if crls is None:
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


def _is_hold(cause: RevokedError) -> bool:
    return bool(cause.reason.native == "certificate_hold")


def is_self_signed(certificate: x509.Certificate) -> bool:
    """Whether issuer and subject are one and the signature is by the certificate's own key."""
    if certificate.issuer != certificate.subject:
        return False
    try:
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _this_update(crl: asn1_crl.CertificateList) -> datetime:
    made: datetime = crl["tbs_cert_list"]["this_update"].native
    return made


def _told(response: asn1_ocsp.OCSPResponse) -> dict[int, datetime]:
    """The serial numbers that a response speaks of, with its thisUpdate for each; none if it cannot be read."""
    try:
        rows = response["response_bytes"]["response"].parsed["tbs_response_data"]["responses"]
        return {row["cert_id"]["serial_number"].native: row["this_update"].native for row in rows}
    except _NOT_UNDERSTOOD:
        return {}


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
