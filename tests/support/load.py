"""An installation on PostgreSQL that has many cards: what load is put on, in tests and in bench."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cardwright_proto.cms.v1 import (
    authentication_pb2,
    authentication_pb2_grpc,
    devices_pb2,
    devices_pb2_grpc,
    people_pb2,
    people_pb2_grpc,
    requests_pb2,
    requests_pb2_grpc,
)
from tests.support.databases import PostgreSql
from tests.support.front_desk import POLICY_GROUP, Desk
from tests.support.installation import ON_FREE_PORTS, PATIENCE, Process, Site, a_folder, enrol_first, founded

LIMITS = """
[limits.workstation]
burst = 1000
per_second = 1000

[limits.operator]
burst = 5000
per_second = 1000
"""
"""Load comes from few workstations and one operator; how much one may ask is not what is measured."""
_MANY = """
WITH made AS (
    INSERT INTO device (id, org, created_at, kind, serial, state, reason, person, policy_number, temporary, guid, life,
                        card_locked, issued_at, expires_at, disposition, changed_at, version)
    SELECT gen_random_uuid(), '{org}', now(), 'smart-card', 'L' || number, 'issued', '', gen_random_uuid(), 1, false,
           gen_random_uuid(), 1, false, now(), now() + interval '1000 days', '', now(), 1
    FROM generate_series(1, {count}) AS number
    RETURNING id
), due AS (
    INSERT INTO device_due (id, org, created_at, device, what, due_at, ends_at, detail, changed_at, version)
    SELECT gen_random_uuid(), '{org}', now(), id, 'renewal', now() + interval '300 days', now() + interval '330 days',
           '{{}}', now(), 1
    FROM made
)
INSERT INTO card_key (id, org, created_at, session, device, slot, fingerprint, public_key, origin, life)
SELECT gen_random_uuid(), '{org}', now(), gen_random_uuid(), id, 158, repeat('0', 64), '\\x{key}', 'unproven', 1
FROM made
"""

_STATEMENT = re.compile(r"(?P<database>\S+) \[(?P<process>\d+)\] LOG:  (?:statement|execute [^:]*): (?P<statement>.*)")
_PARAMETERS = re.compile(r"(?P<database>\S+) \[(?P<process>\d+)\] DETAIL:  (?P<parameters>parameters: .*)")
_HEAD = re.compile(r"\S* \[\d+\] ")


@contextmanager
def site_on(server: PostgreSql, more: str = "") -> Iterator[tuple[Site, str]]:
    """A running installation with its first two operators on a new database of ``server``; also the name of that.

    ``more``: further sections of its configuration.
    """
    name = server.create()
    configuration = f'{ON_FREE_PORTS}\n[database]\nurl = "{server.url(name)}"\n{more}'
    with a_folder() as data:
        credential = founded(data, configuration)
        process = Process(data).start()
        try:
            for role, login in (("administrator", "ann"), ("security-officer", "sam")):
                said = enrol_first(data, credential, role, login)
                assert said.code == 0, said.err
            yield Site.of(process, credential), name
        finally:
            process.stop()


def many_cards(server: PostgreSql, name: str, count: int, key: ec.EllipticCurvePublicKey) -> list[UUID]:
    """Cards in use that all have ``key`` in 9E and nothing due for long; gives their card UUIDs."""
    org = server.sql("SELECT org FROM person LIMIT 1", name)
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    server.sql(_MANY.format(org=org, count=count, key=spki.hex()), name)
    server.sql("ANALYZE", name)
    return [UUID(row) for row in server.sql("SELECT guid FROM device WHERE serial LIKE 'L%'", name).splitlines()]


def to_issue(desk: Desk, count: int, first_serial: int) -> list[dict[str, Any]]:
    """Persons with a bound blank card, a request and an initial password each: lines for ``sim workstations --issue``.

    A card's number is counted from ``first_serial``.
    """
    here, found = desk.here, []
    with here.process.calls(here.administrator) as line, here.process.calls(desk.issuer) as counter:
        groups = people_pb2_grpc.GroupServiceStub(line)
        people = people_pb2_grpc.PersonServiceStub(line)
        devices = devices_pb2_grpc.DeviceServiceStub(counter)
        requests = requests_pb2_grpc.RequestServiceStub(counter)
        proofs = authentication_pb2_grpc.AuthenticationServiceStub(counter)
        (group,) = [
            one.id
            for one in groups.Find(people_pb2.FindGroupsRequest(), timeout=PATIENCE).groups
            if one.name == POLICY_GROUP
        ]
        for serial in range(first_serial, first_serial + count):
            login = f"l{uuid4().hex[:10]}"
            upn = people_pb2.PersonAttribute(name="userPrincipalName", values=[f"{login}@example.test"])
            person = people.Create(
                people_pb2.CreatePersonRequest(
                    login=login, display_name=login, mail=f"{login}@example.test", attributes=[upn]
                ),
                timeout=PATIENCE,
            ).id
            groups.AddMember(people_pb2.AddMemberRequest(group=group, person=person), timeout=PATIENCE)
            delivered = devices_pb2.DeliveredDevice(serial=str(serial))
            (device,) = devices.Register(
                devices_pb2.RegisterDevicesRequest(kind=devices_pb2.DEVICE_KIND_SMART_CARD, devices=[delivered]),
                timeout=PATIENCE,
            ).ids
            devices.Bind(devices_pb2.BindDeviceRequest(id=device, person=person), timeout=PATIENCE)
            made = requests.CreateIssuance(requests_pb2.CreateIssuanceRequest(device=device), timeout=PATIENCE)
            given = proofs.SetInitialPassword(
                authentication_pb2.SetInitialPasswordRequest(person=person), timeout=PATIENCE
            )
            found.append({"serial": serial, "request": made.request.id, "login": login, "password": given.password})
    return found


def write_tasks(path: Path, tasks: list[dict[str, Any]]) -> None:
    """As ``sim workstations --issue`` reads it."""
    path.touch(mode=0o600)
    path.write_text("".join(f"{json.dumps(one)}\n" for one in tasks))


@contextmanager
def transactions_of(server: PostgreSql, name: str) -> Iterator[list[list[str]]]:
    """What PostgreSQL itself logged for a database while inside, as lists of statements that belong together.

    Those between BEGIN and its end are one list; one without BEGIN is a list of its own. Only connections that begin
    after ``log_statements`` are seen.
    """
    start = server.log.stat().st_size
    found: list[list[str]] = []
    yield found
    with server.log.open("rb") as log:
        log.seek(start)
        text = log.read().decode(errors="replace")
    begun: dict[str, list[str]] = {}
    for process, said in _said(text, name):
        if said.startswith("BEGIN"):
            begun[process] = [said]
        elif process in begun:
            begun[process].append(said)
            if said.startswith(("COMMIT", "ROLLBACK")):
                found.append(begun.pop(process))
        else:
            found.append([said])


def _said(text: str, name: str) -> list[tuple[str, str]]:
    """(process, statement) of a database; lines without a head belong to the statement before them.

    What its parameters were follows a statement.
    """
    found: list[tuple[str, str]] = []
    ours = False
    for line in text.splitlines():
        told = _PARAMETERS.match(line)
        if told is not None and ours and told["process"] == found[-1][0]:
            found[-1] = found[-1][0], f"{found[-1][1]} {told['parameters']}"
        elif _HEAD.match(line):
            matched = _STATEMENT.match(line)
            ours = matched is not None and matched["database"] == name
            if matched is not None and ours:
                found.append((matched["process"], matched["statement"]))
        elif ours:
            found[-1] = found[-1][0], f"{found[-1][1]} {line.strip()}"
    return found


def log_statements(server: PostgreSql, name: str) -> None:
    """From the next connection on."""
    server.sql(f"ALTER DATABASE {name} SET log_statement = 'all'")
