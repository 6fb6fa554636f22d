"""``cardwright server user``: persons and groups of a running server."""

from __future__ import annotations

from typing import Any

import click

from cardwright_cardops.errors import CardwrightError
from cardwright_proto.cms.v1 import authentication_pb2
from cardwright_proto.cms.v1 import people_pb2 as pb
from cardwright_proto.cms.v1.authentication_pb2_grpc import AuthenticationServiceStub
from cardwright_proto.cms.v1.people_pb2_grpc import GroupServiceStub, PersonServiceStub

from . import server_admin_lookup as lookup
from .output import Progress, json_option, say, show_json, show_table
from .secrets import on_terminal
from .server_admin_link import ServerLine, connected
from .server_admin_words import document, moment, show_listing, show_one, text

_COLUMNS = {"LOGIN": "login", "NAME": "display_name", "MAIL": "mail", "STATUS": "status", "ID": "id"}
_REFUSED = {"LOGIN": "login", "CODE": "code", "REASON": "reason", "PLACE": "dn"}
_GROUPS = {"NAME": "name", "SOURCE": "source", "ID": "id"}
_reason = click.option("--reason", default="", help="For the record, in words; it is erased with the person.")


@click.group("user")
def command() -> None:
    """Persons and their groups. A person is named by id or login, a group by id or name."""


@command.command("list")
@click.argument("words", nargs=-1)
@json_option
@connected
def list_users(line: ServerLine, words: tuple[str, ...], as_json: bool) -> None:
    """List persons whose login, name or mail address hold all WORDS."""
    find = pb.FindPersonsRequest(text=" ".join(words))
    found = line.pages(lambda channel: PersonServiceStub(channel).Find, find, "persons")
    show_listing(found, "users", _COLUMNS, as_json=as_json)


@command.command("add")
@click.argument("login")
@click.option("--name", required=True, help="As it shall stand in certificates.")
@click.option("--mail", default="", help="Mail address.")
@click.option("--attribute", "attributes", multiple=True, metavar="NAME=VALUE", help="May be repeated.")
@click.option("--group", "groups", multiple=True, help="A group to join; may be repeated.")
@json_option
@connected
def add(
    line: ServerLine, login: str, name: str, mail: str, attributes: tuple[str, ...], groups: tuple[str, ...],
    as_json: bool,
) -> None:  # fmt: skip
    """Add a person of the server's own store."""
    joined = [lookup.group(line, group) for group in groups]
    request = pb.CreatePersonRequest(login=login, display_name=name, mail=mail, attributes=_attributes(attributes))
    made = line.call(lambda channel: PersonServiceStub(channel).Create, request)
    for group in joined:
        line.call(lambda channel: GroupServiceStub(channel).AddMember, pb.AddMemberRequest(group=group, person=made.id))
    show_one(document(made), as_json=as_json)


@command.command("import")
@click.argument("login", required=False)
@click.option("--all", "everybody", is_flag=True, help="Everybody whom your rights reach in the directory.")
@click.option("--group", default="", help="Who is in this group of the directory (name or distinguished name).")
@click.option("--under", default="", metavar="DN", help="Only who is at or below this place.")
@json_option
@connected
def import_user(
    line: ServerLine, login: str | None, everybody: bool, group: str, under: str, as_json: bool
) -> None:
    """Take over the person LOGIN from the directory, or everybody, or refresh who is known.

    Of many, one who is refused stops nobody else, and is listed with the reason. What was done before it breaks off
    stays; repeat it then: who is known and unchanged stays untouched.
    """
    if (login is not None) + everybody + bool(group) != 1:
        raise click.UsageError("Give a LOGIN, or --all, or --group.")
    if login is None:
        _import_all(line, pb.ImportAllPersonsRequest(under=under, group_name=group), as_json)
        return
    if under:
        raise click.UsageError("--under belongs to --all and --group.")
    request = pb.ImportPersonRequest(login=login)
    show_one(document(line.call(lambda channel: PersonServiceStub(channel).Import, request)), as_json=as_json)


def _import_all(line: ServerLine, request: pb.ImportAllPersonsRequest, as_json: bool) -> None:
    progress, refused, last = Progress(quiet=as_json), [], pb.ImportAllPersonsResponse()
    try:
        for number, last in enumerate(line.parts(lambda channel: PersonServiceStub(channel).ImportAll, request), 1):
            progress(number, _imported(last))
            refused += [document(entry) for entry in last.entries]
    except CardwrightError:
        progress.end()
        say(f"Before it broke off: {_imported(last)}.", err=True)
        raise
    progress.end()
    if as_json:
        numbers = {"added": last.added, "changed": last.changed, "unchanged": last.unchanged}
        show_json({**numbers, "refused": refused})
        return
    say(f"{_imported(last)}.")
    if refused:
        show_table([[text(entry[column]) for column in _REFUSED.values()] for entry in refused], list(_REFUSED))


def _imported(step: pb.ImportAllPersonsResponse) -> str:
    return f"{step.added} new, {step.changed} changed, {step.unchanged} known, {step.refused} refused"


