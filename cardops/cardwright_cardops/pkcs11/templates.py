"""Attribute templates for new objects. Imported only by the process that holds the module."""

from __future__ import annotations

import sys
from typing import Any, Final

from pkcs11 import Attribute, CertificateType, KeyType, ObjectClass
from pkcs11.attributes import AttributeMapper
from pkcs11.util.ec import decode_ec_private_key, decode_ec_public_key, encode_named_curve_parameters
from pkcs11.util.rsa import decode_rsa_private_key

from .messages import Generate, ImportKey, WriteCertificate
from .values import KeyAlgorithm

Template = dict[Attribute, Any]

CURVE_NAMES: Final = {KeyAlgorithm.P256: "secp256r1", KeyAlgorithm.P384: "secp384r1"}

# CKA_ALWAYS_AUTHENTICATE exists only on private keys and cannot be changed later.
_SPARSE_KEY: Final = (
    Attribute.CLASS,
    Attribute.KEY_TYPE,
    Attribute.ID,
    Attribute.EC_PARAMS,
    Attribute.VALUE,
    Attribute.PUBLIC_EXPONENT,
    Attribute.MODULUS_BITS,
    Attribute.PRIME_1,
    Attribute.PRIME_2,
    Attribute.EXPONENT_1,
    Attribute.EXPONENT_2,
    Attribute.COEFFICIENT,
)
_SPARSE_CERTIFICATE: Final = (Attribute.CLASS, Attribute.ID, Attribute.VALUE)


def total_mapper() -> AttributeMapper:
    """python-pkcs11's mapper with decoders that accept any bytes: a module may answer anything."""
    mapper = AttributeMapper()
    for attribute, (pack, _) in tuple(mapper.attribute_types.items()):
        if attribute in _BOOLEANS:
            mapper.register_handler(attribute, pack, any)
        elif attribute in _NUMBERS:
            mapper.register_handler(attribute, pack, _number)
        else:
            mapper.register_handler(attribute, pack, bytes)
    return mapper


_BOOLEANS: Final = (
    Attribute.ALWAYS_AUTHENTICATE,
    Attribute.DECAPSULATE,
    Attribute.DECRYPT,
    Attribute.DERIVE,
    Attribute.ENCAPSULATE,
    Attribute.ENCRYPT,
    Attribute.EXTRACTABLE,
    Attribute.LOCAL,
    Attribute.PRIVATE,
    Attribute.SIGN,
    Attribute.UNWRAP,
    Attribute.VERIFY,
    Attribute.WRAP,
)
_NUMBERS: Final = (Attribute.CLASS, Attribute.KEY_TYPE, Attribute.CERTIFICATE_TYPE)


def _number(raw: bytes) -> int:
    return int.from_bytes(raw[:8], sys.byteorder)


def _named(template: Template, identifier: bytes, label: str) -> Template:
    template[Attribute.ID] = identifier
    if label:
        template[Attribute.LABEL] = label
    template[Attribute.TOKEN] = True
    return template


def _private(template: Template, rsa: bool, always_authenticate: bool, *, behind_login: bool = True) -> Template:
    template[Attribute.PRIVATE] = behind_login
    template[Attribute.SENSITIVE] = True
    template[Attribute.EXTRACTABLE] = False
    template[Attribute.SIGN] = True
    template[Attribute.DECRYPT] = rsa
    template[Attribute.DERIVE] = not rsa
    if always_authenticate:
        template[Attribute.ALWAYS_AUTHENTICATE] = True
    return template


def _public(template: Template, rsa: bool) -> Template:
    template[Attribute.PRIVATE] = False
    template[Attribute.VERIFY] = True
    template[Attribute.ENCRYPT] = rsa
    return template


def _thin(template: Template, sparse: bool, kept: tuple[Attribute, ...]) -> Template:
    return {name: value for name, value in template.items() if name in kept} if sparse else template


def generation(request: Generate) -> tuple[Template, Template]:
    """Public and private template of C_GenerateKeyPair."""
    algorithm = request.algorithm
    key_type = KeyType.RSA if algorithm.is_rsa else KeyType.EC
    public: Template = {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.KEY_TYPE: key_type}
    private: Template = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.KEY_TYPE: key_type}
    if algorithm.is_rsa:
        public[Attribute.MODULUS_BITS] = algorithm.bits
        public[Attribute.PUBLIC_EXPONENT] = b"\x01\x00\x01"
    else:
        public[Attribute.EC_PARAMS] = encode_named_curve_parameters(CURVE_NAMES[algorithm])
    _public(_named(public, request.id, request.label), algorithm.is_rsa)
    _named(private, request.id, request.label)
    _private(private, algorithm.is_rsa, request.always_authenticate, behind_login=not request.open)
    return _thin(public, request.sparse, _SPARSE_KEY), _thin(private, request.sparse, _SPARSE_KEY)


def imported(request: ImportKey) -> tuple[Template, Template]:
    """Public and private template of two C_CreateObject calls."""
    rsa = request.algorithm.is_rsa
    der = bytes(request.private)
    private: Template = dict(decode_rsa_private_key(der) if rsa else decode_ec_private_key(der))
    if rsa:
        private.pop(Attribute.UNWRAP, None)
        public: Template = {
            Attribute.CLASS: ObjectClass.PUBLIC_KEY,
            Attribute.KEY_TYPE: KeyType.RSA,
            Attribute.MODULUS: private[Attribute.MODULUS],
            Attribute.PUBLIC_EXPONENT: private[Attribute.PUBLIC_EXPONENT],
        }
    else:
        public = dict(decode_ec_public_key(request.public))
        private[Attribute.EC_PARAMS] = public[Attribute.EC_PARAMS]
    _named(private, request.id, request.label)
    _private(private, rsa, request.always_authenticate)
    _public(_named(public, request.id, request.label), rsa)
    return public, _thin(private, request.sparse, _SPARSE_KEY)


def certificate(request: WriteCertificate) -> Template:
    """Template of C_CreateObject for a certificate."""
    template: Template = {
        Attribute.CLASS: ObjectClass.CERTIFICATE,
        Attribute.CERTIFICATE_TYPE: CertificateType.X_509,
        Attribute.SUBJECT: request.subject,
        Attribute.ISSUER: request.issuer,
        Attribute.SERIAL_NUMBER: request.serial,
        Attribute.VALUE: request.der,
        Attribute.PRIVATE: False,
    }
    _named(template, request.id, request.label)
    return _thin(template, request.sparse, _SPARSE_CERTIFICATE)
