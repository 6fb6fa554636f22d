"""The process that holds the HSM's module: ``python -m cardwright_server.vault.hsm_child FD``.

Keys are made in the HSM as sensitive and never extractable, which is read back, and are good for one use only:
masters for AES-CMAC, key pairs for signatures.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Final

import msgspec
import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass, PKCS11Error, TokenFlag
from pkcs11.util.ec import encode_ec_public_key, encode_named_curve_parameters
from pkcs11.util.ec import encode_ecdsa_signature as der_signature
from pkcs11.util.rsa import encode_rsa_public_key

from .hardening import harden
from .hsm_messages import (
    MAX_REQUEST,
    AnyHsmRequest,
    Cmac,
    Destroy,
    GenerateMaster,
    GenerateSigning,
    HsmReply,
    HsmRequest,
    Open,
    Sign,
)
from .model import SigningAlgorithm

_CURVES: Final = {SigningAlgorithm.P256: "secp256r1", SigningAlgorithm.P384: "secp384r1"}
_MODULI: Final = {SigningAlgorithm.RSA2048: 2048, SigningAlgorithm.RSA3072: 3072, SigningAlgorithm.RSA4096: 4096}
_SECRET: Final = {
    Attribute.TOKEN: True,
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.MODIFIABLE: False,
    Attribute.COPYABLE: False,
    Attribute.SIGN: True,
    Attribute.DECRYPT: False,
    Attribute.UNWRAP: False,
    Attribute.DERIVE: False,
}
_PUBLIC: Final = {
    Attribute.TOKEN: True,
    Attribute.VERIFY: True,
    Attribute.ENCRYPT: False,
    Attribute.WRAP: False,
}


class _Fault(Exception):
    """A failure with a name of ours."""

    def __init__(self, name: str, detail: str = "") -> None:
        super().__init__(name)
        self.name = name
        self.detail = detail


class Hsm:
    """One session with one token."""

    def __init__(self) -> None:
        self._session: Any = None
        self._keys: dict[tuple[ObjectClass, bytes], Any] = {}
        self._actions: dict[type[HsmRequest], Callable[[Any], bytes]] = {
            Open: self._open,
            GenerateMaster: self._generate_master,
            GenerateSigning: self._generate_signing,
            Cmac: self._cmac,
            Sign: self._sign,
            Destroy: self._destroy,
        }

    def answer(self, request: HsmRequest) -> HsmReply:
        """Carry out one request; failures become replies."""
        try:
            return HsmReply(self._actions[type(request)](request))
        except _Fault as fault:
            return HsmReply(fault=fault.name, detail=fault.detail)
        except PKCS11Error as error:
            return HsmReply(fault="module", detail=type(error).__name__)

    def _open(self, request: Open) -> bytes:
        try:
            module = pkcs11.lib(request.module)
        except (OSError, RuntimeError) as error:
            raise _Fault("module", "it cannot be loaded") from error
        found = [slot.get_token() for slot in module.get_slots(token_present=True)]
        tokens = [token for token in found if token.label == request.token]
        if len(tokens) != 1:
            raise _Fault("token", f"{len(tokens)} tokens have the label")
        if tokens[0].flags & TokenFlag.USER_PIN_LOCKED:
            raise _Fault("pin", "the PIN is locked")
        if tokens[0].flags & TokenFlag.USER_PIN_FINAL_TRY and not request.spend_last_try:
            raise _Fault("last-try")
        try:
            self._session = tokens[0].open(rw=True, user_pin=request.pin)
        except (pkcs11.PinIncorrect, pkcs11.PinLenRange, pkcs11.PinInvalid, pkcs11.PinLocked) as error:
            raise _Fault("pin", type(error).__name__) from None
        return b""

    def _generate_master(self, request: GenerateMaster) -> bytes:
        template = {**_SECRET, Attribute.VERIFY: False, Attribute.ENCRYPT: False, Attribute.WRAP: False}
        key = self._ready.generate_key(
            KeyType.AES, 256, id=request.id, label=f"cardwright {request.id.hex()}", store=True, template=template
        )
        self._require_confined(key)
        return b""

    def _generate_signing(self, request: GenerateSigning) -> bytes:
        label = f"cardwright {request.id.hex()}"
        arguments: dict[str, Any] = {
            "id": request.id,
            "label": label,
            "store": True,
            "public_template": _PUBLIC,
            "private_template": _SECRET,
        }
        if request.algorithm in _CURVES:
            parameters = self._ready.create_domain_parameters(
                KeyType.EC,
                {Attribute.EC_PARAMS: encode_named_curve_parameters(_CURVES[request.algorithm])},
                local=True,
            )
            public, private = parameters.generate_keypair(**arguments)
            spki = encode_ec_public_key(public)
        else:
            public, private = self._ready.generate_keypair(KeyType.RSA, _MODULI[request.algorithm], **arguments)
            spki = _rsa_spki(encode_rsa_public_key(public))
        self._require_confined(private)
        return bytes(spki)

    def _require_confined(self, key: Any) -> None:
        confined = (
            key[Attribute.SENSITIVE]
            and key[Attribute.ALWAYS_SENSITIVE]
            and key[Attribute.NEVER_EXTRACTABLE]
            and not key[Attribute.EXTRACTABLE]
        )
        if not confined:
            key.destroy()
            raise _Fault("module", "it made a key that could leave it")

    def _cmac(self, request: Cmac) -> bytes:
        return bytes(self._key(ObjectClass.SECRET_KEY, request.id).sign(request.data, mechanism=Mechanism.AES_CMAC))

    def _sign(self, request: Sign) -> bytes:
        key = self._key(ObjectClass.PRIVATE_KEY, request.id)
        if request.algorithm in _MODULI:
            return bytes(key.sign(request.data, mechanism=Mechanism.SHA256_RSA_PKCS))
        name = "sha384" if request.algorithm is SigningAlgorithm.P384 else "sha256"
        return bytes(der_signature(key.sign(hashlib.new(name, request.data).digest(), mechanism=Mechanism.ECDSA)))

    def _destroy(self, request: Destroy) -> bytes:
        for entry in list(self._ready.get_objects({Attribute.ID: request.id})):
            entry.destroy()
        self._keys = {key: value for key, value in self._keys.items() if key[1] != request.id}
        return b""

    def _key(self, kind: ObjectClass, name: bytes) -> Any:
        if (kind, name) not in self._keys:
            found = list(self._ready.get_objects({Attribute.CLASS: kind, Attribute.ID: name}))
            if len(found) != 1:
                raise _Fault("key", f"{len(found)} keys have the id")
            self._keys[kind, name] = found[0]
        return self._keys[kind, name]

    @property
    def _ready(self) -> Any:
        if self._session is None:
            raise _Fault("token", "nobody is logged in")
        return self._session


def _rsa_spki(pkcs1: bytes) -> bytes:
    from asn1crypto import keys

    info = keys.PublicKeyInfo({"algorithm": {"algorithm": "rsa"}, "public_key": keys.RSAPublicKey.load(pkcs1)})
    return bytes(info.dump())


def main(descriptor: int) -> None:
    """Serve until the other end closes; leave without running what the module registered at exit."""
    harden()
    connection = Connection(descriptor)
    decoder = msgspec.msgpack.Decoder(AnyHsmRequest)
    hsm = Hsm()
    while True:
        try:
            request = decoder.decode(connection.recv_bytes(MAX_REQUEST))
            connection.send_bytes(msgspec.msgpack.encode(hsm.answer(request)))
        except (EOFError, OSError):
            break
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