@command.command("show")
@click.argument("user")
@json_option
@connected
def show(line: ServerLine, user: str, as_json: bool) -> None:
    """Show the person USER and their groups."""
    get = pb.GetPersonRequest(id=lookup.person(line, user))
    found = line.call(lambda channel: PersonServiceStub(channel).Get, get)
    groups: list[object] = [document(one) if as_json else one.name for one in found.groups]
    show_one({**document(found.person), "groups": groups}, as_json=as_json)


@command.command("password")
@click.argument("user")
@click.option("--emergency", "request_id", metavar="REQUEST",
              help="For the request to unlock with this id, ten minutes; else for the first card.")  # fmt: skip
@json_option
@connected
def password(line: ServerLine, user: str, request_id: str | None, as_json: bool) -> None:
    """Print a new password by which the person USER proves who they are; an older one is void.

    It is shown here and never again.
    """
    person = lookup.person(line, user)
    made = (
        line.call(
            lambda channel: AuthenticationServiceStub(channel).SetInitialPassword,
            authentication_pb2.SetInitialPasswordRequest(person=person),
        )
        if request_id is None
        else line.call(
            lambda channel: AuthenticationServiceStub(channel).SetEmergencyPassword,
            authentication_pb2.SetEmergencyPasswordRequest(person=person, request=request_id),
        )
    )
    if as_json:
        show_json(document(made))
        return
    say(made.password)
    say(f"Good until {moment(made.expires_at)}.", err=True)


@command.command("suspend")
@click.argument("user")
@_reason
@json_option
@connected
def suspend(line: ServerLine, user: str, reason: str, as_json: bool) -> None:
    """Suspend the person USER, and every device of theirs."""
    _status(line, user, pb.PERSON_STATUS_SUSPENDED, reason, as_json)


@command.command("resume")
@click.argument("user")
@_reason
@json_option
@connected
def resume(line: ServerLine, user: str, reason: str, as_json: bool) -> None:
    """Take the person USER back."""
    _status(line, user, pb.PERSON_STATUS_ACTIVE, reason, as_json)


@command.command("left")
@click.argument("user")
@_reason
@json_option
@connected
def left(line: ServerLine, user: str, reason: str, as_json: bool) -> None:
    """Record that the person USER left for good: their devices are terminated."""
    _status(line, user, pb.PERSON_STATUS_LEFT, reason, as_json)


@command.command("erase")
@click.argument("user")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connected
def erase(line: ServerLine, user: str, yes: bool) -> None:
    """Remove the person USER, who left. Ids in records of others then name nobody."""
    identifier = lookup.person(line, user)
    if not yes and not on_terminal():
        raise click.UsageError("Without a terminal --yes is needed.")
    if not yes:
        click.confirm(f"Erase {user} for good?", abort=True, err=True)
    line.call(lambda channel: PersonServiceStub(channel).Erase, pb.ErasePersonRequest(id=identifier))
    say(f"{user} is erased.")


@command.command("groups")
@json_option
@connected
def list_groups(line: ServerLine, as_json: bool) -> None:
    """List groups."""
    found = line.pages(lambda channel: GroupServiceStub(channel).Find, pb.FindGroupsRequest(), "groups")
    show_listing(found, "groups", _GROUPS, as_json=as_json)


@command.command("add-group")
@click.argument("name")
@json_option
@connected
def add_group(line: ServerLine, name: str, as_json: bool) -> None:
    """Add the group NAME; one that is there is shown."""
    request = pb.CreateGroupRequest(name=name)
    show_one(document(line.call(lambda channel: GroupServiceStub(channel).Create, request)), as_json=as_json)


@command.command("join")
@click.argument("user")
@click.argument("group")
@connected
def join(line: ServerLine, user: str, group: str) -> None:
    """Put the person USER into GROUP."""
    request = pb.AddMemberRequest(group=lookup.group(line, group), person=lookup.person(line, user))
    line.call(lambda channel: GroupServiceStub(channel).AddMember, request)
    say(f"{user} is in {group}.")


@command.command("part")
@click.argument("user")
@click.argument("group")
@connected
def part(line: ServerLine, user: str, group: str) -> None:
    """Take the person USER out of GROUP."""
    request = pb.RemoveMemberRequest(group=lookup.group(line, group), person=lookup.person(line, user))
    line.call(lambda channel: GroupServiceStub(channel).RemoveMember, request)
    say(f"{user} is not in {group}.")


def _status(line: ServerLine, user: str, status: Any, reason: str, as_json: bool) -> None:
    request = pb.SetPersonStatusRequest(id=lookup.person(line, user), status=status, reason=reason)
    show_one(document(line.call(lambda channel: PersonServiceStub(channel).SetStatus, request)), as_json=as_json)


def _attributes(given: tuple[str, ...]) -> list[pb.PersonAttribute]:
    values: dict[str, list[str]] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not name or not equals:
            raise click.UsageError("--attribute wants NAME=VALUE.")
        values.setdefault(name, []).append(value)
    return [pb.PersonAttribute(name=name, values=row) for name, row in values.items()]
