"""What the daemon costs its user: news of a card, waking up for nothing, memory, the time until it answers.

``python -m bench.daemon [SECONDS]``: how long to watch it being idle, 60 unless given. Beside it runs a bare grpc.aio
server with the same streams, in the same minute.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import grpc

from cardwright_daemon.link.enrolment import Token, enrol
from cardwright_proto.agent.v1 import agent_pb2, agent_pb2_grpc
from cardwright_proto.cms.v1 import workstations_pb2, workstations_pb2_grpc
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.workstation import Times
from tests.support.installation import Site, copied, founded_site
from tests.support.pcscd import YUBICO, Pcscd

from . import daemon_sessions
from .processes import cpu, resident, voluntary_switches
from .table import against, show

IDLE: Final = 60.0
INSERTIONS: Final = 30
STARTS: Final = 5
PATIENCE: Final = 60.0
_MAIN: Final = "from cardwright_clients.cli.main import main; main()"
_BARE: Final = """
import asyncio, sys
import grpc, smartcard.scard
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cardwright_proto.agent.v1 import agent_pb2, agent_pb2_grpc
from cardwright_proto.cms.v1 import sessions_pb2, sessions_pb2_grpc

class Cards(agent_pb2_grpc.CardServiceServicer):
    async def WatchEvents(self, request, context):
        await context.send_initial_metadata(())
        await asyncio.Event().wait()
        yield agent_pb2.WatchEventsResponse()

async def main():
    path, address, key, chain, root, serial = sys.argv[1:]
    server = grpc.aio.server()
    agent_pb2_grpc.add_CardServiceServicer_to_server(Cards(), server)
    server.add_insecure_port('unix:' + path)
    await server.start()
    shown = grpc.ssl_channel_credentials(*(open(one, 'rb').read() for one in (root, key, chain)))
    async with grpc.aio.secure_channel(address, shown) as channel:
        card = sessions_pb2.CardName(serial=serial)
        call = sessions_pb2_grpc.SessionServiceStub(channel).Watch(sessions_pb2.WatchRequest(protocol=1, cards=[card]))
        await call.initial_metadata()
        print('ready', flush=True)
        async for _ in call:
            pass

