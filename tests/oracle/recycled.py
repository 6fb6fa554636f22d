"""The judge of a card that was recycled, and of the books about it; imports nothing that it judges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from uuid import UUID

from .books import Books
from .card import FACTORY_KEYS, FACTORY_PINS
from .server import ENDED, Scene, Told, _chain, _medium, _signed

DISCOVERY, ATTESTATION_CERTIFICATE, ATTESTATION = 0x7E, 0x5FFF01, "F9"
"""What a card has from its maker, and keeps."""
_AFTERWARDS = frozenset({"reset", "reset_done", "card", "written"})


def _factory(scene: Scene) -> list[str]:
    wrong, memory = [], scene.memory
    for name, one in memory["references"].items():
        if bytes.fromhex(one["value"]) not in FACTORY_PINS or not one["default"]:
            wrong.append(f"reference {name} is not the factory's")
        if one["tries"] != one["maximum"]:
            wrong.append(f"reference {name} has {one['tries']} of {one['maximum']} tries")
    management = memory["management"]
    if bytes.fromhex(management["value"]) not in FACTORY_KEYS or not management["default"]:
        wrong.append("the management key is not the factory's")
    if left := sorted(memory["keys"].keys() - {ATTESTATION}):
        wrong.append(f"keys are left in {left}")
    if objects := sorted(scene.objects.keys() - {DISCOVERY, ATTESTATION_CERTIFICATE}):
        wrong.append(f"objects are left: {[f'{tag:X}' for tag in objects]}")
    return wrong


def _revoked(scene: Scene) -> list[str]:
    states = sorted({row["state"] for row in scene.index})
    return [] if scene.index and states == ["revoked"] else [f"certificates of the old holder are {states}"]


def _kept(scene: Scene) -> list[str]:
    """What was archived for this device can still be had, with its certificate."""
    rows = scene.books.of("escrowed_key", device=scene.told.device.hex)
    wrong = [] if rows else ["nothing is in the archive"]
    for row in rows:
        if scene.told.archive.get(row["fingerprint"]) != row["public_key"] or not row["certificate"]:
            wrong.append("a key in the archive cannot be had, or lost its certificate")
    return wrong


def _recorded(scene: Scene) -> list[str]:
    """The reset stands in the journal, after everything else that the old life wrote."""
    rows = scene.books.of("card_record", device=scene.told.device.hex)
    erased = [row["number"] for row in rows if row["kind"] == "reset"]
    if not erased:
        return ["the books do not say that the card was reset"]
    wrong = [f"{row['kind']} was recorded after the reset" for row in rows
             if row["number"] > erased[0] and row["kind"] not in _AFTERWARDS]  # fmt: skip
    lost = [row for row in rows if row["kind"] in ("reset", "reset_done")
            and ("generation", row["id"]) not in scene.told.remembered]  # fmt: skip
    return wrong + [f"{len(lost)} records of the reset are not on the second medium"] * bool(lost)


def _states(scene: Scene) -> list[str]:
    wrong, device = [], scene.device
    if (device["state"], device["reason"], device["life"], device["session"]) != ("stock", "recycled", 2, None):
        wrong.append(f"the device is {device['state']} ({device['reason']}), life {device['life']}")
    bound = [name for name in ("person", "policy", "guid", "fascn", "issued_at", "expires_at") if device[name]]
    if bound:
        wrong.append(f"the device still has its {bound}")
    if scene.books.of("device_due", device=device["id"]) or scene.books.of("device_hold", device=device["id"]):
        wrong.append("something is due for the device, or holds it")
    requests = scene.books.of("device_request", device=device["id"])
    if left := [row["state"] for row in requests if row["closed_at"] is None]:
        wrong.append(f"requests are left {left}")
    if scene.told.request is not None and scene.books.of("device_request", id=scene.told.request.hex)[0][
        "state"] != "done":  # fmt: skip
        wrong.append("the request is not done")
    sessions = scene.books.of("card_session", device=device["id"])
    if not sessions or sessions[-1]["state"] != "done" or any(row["state"] not in ENDED for row in sessions):
        wrong.append(f"the sessions are {[row['state'] for row in sessions]}")
    for row in scene.books.of("lease", name=f"card:{UUID(device['id'])}"):
        if datetime.fromisoformat(row["until"]).replace(tzinfo=UTC) > scene.told.now:
            wrong.append("the card is still held by a session")
    return wrong


INVARIANTS: Mapping[str, Callable[[Scene], list[str]]] = {
    "the card is as its factory made it": _factory,
    "every certificate of the old holder is revoked": _revoked,
    "nothing is signed that was not recorded before": _signed,
    "what was archived is kept": _kept,
    "the reset is recorded": _recorded,
    "nothing grave is missing on the second medium": _medium,
    "the device is back in stock, and nobody works on it": _states,
    "the audit chain is valid": _chain,
}


def judge_recycled(snapshot: bytes, books: Books, told: Told) -> list[str]:
    """Everything that is wrong, in words; nothing for a good end."""
    scene = Scene(snapshot, books, told)
    return [f"{name}: {text}" for name, rule in INVARIANTS.items() for text in rule(scene)]


def erased_too_early(before: bytes, now: bytes, books: Books, device: UUID) -> list[str]:
    """What is wrong at a moment of the way: nothing of the card may go before the books say so."""
    told = Told(device, b"", datetime.now(UTC))
    old, new = Scene(before, books, told), Scene(now, books, told)
    names = ("references", "management", "keys", "objects")
    if all(old.memory[name] == new.memory[name] for name in names):
        return []
    wrong = [] if all(row["state"] == "revoked" for row in new.index) else ["certificates still count"]
    if not books.of("card_record", device=device.hex, kind="reset"):
        wrong.append("the reset is not recorded")
    return wrong
