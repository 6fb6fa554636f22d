"""W3 on the whole stack: what a card was given is sought in all that is left of it, and found where it is planted.

Server, daemon and pcscd are processes. The daemon leaves no core file; its memory is read as one would hold it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cardwright_proto.agent.v1 import agent_pb2 as pb
from tests.support.canary import forms, found
from tests.support.whole_station import PURPOSES, Held, Station

pytestmark = pytest.mark.pcscd

PIN = b"95173046"
LONGEST_PART = 1 << 26
TYPED = {"asked", "current", "new", "password", "pinentry"}
"""Files of the one who types, not of the daemon."""


def memory_of(process: int) -> Iterator[bytes]:
    """What the process can write to, as a core file would hold it. Raises PermissionError for all but root."""
    with open(f"/proc/{process}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            begin, end, rights = re.match(r"(\w+)-(\w+) (\S+)", line).groups()  # type: ignore[union-attr]
            if rights.startswith("rw"):
                memory.seek(int(begin, 16))
                with contextlib.suppress(OSError):
                    yield memory.read(min(int(end, 16) - int(begin, 16), LONGEST_PART))


def secrets_of(held: Held) -> dict[str, bytes]:
    """What nobody may find, as it is in the memory of the card."""
    memory = json.loads(held.card.inside.snapshot())
    assert bytes.fromhex(memory["references"]["80"]["value"]) == held.pin == PIN
    found = {"PIN": PIN, "PUK": bytes.fromhex(memory["references"]["81"]["value"])}
    found["management key"] = bytes.fromhex(memory["management"]["value"])
    for slot, key in memory["keys"].items():
        found[f"key {slot}"] = bytes.fromhex(key["private"][0])
    return found


def files_of(*folders: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in TYPED
    }


async def test_w3_nothing_that_a_card_was_given_is_in_what_its_issuance_leaves(station: Station) -> None:
    process = station.daemon.process
    assert process is not None
    async with station.open() as client:
        held = await station.ready("issue")
        held.pin = PIN
        station.daemon.typing.types(new=PIN, current=PIN)
        await station.finish(held, PURPOSES["issue"])
        card = (await station.known(station.cards_in[held.card.serial])).id
        told = [
            await client.cards.TraceCard(pb.TraceCardRequest(card=card)),
            await client.workstation.GetReport(pb.GetReportRequest()),
            await client.operations.ListOperations(pb.ListOperationsRequest()),
        ]
        seen = await client.cards.GetInventory(pb.GetInventoryRequest(card=card))
    secrets = secrets_of(held)
    daemon = files_of(station.daemon.place, station.daemon.credentials)
    daemon |= {type(one).__name__: one.SerializeToString() for one in told}
    # Names are in certificates, on the card and in the books; secrets are in neither.
    places = daemon | files_of(station.here.data) | {"inventory": seen.SerializeToString()}
    places["metrics"] = await asyncio.to_thread(station.here.process.get, "metrics", "/metrics")
    assert len(told[0].entries) > 20
    assert any(name.endswith("/stderr") for name in daemon) and any("store.db" in name for name in places)
    for place, content in places.items():
        half = len(content) // 2
        for name, secret in secrets.items():
            assert found(secret, content) == set(), (name, place)
            planted = content[:half] + forms(secret)["base64"] + content[half:]
            assert "base64" in found(secret, planted), (name, place)
    for place, content in daemon.items():
        assert held.login.encode() not in content, place
    if os.geteuid() != 0:
        with pytest.raises(PermissionError):
            next(memory_of(process.pid))
        return
    spelled = {name: form for name, form in forms(PIN).items() if name != "reversed"}
    parts, sought = 0, held.card.serial
    known = False
    for part in memory_of(process.pid):
        parts += 1
        known = known or str(sought).encode() in part
        assert [name for name, form in spelled.items() if form in part] == []
    assert parts > 50 and known, "what is no secret is found there"
