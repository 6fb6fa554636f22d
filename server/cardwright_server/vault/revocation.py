"""May this TBSCertList or OCSP ResponseData be signed? RFC 5280 section 5, RFC 6960 section 4.2."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime, timedelta

from asn1crypto import crl as asn1_crl
from asn1crypto import ocsp as asn1_ocsp
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from cardwright_cardops import asn1

from .der import (
    MAX_TBS,
    MAX_TBS_CRL,
    canonical_extensions,
    key_id,
    require_window,
    signature_algorithm,
    signed_structure,
)
from .errors import VaultRefused
from .model import PublicKeyInfo

MAX_CRL_DAYS = 40
MAX_OCSP_DAYS = 10
MAX_RESPONSES = 100
_CRL_EXTENSIONS = {"2.5.29.35", "2.5.29.20", "2.5.29.28"}
_ENTRY_EXTENSIONS = {"2.5.29.21", "2.5.29.24"}
_NONCE = "1.3.6.1.5.5.7.48.1.2"
_MAX_NONCE = 128
_HASHES = ("sha1", "sha256", "sha384")
_UNREADABLE = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    x509.InvalidVersion,
)
_BACK = 3600.0
_AHEAD = 300.0


def check_crl(tbs: bytes, issuer: PublicKeyInfo, now: datetime) -> int:
    """The CRL number. Raises VaultRefused."""
    if len(tbs) > MAX_TBS_CRL:
        raise VaultRefused("size", f"A TBSCertList of {len(tbs)} octets is too large.")
    algorithm = signature_algorithm(issuer.algorithm)
    try:
        crl = x509.load_der_x509_crl(signed_structure(tbs, algorithm))
        structure = asn1_crl.TbsCertList.load(tbs, strict=True)
        extensions = crl.extensions
        canonical_extensions(extensions, structure["crl_extensions"])
        entries = {one.oid.dotted_string for entry in crl for one in entry.extensions}
        if crl.tbs_certlist_bytes != tbs or structure["signature"].dump() != algorithm:
            raise VaultRefused("structure", "This is no DER TBSCertList for this CA.")
        number = extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        authority = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        begin, end, name = crl.last_update_utc, crl.next_update_utc, crl.issuer.public_bytes()
    except x509.ExtensionNotFound as cause:
        raise VaultRefused("extension", "CRL number and authority key identifier are needed.") from cause
    except _UNREADABLE as cause:
        raise VaultRefused("structure", "This is no DER TBSCertList for this CA.") from cause
    if name != issuer.subject:
        raise VaultRefused("issuer", "The issuer is not this CA's name.")
    if authority.key_identifier != key_id(issuer.public_key) or authority.authority_cert_issuer is not None:
        raise VaultRefused("key-id", "The authority key identifier is not this CA's.")
    _check_crl_extensions(extensions, entries)
    require_window("thisUpdate", begin, now, back_seconds=_BACK, ahead_seconds=_AHEAD)
    if end is None or not begin < end <= begin + timedelta(days=MAX_CRL_DAYS):
        raise VaultRefused("validity", f"A CRL is good for {MAX_CRL_DAYS} days at most.")
    if not 0 < number < 1 << 159:
        raise VaultRefused("crl-number", "A CRL number is positive and has 20 octets at most.")
    return number


def _check_crl_extensions(extensions: x509.Extensions, entries: set[str]) -> None:
    for one in extensions:
        oid = one.oid.dotted_string
        if oid not in _CRL_EXTENSIONS or one.critical is not (oid == "2.5.29.28"):
            raise VaultRefused("extension", f"Extension {oid} is not signed like this.")
        if isinstance(one.value, x509.IssuingDistributionPoint) and one.value.indirect_crl:
            raise VaultRefused("extension", "Indirect CRLs are not signed.")
    if not entries <= _ENTRY_EXTENSIONS:
        raise VaultRefused("extension", "A revoked entry has an extension that is not signed.")


def check_response(tbs: bytes, responder: PublicKeyInfo, cas: Iterable[PublicKeyInfo], now: datetime) -> int:
    """How many certificates a ResponseData is about. ``cas`` are all CAs of the vault. Raises VaultRefused."""
    if len(tbs) > MAX_TBS:
        raise VaultRefused("size", f"A ResponseData of {len(tbs)} octets is too large.")
    try:
        data = asn1.load(asn1_ocsp.ResponseData, tbs)
        if data.copy().dump(force=True) != tbs:
            raise VaultRefused("structure", "The ResponseData is not in DER.")
        _check_responder(data, responder)
        produced = data["produced_at"].native
        answers = list(data["responses"])
        authorities = [_authority(ca) for ca in cas]
        for answer in answers:
            _check_answer(answer, authorities, now)
        extensions = list(data["response_extensions"]) if data["response_extensions"].native is not None else []
        _check_response_extensions(extensions)
    except (asn1.MalformedAsn1, ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError) as cause:
        raise VaultRefused("structure", "This is no DER ResponseData.") from cause
    require_window("producedAt", produced, now, back_seconds=_BACK, ahead_seconds=_AHEAD)
    if not 1 <= len(answers) <= MAX_RESPONSES:
        raise VaultRefused("size", f"A response is about 1 to {MAX_RESPONSES} certificates.")
    return len(answers)


def _check_responder(data: asn1_ocsp.ResponseData, responder: PublicKeyInfo) -> None:
    identifier = data["responder_id"]
    if identifier.name == "by_key":
        fits = identifier.chosen.native == key_id(responder.public_key)
    else:
        fits = identifier.chosen.untag().dump() == responder.subject
    if not fits or data["version"].native != "v1":
        raise VaultRefused("responder", "The responder is not this key.")


def _authority(ca: PublicKeyInfo) -> dict[str, tuple[bytes, bytes]]:
    spki = asn1_x509.PublicKeyInfo.load(ca.public_key)
    bits = spki["public_key"].contents[1:]
    return {name: (hashlib.new(name, ca.subject).digest(), hashlib.new(name, bits).digest()) for name in _HASHES}


def _check_answer(
    answer: asn1_ocsp.SingleResponse, authorities: list[dict[str, tuple[bytes, bytes]]], now: datetime
) -> None:
    named = answer["cert_id"]
    algorithm = named["hash_algorithm"]["algorithm"].native
    hashed = (named["issuer_name_hash"].native, named["issuer_key_hash"].native)
    if algorithm not in _HASHES or not any(one[algorithm] == hashed for one in authorities):
        raise VaultRefused("issuer", "A response is about a certificate of no CA of this vault.")
    begin, end = answer["this_update"].native, answer["next_update"].native
    require_window("thisUpdate", begin, now, back_seconds=_BACK, ahead_seconds=_AHEAD)
    if end is None or not begin < end <= begin + timedelta(days=MAX_OCSP_DAYS):
        raise VaultRefused("validity", f"A response is good for {MAX_OCSP_DAYS} days at most.")
    if answer["single_extensions"].native is not None:
        raise VaultRefused("extension", "Single responses have no extensions here.")


def _check_response_extensions(extensions: list[asn1_ocsp.ResponseDataExtension]) -> None:
    for one in extensions:
        nonce = one["extn_id"].dotted == _NONCE and not one["critical"].native
        if not nonce or len(one["extn_value"].contents) > _MAX_NONCE + 2 or len(extensions) > 1:
            raise VaultRefused("extension", "A response has no extension but one nonce.")
