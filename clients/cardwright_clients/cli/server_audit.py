"""``cardwright server audit``: the chain, judged by keys and anchors that come from elsewhere."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from cardwright_cardops.errors import CardwrightError

from .files import MAX_INPUT, read_bounded
from .output import json_option, say, show_json
from .server_place import installation, place_options

if TYPE_CHECKING:
    from cardwright_server.audit.verify import Anchor, Expectations, PublicKey, Report
    from cardwright_server.config import Installation


NAME: Final = "Key: "
"""Before each key: what the vault calls it, by which blocks name it."""
DEFAULT: Final = "audit"
_LONG: Final = 1000
"""Blocks of a chain of which it is said how far it is."""
_BEGIN: Final = "-----BEGIN PUBLIC KEY-----"
_END: Final = "-----END PUBLIC KEY-----"


class AuditKeyMissing(CardwrightError):
    """There is no public key to judge the audit by."""

    code = "AUDIT_KEY_MISSING"
    default_effect = "Nothing was judged."
    default_advice = "Give --key as the file that 'cardwright server audit key' wrote, or start the server."




@click.group("audit")
def command() -> None:
    """Verify, export and anchor the audit chain.

    A cut tail or an older database that was put back is found only with an anchor that was kept where the server's
    administrators cannot change it.
    """


@command.command("verify")
@place_options
@click.option("--key", "keys", type=click.Path(path_type=Path, dir_okay=False), multiple=True, metavar="FILE",
              help="Public keys (PEM) that may have signed; without it the vault's own.")  # fmt: skip
@click.option("--anchor", "anchors", multiple=True, metavar="TEXT",
              help="An anchor that was kept elsewhere, as it was printed; any number of them.")  # fmt: skip
@click.option("--since", metavar="TEXT",
              help="Begin at the block of this anchor, which an earlier verification printed.")  # fmt: skip
@click.option("--export", "export_file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Judge this export in place of the database.")  # fmt: skip
@json_option
def verify(
    data: Path | None, config: Path | None, keys: tuple[Path, ...], anchors: tuple[str, ...], since: str | None,
    export_file: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Judge the whole chain; exit code 1 if anything is wrong with it.

    Of a long chain it says on standard error how far it is. With --since only what came later is judged; an export has
    to begin at that block then.
    """
    import asyncio

    from cardwright_server.audit.service import verify_export
    from cardwright_server.audit.verify import Expectations

    expected = [_anchor(text) for text in anchors]
    begin = None if since is None else _anchor(since, "--since")
    if export_file is not None:
        given = _given(keys)
        if not given:
            raise AuditKeyMissing("An export is judged by a key that comes from elsewhere.")
        # What is no UTF-8 is no export either, and is told as that.
        with (
            nullcontext(sys.stdin) if str(export_file) == "-" else export_file.open(encoding="utf-8", errors="replace")
        ) as lines:
            report = verify_export(lines, Expectations(given, expected, since=begin))
    else:
        report = asyncio.run(_judge(installation(data, config), _given(keys), expected, begin))
    if as_json:
        show_json(_document(report))
    else:
        _show(report)
    return 0 if report.valid else 1


@command.command("export")
@place_options
@click.option("--details", is_flag=True, help="Also what stands beside the chain and was not erased.")
def export(data: Path | None, config: Path | None, details: bool) -> None:
    """Write every sealed block to standard output, a line of JSON each."""
    import asyncio

    from cardwright_server.audit import service
    from cardwright_server.founding import open_database

    async def write() -> int:
        async with open_database(installation(data, config)) as database:
            return await service.export(database, sys.stdout, details=details)

    count = asyncio.run(write())
    say(f"{count} blocks.", err=True)


@command.command("anchor")
@place_options
def anchor(data: Path | None, config: Path | None) -> int:
    """Print the anchor of the newest sealed block: keep it elsewhere."""
    import asyncio

    from cardwright_server.audit.service import latest_anchor
    from cardwright_server.founding import open_database

    async def read() -> Anchor | None:
        async with open_database(installation(data, config)) as database:
            return await latest_anchor(database)

    found = asyncio.run(read())
    if found is None:
        say("There is no sealed block.", err=True)
        return 1
    say(str(found))
    return 0


