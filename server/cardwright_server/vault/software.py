"""The software backend: one file, sealed under a key that Argon2id makes of a passphrase."""

from __future__ import annotations

import hmac
import os

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from cardwright_cardops.secret import Secret

from .document import Derivation, Document, KeyFile, read_document
from .errors import VaultDamaged, VaultLocked, VaultUnlockRefused
from .model import SigningAlgorithm

_NONCE = 12
_CURVES: dict[SigningAlgorithm, ec.EllipticCurve] = {
    SigningAlgorithm.P256: ec.SECP256R1(),
    SigningAlgorithm.P384: ec.SECP384R1(),
}
_MODULI = {SigningAlgorithm.RSA2048: 2048, SigningAlgorithm.RSA3072: 3072, SigningAlgorithm.RSA4096: 4096}


class SoftwareBackend:
    """Keys in this process' memory while unlocked. Python cannot promise to wipe them; locking drops them."""

    name = "software"

    def __init__(self, derivation: Derivation | None = None) -> None:
        """``derivation`` has the costs for a new vault, which keeps them; its salt is not used."""
        self._costs = derivation or Derivation(bytes(16))
        self._file: KeyFile | None = None
        self._kek: Secret | None = None
        self._signers: dict[bytes, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey] = {}

    def create(self, vault_id: str, credential: bytes) -> None:
        """See ``Backend``."""
        self._file, self._kek = self._begin(vault_id, credential)

    def unlock(self, file: KeyFile, credential: bytes, *, spend_last_try: bool) -> Document:
        """See ``Backend``."""
        if file.backend != self.name or file.derivation is None:
            raise VaultDamaged("The key file belongs to another kind of vault.")
        kek = _derive(file.derivation, credential)
        nonce, rest = file.sealed[:_NONCE], file.sealed[_NONCE:]
        try:
            content = AESGCM(kek.reveal()).decrypt(nonce, rest, file.header)
        except (InvalidTag, ValueError):
            # A damaged file and a wrong passphrase look alike; neither changes anything.
            raise VaultUnlockRefused("The passphrase is wrong, or the key file is damaged.") from None
        document = read_document(content)
        self._file, self._kek = file, kek
        return document

    def lock(self) -> None:
        """See ``Backend``."""
        if self._kek is not None:
            self._kek.wipe()
        self._file, self._kek = None, None
        self._signers.clear()

    def knows(self, credential: bytes) -> bool:
        """See ``Backend``; takes as long as unlocking."""
        if self._file is None or self._kek is None or self._file.derivation is None:
            return False
        return hmac.compare_digest(_derive(self._file.derivation, credential).reveal(), self._kek.reveal())

    def seal(self, document: Document) -> KeyFile:
        """See ``Backend``."""
        if self._file is None or self._kek is None:
            raise VaultLocked("The vault is locked.")
        return _sealed(self._file, self._kek, document)

    def new_master(self) -> bytes:
        """See ``Backend``."""
        return os.urandom(32)

    def cmac(self, material: bytes, data: bytes) -> bytes:
        """See ``Backend``."""
        mac = CMAC(AES(material))
        mac.update(data)
        return mac.finalize()

    def new_signing_key(self, algorithm: SigningAlgorithm) -> tuple[bytes, bytes]:
        """See ``Backend``."""
        key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
        if algorithm in _CURVES:
            key = ec.generate_private_key(_CURVES[algorithm])
        else:
            key = rsa.generate_private_key(65537, _MODULI[algorithm])
        material = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return material, key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, material: bytes, algorithm: SigningAlgorithm, data: bytes) -> bytes:
        """See ``Backend``."""
        key = self._signers.get(material)
        if key is None:
            loaded = load_der_private_key(material, None)
            assert isinstance(loaded, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
            key = self._signers[material] = loaded
        if isinstance(key, rsa.RSAPrivateKey):
            return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        digest = hashes.SHA384() if algorithm is SigningAlgorithm.P384 else hashes.SHA256()
        return key.sign(data, ec.ECDSA(digest))

    def destroy(self, material: bytes) -> None:
        """See ``Backend``; there is nothing besides the document."""
        self._signers.pop(material, None)

    def change_credential(self, new: bytes) -> None:
        """See ``Backend``."""
        if self._file is None:
            raise VaultLocked("The vault is locked.")
        self._file, self._kek = self._begin(self._file.vault_id, new)

    def export(self, document: Document, passphrase: bytes) -> KeyFile:
        """See ``Backend``."""
        return _sealed(*self._begin(document.vault_id, passphrase), document)

    def _begin(self, vault_id: str, passphrase: bytes) -> tuple[KeyFile, Secret]:
        costs = self._file.derivation if self._file is not None and self._file.derivation else self._costs
        derivation = msgspec.structs.replace(costs, salt=os.urandom(16))
        file = KeyFile(backend=self.name, vault_id=vault_id, derivation=derivation, sealed=b"")
        return file, _derive(derivation, passphrase)


def _derive(derivation: Derivation, passphrase: bytes) -> Secret:
    return Secret(
        Argon2id(
            salt=derivation.salt,
            length=32,
            iterations=derivation.iterations,
            lanes=derivation.lanes,
            memory_cost=derivation.memory,
        ).derive(passphrase)
    )


def _sealed(file: KeyFile, kek: Secret, document: Document) -> KeyFile:
    nonce = os.urandom(_NONCE)
    content = AESGCM(kek.reveal()).encrypt(nonce, msgspec.msgpack.encode(document), file.header)
    return msgspec.structs.replace(file, sealed=nonce + content)
