"""Who signs blocks: the vault, by its typed operation. It keeps its own mark of each chain, and signs no fork."""

from __future__ import annotations

from typing import Protocol

from ..vault.model import AuditBlock, SignedBlock


class Signer(Protocol):
    """The part of the vault that the sealer needs. ``vault.protocol.Vault`` is one."""

    async def sign_audit_block(self, block: AuditBlock) -> SignedBlock:
        """Sign the next block of a chain; for the last one again, give the same ``signed``. Raises VaultError."""
