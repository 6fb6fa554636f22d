"""Escrowed keys and other sealed values."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import PBES, serialize_key_and_certificates

from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.algorithms import UnsupportedAlgorithm as NoCardAlgorithm

from .. import messages as m
from ..derivation import commitment, fields, seal, unseal
from ..errors import VaultRefused
from ..model import (
    ArchiveContext,
    Authorization,
    DataContext,
    EscrowAlgorithm,
    EscrowedKey,
    MasterPurpose,
    Wrapped,
)
from ..quotas import Charge
from .act import Act

_PFX_ROUNDS = 600_000
_ALGORITHMS = {one.value for one in EscrowAlgorithm}
_DATA = (MasterPurpose.BIOMETRIC, MasterPurpose.INITIAL_SECRET)
_EscrowKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def generate_for_escrow(act: Act, request: m.GenerateForEscrow) -> EscrowedKey:
    """Made here also where masters are in an HSM: it has to leave for the card anyway."""
    act.about(owner=request.owner, algorithm=request.algorithm.value)
    act.charge(Charge("escrow.generate"))
    algorithm = Algorithm.named(request.algorithm.value)
    key: _EscrowKey
    match request.algorithm:
        case EscrowAlgorithm.P256:
            key = ec.generate_private_key(ec.SECP256R1())
        case EscrowAlgorithm.P384:
            key = ec.generate_private_key(ec.SECP384R1())
        case _:
            key = rsa.generate_private_key(65537, algorithm.octets * 8)
    context = ArchiveContext(request.organization, request.owner, _public(key))
    return EscrowedKey(context.public_key, _wrap(act, _pkcs8(key), context))


def wrap_for_archive(act: Act, request: m.WrapForArchive) -> Wrapped:
    """Only a private key that is the context's."""
    act.about(owner=request.context.owner)
    key = _load(request.private_key)
    if _public(key) != request.context.public_key:
        raise VaultRefused("public-key", "The private key is not that of the context.")
    _require_certificate(request.context.certificate, request.context.public_key, optional=True)
    act.charge(Charge("archive.wrap"))
    return _wrap(act, _pkcs8(key), request.context)


def bind_certificate(act: Act, request: m.BindCertificate) -> Wrapped:
    """The key does not leave the vault."""
    act.about(owner=request.context.owner)
    _require_certificate(request.certificate, request.context.public_key, optional=False)
    act.charge(Charge("archive.wrap"))
    plain = _unwrap(act, request.wrapped, request.context)
    context = request.context
    bound = ArchiveContext(
        context.organization, context.owner, context.public_key, request.certificate, context.escrow_class
    )
    return _wrap(act, plain, bound)


def rewrap(act: Act, request: m.Rewrap) -> Wrapped:
    """The key does not leave the vault."""
    act.about(owner=request.context.owner)
    act.charge(Charge("archive.wrap"))
    return _wrap(act, _unwrap(act, request.wrapped, request.context), request.context)


def rewrap_data(act: Act, request: m.RewrapData) -> Wrapped:
    """The secret does not leave the vault."""
    wrapped, context = request.wrapped, request.context
    act.about(kind=wrapped.key.value, owner=context.owner, name=context.name)
    if wrapped.key not in _DATA:
        raise VaultRefused("sealed", "This is no sealed data.")
    act.charge(Charge("data.seal"))
    purpose, aad = wrapped.key, _data_aad(context)
    plain = unseal(act.cmac(purpose, wrapped.version), purpose, wrapped.version, wrapped.data, aad)
    version = act.document.current(purpose).version
    return Wrapped(purpose, version, seal(act.cmac(purpose, version), purpose, version, plain, aad))


def unwrap_for_card(act: Act, request: m.UnwrapForCard) -> bytes:
    """In clear: whoever has the channel to the card seals it for the card."""
    _release(act, "archive.card", request.context, request.authorization)
    return _unwrap(act, request.wrapped, request.context)


