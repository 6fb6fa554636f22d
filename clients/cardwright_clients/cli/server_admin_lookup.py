"""What a person names on the command line, as the server knows it: by UUID, or by the name that people use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from cardwright_cardops.errors import CardwrightError
from cardwright_proto.cms.v1 import (
    devices_pb2,
    devices_pb2_grpc,
    operators_pb2,
    operators_pb2_grpc,
    people_pb2,
    people_pb2_grpc,
    policies_pb2,
    policies_pb2_grpc,
    workstations_pb2,
    workstations_pb2_grpc,
)

from .server_admin_link import ServerLine


class NothingFits(CardwrightError):
    """A name that nothing has, or that several things have."""

    code = "NAME_UNKNOWN"
    default_effect = "Nothing was changed."
    default_advice = "List what there is, and give the id."


def device(line: ServerLine, text: str) -> str:
    """The id of a device, by id or serial number. Raises NothingFits."""
    if (known := _id(text)) is not None:
        return known
    find = devices_pb2.FindDevicesRequest(serial=text)
    found = line.pages(lambda channel: devices_pb2_grpc.DeviceServiceStub(channel).Find, find, "devices")
    return _only([one.id for one in found], "device", text)


def lot(line: ServerLine, text: str) -> str:
    """The id of a lot, by id or name; of names that differ only in case, by exactly that. Raises NothingFits."""
    if (known := _id(text)) is not None:
        return known
    find = devices_pb2.FindLotsRequest()
    found = list(line.pages(lambda channel: devices_pb2_grpc.DeviceServiceStub(channel).FindLots, find, "lots"))
    exactly = [one.id for one in found if one.name == text]
    return _only(exactly or [one.id for one in found if one.name.casefold() == text.casefold()], "lot", text)


def person(line: ServerLine, text: str) -> str:
    """The id of a person, by id or login. Raises NothingFits."""
    if (known := _id(text)) is not None:
        return known
    find = people_pb2.FindPersonsRequest(text=text)
    found = line.pages(lambda channel: people_pb2_grpc.PersonServiceStub(channel).Find, find, "persons")
    return _only([one.id for one in found if one.login.casefold() == text.casefold()], "person", text)


def group(line: ServerLine, text: str) -> str:
    """The id of a group, by id or name. Raises NothingFits."""
    if (known := _id(text)) is not None:
        return known
    find = people_pb2.FindGroupsRequest()
    found = line.pages(lambda channel: people_pb2_grpc.GroupServiceStub(channel).Find, find, "groups")
    return _only([one.id for one in found if one.name.casefold() == text.casefold()], "group", text)


def operator(line: ServerLine, text: str) -> str:
    """The id of an operator's account, by id or label. Raises NothingFits."""
    if (known := _id(text)) is not None:
        return known
    find = operators_pb2.FindOperatorsRequest()
    found = line.pages(lambda channel: operators_pb2_grpc.OperatorServiceStub(channel).Find, find, "operators")
    return _only([one.id for one in found if one.label.casefold() == text.casefold()], "operator", text)


def workstation(line: ServerLine, text: str) -> str:
    """The id of a workstation, by id, or by host of one that is not revoked. Raises NothingFits."""
    if (known := _id(text)) is not None:
        return known
    find = workstations_pb2.FindWorkstationsRequest()
    found = line.pages(lambda channel: workstations_pb2_grpc.WorkstationServiceStub(channel).Find, find, "workstations")
    standing = [one for one in found if one.state != workstations_pb2.STATION_STATE_REVOKED]
    return _only([one.id for one in standing if one.host.casefold() == text.casefold()], "workstation", text)


def version(line: ServerLine, text: str, *states: Any) -> str:
    """The id of a version of a policy: by id, NAME@NUMBER, or NAME, which means the newest in the first of ``states``
    that has one. Raises NothingFits."""
    if (known := _id(text)) is not None:
        return known
    name, at, number = text.partition("@")
    find = policies_pb2.FindPoliciesRequest(name=name)
    found = list(line.pages(lambda channel: policies_pb2_grpc.PolicyServiceStub(channel).Find, find, "versions"))
    if at:
        return _only([one.id for one in found if str(one.number) == number], "version", text)
    for state in states:
        fitting = [one for one in found if one.state == state]
        if fitting:
            return str(max(fitting, key=lambda one: one.number).id)
    raise NothingFits(f"There is no such version of a policy '{text}'.")


def _id(text: str) -> str | None:
    """``text`` if it is a UUID with its hyphens; 32 digits without may be a serial number."""
    try:
        made = str(UUID(text))
    except ValueError:
        return None
    return made if made == text.lower() else None


def _only(found: Sequence[str], what: str, text: str) -> str:
    if len(found) != 1:
        raise NothingFits(f"{'Several' if found else 'No'} {what}{'s have' if found else ' has'} the name '{text}'.")
    return found[0]
