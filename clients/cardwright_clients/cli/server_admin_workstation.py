"""``cardwright server workstation``: the workstations of a running server."""

from __future__ import annotations

import click

from cardwright_proto.cms.v1 import workstations_pb2 as pb
from cardwright_proto.cms.v1.workstations_pb2_grpc import WorkstationServiceStub

from . import server_admin_lookup as lookup
from .output import json_option, say, show_json
from .server_admin_link import ServerLine, connected
from .server_admin_words import chosen, document, moment, numbers, show_listing, show_one

_COLUMNS = {"HOST": "host", "CLASS": "station_class", "STATE": "state", "REVOKED": "revoked_at", "ID": "id"}


@click.group("workstation")
def command() -> None:
    """Workstations: tokens to enrol them, revocation. One is named by its id, or by its host unless it is revoked."""


@command.command("list")
@json_option
@connected
def list_workstations(line: ServerLine, as_json: bool) -> None:
    """List workstations."""
    found = line.pages(
        lambda channel: WorkstationServiceStub(channel).Find, pb.FindWorkstationsRequest(), "workstations"
    )
    show_listing(found, "workstations", _COLUMNS, as_json=as_json)


@command.command("token")
@click.argument("host")
@click.option("--class", "station_class", type=chosen(pb.StationClass), default="user", show_default=True,
              help="What it may see and do: the policies tell them apart.")  # fmt: skip
@json_option
@connected
def token(line: ServerLine, host: str, station_class: str, as_json: bool) -> None:
    """Make a token by which the workstation HOST is enrolled, once, within 24 hours.

    It is shown here and never again. On the workstation 'cardwright daemon enrol' asks for it.
    """
    request = pb.CreateTokenRequest(host=host, station_class=numbers(pb.StationClass, [station_class])[0])
    made = line.call(lambda channel: WorkstationServiceStub(channel).CreateToken, request)
    if as_json:
        show_json(document(made))
        return
    say(made.token)
    say(f"Good for {host}, once, until {moment(made.expires_at)}.", err=True)


@command.command("revoke")
@click.argument("workstation")
@click.option("--reason", default="revoked", show_default=True, metavar="CODE",
              help="For the record: letters, digits and hyphens.")  # fmt: skip
@json_option
@connected
def revoke(line: ServerLine, workstation: str, reason: str, as_json: bool) -> None:
    """Let WORKSTATION connect no more; what it has open ends within a minute."""
    request = pb.RevokeWorkstationRequest(id=lookup.workstation(line, workstation), reason=reason)
    done = line.call(lambda channel: WorkstationServiceStub(channel).Revoke, request)
    show_one(document(done), as_json=as_json)
