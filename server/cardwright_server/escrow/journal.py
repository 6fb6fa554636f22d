"""The escrow on the second medium (S11): sealed keys, offers that are over, and how a restore puts them back."""

from __future__ import annotations

import base64
from typing import Any
from uuid import UUID

from ..machine import Actor
from ..people.journal import erased
from ..store.second_medium import JournalEvent, JournalKind, Remembered, Settled
from ..store.unit import Unit
from . import store
from .model import OFFER, Archived, OfferEvent, OfferState, PfxOffer
from .record import add_key, supersede

_OFFER = "escrow-offer"


def archive_event(key: Archived, *, rewrapped: bool = False) -> JournalEvent:
    """Of a key that is about to be archived, bound to a certificate, or ``rewrapped`` under another master key.

    The key is in it as the vault sealed it.
    """
    data: dict[str, str | int | bool | None] = {
        "person": str(key.person) if key.person is not None else None,
        "device": str(key.device),
        "life": key.life,
        "slot": int(key.slot),
        "session": str(key.session),
        "algorithm": key.algorithm.label,
        "fingerprint": key.fingerprint,
        "public_key": _text(key.public_key),
        "owner": key.owner,
        "class": key.escrow_class.value,
        "master": key.wrapped.version,
        "wrapped": _text(key.wrapped.data),
        "certificate": _text(key.certificate) if key.certificate else None,
        "rewrapped": rewrapped,
    }
    return JournalEvent(JournalKind.ESCROW, key.org, key.id, data)


def offer_event(offer: PfxOffer, event: OfferEvent) -> JournalEvent:
    """Of an offer of a file that is about to be claimed, or to end in another way but by time."""
    return JournalEvent(JournalKind.TOKEN_USE, offer.org, offer.id, {"token": _OFFER, "event": event})


async def replay(unit: Unit, remembered: Remembered) -> bool:
    """Put back what a restored database does not know. Gives whether there was anything to do.

    A key comes back as delivered: what is on a card must be in the archive, and more harms nobody. An offer that was
    over is so again. Events of other domains, and those that took no effect, are passed over. All of them may be
    replayed again. Raises StaleVersion.
    """
    if remembered.settled is Settled.ABANDONED:
        return False
    if (person := erased(remembered)) is not None:
        return await store.delete_offers(unit, remembered.event.org, person)
    if remembered.event.kind is JournalKind.ESCROW:
        return await _archive(unit, remembered)
    if remembered.event.kind is JournalKind.TOKEN_USE and remembered.event.data["token"] == _OFFER:
        return await _end_offer(unit, remembered.event)
    return False


async def _end_offer(unit: Unit, event: JournalEvent) -> bool:
    offer = await store.offer_by_id(unit, event.org, event.subject)
    if offer is None or offer.state is not OfferState.OFFERED:
        return False
    row = OFFER.next(offer.state, OfferEvent(str(event.data["event"])), Actor.USER)
    number = await store.update_offer(unit, offer, {"state": row.target, "commitment": None})
    await store.note_offer(unit, offer.org, offer.id, number, store.step(row, Actor.USER, None))
    return True


async def _archive(unit: Unit, remembered: Remembered) -> bool:
    event, data = remembered.event, remembered.event.data
    certificate = _octets(data["certificate"]) if data["certificate"] else None
    sealed: dict[str, Any] = {
        "master": data["master"],
        "wrapped": _octets(data["wrapped"]),
        "certificate": certificate,
        "certified_at": remembered.at if certificate else None,
    }
    known = await store.key_by_id(unit, event.org, event.subject)
    if known is not None and data.get("rewrapped") and known.certificate == (certificate or b""):
        # The master key that sealed it before may be destroyed by now.
        if known.wrapped.version >= int(str(data["master"])):
            return False
        await store.update_key(unit, known, {"master": sealed["master"], "wrapped": sealed["wrapped"]})
        return True
    if known is not None:
        if certificate is None or (known.certified_at is not None and known.certified_at >= remembered.at):
            return False
        await store.update_key(unit, known, sealed)
        await supersede(unit, event.org, known.id)
        return True
    values = {name: data[name] for name in ("life", "algorithm", "fingerprint", "owner")}
    made = await add_key(
        unit,
        event.org,
        {
            **values,
            **sealed,
            "id": event.subject,
            "created_at": remembered.at,
            "person": UUID(str(data["person"])) if data["person"] else None,
            "device": UUID(str(data["device"])),
            "session": UUID(str(data["session"])),
            "slot": data["slot"],
            "public_key": _octets(data["public_key"]),
            "escrow_class": data["class"],
            "superseded_at": None,
        },
    )
    if made is not None and certificate:
        await supersede(unit, event.org, made)
    return made is not None


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def _octets(text: object) -> bytes:
    return base64.b64decode(str(text), validate=True)
