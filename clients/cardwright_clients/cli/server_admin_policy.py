"""``cardwright server policy``: device policies of a running server."""

from __future__ import annotations

from pathlib import Path

import click

from cardwright_proto.cms.v1 import policies_pb2 as pb
from cardwright_proto.cms.v1.policies_pb2_grpc import PolicyServiceStub

from .files import read_bounded
from .output import json_option, say, show_json
from .server_admin_link import ServerLine, connected
from .server_admin_lookup import group as group_named
from .server_admin_lookup import version as version_named
from .server_admin_words import chosen, document, numbers, show_listing, show_one

MAX_DOCUMENT = 64 * 1024
_COLUMNS = {"NAME": "name", "VERSION": "number", "STATE": "state", "PUBLISHED": "published_at", "ID": "id"}


@click.group("policy")
def command() -> None:
    """Device policies: list, draft, publish, assign.

    A version is named by its id, NAME@NUMBER or NAME.
    """


@command.command("list")
@click.option("--name", default="", help="Versions of this policy only.")
@click.option("--state", "states", multiple=True, type=chosen(pb.PolicyState), help="In this state; may be repeated.")
@json_option
@connected
def list_policies(line: ServerLine, name: str, states: tuple[str, ...], as_json: bool) -> None:
    """List versions of policies."""
    find = pb.FindPoliciesRequest(name=name, states=numbers(pb.PolicyState, states))
    found = line.pages(lambda channel: PolicyServiceStub(channel).Find, find, "versions")
    show_listing(found, "versions", _COLUMNS, as_json=as_json)


@command.command("show")
@click.argument("version")
@click.option("--text", "only_text", is_flag=True, help="Print the document alone.")
@json_option
@connected
def show(line: ServerLine, version: str, only_text: bool, as_json: bool) -> None:
    """Show VERSION with its document; of a NAME the one in force, else the newest draft."""
    states = (pb.POLICY_STATE_PUBLISHED, pb.POLICY_STATE_DRAFT, pb.POLICY_STATE_SUPERSEDED)
    get = pb.GetPolicyRequest(id=version_named(line, version, *states))
    found = line.call(lambda channel: PolicyServiceStub(channel).Get, get)
    told = {**document(found.version), "groups": list(found.groups)}
    if as_json:
        show_json({**told, "text": found.text})
        return
    if not only_text:
        show_one(told, as_json=False)
        say()
    for row in found.text.splitlines():
        say(row)


@command.command("draft")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--shipped", default="", metavar="NAME", help="The policy NAME that comes with the program.")
@click.option("--discard", default="", metavar="VERSION", help="Give this draft up instead.")
@json_option
@connected
def draft(line: ServerLine, file: Path | None, shipped: str, discard: str, as_json: bool) -> None:
    """Write down a new version from FILE ("-" is standard input). Another person publishes it."""
    if sum(map(bool, (file, shipped, discard))) != 1:
        raise click.UsageError("Give one of FILE, --shipped and --discard.")
    if file is not None:
        try:
            request = pb.DraftPolicyRequest(text=read_bounded(file, MAX_DOCUMENT).decode())
        except UnicodeDecodeError:
            raise click.UsageError("FILE is not UTF-8.") from None
    elif shipped:
        request = pb.DraftPolicyRequest(shipped=shipped)
    else:
        request = pb.DraftPolicyRequest(discard=version_named(line, discard, pb.POLICY_STATE_DRAFT))
    show_one(document(line.call(lambda channel: PolicyServiceStub(channel).Draft, request)), as_json=as_json)


@command.command("publish")
@click.argument("version")
@json_option
@connected
def publish(line: ServerLine, version: str, as_json: bool) -> None:
    """Put VERSION in force; of a NAME the newest draft. Who drafted it may not."""
    request = pb.PublishPolicyRequest(id=version_named(line, version, pb.POLICY_STATE_DRAFT))
    show_one(document(line.call(lambda channel: PolicyServiceStub(channel).Publish, request)), as_json=as_json)


@command.command("assign")
@click.argument("name")
@click.argument("group")
@click.option("--withdraw", is_flag=True, help="Let it apply no more; devices keep what they have.")
@connected
def assign(line: ServerLine, name: str, group: str, withdraw: bool) -> None:
    """Let the policy NAME apply to the members of GROUP (name or id)."""
    request = pb.AssignPolicyRequest(name=name, group=group_named(line, group), withdraw=withdraw)
    line.call(lambda channel: PolicyServiceStub(channel).Assign, request)
    say(f"The policy {name} applies to {group}{' no more' if withdraw else ''}.")
