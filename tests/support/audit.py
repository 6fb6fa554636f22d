"""A signer of audit blocks for tests: signs as the vault does, in this process, and refuses forks as it does."""

from __future__ import annotations

import hashlib
import time

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from cardwright_cardops.errors import CardwrightError
from cardwright_server.vault.model import AuditBlock, SignedBlock


class Refused(CardwrightError):
    """The test's signer does not sign this block."""

    code = "TEST_SIGNER_REFUSED"


class Signer:
    """Holds one key. ``strict=False`` forgets what it signed: a stolen key, or a vault that was restored, too."""

    def __init__(self, name: str = "audit-1", *, strict: bool = True) -> None:
        self.name = name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.strict = strict
        self.locked = False
        self.signed: list[AuditBlock] = []
        self._last: tuple[AuditBlock, bytes] | None = None

    @property
    def public(self) -> dict[str, ec.EllipticCurvePublicKey]:
        """The key that a verifier is to trust, by its name."""
        return {self.name: self.key.public_key()}

    async def sign_audit_block(self, block: AuditBlock) -> SignedBlock:
        """As the vault: the next block, or the last one again."""
        if self.locked:
            raise Refused("locked")
        if self._last is not None and self._last[0] == block:
            return self._sealed(self._last[1])
        if self.strict and self._last is not None:
            before, signed = self._last
            follows = block.sequence == before.sequence + 1 and block.previous == hashlib.sha256(signed).digest()
            if not (follows or block.epoch > before.epoch):
                raise Refused(f"the chain goes on with block {before.sequence + 1}")
        statement = {
            "format": "cardwright.audit-block.1",
            "vault": "test",
            "key": self.name,
            "chain": block.chain,
            "epoch": block.epoch,
            "sequence": block.sequence,
            "previous": block.previous.hex(),
            "root": block.root.hex(),
            "entries": block.entries,
            "at": time.time_ns() // 1_000_000,
            "vault_entries": 0,
            "vault_head": "",
        }
        signed = msgspec.json.encode(statement)
        self._last = block, signed
        self.signed.append(block)
        return self._sealed(signed)

    def _sealed(self, signed: bytes) -> SignedBlock:
        return SignedBlock(signed, self.key.sign(signed, ec.ECDSA(hashes.SHA256())))
