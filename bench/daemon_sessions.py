"""What a full issuance through the daemon takes: over a line that is longer, and with a chip that takes its time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from uuid import uuid4

from cardwright_daemon.link.server import GrpcLink
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_proto.cms.v1 import authentication_pb2 as proofs
from cardwright_simulators.card import Timing, VirtualCard
from cardwright_simulators.card.keypool import KeyPool
from tests.support.daemons import Person, Run, running
from tests.support.delay import delayed_port
from tests.support.front_desk import Desk
from tests.support.installation import Site

from .table import against, show

ROUND_TRIP: Final = 0.5
"""Seconds, of the long line."""
TIMES: Final = 3
TRIPS: Final = 5
"""Round trips of a full issuance, pinned in tests/cost/test_round_trips.py."""
CHIP: Final = "smart-card"
_PIN: Final = b"739146"


async def measure(here: Site, station: Path) -> None:
    """Measure and print. ``station`` holds the credentials of a workstation."""
    desk = await asyncio.to_thread(Desk, here)
    address = here.process.addresses["calls"]
    async with delayed_port(address, 0.0) as line:

        async def fastest(make: Callable[[int], VirtualCard], round_trip: float) -> tuple[float, float]:
            """Seconds of an issuance from the first call to its end, and those of the card alone; the quickest."""
            line.delay = round_trip / 2
            return min([await _issued(desk, GrpcLink(line.address, station), make) for _ in range(TIMES)])

        near, _ = await fastest(_instant, 0.0)
        far, _ = await fastest(_instant, ROUND_TRIP)
        slow, chip = await fastest(_chip, 0.0)
    slope, share = (far - near) / ROUND_TRIP, (slow - near) / chip
    show(
        f"full issuance through the daemon, fastest of {TIMES}, from the first call to its end",
        ("", "s", "s of the card"),
        [
            ("instant card, no round trip", f"{near:.2f}", "-"),
            (f"instant card, round trip {ROUND_TRIP:g} s", f"{far:.2f}", "-"),
            (f"card with the times of a chip ({CHIP})", f"{slow:.2f}", f"{chip:.2f}"),
        ],
        f"The long line costs {slope:.1f} round trips, {against(slope, TRIPS + 4)}; the chip {share:.2f} of its time "
        f"above an instant card, {against(share, 1.1)}.",
    )


def _instant(serial: int) -> VirtualCard:
    return VirtualCard("yubikey-5.7", serial=serial, key_pool=KeyPool.shared())


def _chip(serial: int) -> VirtualCard:
    return VirtualCard("yubikey-5.7", serial=serial, key_pool=KeyPool.shared(), timing=Timing(CHIP))


async def _issued(desk: Desk, link: GrpcLink, make: Callable[[int], VirtualCard]) -> tuple[float, float]:
    login, serial = f"p{uuid4().hex[:8]}", uuid4().int % 10**8
    person = await asyncio.to_thread(desk.person, login)
    _, request = await asyncio.to_thread(desk.issuance, person, str(serial))
    asked = proofs.SetInitialPasswordRequest(person=person)
    given = await asyncio.to_thread(desk.ask, desk.issuer, "AuthenticationService", "SetInitialPassword", asked)
    card = make(serial)
    somebody = Person(given.password.encode(), _PIN, _PIN)
    async with running(card, link=link, person=somebody, readers=1) as run:
        identifier = (await run.client.card()).id
        prove = pb.ProveRequest(
            card=identifier, purpose=pb.PURPOSE_ISSUE, method=pb.METHOD_KIND_INITIAL_PASSWORD, account=login
        )
        await run.client.updates.Prove(prove)
        busy, began = card.busy_seconds, time.monotonic()
        operation = await _issue(run, identifier, request)
        took = time.monotonic() - began
    if operation.outcome != pb.OUTCOME_DONE:
        raise RuntimeError(f"the issuance ended with {operation.error.code or operation.outcome}")
    return took, card.busy_seconds - busy


async def _issue(run: Run, card: str, request: str) -> pb.Operation:
    wanted = pb.PreviewUpdateRequest(card=card, purpose=pb.PURPOSE_ISSUE, request=request)
    shown = await run.client.updates.PreviewUpdate(wanted)
    begun = await run.client.updates.StartUpdate(pb.StartUpdateRequest(card=card, digest=shown.digest))
    done = await run.client.operations.WaitOperation(pb.WaitOperationRequest(operation=begun.operation.id))
    return done.operation  # type: ignore[no-any-return]
