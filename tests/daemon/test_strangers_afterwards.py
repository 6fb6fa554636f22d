"""What other programs see of new certificates after an update, with the card left in its reader.

One that begins afterwards sees them. One that is open, and logged in, while the card is written keeps what its module
has read: Yubico's module reads anew with the next first session, OpenSC's only when it is initialized anew. PC/SC has
no word by which we could tell them.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_simulators.card import VirtualCard
from tests.support.daemon_pcscd import on_pcsc, ready
from tests.support.daemon_server import Server
from tests.support.daemon_sessions import faults_of, issued_card, renewing
from tests.support.daemons import PATIENCE, Person, token
from tests.support.pcscd import Pcscd

pytestmark = pytest.mark.pcscd

PIN = b"739146"
SLOTS = 4
_PROGRAM = """
import json, os, sys
import pkcs11
from pkcs11 import Attribute, ObjectClass

module = pkcs11.lib(sys.argv[1])

def opened():
    (slot,) = [one for one in module.get_slots(token_present=True) if sys.argv[2] in one.slot_description]
    return slot.get_token().open(user_pin=os.environ["STRANGER_PIN"])

def show():
    found = session.get_objects({Attribute.CLASS: ObjectClass.CERTIFICATE})
    print(json.dumps([one[Attribute.VALUE].hex() for one in found if "Attestation" not in one[Attribute.LABEL]]),
          flush=True)

session = opened()
show()
for line in sys.stdin:
    if line.strip() == "session":
        session.close()
        session = opened()
    elif line.strip() == "initialize":
        session.close()
        module.reinitialize()
        session = opened()
    show()
"""


class Stranger:
    """A program with a session of a PKCS#11 module."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def shown(self) -> set[bytes]:
        """The certificates that it printed next, DER."""
        assert self._process.stdout is not None
        return {bytes.fromhex(one) for one in json.loads(self._process.stdout.readline())}

    def after(self, word: str) -> set[bytes]:
        """Those that it sees after doing something: look, session, initialize."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        return self.shown()


@contextmanager
def stranger(module: str, reader: str) -> Iterator[Stranger]:
    """Logged in until the end of the block."""
    path = next(Path("/usr/lib").rglob(module), None)
    if path is None:
        pytest.skip(f"{module} is not installed (packages.txt)")
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, path, reader],
        env=os.environ | {"STRANGER_PIN": PIN.decode()}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield Stranger(process)
    finally:
        process.communicate(timeout=PATIENCE)


def on_card(card: VirtualCard, certificates: set[bytes]) -> int:
    """How many of them are in the card's memory."""
    objects = [bytes.fromhex(raw) for raw in json.loads(card.snapshot())["objects"].values()]
    return sum(any(one in content for content in objects) for one in certificates)


@pytest.mark.parametrize("module, word", [("opensc-pkcs11.so", "initialize"), ("libykcs11.so", "session")])
async def test_new_certificates_are_seen_without_a_pull(pcscd: Pcscd, module: str, word: str) -> None:
    server, card = Server(), token(78)
    await issued_card(server, card)
    renewing(server)
    async with on_pcsc(Person(PIN), server) as (_, client):
        reader = await asyncio.to_thread(pcscd.insert, card)
        known = (await client.until(ready(reader))).card.card.id
        with stranger(module, reader) as open_before:
            before = await asyncio.to_thread(open_before.shown)
            assert on_card(card, before) == len(before) == SLOTS
            shown = await client.updates.PreviewUpdate(
                pb.PreviewUpdateRequest(card=known, purpose=pb.PURPOSE_UPDATE)
            )
            begun = await client.updates.StartUpdate(pb.StartUpdateRequest(card=known, digest=shown.digest))
            done = await client.operations.WaitOperation(pb.WaitOperationRequest(operation=begun.operation.id))
            assert done.operation.outcome == pb.OUTCOME_DONE, done
            assert on_card(card, before) == 0
            with stranger(module, reader) as open_after:
                after = await asyncio.to_thread(open_after.shown)
            assert on_card(card, after) == len(after) == SLOTS
            assert await asyncio.to_thread(open_before.after, "look") in (before, after)
            assert await asyncio.to_thread(open_before.after, word) == after
    assert faults_of(server, card) == []
