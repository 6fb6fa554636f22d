"""Where the keys are: a sealed file in this process' memory, or an HSM.

All a backend does with a master key is one AES-CMAC over data that the vault composes; everything else is derived from
that (``derivation.py``), so that a master in an HSM never has to leave it.
"""

from __future__ import annotations

from typing import Protocol

from .document import Document, KeyFile
from .model import SigningAlgorithm


class Backend(Protocol):
    """Keys and the seal of the key file. Methods raise VaultUnavailable when an HSM does not answer."""

    name: str

    def create(self, vault_id: str, credential: bytes) -> None:
        """Make ready for a new vault; afterwards as after ``unlock``. Raises VaultUnlockRefused, VaultExists."""

    def unlock(self, file: KeyFile, credential: bytes, *, spend_last_try: bool) -> Document:
        """Raises VaultUnlockRefused, VaultDamaged; then everything is as before."""

    def lock(self) -> None:
        """Forget every key."""

    def knows(self, credential: bytes) -> bool:
        """Whether it is the credential that the open vault was unlocked with. Asks nobody."""

    def seal(self, document: Document) -> KeyFile:
        """The key file of an open vault."""

    def new_master(self) -> bytes:
        """A new AES-256 key; its material."""

    def cmac(self, material: bytes, data: bytes) -> bytes:
        """AES-CMAC (SP 800-38B) under a master key, 16 octets."""

    def new_signing_key(self, algorithm: SigningAlgorithm) -> tuple[bytes, bytes]:
        """A new key pair: its material, and its SubjectPublicKeyInfo DER."""

    def sign(self, material: bytes, algorithm: SigningAlgorithm, data: bytes) -> bytes:
        """A signature over ``data``: PKCS #1 v1.5, or ECDSA as DER; hash as ``SigningAlgorithm`` says."""

    def destroy(self, material: bytes) -> None:
        """Destroy a key that no document names any more."""

    def change_credential(self, new: bytes) -> None:
        """Seal with another passphrase from now on. Raises VaultRefused where that is not ours to do."""

    def export(self, document: Document, passphrase: bytes) -> KeyFile:
        """The document with all keys, sealed under ``passphrase``. Raises VaultRefused where keys cannot leave."""
