"""Data objects of cards that claim no conformance: an unsigned CHUID of a non-federal issuer, CCC, Key History."""

from __future__ import annotations

from collections.abc import Mapping

from cardwright_cardops.piv import containers
from cardwright_cardops.piv.objects import Ccc, Chuid, KeyHistory
from cardwright_cardops.piv.references import RETIRED_SLOTS
from cardwright_cardops.plan.authority import Issued, Refused
from cardwright_cardops.plan.inventory import Inventory
from cardwright_cardops.plan.local_authority import NON_FEDERAL

from .ports import Task


class PlainContents:
    """``Contents`` without a content signer."""

    async def content(self, task: Task, tag: int, card: Inventory, written: Mapping[int, bytes]) -> Issued | Refused:
        """CHUID, CCC and Key History; all else is refused."""
        match tag:
            case containers.CHUID.tag:
                return Issued(Chuid(NON_FEDERAL.encode(), task.guid, task.expires).encode())
            case containers.CCC.tag:
                return Issued(Ccc().encode())
            case containers.KEY_HISTORY.tag:
                held = {row.slot.certificate_tag for row in card.certificates} | written.keys()
                return Issued(KeyHistory(on_card=sum(one.certificate_tag in held for one in RETIRED_SLOTS)).encode())
        return Refused(f"{containers.CONTAINERS[tag].name} needs a content signer, and there is none.")
