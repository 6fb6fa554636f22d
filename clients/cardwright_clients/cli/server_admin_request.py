"""``cardwright server request``: requests of a running server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

from cardwright_proto.cms.v1 import devices_pb2
from cardwright_proto.cms.v1 import requests_pb2 as pb
from cardwright_proto.cms.v1.requests_pb2_grpc import RequestServiceStub

from . import server_admin_lookup as lookup
from .output import json_option, say, show_json
from .server_admin_link import ServerLine, connected
from .server_admin_words import chosen, document, numbers, show_listing, show_one, show_steps

_COLUMNS = {
    "KIND": "kind",
    "STATE": "state",
    "DEVICE": "device_serial",
    "PERSON": "person_login",
    "EXPIRES": "expires_at",
    "ID": "id",
}
_CREATE: Final[dict[str, tuple[type[Any], Callable[[RequestServiceStub], Any]]]] = {
    "issuance": (pb.CreateIssuanceRequest, lambda stub: stub.CreateIssuance),
    "replacement": (pb.CreateReplacementRequest, lambda stub: stub.CreateReplacement),
    "unlock": (pb.CreateUnlockRequest, lambda stub: stub.CreateUnlock),
    "update": (pb.CreateUpdateRequest, lambda stub: stub.CreateUpdate),
    "reissue": (pb.CreateReissueRequest, lambda stub: stub.CreateReissue),
    "terminate": (pb.CreateTerminationRequest, lambda stub: stub.CreateTermination),
    "recovery": (pb.CreateRecoveryRequest, lambda stub: stub.CreateRecovery),
    "recycle": (pb.CreateRecycleRequest, lambda stub: stub.CreateRecycle),
}
_WITH_REASON: Final = ("replacement", "terminate")


@click.group("request")
def command() -> None:
    """Requests: list, create, approve, deny, cancel."""


@command.command("list")
@click.option("--state", "states", multiple=True, type=chosen(pb.RequestState), help="In this state; may be repeated.")
@click.option("--kind", "kinds", multiple=True, type=chosen(pb.RequestKind), help="Of this kind; may be repeated.")
@click.option("--device", default="", help="About this device only (id or serial number).")
@click.option("--person", default="", help="About this person's devices only (id or login).")
@json_option
@connected
def list_requests(
    line: ServerLine, states: tuple[str, ...], kinds: tuple[str, ...], device: str, person: str, as_json: bool
) -> None:
    """List requests."""
    find = pb.FindRequestsRequest(
        states=numbers(pb.RequestState, states),
        kinds=numbers(pb.RequestKind, kinds),
        device=lookup.device(line, device) if device else "",
        person=lookup.person(line, person) if person else "",
    )
    found = line.pages(lambda channel: RequestServiceStub(channel).Find, find, "requests")
    show_listing(found, "requests", _COLUMNS, as_json=as_json)


@command.command("show")
@click.argument("request_id", metavar="REQUEST")
@json_option
@connected
def show(line: ServerLine, request_id: str, as_json: bool) -> None:
    """Show REQUEST (its id) and its history."""
    get = pb.GetRequestRequest(id=request_id)
    found = line.call(lambda channel: RequestServiceStub(channel).Get, get)
    if as_json:
        show_json(document(found))
        return
    show_one(document(found.request), as_json=False)
    say()
    show_steps(found.history)


@command.command("create")
@click.argument("kind", type=click.Choice(list(_CREATE)))
@click.argument("device")
@click.option("--reason", type=chosen(devices_pb2.DeviceReason), help="Of a replacement or a termination.")
@click.option("--found", is_flag=True, help="Of recycling: a lost or stolen device is at hand again.")
@click.option("--idempotency-key", default="", metavar="KEY",
              help="The same KEY again gives the same request, even after it was closed.")  # fmt: skip
@json_option
@connected
def create(
    line: ServerLine, kind: str, device: str, reason: str | None, found: bool, idempotency_key: str, as_json: bool
) -> None:
    """Ask that something be done with DEVICE (id or serial number)."""
    if reason is not None and kind not in _WITH_REASON:
        raise click.UsageError(f"--reason belongs to {' and '.join(_WITH_REASON)} only.")
    if found and kind != "recycle":
        raise click.UsageError("--found belongs to recycle only.")
    message, method = _CREATE[kind]
    request = message(device=lookup.device(line, device))
    if found:
        request.found = True
    if reason is not None:
        request.reason = numbers(devices_pb2.DeviceReason, [reason])[0]
    metadata = {"idempotency_key": idempotency_key} if idempotency_key else {}
    made = line.call(lambda channel: method(RequestServiceStub(channel)), request, **metadata)
    show_one({**document(made.request), "created": made.created}, as_json=as_json)


@command.command("approve")
@click.argument("request_id", metavar="REQUEST")
@json_option
@connected
def approve(line: ServerLine, request_id: str, as_json: bool) -> None:
    """Agree to REQUEST, which another person asked for."""
    _decided(line, lambda stub: stub.Approve, pb.ApproveRequestRequest(id=request_id), as_json)


@command.command("deny")
@click.argument("request_id", metavar="REQUEST")
@json_option
@connected
def deny(line: ServerLine, request_id: str, as_json: bool) -> None:
    """Refuse REQUEST."""
    _decided(line, lambda stub: stub.Deny, pb.DenyRequestRequest(id=request_id), as_json)


@command.command("cancel")
@click.argument("request_id", metavar="REQUEST")
@json_option
@connected
def cancel(line: ServerLine, request_id: str, as_json: bool) -> None:
    """Take REQUEST back, unless it is being carried out."""
    _decided(line, lambda stub: stub.Cancel, pb.CancelRequestRequest(id=request_id), as_json)


def _decided(line: ServerLine, method: Callable[[RequestServiceStub], Any], request: Any, as_json: bool) -> None:
    answer = line.call(lambda channel: method(RequestServiceStub(channel)), request)
    show_one(document(answer), as_json=as_json)
