"""``cardwright server operator``: operators of a running server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cardwright_proto.cms.v1 import operators_pb2 as pb
from cardwright_proto.cms.v1.operators_pb2_grpc import OperatorServiceStub

from . import server_admin_lookup as lookup
from .output import json_option, say, show_json, show_table
from .server_admin_link import FOLDER, ServerLine, connected
from .server_admin_words import chosen, document, numbers, show_one, text
from .server_operator_file import NewOperatorFile, plain

_HEAD = ("LABEL", "KIND", "ACTIVE", "ROLES", "KEYS", "ID")


@click.group("operator")
def command() -> None:
    """Operators: accounts, their keys and roles. An operator is named by id or label."""


@command.command("list")
@json_option
@connected
def list_operators(line: ServerLine, as_json: bool) -> None:
    """List operators."""
    find = pb.FindOperatorsRequest()
    found = line.pages(lambda channel: OperatorServiceStub(channel).Find, find, "operators")
    if as_json:
        show_json({"operators": [document(one) for one in found]})
        return
    rows = []
    for one in found:
        told = document(one)
        keys = str(len(one.keys))
        rows.append((one.label, text(told["kind"]), text(one.active), text(told["grants"]), keys, one.id))
    show_table(rows, _HEAD)


@command.command("add")
@click.argument("label")
@click.option("--person", default="", help="Who is behind it (id or login); without it the account is a service's.")
@json_option
@connected
def add(line: ServerLine, label: str, person: str, as_json: bool) -> None:
    """Add the account LABEL, without keys and roles."""
    request = pb.CreateOperatorRequest(
        kind=pb.ACCOUNT_KIND_PERSON if person else pb.ACCOUNT_KIND_SERVICE,
        person=lookup.person(line, person) if person else "",
        label=label,
    )
    show_one(document(line.call(lambda channel: OperatorServiceStub(channel).Create, request)), as_json=as_json)


@command.command("add-key")
@click.argument("operator")
@click.option("--request", "request_file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="A certificate request (PKCS #10) by a key that they have; else a key is made.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Where key and certificates go; without it operators/OPERATOR.pem in the data folder.")  # fmt: skip
@connected
def add_key(line: ServerLine, operator: str, request_file: Path | None, out: Path | None) -> None:
    """Let OPERATOR connect by a key. The file lets its owner act as the operator: give it to them and keep no copy."""
    identifier = lookup.operator(line, operator)
    file = NewOperatorFile(out or line.folder / FOLDER / f"{plain(operator)}.pem", request_file)
    request = pb.AddOperatorKeyRequest(operator=identifier, certificate_request=file.request)
    with file.asking():
        made = line.call(lambda channel: OperatorServiceStub(channel).AddKey, request)
    file.finish((made.certificate, *made.chain))
    say(f"{'Key and certificates are' if file.holds_key else 'The certificates are'} in {file.target}.")


@command.command("remove-key")
@click.argument("operator")
@click.argument("key")
@json_option
@connected
def remove_key(line: ServerLine, operator: str, key: str, as_json: bool) -> None:
    """Let OPERATOR connect no more by KEY: the SHA-256 in hexadecimal, as 'operator list --json' shows it."""
    try:
        spki = bytes.fromhex(key)
    except ValueError:
        raise click.BadParameter("KEY is not hexadecimal.") from None
    request = pb.RemoveOperatorKeyRequest(operator=lookup.operator(line, operator), spki=spki)
    show_one(document(line.call(lambda channel: OperatorServiceStub(channel).RemoveKey, request)), as_json=as_json)


def _role_options(function: Any) -> Any:
    group = click.option("--group", default="", help="Over the members of this group only (id or name).")
    branch = click.option("--branch", default="", help="Over persons below this place of the directory only (DN).")
    return group(branch(function))


@command.command("grant")
@click.argument("operator")
@click.argument("role", type=chosen(pb.Role))
@_role_options
@json_option
@connected
def grant(line: ServerLine, operator: str, role: str, group: str, branch: str, as_json: bool) -> None:
    """Give OPERATOR the ROLE, over everyone unless told otherwise."""
    request = pb.GrantRequest(operator=lookup.operator(line, operator), grant=_grant(line, role, group, branch))
    show_one(document(line.call(lambda channel: OperatorServiceStub(channel).Grant, request)), as_json=as_json)


@command.command("withdraw")
@click.argument("operator")
@click.argument("role", type=chosen(pb.Role))
@_role_options
@json_option
@connected
def withdraw(line: ServerLine, operator: str, role: str, group: str, branch: str, as_json: bool) -> None:
    """Take the ROLE from OPERATOR, as it was given; the very next call is refused."""
    request = pb.WithdrawRequest(operator=lookup.operator(line, operator), grant=_grant(line, role, group, branch))
    show_one(document(line.call(lambda channel: OperatorServiceStub(channel).Withdraw, request)), as_json=as_json)


@command.command("close")
@click.argument("operator")
@json_option
@connected
def close(line: ServerLine, operator: str, as_json: bool) -> None:
    """Close the account OPERATOR."""
    _active(line, operator, False, as_json)


@command.command("open")
@click.argument("operator")
@json_option
@connected
def reopen(line: ServerLine, operator: str, as_json: bool) -> None:
    """Open the account OPERATOR again."""
    _active(line, operator, True, as_json)


def _active(line: ServerLine, operator: str, active: bool, as_json: bool) -> None:
    request = pb.SetOperatorActiveRequest(operator=lookup.operator(line, operator), active=active)
    show_one(document(line.call(lambda channel: OperatorServiceStub(channel).SetActive, request)), as_json=as_json)


def _grant(line: ServerLine, role: str, group: str, branch: str) -> pb.Grant:
    if group and branch:
        raise click.UsageError("Give one of --group and --branch.")
    made = pb.Grant(role=numbers(pb.Role, [role])[0])
    if group:
        made.group = lookup.group(line, group)
    elif branch:
        made.branch = branch
    else:
        made.everywhere = True
    return made
