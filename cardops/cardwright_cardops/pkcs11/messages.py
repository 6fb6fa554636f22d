"""What goes through the pipe between us and the process that holds a module: msgpack, bounded, never pickle."""

from __future__ import annotations

from typing import Final

import msgspec

from .values import KeyAlgorithm, LoginState, TokenIdentity, User

MAX_REQUEST: Final = 64 * 1024
"""Small enough for the kernel's socket buffer, so that sending to a stopped child never blocks."""

MAX_REPLY: Final = 8 * 1024 * 1024


class Request(msgspec.Struct, tag=True, frozen=True, forbid_unknown_fields=True):
    """Base of all requests. Its repr is the name alone: some fields are PINs and keys."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


class Load(Request, frozen=True):
    """dlopen, C_Initialize, C_GetInfo. Answer: ModuleInfo."""

    path: str


class ListTokens(Request, frozen=True):
    """Every slot with a token. Answer: list of TokenInfo."""


class ReadToken(Request, frozen=True):
    """C_GetTokenInfo again. Answer: TokenInfo."""

    token: TokenIdentity


class ReadObjects(Request, frozen=True):
    """Keys and certificates the session can see. Answer: list of ObjectRecord."""

    token: TokenIdentity


class ReadLogin(Request, frozen=True):
    """C_GetSessionInfo. Answer: LoginState."""

    token: TokenIdentity


class Login(Request, frozen=True):
    """C_Login behind the tries guard. Answer: None."""

    token: TokenIdentity
    user: User
    pin: bytearray
    spend_last_try: bool


class Logout(Request, frozen=True):
    """C_Logout; nothing happens if nobody is logged in. Answer: None."""

    token: TokenIdentity


class SetUserPin(Request, frozen=True):
    """C_SetPIN outside an SO login, behind the tries guard unless the old value is no PIN. Answer: None."""

    token: TokenIdentity
    old: bytearray
    new: bytearray
    guarded: bool
    spend_last_try: bool


class SetSoPin(Request, frozen=True):
    """C_Login(SO), C_SetPIN, C_Logout. Answer: None."""

    token: TokenIdentity
    old: bytearray
    new: bytearray
    spend_last_try: bool


class InitPin(Request, frozen=True):
    """C_Login(SO), C_InitPIN, C_Logout. Answer: None."""

    token: TokenIdentity
    so_pin: bytearray
    new: bytearray
    spend_last_try: bool


class Write(Request, frozen=True):
    """Base of requests that create objects. ``sparse``: only attributes the module cannot do without."""

    token: TokenIdentity
    login: LoginState
    id: bytes
    label: str
    overwrite: bool
    sparse: bool


class Generate(Write, frozen=True):
    """C_GenerateKeyPair. Answer: None."""

    algorithm: KeyAlgorithm
    always_authenticate: bool
    open: bool = False
    """The key works without a login: CKA_PRIVATE is false."""


class ImportKey(Write, frozen=True):
    """C_CreateObject for a private key and its public key.

    ``private`` is PKCS#1 or SEC 1 DER, ``public`` SubjectPublicKeyInfo DER. Answer: None.
    """

    algorithm: KeyAlgorithm
    private: bytearray
    public: bytes
    always_authenticate: bool


class WriteCertificate(Write, frozen=True):
    """C_CreateObject for an X.509 certificate; DER, and its parts for the attributes. Answer: None."""

    der: bytes
    subject: bytes
    issuer: bytes
    serial: bytes


class Delete(Request, frozen=True):
    """C_DestroyObject. ``kind`` is the CKO number; ``value`` the certificate. Answer: None."""

    token: TokenIdentity
    login: LoginState
    kind: int
    id: bytes
    value: bytes


class UseKey(Request, frozen=True):
    """Base of requests that use a private key. ``pin`` only for keys that want it every time."""

    token: TokenIdentity
    id: bytes
    pin: bytearray | None
    spend_last_try: bool


class Sign(UseKey, frozen=True):
    """C_Sign. ``pss``: hash and mask mechanism numbers, salt length. Answer: bytes."""

    mechanism: int
    data: bytes
    pss: tuple[int, int, int] | None


class Decrypt(UseKey, frozen=True):
    """C_Decrypt. ``oaep``: hash and mask mechanism numbers, label. Answer: bytes."""

    mechanism: int
    data: bytes
    oaep: tuple[int, int, bytes] | None


class Derive(UseKey, frozen=True):
    """C_DeriveKey, ECDH1 with no KDF. ``point`` is uncompressed (04 X Y). Answer: bytes, the X coordinate."""

    point: bytes
    size: int


AnyRequest = (
    Load
    | ListTokens
    | ReadToken
    | ReadObjects
    | ReadLogin
    | Login
    | Logout
    | SetUserPin
    | SetSoPin
    | InitPin
    | Generate
    | ImportKey
    | WriteCertificate
    | Delete
    | Sign
    | Decrypt
    | Derive
)


class ObjectRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Raw attributes of one object; empty or None where the module gave none."""

    kind: int
    id: bytes = b""
    label: str = ""
    key_type: int | None = None
    ec_params: bytes = b""
    ec_point: bytes = b""
    modulus: bytes = b""
    exponent: bytes = b""
    value: bytes = b""
    sign: bool = False
    decrypt: bool = False
    derive: bool = False
    always_authenticate: bool = False
    extractable: bool | None = None
    local: bool | None = None


class Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An answer, or the code of what went wrong with a short detail that never holds a secret."""

    body: msgspec.Raw = msgspec.Raw(b"\xc0")
    fault: str = ""
    detail: str = ""


def wipe(request: Request) -> None:
    """Overwrite every secret field with zeros."""
    for name in request.__struct_fields__:
        value = getattr(request, name)
        if isinstance(value, bytearray):
            value[:] = bytes(len(value))
