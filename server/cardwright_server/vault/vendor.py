"""Management keys that vendors give their cards: derived from a vendor's master key by a KDF that has a name.

    sp800-108-cmac   SP 800-108 in counter mode with AES-CMAC: counter of 4 octets first, label "management-key",
                     context = input, length of 4 octets; as many octets as the card's algorithm has
    visa2            two TDEA keys K1 || K2 of the card's diversification data d (10 octets), used as K1 || K2 || K1:
                     ECB(master, x || F0 01) || ECB(master, x || 0F 01) with x = d[0:2] || d[4:8]
    emv-cps          the same with x = d[4:10] (EMV CPS 1.1 section 4.1)

A vendor's master comes in by a ceremony of the passphrase holder and never goes out again. It is part of the sealed
document, also where the other masters are in an HSM, since these KDFs need more than a CMAC.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import constant_time
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from cryptography.hazmat.primitives.cmac import CMAC
from msgspec.structs import replace

from cardwright_cardops.piv.algorithms import ManagementAlgorithm
from cardwright_cardops.piv.management_key import ManagementKey
from cardwright_cardops.secret import Secret

from . import messages as m
from .derivation import derive
from .document import Document, VendorMaster
from .errors import VaultRefused
from .model import VendorCard, VendorKdf, WitnessResponse
from .operations.act import Act
from .quotas import Charge

DATA_OCTETS: Final = 10
"""Of the diversification data that VISA2 and EMV CPS take (GlobalPlatform, INITIALIZE UPDATE)."""
_LABEL: Final = b"management-key"
_CHECK_OCTETS: Final = 3
_AES_SIZES: Final = (16, 24, 32)
_TDEA_SIZES: Final = (16, 24)


def admit(document: Document, request: m.ImportVendorMaster) -> tuple[Document, bytes]:
    """The document with one more vendor's master, and its check value. Raises VaultRefused."""
    if any(one.name == request.name for one in document.vendors):
        raise VaultRefused("key", "There is a vendor's master key of this name; it is not replaced.")
    sizes = _AES_SIZES if request.kdf is VendorKdf.SP800_108_CMAC else _TDEA_SIZES
    if len(request.key) not in sizes:
        raise VaultRefused("key", f"A master key for {request.kdf.value} has {' or '.join(map(str, sizes))} octets.")
    found = check_value(request.kdf, request.key)
    if request.check and not constant_time.bytes_eq(request.check, found):
        raise VaultRefused("check", "The key has another check value: a component is wrong, or of another key.")
    made = VendorMaster(request.name, request.kdf, request.key)
    return replace(document, vendors=(*document.vendors, made)), found


def check_value(kdf: VendorKdf, key: bytes) -> bytes:
    """Three octets by which people compare a key: one block of 01 under AES, of 00 under TDEA (GlobalPlatform)."""
    if kdf is VendorKdf.SP800_108_CMAC:
        return _ecb(AES(key), b"\x01" * 16)[:_CHECK_OCTETS]
    return _ecb(_tdea(key), bytes(8))[:_CHECK_OCTETS]


def vendor_key(kdf: VendorKdf, master: bytes, data: bytes, size: int) -> bytes:
    """A card's management key of ``size`` octets. Raises VaultRefused where the KDF gives none of that size."""
    if kdf is VendorKdf.SP800_108_CMAC:
        return derive(_cmac(master), _LABEL, data, size)
    if size != 24 or len(data) != DATA_OCTETS:
        raise VaultRefused("input", f"{kdf.value} gives keys of 24 octets, of {DATA_OCTETS} octets of the card.")
    part = data[0:2] + data[4:8] if kdf is VendorKdf.VISA2 else data[4:10]
    halves = _ecb(_tdea(master), part + b"\xf0\x01" + part + b"\x0f\x01")
    return halves + halves[:8]


def answer_vendor_key(act: Act, request: m.AnswerVendorKey) -> WitnessResponse:
    """As for a management key of our own."""
    key = _key(act, request.card, request.algorithm)
    _require_block(request.algorithm, request.witness)
    act.charge(Charge("management-key.answer"), Charge("management-key.answer.card", request.card.card))
    challenge = os.urandom(request.algorithm.block_octets)
    act.challenges.add(request.card, request.algorithm, challenge)
    return WitnessResponse(key.decrypt(request.witness), challenge)


def check_vendor_key(act: Act, request: m.CheckVendorKey) -> bool:
    """As for a management key of our own."""
    key = _key(act, request.card, request.algorithm)
    _require_block(request.algorithm, request.challenge)
    _require_block(request.algorithm, request.response)
    act.challenges.take(request.card, request.algorithm, request.challenge)
    proved = constant_time.bytes_eq(key.encrypt(request.challenge), request.response)
    act.about(proved=int(proved))
    return proved


def _key(act: Act, card: VendorCard, algorithm: ManagementAlgorithm) -> ManagementKey:
    act.about(card=card.card, vendor=card.master)
    master = next((one for one in act.document.vendors if one.name == card.master), None)
    if master is None:
        raise VaultRefused("vendor", "There is no vendor's master key of this name; it has to be imported first.")
    value = vendor_key(master.kdf, master.material, card.data, algorithm.key_octets)
    return ManagementKey(algorithm, Secret(value))


def _require_block(algorithm: ManagementAlgorithm, block: bytes) -> None:
    if len(block) != algorithm.block_octets:
        raise VaultRefused("block", f"{algorithm.name} has blocks of {algorithm.block_octets} octets.")


def _cmac(key: bytes) -> Callable[[bytes], bytes]:
    def mac(data: bytes) -> bytes:
        made = CMAC(AES(key))
        made.update(data)
        return made.finalize()

    return mac


def _tdea(key: bytes) -> TripleDES:
    """Of two keys or three, which cryptography wants written out."""
    return TripleDES((key + key)[:24])


def _ecb(algorithm: AES | TripleDES, data: bytes) -> bytes:
    made = Cipher(algorithm, ECB()).encryptor()
    return made.update(data) + made.finalize()
