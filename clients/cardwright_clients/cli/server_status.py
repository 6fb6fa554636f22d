"""``cardwright server status``: whether the server of a data folder runs, and how it stands."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from cardwright_cardops.errors import CardwrightError

from ..sdk.errors import ServerUnreachable
from ..sdk.identity import OperatorFile
from .files import read_bounded
from .output import json_option, say, show_json, show_table
from .server_admin_link import ServerLine, address_in, data_folder, operator_file, options_in
from .server_place import data_option

MAX_FILE = 64 << 10


class ServerNotRunning(CardwrightError):
    """No server serves from this data folder."""

    code = "SERVER_NOT_RUNNING"
    default_effect = "Nothing was sent."
    default_advice = "Start it by 'cardwright server run', or name its data folder by --data."


@click.command("status")
@click.option("--as", "identity", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Key and certificates (PEM) of an operator who may see everything, or their NAME in the data "
                   "folder.")  # fmt: skip
@data_option
@json_option
def command(identity: Path | None, data: Path | None, as_json: bool) -> int:
    """Ask the server of a data folder on this host how it stands; exit code 1 if it does not serve.

    Without --as only what anyone may know is shown; with the file of an administrator, security officer or auditor also
    tasks, own certificates, and the anchor of the audit, which belongs where the server's administrators cannot change
    it.
    """
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

    from cardwright_proto.cms.v1 import system_pb2, system_pb2_grpc

    folder = (data or data_folder()).absolute()
    addresses = _addresses(folder)
    with grpc.insecure_channel(f"unix:{addresses['local']}") as channel:
        line = ServerLine(channel)
        try:
            hello = line.call(
                lambda to: system_pb2_grpc.SystemServiceStub(to).Hello, system_pb2.HelloRequest(protocol=1)
            )
        except ServerUnreachable as error:
            raise ServerNotRunning(
                f"The server of {folder} does not answer; it was process {addresses['pid']}."
            ) from error
        health = line.call(lambda to: health_pb2_grpc.HealthStub(to).Check, health_pb2.HealthCheckRequest())
    serving = health.status == health_pb2.HealthCheckResponse.SERVING
    shown: dict[str, Any] = {"serving": serving, "release": hello.release, "root": hello.root.hex(), **addresses}
    if identity is not None:
        given = OperatorFile.read(operator_file(identity, folder))
        credentials = grpc.ssl_channel_credentials(given.root, given.key, given.chain)
        with grpc.secure_channel(address_in(folder), credentials, options_in(folder)) as channel:
            found = ServerLine(channel).call(
                lambda to: system_pb2_grpc.SystemServiceStub(to).Status, system_pb2.StatusRequest()
            )
        shown |= _told(found)
    if as_json:
        show_json(shown)
    else:
        _show(shown)
    return 0 if serving else 1


def _addresses(folder: Path) -> dict[str, Any]:
    """Raises ServerNotRunning."""
    path = folder / "run" / "listening.json"
    if not path.exists():
        raise ServerNotRunning(f"No server serves from {folder}.")
    try:
        found = json.loads(read_bounded(path, MAX_FILE))
        return {name: found[name] for name in ("pid", "local", "calls", "entry", "http", "metrics")}
    except (ValueError, KeyError, TypeError) as error:
        raise ServerNotRunning(f"{path} is damaged.") from error


def _told(found: Any) -> dict[str, Any]:
    return {
        "started": _moment(found.started),
        "database": found.database,
        "vault": found.vault,
        "sessions": found.sessions,
        "streams": found.streams,
        "anchor": found.anchor,
        "parts": [
            {"name": one.name, "good": one.good, "code": one.code, "failures": one.failures, "done": _moment(one.done)}
            for one in found.parts
        ],
        "certificates": [
            {"kind": one.kind, "name": one.name, "ends": _moment(one.ends), "alarm": one.alarm}
            for one in found.certificates
        ],
    }


def _moment(stamp: Any) -> str:
    if not stamp.seconds:
        return ""
    when: datetime = stamp.ToDatetime(tzinfo=UTC)
    return when.replace(microsecond=0).isoformat()


def _show(shown: dict[str, Any]) -> None:
    say(f"{'Serving' if shown['serving'] else 'NOT serving'}: cardwright {shown['release']}, process {shown['pid']}")
    for name, text in (
        ("Calls", shown["calls"]),
        ("Entry", shown["entry"]),
        ("HTTP", shown["http"]),
        ("Metrics", shown["metrics"]),
        ("Root", shown["root"]),
    ):
        say(f"{name + ':':<9}{text or 'off'}")
    if "parts" not in shown:
        return
    say(f"Started: {shown['started']}; database {shown['database']}, vault {shown['vault']}")
    say(f"Open:    {shown['sessions']} card sessions, {shown['streams']} streams")
    say(f"Anchor:  {shown['anchor']}")
    say()
    rows = [
        (one["name"], "good" if one["good"] else "BAD", one["code"], str(one["failures"]), one["done"])
        for one in shown["parts"]
    ]
    show_table(rows, ("PART", "STATE", "CODE", "FAILURES", "LAST DONE"))
    say()
    alarms = ("", "late", "ENDS")
    kept = [(one["kind"], one["name"], one["ends"], alarms[min(one["alarm"], 2)]) for one in shown["certificates"]]
    show_table(kept, ("CERTIFICATE OF", "NAME", "ENDS", "ALARM"))