@command.command("key")
@place_options
def key(data: Path | None, config: Path | None) -> None:
    """Print the public keys (PEM) that sign the audit; the server has to run. Keep them elsewhere."""
    import asyncio

    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    for name, one in asyncio.run(_of_vault(installation(data, config))).items():
        say(f"{NAME}{name}")
        for line in one.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode().splitlines():
            say(line)


async def _judge(
    here: Installation, keys: dict[str, PublicKey], anchors: list[Anchor], since: Anchor | None
) -> Report:
    from datetime import UTC, datetime

    from cardwright_server.app import CHAIN
    from cardwright_server.audit.desk import WAITING
    from cardwright_server.audit.service import judging
    from cardwright_server.audit.verify import Expectations, Report
    from cardwright_server.founding import open_database

    running = here.listening.exists()
    expected: Expectations = Expectations(
        keys or await _of_vault(here), anchors, CHAIN, now=datetime.now(UTC) if running else None, since=since
    )
    tenths = 0
    async with open_database(here) as database:
        async for step in judging(database, expected, waiting=WAITING):
            if isinstance(step, Report):
                return step
            if step.of >= _LONG and 10 * step.blocks // step.of > tenths:
                tenths = 10 * step.blocks // step.of
                say(f"{step.blocks} of {step.of} blocks", err=True)
    raise AssertionError("the last step is a report")


async def _of_vault(here: Installation) -> dict[str, PublicKey]:
    """Raises AuditKeyMissing."""
    from cardwright_server.app import audit_keys
    from cardwright_server.vault.client import VaultClient
    from cardwright_server.vault.errors import VaultError

    client = VaultClient(here.vault_sockets, uid=here.config.vault.uid)
    try:
        found = dict(await audit_keys(client))
    except VaultError as error:
        raise AuditKeyMissing(f"The vault cannot be asked for its public key: {error.message}") from error
    finally:
        await client.close()
    if not found:
        raise AuditKeyMissing("The vault is locked, or has no key for the audit.")
    return found


def _given(paths: tuple[Path, ...]) -> dict[str, PublicKey]:
    """Public keys of PEM files. Raises AuditKeyMissing."""
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    from cardwright_server.audit.verify import PublicKey

    found: dict[str, PublicKey] = {}
    for path in paths:
        for part in read_bounded(path, MAX_INPUT).decode("ascii", "replace").split(_END)[:-1]:
            before, begin, rest = part.partition(_BEGIN)
            names = [line.removeprefix(NAME) for line in before.splitlines() if line.startswith(NAME)]
            try:
                one: Any = load_pem_public_key(f"{begin}{rest}{_END}\n".encode())
            except ValueError as error:
                raise AuditKeyMissing(f"{path} holds no public key.") from error
            if isinstance(one, PublicKey):
                found[names[-1] if names else DEFAULT] = one
    if paths and not found:
        raise AuditKeyMissing(f"{', '.join(map(str, paths))}: no public key in PEM.")
    return found


def _anchor(text: str, option: str = "--anchor") -> Anchor:
    from cardwright_server.audit.verify import Anchor

    try:
        return Anchor.parse(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no anchor.", param_hint=option) from error


def _document(report: Report) -> dict[str, Any]:
    return {
        "valid": report.valid,
        "blocks": report.blocks,
        "entries": report.entries,
        "anchor": None if report.anchor is None else str(report.anchor),
        "findings": [{"fault": one.fault.value, "block": one.block, "text": one.text} for one in report.findings],
    }


def _show(report: Report) -> None:
    say(f"{report.blocks} blocks with {report.entries} entries.")
    for one in report.findings:
        say(f"  {one.fault.value}: block {one.block}: {one.text}")
    say("Nothing is wrong with the chain." if report.valid else "The chain is NOT in order.")
    if report.anchor is not None:
        say(f"Anchor: {report.anchor}")
