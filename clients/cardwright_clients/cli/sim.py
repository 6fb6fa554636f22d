"""``cardwright sim``: virtual cards and workstations for tests and trials."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.transport.connection import Interface

from .files import FileUnusable
from .output import json_option, say, show_json, show_table

if TYPE_CHECKING:
    from cardwright_simulators.workstation import Report

DEFAULT_VPCD = "127.0.0.1:35963"

_HOST: Final = re.compile(r"[0-9A-Za-z_-]{1,63}(\.[0-9A-Za-z_-]{1,63}){0,9}|(?=.*:)[0-9A-Fa-f:.]{2,45}")
"""A name or an address of IPv4 or IPv6, without brackets."""


class BadAddress(CardwrightError):
    """An address that is not HOST:PORT."""

    code = "VPCD_ADDRESS"
    default_effect = "No card was started."
    default_advice = "Give HOST:PORT, for example 127.0.0.1:35963."


class UnknownTiming(CardwrightError):
    """A timing profile that nobody has."""

    code = "TIMING_UNKNOWN"
    default_effect = "No card was started."
    default_advice = "Give one of the timings that the message names."


@click.group("sim")
def command() -> None:
    """Virtual cards and workstations for tests and trials."""


@command.command("card")
@click.option("--profile", default="yubikey-5.7", show_default=True, help="What card to be; see 'sim profiles'.")
@click.option("--state", type=click.Path(path_type=Path, dir_okay=False),
              help="Keep the card in this file, as EEPROM does.")  # fmt: skip
@click.option("--image", type=click.Path(path_type=Path), help="Start from this card image (JSON).")
@click.option("--serial", type=click.IntRange(0, 0xFFFFFFFF), help="Serial number of a new card.")
@click.option("--timing", default="instant", show_default=True, help="How long the chip takes.")
@click.option("--interface", type=click.Choice([one.value for one in Interface]), default="contact", show_default=True)
@click.option("--fault", "faults", multiple=True, help="What goes wrong, for example apdu=7:lost. May be repeated.")
@click.option("--vpcd", default=DEFAULT_VPCD, show_default=True, help="The reader, HOST:PORT of vpcd.")
def card(
    profile: str, state: Path | None, image: Path | None, serial: int | None, timing: str, interface: str,
    faults: tuple[str, ...], vpcd: str,
) -> None:  # fmt: skip
    """Put a virtual card into a vpcd reader until interrupted.

    Any PC/SC program sees it as a real card: 'cardwright card list', 'ykman piv info', 'pkcs15-tool -D'.
    """
    from cardwright_simulators.card import DURATIONS, FileStore, Timing, VirtualCard, images
    from cardwright_simulators.reader.faults import FaultyCard, parse
    from cardwright_simulators.reader.vpicc import Vpicc

    host, port = address(vpcd)
    if timing not in DURATIONS:
        raise UnknownTiming(f"There is no timing '{timing}'; there are {', '.join(sorted(DURATIONS))}.")
    scripted = tuple(fault for text in faults for fault in parse(text))
    coupling = Interface(interface)
    clock = Timing(DURATIONS[timing])
    store = FileStore(state) if state is not None else None
    try:
        if store is not None:
            store.lock()
        if image is not None:
            made = images.load(image, profile=profile, interface=coupling, store=store, timing=clock)
        else:
            made = VirtualCard(profile, serial=serial, interface=coupling, store=store, timing=clock)
    except OSError as error:
        where = error.filename or state or image
        effect = "No virtual card was started."
        raise FileUnusable(f"{where} cannot be read or written: {error.strerror}.", effect=effect) from error
    with Vpicc(FaultyCard(made, scripted) if scripted else made, host, port) as reader:
        signal.signal(signal.SIGTERM, lambda number, frame: reader.stop())
        reader.wait_for_reader()
        say(f"A {profile} card, serial {made.serial}, is in the reader at {host}:{port}. Ctrl-C takes it out.")
        reader.wait()


@command.command("profiles")
@json_option
def profiles(as_json: bool) -> None:
    """List what a virtual card can be."""
    from cardwright_simulators.card import PROFILES

    if as_json:
        show_json({"profiles": [{"name": row.name, "description": row.description} for row in PROFILES.values()]})
    else:
        show_table([(row.name, row.description) for row in PROFILES.values()], ("PROFILE", ""))


@command.command("workstations")
@click.option("--server", required=True, metavar="HOST:PORT", help="The server's port for who has a certificate.")
@click.option("--entry", required=True, metavar="HOST:PORT", help="Its port for who has none yet.")
@click.option("--operator", type=click.Path(path_type=Path, dir_okay=False, exists=True), required=True,
              help="File of an administrator, who makes the enrolment tokens.")  # fmt: skip
@click.option("--count", type=click.IntRange(1, 20_000), default=10, show_default=True, help="How many workstations.")
@click.option("--cards", type=click.IntRange(0, 100), default=1, show_default=True,
              help="Virtual cards of each; what is inserted, unless --names is given.")  # fmt: skip
@click.option("--rate", type=click.FloatRange(0, 10_000), default=0.0, show_default=True,
              help="Insertions a second, whether or not answers come.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(0, 86_400), default=10.0, show_default=True, help="For how long.")
@click.option("--names", type=click.Path(path_type=Path, dir_okay=False, exists=True),
              help="Insert these in place of cards: a card UUID or a serial number a line.")  # fmt: skip
@click.option("--proof-key", type=click.Path(path_type=Path, dir_okay=False, exists=True),
              help="P-256 key (PEM) with which all of --names prove that they are genuine.")  # fmt: skip
@click.option("--issue", type=click.Path(path_type=Path, dir_okay=False, exists=True),
              help="Issue these cards: serial, request, login, password as JSON, one a line.")  # fmt: skip
@click.option("--parallel", type=click.IntRange(1, 1000), default=10, show_default=True,
              help="Issuances at the same time.")  # fmt: skip
@click.option("--first-serial", type=click.IntRange(1, 0xFFFFFFF), default=10_000_000, show_default=True,
              help="Serial number of the first virtual card.")  # fmt: skip
@click.option("--profile", default="yubikey-5.7", show_default=True, help="What cards to be; see 'sim profiles'.")
@json_option
def workstations(
    server: str, entry: str, operator: Path, count: int, cards: int, rate: float, seconds: float, names: Path | None,
    proof_key: Path | None, issue: Path | None, parallel: int, first_serial: int, profile: str, as_json: bool,
) -> None:  # fmt: skip
    """Be many workstations against one server: for load, and for tests of portals.

    They enrol, stand connected, see cards come in and ask what is due for them, and issue cards. Exits with 1 if
    anything did not succeed.
    """
    import asyncio

    from cardwright_simulators.workstation import Fleet, Identity, Plan, checked_address, read_names, read_tasks

    plan = Plan(
        rate, seconds, cards, () if names is None else read_names(names, proof_key),
        () if issue is None else read_tasks(issue), parallel, first_serial, profile,
    )  # fmt: skip
    administrator = Identity.read(operator)

    async def work() -> Report:
        async with Fleet(count, checked_address(server), checked_address(entry), administrator=administrator) as fleet:
            return await fleet.work(plan)

    report = asyncio.run(work())
    if as_json:
        show_json(report.document())
    else:
        show_table(
            [
                (
                    part.name, str(len(part.times.seconds)), str(part.times.errors.total()),
                    f"{part.times.at(0.5) * 1e3:.1f}", f"{part.times.at(0.99) * 1e3:.1f}", f"{part.seconds:.1f}",
                    " ".join(f"{code}:{many}" for code, many in part.times.errors.items()),
                )
                for part in report.parts
            ],
            ("PART", "DONE", "FAILED", "P50 MS", "P99 MS", "SECONDS", ""),
        )  # fmt: skip
    if report.failed:
        raise click.exceptions.Exit(1)


@command.command("images")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True), default=".")
@json_option
def list_images(folder: Path, as_json: bool) -> None:
    """List the card images (JSON) in FOLDER; 'sim card --image' starts one, 'card check --image' checks one."""
    from cardwright_cardops.check.image import ImageUnreadable, load_image

    found: list[dict[str, object]] = []
    for path in sorted(folder.glob("*.json")):
        try:
            data = load_image(path)
        except ImageUnreadable:
            continue  # other JSON files may lie beside the images
        found.append({"file": str(path), "card": data.name, "objects": len(data.objects), "keys": len(data.proofs)})
    if as_json:
        show_json({"images": found})
    else:
        rows = [(str(row["file"]), str(row["card"]), str(row["objects"]), str(row["keys"])) for row in found]
        show_table(rows, ("FILE", "CARD", "OBJECTS", "KEYS"))


def address(text: str) -> tuple[str, int]:
    """HOST:PORT. Raises BadAddress."""
    host, _, port = text.rpartition(":")
    if not _HOST.fullmatch(host) or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise BadAddress(f"'{text}' is not HOST:PORT.")
    return host, int(port)