asyncio.run(main())
"""


class _Clocked(VirtualCard):
    """A card that measures its own time."""

    seconds = 0.0

    def transmit(self, command: bytes) -> bytes:
        """To the card and back."""
        began = time.monotonic()
        try:
            return super().transmit(command)
        finally:
            self.seconds += time.monotonic() - began


def run(readers: Pcscd, here: Site, idle: float = IDLE) -> None:
    """Measure and print. ``readers`` has two slots."""
    folder = Path(tempfile.mkdtemp(prefix="cw-", dir="/tmp"))  # a socket's path has 107 octets at most
    try:
        asyncio.run(_enrol(here, folder / "station"))
        config = folder / "daemon.toml"
        config.write_text(
            f'folder = "{folder}/run"\nlog_level = "error"\n[server]\naddress = "{here.process.addresses["calls"]}"\n'
            f'folder = "{folder}/station"\n[updates]\nspread = 0.0\n'
        )
        starts, spent = Times(), list[float]()
        for _ in range(STARTS):
            began = time.monotonic()
            with _daemon(config) as (process, _):
                starts.seconds.append(time.monotonic() - began)
                spent.append(cpu(process.pid))
        asyncio.run(daemon_sessions.measure(here, folder / "station"))
        with _daemon(config) as (process, socket):
            _news(readers, socket)
            _idle(readers, here, folder, process, socket, idle)
        show(
            "from the start of the process to its first answer",
            ("starts", "median s", "longest s", "", "CPU s"),
            [
                (
                    str(STARTS),
                    f"{starts.at(0.5):.2f}",
                    f"{starts.at(1):.2f}",
                    against(starts.at(0.5), 0.6),
                    f"{sorted(spent)[STARTS // 2]:.2f}",
                )
            ],
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _enrol(here: Site, folder: Path) -> None:
    asked = workstations_pb2.CreateTokenRequest(host="bench", station_class=workstations_pb2.STATION_CLASS_USER)
    create = workstations_pb2_grpc.WorkstationServiceStub
    made = here.process.call(here.administrator, lambda line: create(line).CreateToken, asked)
    await enrol(folder, here.process.addresses["entry"], Token.parse(made.token), "bench")


@contextmanager
def _daemon(config: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-c", _MAIN, "daemon", "--config", str(config), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())["socket"]
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _news(readers: Pcscd, socket: str) -> None:
    """Against a program that waits in SCardGetStatusChange itself: both are woken by the same change."""
    reader, times, known_after = f"{YUBICO} 00 00", Times(), Times()
    come: list[float] = []
    ready: list[float] = []
    arrived, met = threading.Event(), threading.Event()

    def listen() -> None:
        with grpc.insecure_channel(f"unix:{socket}") as channel:
            watch: Any = agent_pb2_grpc.CardServiceStub(channel).WatchEvents(agent_pb2.WatchEventsRequest())
            try:
                known = ""
                for event in watch:
                    if event.HasField("card") and event.card.present and event.card.card.id != known:
                        known = event.card.card.id
                        come.append(time.monotonic())
                        arrived.set()
                    is_known = event.HasField("card") and event.card.card.state == agent_pb2.CARD_STATE_READY
                    if is_known and not met.is_set():
                        ready.append(time.monotonic())
                        met.set()
            except grpc.RpcError:
                return  # the daemon is stopped in the end

    threading.Thread(target=listen, daemon=True).start()
    for number in range(INSERTIONS):
        arrived.clear()
        met.clear()
        seen: list[float] = []

        def wait(into: list[float] = seen) -> None:
            readers.wait_for_card(reader, present=True)
            into.append(time.monotonic())

        waiting = threading.Thread(target=wait)
        waiting.start()
        card = _Clocked("yubikey-5.7", serial=70_000_000 + number)
        readers.insert(card, reader)
        waiting.join(PATIENCE)
        if arrived.wait(PATIENCE):
            times.seconds.append(max(0.0, come[-1] - seen[0]))
            if met.wait(PATIENCE):
                known_after.seconds.append(max(0.0, ready[-1] - seen[0] - card.seconds))
        else:
            times.errors["NO_EVENT"] += 1
        readers.remove(reader)
    show(
        "from the return of SCardGetStatusChange in a program beside it to the event at a client",
        ("insertions", "missed", "p50 ms", "p99 ms", ""),
        [
            (
                str(len(times.seconds)), str(times.errors.total()), f"{times.at(0.5) * 1e3:.2f}",
                f"{times.at(0.99) * 1e3:.2f}", against(times.at(0.99) * 1e3, 5),
            )
        ],
        f"Who the card is, is known {known_after.at(0.5) * 1e3:.2f} ms after it without the card's own time "
        f"(p99 {known_after.at(0.99) * 1e3:.2f}), {against(known_after.at(0.5) * 1e3, 5)} in the median.",
    )  # fmt: skip


def _idle(
    readers: Pcscd, here: Site, folder: Path, process: subprocess.Popen[str], socket: str, seconds: float
) -> None:
    readers.insert(VirtualCard("yubikey-5.7", serial=79_999_999), f"{YUBICO} 00 00")
    parts = (folder / "station" / "workstation.pem").read_bytes().partition(b"-----BEGIN CERTIFICATE-----")
    certificates = (parts[1] + parts[2]).split(b"-----END CERTIFICATE-----\n")
    ends = b"-----END CERTIFICATE-----\n"
    for name, text in (("key", parts[0]), ("chain", certificates[0] + ends), ("root", certificates[1] + ends)):
        (folder / name).write_bytes(text)
    command = [sys.executable, "-c", _BARE, f"{folder}/bare", here.process.addresses["calls"]]
    command += [str(folder / name) for name in ("key", "chain", "root")] + ["79999999"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as bare:
        try:
            assert bare.stdout is not None and bare.stdout.readline() == "ready\n"
            with grpc.insecure_channel(f"unix:{socket}") as ours, grpc.insecure_channel(f"unix:{folder}/bare") as its:
                calls = [
                    agent_pb2_grpc.CardServiceStub(line).WatchEvents(agent_pb2.WatchEventsRequest())
                    for line in (ours, its)
                ]
                time.sleep(5)  # what follows an insertion is over
                before = voluntary_switches(process.pid), voluntary_switches(bare.pid)
                time.sleep(seconds)
                after = voluntary_switches(process.pid), voluntary_switches(bare.pid)
                memory = resident(process.pid), resident(bare.pid)
                for call in calls:
                    call.cancel()
        finally:
            bare.terminate()
            bare.wait(PATIENCE)
    more = (after[0] - before[0]) - (after[1] - before[1])
    show(
        f"idle for {seconds:g} s with two readers, one card and one server stream, beside a bare grpc.aio server",
        ("", "switches", "MiB"),
        [
            ("daemon", str(after[0] - before[0]), f"{memory[0]:.0f}"),
            ("bare", str(after[1] - before[1]), f"{memory[1]:.0f}"),
        ],
        f"{more} more switches, {against(more, 10)}; memory {memory[0] / memory[1]:.2f}, "
        f"{against(memory[0] / memory[1], 1.5)}.",
    )


def main() -> None:
    """Command line."""
    with founded_site() as original, copied(original) as here:
        here.process.start()
        readers = Pcscd(YUBICO)
        readers.start()
        try:
            run(readers, here, *map(float, sys.argv[1:2]))
        finally:
            readers.stop()


if __name__ == "__main__":
    main()
