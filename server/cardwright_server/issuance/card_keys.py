"""Which card holds a key: for operators, whose keys count for more on a card (``people.operators.CardKeys``)."""

from __future__ import annotations

from uuid import UUID

from ..policies.model import Origin
from ..store.unit import Unit
from . import store
from .model import CertificateState, HolderKind

PIN_SLOT = "9a"
"""The slot whose key asks for the PIN and is meant for logging in (SP 800-73-5 part 1 section 3.3.1)."""


class IssuedKeys:
    """``CardKeys`` from the index of issued certificates. Stateless."""

    async def device_of(self, unit: Unit, org: UUID, person: UUID, spki: bytes) -> UUID | None:
        """See ``CardKeys``: by a certificate that counts now, of a key whose origin on the card was proved."""
        for one in await store.certificates_of_key(unit, spki.hex()):
            on_card = one.holder.kind is HolderKind.DEVICE_SLOT and one.holder.part == PIN_SLOT
            theirs = one.org == org and one.holder.person == person
            counts = one.state is CertificateState.GOOD and one.not_after > unit.now
            if on_card and theirs and counts and one.origin is not Origin.UNPROVEN:
                return one.holder.id
        return None