def unwrap_for_pfx(act: Act, request: m.UnwrapForPfx) -> bytes:
    """PKCS #12: PBES2 with AES-256 and PBKDF2-SHA-256, MAC with SHA-256."""
    context = request.context
    certificate = _require_certificate(context.certificate, context.public_key, optional=False)
    assert certificate is not None
    _release(act, "archive.pfx", context, request.authorization)
    key = _load(_unwrap(act, request.wrapped, context))
    encryption = (
        PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(_PFX_ROUNDS)
        .key_cert_algorithm(PBES.PBESv2SHA256AndAES256CBC)
        .hmac_hash(hashes.SHA256())
        .build(request.password)
    )
    return serialize_key_and_certificates(None, key, certificate, None, encryption)


def seal_data(act: Act, request: m.SealData) -> Wrapped:
    """Each class under a master of its own."""
    purpose = MasterPurpose(request.kind.value)
    act.about(kind=purpose.value, owner=request.context.owner, name=request.context.name)
    act.charge(Charge("data.seal"))
    version = act.document.current(purpose).version
    sealed = seal(act.cmac(purpose, version), purpose, version, request.data, _data_aad(request.context))
    return Wrapped(purpose, version, sealed)


def open_data(act: Act, request: m.OpenData) -> bytes:
    """In clear."""
    wrapped = request.wrapped
    act.about(kind=wrapped.key.value, owner=request.context.owner, name=request.context.name)
    act.about_authorization(request.authorization)
    if wrapped.key not in _DATA:
        raise VaultRefused("sealed", "This is no sealed data.")
    act.charge(Charge("data.open"), Charge("data.open.owner", request.context.owner))
    cmac = act.cmac(wrapped.key, wrapped.version)
    return unseal(cmac, wrapped.key, wrapped.version, wrapped.data, _data_aad(request.context))


def hmac_commit(act: Act, request: m.HmacCommit) -> tuple[bytes, ...]:
    """Always under the first version: a commitment must stay comparable."""
    act.about(purpose=request.purpose.value, values=len(request.data))
    act.charge(Charge("commit", amount=len(request.data)))
    return commitment(act.cmac(MasterPurpose.COMMIT, 1), request.purpose, request.data)


def _release(act: Act, limit: str, context: ArchiveContext, authorization: Authorization) -> None:
    act.about(owner=context.owner)
    act.about_authorization(authorization)
    act.charge(Charge(limit), Charge(f"{limit}.actor", authorization.actor), Charge(f"{limit}.owner", context.owner))


def _wrap(act: Act, plain: bytes, context: ArchiveContext) -> Wrapped:
    version = act.document.current(MasterPurpose.ARCHIVE).version
    cmac = act.cmac(MasterPurpose.ARCHIVE, version)
    return Wrapped(
        MasterPurpose.ARCHIVE, version, seal(cmac, MasterPurpose.ARCHIVE, version, plain, _archive_aad(context))
    )


def _unwrap(act: Act, wrapped: Wrapped, context: ArchiveContext) -> bytes:
    if wrapped.key is not MasterPurpose.ARCHIVE:
        raise VaultRefused("sealed", "This is no archived key.")
    cmac = act.cmac(MasterPurpose.ARCHIVE, wrapped.version)
    return unseal(cmac, wrapped.key, wrapped.version, wrapped.data, _archive_aad(context))


def _archive_aad(context: ArchiveContext) -> bytes:
    texts = (context.organization, context.owner, context.escrow_class.value)
    return fields(*(text.encode() for text in texts), context.public_key, context.certificate)


def _data_aad(context: DataContext) -> bytes:
    return fields(*(text.encode() for text in (context.organization, context.owner, context.name)))


def _load(der: bytes) -> _EscrowKey:
    try:
        key = load_der_private_key(der, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise VaultRefused("private-key", "This is no unencrypted PKCS #8 private key.") from None
    if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        try:
            if Algorithm.of(key.public_key()).label in _ALGORITHMS:
                return key
        except NoCardAlgorithm:
            pass
    raise VaultRefused("private-key", "Keys of this kind or size are not archived.")


def _pkcs8(key: _EscrowKey) -> bytes:
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def _public(key: _EscrowKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _require_certificate(der: bytes, public_key: bytes, *, optional: bool) -> x509.Certificate | None:
    if not der and optional:
        return None
    try:
        certificate = x509.load_der_x509_certificate(der)
        found = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        raise VaultRefused("certificate", "This is no DER certificate.") from None
    if found != public_key:
        raise VaultRefused("certificate", "The certificate is for another key.")
    return certificate
