"""Requests made by descriptor: a plausible one for every procedure, and every place in it where an id stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final
from uuid import UUID

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from tests.support.api import PACKAGE, message_of

Path = tuple[str, ...]

KINDS: Final[Mapping[str, str]] = {
    "person": "person",
    "group": "group",
    "device": "device",
    "request": "request",
    "replacement": "request",
    "operator": "operator",
    "lot": "lot",
    "key": "key",
    "keys": "key",
    "offer": "offer",
    "question": "question",
    "discard": "policy",
    "target": "person",
    "who": "person",
    "session": "session",
    "correlation": "session",
    "guid": "guid",
}
"""Names of text fields that hold a UUID, and of what kind; besides ``id`` and what ends in ``_id`` or ``_ids``."""
KINDS_AT: Final[Mapping[tuple[str, str], str]] = {
    ("AuthenticationService.SetEmergencyPassword", "request"): "unlock",
    ("DeviceService.ReleasePuk", "request"): "unlock",
    ("DeviceService.Terminate", "request"): "termination",
    ("EscrowService.Recover", "request"): "recovery",
}
"""Places where only a certain thing of a kind gets far."""
SERVICES: Final[Mapping[str, str]] = {
    "PersonService": "person",
    "GroupService": "group",
    "DeviceService": "device",
    "RequestService": "request",
    "PolicyService": "policy",
    "CertificateService": "certificate",
    "WorkstationService": "workstation",
}
"""What ``id`` names in a service's requests."""
TEXTS: Final = frozenset(
    {
        "vault_passphrase",
        "backup_passphrase",
        "action",
        "anchors",
        "since",
        "body",
        "branch",
        "credential",
        "display_name",
        "event",
        "group_name",
        "host",
        "items",
        "label",
        "login",
        "mail",
        "name",
        "page_token",
        "password",
        "policy",
        "reader",
        "reason",
        "remark",
        "serial",
        "shipped",
        "software",
        "steps",
        "subject",
        "text",
        "texts",
        "token",
        "under",
        "values",
    }
)
"""Names of text fields that hold no id. A new name is put here, or into KINDS: no other text is sent to the server."""
SAMPLES: Final[Mapping[str, Any]] = {
    "login": "newcomer",
    "label": "label",
    "host": "host.example.org",
    "name": "name",
    "protocol": 1,
    "version": 1,
}
"""What goes into fields of these names; others are left empty, except where a procedure is named in OVERRIDES."""


def kind_of(method: MethodDescriptor, field: Any) -> str | None:
    """What kind of thing a text field names; None for plain text. Fails for a name that nobody declared."""
    if field.type != FieldDescriptor.TYPE_STRING or field.name in TEXTS:
        return None
    if field.name == "id":
        return SERVICES[method.containing_service.name]
    for ending in ("_id", "_ids"):
        if field.name.endswith(ending):
            return KINDS[field.name.removesuffix(ending)]
    assert field.name in KINDS, f"declare {field.full_name} in KINDS or TEXTS of tests/support/probes.py"
    return KINDS[field.name]


def id_places(method: MethodDescriptor) -> list[tuple[Path, str]]:
    """Every place in a procedure's requests where an id stands, with the kind of thing it names."""
    return [
        (path, KINDS_AT.get((f"{method.containing_service.name}.{method.name}", ".".join(path)), kind))
        for path, field in _text_fields(method.input_type, ())
        if (kind := kind_of(method, field)) is not None
    ]


def _text_fields(message: Any, before: Path) -> Iterator[tuple[Path, Any]]:
    for field in message.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            yield (*before, field.name), field
        elif _ours(field) and len(before) < 6:
            yield from _text_fields(field.message_type, (*before, field.name))


def _ours(field: Any) -> bool:
    return field.message_type is not None and field.message_type.file.package == PACKAGE


def sample(method: MethodDescriptor, ids: Mapping[str, UUID], overrides: Mapping[str, Any]) -> Message:
    """A request with the first value of every enum, an id of every thing, and what ``overrides`` says by path."""
    made = message_of(method)
    if "page_token" not in made.DESCRIPTOR.fields_by_name:  # what a listing is asked for would only narrow it
        _fill(method, made, ids, overrides, ())
    return made


def _fill(
    method: MethodDescriptor, made: Message, ids: Mapping[str, UUID], overrides: Mapping[str, Any], before: Path
) -> None:
    fields: Any = made.DESCRIPTOR.fields
    for field in fields:
        path = (*before, field.name)
        name = ".".join(path)
        if name in overrides:
            if overrides[name] is not None:
                _put(made, field, overrides[name])
        elif field.containing_oneof is not None and field.containing_oneof.fields[0] is not field:
            continue
        elif (kind := KINDS_AT.get((f"{method.containing_service.name}.{method.name}", name))) is not None:
            _put(made, field, str(ids[kind]))
        elif (kind := kind_of(method, field)) is not None:
            _put(made, field, str(ids[kind]) if kind in ids else "")
        elif field.type == FieldDescriptor.TYPE_ENUM:
            _put(made, field, field.enum_type.values[1].number)
        elif field.name in SAMPLES:
            _put(made, field, SAMPLES[field.name])
        elif _ours(field) and len(path) < 6:
            part = getattr(made, field.name).add() if field.is_repeated else getattr(made, field.name)
            part.SetInParent()
            _fill(method, part, ids, overrides, path)


def _put(made: Message, field: Any, value: Any) -> None:
    if field.is_repeated:
        getattr(made, field.name).extend(value if isinstance(value, list) else [value])
    elif field.message_type is not None:
        getattr(made, field.name).CopyFrom(value)
    else:
        setattr(made, field.name, value)


def with_id(request: Message, path: Path, value: str) -> Message:
    """A copy of a request, with another text in one place."""
    made = type(request)()
    made.CopyFrom(request)
    part: Any = made
    for name in path[:-1]:
        held = getattr(part, name)
        repeated = part.DESCRIPTOR.fields_by_name[name].is_repeated
        part = (held[0] if len(held) else held.add()) if repeated else held
    field = part.DESCRIPTOR.fields_by_name[path[-1]]
    if field.is_repeated:
        del getattr(part, field.name)[:]
        getattr(part, field.name).append(value)
    else:
        setattr(part, field.name, value)
    return made
