"""``cardwright server device``: devices of a running server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cardwright_proto.cms.v1 import devices_pb2 as pb
from cardwright_proto.cms.v1.devices_pb2_grpc import DeviceServiceStub

from . import server_admin_lookup as lookup
from . import server_admin_secrets as secrets
from .output import json_option, say, show_json
from .server_admin_link import ServerLine, connected
from .server_admin_words import choices, chosen, document, numbers, show_listing, show_one, show_steps

_COLUMNS = {
    "SERIAL": "serial",
    "KIND": "kind",
    "STATE": "state",
    "REASON": "reason",
    "LOCKED": "card_locked",
    "PERSON": "person",
    "ID": "id",
}
_LOTS = {"NAME": "name", "KIND": "kind", "SOURCE": "source", "DERIVATION": "derivation", "ID": "id"}
_INCIDENTS = ("forgotten", "damaged", "lost", "stolen")
_HOLDS = ("operator", "investigation")
_AT_ONCE = 1000
_kind = click.option(
    "--kind", type=chosen(pb.DeviceKind), default="smart-card", show_default=True, help="What the devices are."
)
_remark = click.option("--remark", default="", help="For the record; at most 500 characters.")
_hold = click.option("--hold", type=click.Choice(_HOLDS), default="operator", show_default=True, help="Which hold.")


@click.group("device")
def command() -> None:
    """Devices: stock, holders, suspension, incidents, ends.

    A device is named by its id or its serial number, a person by id or login.
    """


@command.command("list")
@click.option("--person", default="", help="Of this person only.")
@click.option("--state", "states", multiple=True, type=chosen(pb.DeviceState), help="In this state; may be repeated.")
@click.option("--serial", default="", help="With this serial number only.")
@json_option
@connected
def list_devices(line: ServerLine, person: str, states: tuple[str, ...], serial: str, as_json: bool) -> None:
    """List devices."""
    find = pb.FindDevicesRequest(
        person=lookup.person(line, person) if person else "", states=numbers(pb.DeviceState, states), serial=serial
    )
    found = line.pages(lambda channel: DeviceServiceStub(channel).Find, find, "devices")
    show_listing(found, "devices", _COLUMNS, as_json=as_json)


@command.command("show")
@click.argument("device")
@json_option
@connected
def show(line: ServerLine, device: str, as_json: bool) -> None:
    """Show DEVICE, its holds and its history."""
    get = pb.GetDeviceRequest(id=lookup.device(line, device))
    found = line.call(lambda channel: DeviceServiceStub(channel).Get, get)
    told = document(found)
    if as_json:
        show_json(told)
        return
    show_one({**document(found.device), "lock_ordered": told["lock_ordered"], "holds": told["holds"]}, as_json=False)
    say()
    show_steps(found.history)


@command.command("register")
@click.argument("serials", nargs=-1)
@click.option("--kind", type=chosen(pb.DeviceKind), help="What the devices are; else what the lot says, or smart-card.")
@click.option("--lot", default="", help="The lot that they belong to (id or name); else they have factory secrets.")
@click.option("--file", type=click.Path(path_type=Path, dir_okay=False),
              help="Devices with secrets (TOML): [[devices]] serial, pin, puk, management_key, scp03.")  # fmt: skip
@json_option
@connected
def register(
    line: ServerLine, serials: tuple[str, ...], kind: str | None, lot: str, file: Path | None, as_json: bool
) -> None:
    """Take the devices with these SERIALS, or those of --file, into stock: 1000 at a time, all of them or none.

    A PKCS#11 token is named by manufacturer and serial number as 'cardwright status' shows them, for example
    SoftHSM-project:1f2e3d4c5b6a7988.
    """
    if bool(serials) == (file is not None):
        raise click.UsageError("Give serial numbers, or --file.")
    devices = secrets.of_devices(file) if file is not None else [pb.DeliveredDevice(serial=one) for one in serials]
    request = pb.RegisterDevicesRequest(lot=lookup.lot(line, lot) if lot else "")
    if kind is not None or not lot:
        request.kind = numbers(pb.DeviceKind, [kind or "smart-card"])[0]
    made: list[dict[str, object]] = []
    for begin in range(0, len(devices), _AT_ONCE):
        part = devices[begin : begin + _AT_ONCE]
        del request.devices[:]
        request.devices.extend(part)
        answer = line.call(lambda channel: DeviceServiceStub(channel).Register, request)
        for one, identifier in zip(part, answer.ids, strict=True):
            made.append({"serial": one.serial, "id": identifier})
        if not as_json:
            for row in made[begin:]:
                say(f"{row['id']}  {row['serial']}")
    if as_json:
        show_json({"devices": made})


@command.command("lots")
@json_option
@connected
def lots(line: ServerLine, as_json: bool) -> None:
    """List lots: what was delivered, and where first secrets come from. The secrets are never shown."""
    found = line.pages(lambda channel: DeviceServiceStub(channel).FindLots, pb.FindLotsRequest(), "lots")
    show_listing(found, "lots", _LOTS, as_json=as_json)


@command.command("register-lot")
@click.argument("name")
@_kind
@click.option("--source", type=chosen(pb.SecretSource), required=True, help="Where first secrets come from.")
@click.option("--secrets", "file", type=click.Path(path_type=Path, dir_okay=False),
              help="What they share (TOML): pin, puk, management_key, scp03.")  # fmt: skip
@click.option("--derivation", type=chosen(pb.SecretDerivation), help="How secrets come from the vendor's master key.")
@json_option
@connected
def register_lot(
    line: ServerLine, name: str, kind: str, source: str, file: Path | None, derivation: str | None, as_json: bool
) -> None:
    """Add the lot NAME. Its secrets are sealed by the server's vault and never shown again.

    A vendor's master key is imported into the vault under the id of the lot: 'vault admin import-vendor-master'.
    """
    request = pb.RegisterLotRequest(
        name=name,
        kind=numbers(pb.DeviceKind, [kind])[0],
        source=numbers(pb.SecretSource, [source])[0],
        secrets=secrets.of_lot(file) if file is not None else [],
    )
    if derivation is not None:
        request.derivation = numbers(pb.SecretDerivation, [derivation])[0]
    show_one(document(line.call(lambda channel: DeviceServiceStub(channel).RegisterLot, request)), as_json=as_json)


@command.command("bind")
@click.argument("device")
@click.argument("person")
@click.option("--policy", default="", help="Name of the policy, where several fit.")
@click.option("--replacement", default="", help="Id of the approved replacement that it shall fulfil.")
@json_option
@connected
def bind(line: ServerLine, device: str, person: str, policy: str, replacement: str, as_json: bool) -> None:
    """Give DEVICE of the stock to PERSON."""
    request = pb.BindDeviceRequest(
        id=lookup.device(line, device), person=lookup.person(line, person), policy=policy, replacement=replacement
    )
    _did(line, lambda stub: stub.Bind, request, as_json)


@command.command("unbind")
@click.argument("device")
@json_option
@connected
def unbind(line: ServerLine, device: str, as_json: bool) -> None:
    """Put DEVICE, which nothing was written to, back to stock."""
    _did(line, lambda stub: stub.Unbind, pb.UnbindDeviceRequest(id=lookup.device(line, device)), as_json)


@command.command("suspend")
@click.argument("device")
@_hold
@click.option("--lock-card", is_flag=True, help="At its next contact its PIN is blocked, until it is given back.")
@_remark
@json_option
@connected
def suspend(line: ServerLine, device: str, hold: str, lock_card: bool, remark: str, as_json: bool) -> None:
    """Hold DEVICE; its certificates go on hold."""
    request = pb.SuspendDeviceRequest(
        id=lookup.device(line, device), hold=numbers(pb.HoldReason, [hold])[0], lock_card=lock_card, remark=remark
    )
    _did(line, lambda stub: stub.Suspend, request, as_json)


@command.command("resume")
@click.argument("device")
@_hold
@json_option
@connected
def resume(line: ServerLine, device: str, hold: str, as_json: bool) -> None:
    """Lift one hold of DEVICE. After the last one it is in use; a card that was locked is to get a new PIN."""
    request = pb.ResumeDeviceRequest(id=lookup.device(line, device), hold=numbers(pb.HoldReason, [hold])[0])
    _did(line, lambda stub: stub.Resume, request, as_json)


@command.command("report")
@click.argument("device")
@click.argument("incident", type=click.Choice(_INCIDENTS))
@_remark
@json_option
@connected
def report(line: ServerLine, device: str, incident: str, remark: str, as_json: bool) -> None:
    """DEVICE was forgotten, damaged, lost or stolen: out of use, and a replacement is asked for."""
    request = pb.ReportIncidentRequest(
        id=lookup.device(line, device), incident=numbers(pb.DeviceReason, [incident])[0], remark=remark
    )
    _did(line, lambda stub: stub.ReportIncident, request, as_json)


@command.command("terminate")
@click.argument("device")
@click.option("--reason", type=chosen(pb.DeviceReason), required=True, help="Why: its certificates are revoked so.")
@click.option("--disposition", type=chosen(pb.Disposition), required=True, help="What became of it.")
@click.option("--request", "request_id", default="", help="Id of the approved request, where two persons agree.")
@_remark
@json_option
@connected
def terminate(
    line: ServerLine, device: str, reason: str, disposition: str, request_id: str, remark: str, as_json: bool
) -> None:
    """End DEVICE: its certificates are revoked."""
    request = pb.TerminateDeviceRequest(
        id=lookup.device(line, device),
        reason=numbers(pb.DeviceReason, [reason])[0],
        disposition=numbers(pb.Disposition, [disposition])[0],
        request=request_id,
        remark=remark,
    )
    _did(line, lambda stub: stub.Terminate, request, as_json)


@command.command("recycle")
@click.argument("device")
@click.option("--found", is_flag=True, help="It was lost or stolen, and is at hand again.")
@json_option
@connected
def recycle(line: ServerLine, device: str, found: bool, as_json: bool) -> None:
    """Put DEVICE, which was wiped, back to stock."""
    request = pb.RecycleDeviceRequest(id=lookup.device(line, device), found=found)
    _did(line, lambda stub: stub.Recycle, request, as_json)


@command.command("dispose")
@click.argument("device")
@click.option("--disposition", type=chosen(pb.Disposition), default="destroyed", show_default=True)
@_remark
@json_option
@connected
def dispose(line: ServerLine, device: str, disposition: str, remark: str, as_json: bool) -> None:
    """DEVICE is gone for good. The remark says for instance who saw it."""
    request = pb.DisposeDeviceRequest(
        id=lookup.device(line, device), disposition=choices(pb.Disposition)[disposition],  # type: ignore[arg-type]
        remark=remark,
    )  # fmt: skip
    _did(line, lambda stub: stub.Dispose, request, as_json)


@command.command("release-puk")
@click.argument("device")
@click.argument("request_id", metavar="REQUEST")
@connected
def release_puk(line: ServerLine, device: str, request_id: str) -> None:
    """Print the PUK of DEVICE, whose unlock REQUEST a card session carries out now. Its holder is told."""
    request = pb.ReleasePukRequest(id=lookup.device(line, device), request=request_id)
    answer = line.call(lambda channel: DeviceServiceStub(channel).ReleasePuk, request)
    say(answer.puk.decode("ascii", "replace"))


def _did(line: ServerLine, method: Callable[[DeviceServiceStub], Any], request: Any, as_json: bool) -> None:
    answer = line.call(lambda channel: method(DeviceServiceStub(channel)), request)
    show_one(document(answer), as_json=as_json)
