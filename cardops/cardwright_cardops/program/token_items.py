"""The vocabulary of sessions on PKCS#11 tokens: steps, batches of them, and the answers.

A step is one thing for the token; the workstation carries it out with PKCS#11 calls of its own, asks for PINs itself,
and logs in where a step needs it. ``slot`` is a PIV key reference, which the workstation translates to a CKA_ID.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from ..secret import Secret


@dataclass(frozen=True, slots=True)
class ReadToken:
    """Who the token is and what is on it, as far as the login of now shows."""


@dataclass(frozen=True, slots=True)
class ProveToken:
    """Sign a proof with the key of 9E, which works without a login; the workstation adds its own random."""

    nonce: bytes


@dataclass(frozen=True, slots=True)
class SetSoPin:
    """C_SetPIN of the security officer."""

    old: Secret
    new: Secret


@dataclass(frozen=True, slots=True)
class InitPin:
    """C_InitPIN with the security officer's PIN; the new PIN comes from the person."""

    so_pin: Secret


@dataclass(frozen=True, slots=True)
class MakeTokenKey:
    """C_GenerateKeyPair. ``algorithm``: octet of SP 800-78-5. ``always``: the key wants the PIN for every use.

    What is in the slot goes before. The answer's data is the DER SubjectPublicKeyInfo.
    """

    slot: int
    algorithm: int
    always: bool = False


@dataclass(frozen=True, slots=True)
class RequestTokenCertificate:
    """A PKCS #10 request by the key that this session made in ``slot``; ``subject`` is a DER Name."""

    slot: int
    subject: bytes


@dataclass(frozen=True, slots=True)
class PutTokenKey:
    """C_CreateObject of a private and a public key. ``key`` is PKCS #8 DER. What is in the slot goes before."""

    slot: int
    algorithm: int
    key: Secret = field(repr=False)


@dataclass(frozen=True, slots=True)
class PutTokenCertificate:
    """C_CreateObject of the X.509 certificate for the slot's key, in place of those that are there."""

    slot: int
    certificate: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RemoveToken:
    """C_DestroyObject of everything that the slot holds. ``key``: fingerprint of the key, "" for none."""

    slot: int
    key: str


TokenItem: TypeAlias = (
    ReadToken
    | ProveToken
    | SetSoPin
    | InitPin
    | MakeTokenKey
    | RequestTokenCertificate
    | PutTokenKey
    | PutTokenCertificate
    | RemoveToken
)

TOKEN_ITEMS: Final = {
    ReadToken: "token_read",
    ProveToken: "token_prove",
    SetSoPin: "token_set_so_pin",
    InitPin: "token_init_pin",
    MakeTokenKey: "token_make_key",
    RequestTokenCertificate: "token_request_certificate",
    PutTokenKey: "token_put_key",
    PutTokenCertificate: "token_put_certificate",
    RemoveToken: "token_remove",
}
"""What each kind is called where two sides compare what they know."""

NEEDS_LOGIN: Final = (MakeTokenKey, RequestTokenCertificate, PutTokenKey, PutTokenCertificate, RemoveToken)
"""Steps behind the user's PIN."""
SECRETS: Final = (SetSoPin, InitPin)
"""Steps that log the security officer in, which only works while nobody else is."""


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Steps that are carried out one after the other; the first that fails ends the batch."""

    items: tuple[TokenItem, ...]
