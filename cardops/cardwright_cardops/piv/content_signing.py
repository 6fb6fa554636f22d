"""Signing what the issuer signs on a card: CHUID, biometric records, Security Object.

SP 800-73-5 part 1 sections 3.1.2, 3.1.4 and 3.1.7. All three are signed by one content signer; only the
CHUID carries its certificate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from uuid import UUID

from . import signed
from .containers import CONTAINERS, hashed_content
from .objects.biometric import BiometricObject, Cbeff
from .objects.chuid import Chuid, signature_input
from .objects.security_object import HashTable, SecurityObject
from .signed import Signer

_ATTEMPTS = 200


def sign_chuid(chuid: Chuid, signer: Signer) -> Chuid:
    """The CHUID with a new signature; legacy fields, which are not written, are not signed either."""
    content = signature_input(chuid.encode())
    return replace(chuid, signature=signed.sign_detached(content, signed.CHUID_CONTENT, signer))


def sign_biometric(
    header: Cbeff, data: bytes, signer: Signer, *, fascn: bytes | None, uuid: UUID, include_certificate: bool = False
) -> BiometricObject:
    """A signed biometric record. ``fascn`` (25 octets) is left out on cards that are not federal.

    The certificate goes inside only when the signer is not the CHUID's. What is signed contains the length of
    the signature, which varies with ECDSA: signing is repeated until it fits. Raises SignatureRefused should
    that never happen, which says that the key does not sign at random.
    """
    size = 0
    for _ in range(_ATTEMPTS):
        content = header.encode(len(data), size) + data
        signature = signed.sign_detached(
            content, signed.BIOMETRIC_CONTENT, signer, fascn=fascn, uuid=uuid, include_certificate=include_certificate
        )
        if len(signature) == size:
            return BiometricObject(header, data, signature)
        size = len(signature)
    raise signed.SignatureRefused("signature", f"the signature's length changed {_ATTEMPTS} times")


def sign_security_object(answers: Mapping[int, bytes], signer: Signer) -> SecurityObject:
    """The Security Object over containers, given as tag to GET DATA answer; at most 16, none from outside the standard.

    Data group numbers count from 1 in the order given. Raises ValueError, MalformedTlv.
    """
    groups: list[tuple[int, int]] = []
    contents: dict[int, bytes] = {}
    for number, (tag, answer) in enumerate(answers.items(), start=1):
        owner = CONTAINERS[tag].container_id if tag in CONTAINERS else None
        if owner is None:
            raise ValueError(f"{tag:X} has no container identifier")
        groups.append((number, owner))
        contents[number] = hashed_content(tag, answer)
    table = HashTable.over(contents, signer.digest)
    return SecurityObject(tuple(groups), signed.sign_attached(table.encode(), signed.LDS_CONTENT, signer))
