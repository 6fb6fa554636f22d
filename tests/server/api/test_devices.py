"""DeviceService over gRPC: lives of devices, sealed secrets of stock, and PUKs for the help desk."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from sqlalchemy import select

from cardwright_proto.cms.v1 import devices_pb2 as pb
from cardwright_server.api.devices import REASONS, SECRETS, SOURCES, STATES
from cardwright_server.authentication.model import Method
from cardwright_server.authentication.principal import Principal
from cardwright_server.devices.model import DeviceState, Reason, SecretName, SecretSource
from cardwright_server.devices.puk_desk import Contact
from cardwright_server.joins.recipients import PersonsConcerned
from cardwright_server.notify.mail import MailConsumer
from cardwright_server.notify.outbox import Dispatcher
from cardwright_server.people.model import Reach, Role, Scope
from cardwright_server.requests.model import RequestKind
from cardwright_server.store.audit_tables import audit_detail
from cardwright_server.store.notify_tables import mail, outbox
from cardwright_server.store.unit import Database
from cardwright_server.vault.model import Authorization, PukPurpose, VaultCard
from tests.support.lifecycles import as_operator
from tests.support.managed import Managed, managed
from tests.support.people import make_group, make_operator, make_person

MALFORMED = ("INVALID_ARGUMENT", "REQUEST_MALFORMED")


@pytest.fixture
async def served(database: Database, tmp_path: Path) -> AsyncIterator[Managed]:
    async with managed(database, tmp_path) as made:
        yield made


async def ask(served: Managed, method: str, request: Any, principal: Principal | None = None) -> Any:
    return await served.call(f"DeviceService.{method}", request, principal or served.world.issuer)


async def refused(
    served: Managed, method: str, request: Any, principal: Principal | None = None
) -> tuple[str, str]:
    return await served.refused(f"DeviceService.{method}", request, principal or served.world.issuer)


async def registered(served: Managed, *serials: str, **fields: Any) -> list[str]:
    devices = [pb.DeliveredDevice(serial=serial) for serial in serials]
    request = pb.RegisterDevicesRequest(kind=pb.DEVICE_KIND_SMART_CARD, devices=devices, **fields)
    return list((await ask(served, "Register", request)).ids)


async def test_a_life_from_stock_to_disposal(served: Managed) -> None:
    world = served.world
    (device,) = await registered(served, "S-1")
    person = await world.person()
    bound = await ask(served, "Bind", pb.BindDeviceRequest(id=device, person=str(person.id), policy="civ"))
    assert (bound.state, bound.person, bound.policy_number) == (pb.DEVICE_STATE_ASSIGNED, str(person.id), 1)
    back = await ask(served, "Unbind", pb.UnbindDeviceRequest(id=device))
    assert (back.state, back.person, back.policy) == (pb.DEVICE_STATE_STOCK, "", "")
    await ask(served, "Bind", pb.BindDeviceRequest(id=device, person=str(person.id)))
    await world.carried_out((await world.issuance(UUID(device))).id)
    held = await ask(
        served, "Suspend", pb.SuspendDeviceRequest(id=device, remark="on leave"), world.helper
    )
    assert held.state == pb.DEVICE_STATE_SUSPENDED
    await ask(served, "Suspend", pb.SuspendDeviceRequest(id=device, hold=pb.HOLD_REASON_INVESTIGATION), world.helper)
    shown = await ask(served, "Get", pb.GetDeviceRequest(id=device), world.helper)
    assert list(shown.holds) == [pb.HOLD_REASON_OPERATOR, pb.HOLD_REASON_INVESTIGATION]
    still = await ask(served, "Resume", pb.ResumeDeviceRequest(id=device), world.helper)
    assert still.state == pb.DEVICE_STATE_SUSPENDED
    resume = pb.ResumeDeviceRequest(id=device, hold=pb.HOLD_REASON_INVESTIGATION)
    assert (await ask(served, "Resume", resume, world.helper)).state == pb.DEVICE_STATE_ISSUED
    terminate = pb.TerminateDeviceRequest(
        id=device, reason=pb.DEVICE_REASON_NOT_NEEDED, disposition=pb.DISPOSITION_COLLECTED, remark="handed in"
    )
    ended = await ask(served, "Terminate", terminate, world.helper)
    assert (ended.state, ended.disposition) == (pb.DEVICE_STATE_TERMINATED, pb.DISPOSITION_COLLECTED)
    again = await ask(served, "Recycle", pb.RecycleDeviceRequest(id=device))
    assert (again.state, again.life, again.reason) == (pb.DEVICE_STATE_STOCK, 2, pb.DEVICE_REASON_RECYCLED)
    gone = await ask(served, "Dispose", pb.DisposeDeviceRequest(id=device, remark="seen by Bob"))
    assert (gone.state, gone.disposition) == (pb.DEVICE_STATE_DISPOSED, pb.DISPOSITION_DESTROYED)
    steps = (await ask(served, "Get", pb.GetDeviceRequest(id=device))).history
    events = [step.event for step in steps]
    assert events[:4] == ["register", "bind", "unbind", "bind"]
    assert events[-3:] == ["terminate", "recycle", "dispose"]
    details = await world.database.read(lambda unit: unit.rows(select(audit_detail.c.detail)))
    assert any("seen by Bob" in one.detail for one in details)
    assert (steps[0].before, steps[0].after) == (pb.DEVICE_STATE_UNSPECIFIED, pb.DEVICE_STATE_STOCK)
    assert steps[-1].who == str(world.issuer.person)


async def test_an_incident_takes_it_out_of_use_and_asks_for_another(served: Managed) -> None:
    world = served.world
    device = await world.issued()
    report = pb.ReportIncidentRequest(id=str(device.id), incident=pb.DEVICE_REASON_LOST, remark="on a train")
    lost = await ask(served, "ReportIncident", report, world.helper)
    assert (lost.state, lost.reason) == (pb.DEVICE_STATE_INVALID, pb.DEVICE_REASON_LOST)
    assert [one.kind for one in await world.open_requests(device.id)] == [RequestKind.REPLACEMENT]
    report.incident = pb.DEVICE_REASON_RENEWED
    assert await refused(served, "ReportIncident", report, world.helper) == ("INVALID_ARGUMENT", "BAD_DEVICE")
    report.incident = pb.DEVICE_REASON_DAMAGED
    assert (await refused(served, "ReportIncident", report, world.helper))[0] == "FAILED_PRECONDITION"


async def test_a_person_binds_and_activates_their_own(served: Managed) -> None:
    world = served.world
    person = await world.person()
    owner = await world.proven(person, Method.LDAP_PASSWORD, Method.INITIAL_PASSWORD)
    (device,) = await registered(served, "OWN-1")
    bind = pb.BindDeviceRequest(id=device, person=str(person.id))
    other = await world.person()
    assert (await refused(served, "Bind", pb.BindDeviceRequest(id=device, person=str(other.id)), owner))[0] == (
        "PERMISSION_DENIED"
    )
    assert (await ask(served, "Bind", bind, owner)).person == str(person.id)
    await world.carried_out((await world.issuance(UUID(device))).id, produce=True)
    assert (await refused(served, "Activate", pb.ActivateDeviceRequest(id=device)))[0] == "PERMISSION_DENIED"
    active = await ask(served, "Activate", pb.ActivateDeviceRequest(id=device), owner)
    assert active.state == pb.DEVICE_STATE_ISSUED
    seen = await ask(served, "Find", pb.FindDevicesRequest(), owner)
    assert [one.id for one in seen.devices] == [device]


async def test_find_filters_and_pages(served: Managed) -> None:
    world = served.world
    ids = await registered(served, *(f"F-{number}" for number in range(5)))
    found, token = [], ""
    while True:
        page = await ask(served, "Find", pb.FindDevicesRequest(page_size=2, page_token=token))
        found += [one.id for one in page.devices]
        token = page.next_page_token
        if not token:
            break
    assert found == sorted(ids)
    assert [one.serial for one in (await ask(served, "Find", pb.FindDevicesRequest(serial="F-3"))).devices] == ["F-3"]
    person = await world.person()
    await ask(served, "Bind", pb.BindDeviceRequest(id=ids[0], person=str(person.id)))
    bound = await ask(served, "Find", pb.FindDevicesRequest(states=[pb.DEVICE_STATE_ASSIGNED]))
    theirs = await ask(served, "Find", pb.FindDevicesRequest(person=str(person.id)))
    assert [one.id for one in bound.devices] == [one.id for one in theirs.devices] == [ids[0]]


async def test_an_operator_of_another_group_sees_stock_and_nothing_else(served: Managed) -> None:
    world = served.world
    elsewhere = await make_group(world.database, world.org, "elsewhere")
    scope = Scope(Reach.GROUP, elsewhere.id)
    stranger = await make_operator(world.database, world.org, Role.ISSUANCE, scope=scope)
    device = await world.bound(await world.person())
    (free,) = await registered(served, "FREE")
    found = await ask(served, "Find", pb.FindDevicesRequest(), stranger)
    assert [one.id for one in found.devices] == [free]
    for method, request in (
        ("Get", pb.GetDeviceRequest(id=str(device))),
        ("Unbind", pb.UnbindDeviceRequest(id=str(device))),
    ):
        assert (await refused(served, method, request, stranger))[0] == "PERMISSION_DENIED"
    other = await make_operator(world.database, uuid4(), Role.ISSUANCE)
    get = pb.GetDeviceRequest(id=str(device))
    assert await refused(served, "Get", get, other) == ("NOT_FOUND", "NO_SUCH_DEVICE")


async def test_two_operators_who_bind_one_device_at_once(served: Managed) -> None:
    world = served.world
    (device,) = await registered(served, "RACE")
    people = [await world.person() for _ in range(2)]
    ended = await asyncio.gather(
        *(
            ask(served, "Bind", pb.BindDeviceRequest(id=device, person=str(person.id)), who)
            for person, who in zip(people, (world.issuer, world.second), strict=True)
        ),
        return_exceptions=True,
    )
    errors = [one for one in ended if isinstance(one, grpc.aio.AioRpcError)]
    assert [one.code() for one in errors] in ([grpc.StatusCode.FAILED_PRECONDITION], [grpc.StatusCode.ABORTED])
    won = next(one for one in ended if isinstance(one, pb.Device))
    assert (await ask(served, "Get", pb.GetDeviceRequest(id=device))).device.person == won.person


async def test_secrets_of_lots_are_sealed_and_never_in_clear(
    served: Managed, engine_name: str, tmp_path: Path
) -> None:
    world = served.world
    puk, own, key = b"73914620", b"58203917", secrets.token_bytes(24)
    master = secrets.token_bytes(32)

    async def lot(name: str, source: SecretSource, given: dict[SecretName, bytes], derivation: int = 0) -> str:
        made = await ask(
            served,
            "RegisterLot",
            pb.RegisterLotRequest(
                name=name,
                kind=pb.DEVICE_KIND_SMART_CARD,
                source=SOURCES.number(source),
                derivation=derivation,  # type: ignore[arg-type]
                secrets=[pb.InitialSecret(name=SECRETS.number(one), value=value) for one, value in given.items()],
            ),
        )
        return str(made.id)

    constant = await lot(
        "constant", SecretSource.CONSTANT, {SecretName.PUK: puk, SecretName.MANAGEMENT_KEY: key}
    )
    single = await lot("single", SecretSource.PER_CARD, {})
    vendor = await lot(
        "vendor",
        SecretSource.VENDOR_MASTER,
        {SecretName.PUK: master},
        pb.SECRET_DERIVATION_SP800_108_CMAC,
    )
    given = [pb.InitialSecret(name=pb.SECRET_NAME_PUK, value=own)]
    request = pb.RegisterDevicesRequest(
        kind=pb.DEVICE_KIND_SMART_CARD, lot=single, devices=[pb.DeliveredDevice(serial="P-1", secrets=given)]
    )
    behalf = Authorization("test", "test")
    found = [
        *(await registered(served, "C-1", lot=constant)),
        *(await registered(served, "V-1", lot=vendor)),
        *(await ask(served, "Register", request)).ids,
    ]
    expected = [
        {SecretName.PUK: puk, SecretName.MANAGEMENT_KEY: key},
        {SecretName.PUK: master},
        {SecretName.PUK: own},
    ]
    for device, wanted in zip(found, expected, strict=True):
        row = await world.device(UUID(device))
        kept = await world.database.read(
            lambda unit: world.services.stock.initial_secrets(unit, row)  # noqa: B023
        )
        opened = {
            name: (await served.vault.open_data(*sealed, behalf)).reveal() for name, sealed in kept.sealed.items()
        }
        assert opened == wanted
    if engine_name == "sqlite":
        stored = b"".join(path.read_bytes() for path in tmp_path.glob("store.db*"))
        assert b"V-1" in stored
        for value in (puk, own, key, master):
            assert value not in stored and value.hex().encode() not in stored


async def test_stock_is_taken_all_or_none(served: Managed) -> None:
    await registered(served, "A-1")
    before = await served.recorded()
    again = pb.RegisterDevicesRequest(
        kind=pb.DEVICE_KIND_SMART_CARD, devices=[pb.DeliveredDevice(serial=one) for one in ("A-2", "A-1")]
    )
    assert await refused(served, "Register", again) == ("ALREADY_EXISTS", "DEVICE_KNOWN")
    lot = pb.RegisterLotRequest(name="lot", kind=pb.DEVICE_KIND_SMART_CARD, source=pb.SECRET_SOURCE_CONSTANT)
    assert await refused(served, "RegisterLot", lot) == ("INVALID_ARGUMENT", "BAD_DEVICE")
    again.lot = str(uuid4())
    del again.devices[1]
    assert await refused(served, "Register", again) == ("NOT_FOUND", "NO_SUCH_DEVICE")
    again.kind, again.lot = pb.DEVICE_KIND_PKCS11_TOKEN, ""
    assert await refused(served, "Register", again) == ("INVALID_ARGUMENT", "TOKEN_NUMBER_INCOMPLETE")
    assert not (await ask(served, "Find", pb.FindDevicesRequest(serial="A-2"))).devices
    assert await served.recorded() == before


async def test_nobody_seals_who_may_not_register(served: Managed) -> None:
    before = (await served.vault.status()).audit_entries
    secret = pb.InitialSecret(name=pb.SECRET_NAME_PUK, value=b"12345678")
    lot = pb.RegisterLotRequest(
        name="lot", kind=pb.DEVICE_KIND_SMART_CARD, source=pb.SECRET_SOURCE_CONSTANT, secrets=[secret]
    )
    devices = [pb.DeliveredDevice(serial="X", secrets=[secret])]
    card = pb.RegisterDevicesRequest(kind=pb.DEVICE_KIND_SMART_CARD, devices=devices)
    for method, request in (("RegisterLot", lot), ("Register", card)):
        assert (await refused(served, method, request, served.world.helper))[0] == "PERMISSION_DENIED"
    assert (await served.vault.status()).audit_entries == before


async def test_malformed_requests_record_nothing(served: Managed) -> None:
    world = served.world
    issued = str((await world.issued()).id)
    before = await served.recorded()
    card, secret = pb.DEVICE_KIND_SMART_CARD, pb.InitialSecret(name=pb.SECRET_NAME_PUK, value=b"12345678")
    one = pb.DeliveredDevice(serial="M-1")
    unknown = pb.SuspendDeviceRequest(id=issued).SerializeToString() + b"\xa2\x06\x01x"
    too_long = pb.DeliveredDevice(
        serial="M-1", secrets=[pb.InitialSecret(name=pb.SECRET_NAME_PUK, value=b"0" * 65)]
    )
    for method, request in (
        ("Register", pb.RegisterDevicesRequest(devices=[one])),
        ("Register", pb.RegisterDevicesRequest(kind=card)),
        ("Register", pb.RegisterDevicesRequest(kind=card, devices=[one] * 1001)),
        ("Register", pb.RegisterDevicesRequest(kind=card, lot="1", devices=[one])),
        ("Register", pb.RegisterDevicesRequest(kind=card, devices=[pb.DeliveredDevice()])),
        ("Register", pb.RegisterDevicesRequest(kind=card, devices=[pb.DeliveredDevice(serial="x" * 81)])),
        ("Register", pb.RegisterDevicesRequest(kind=card, devices=[too_long])),
        (
            "Register",
            pb.RegisterDevicesRequest(kind=card, devices=[pb.DeliveredDevice(serial="M", secrets=[secret, secret])]),
        ),
        ("RegisterLot", pb.RegisterLotRequest(kind=card, source=pb.SECRET_SOURCE_FACTORY)),
        ("RegisterLot", pb.RegisterLotRequest(name="x", kind=card)),
        ("RegisterLot", pb.RegisterLotRequest(name="x" * 61, kind=card, source=pb.SECRET_SOURCE_FACTORY)),
        ("Bind", pb.BindDeviceRequest(id=issued)),
        ("Suspend", pb.SuspendDeviceRequest(id=issued, remark="x" * 501)),
        ("Suspend", pb.SuspendDeviceRequest(id=issued, remark="a\nb")),
        ("Suspend", pb.SuspendDeviceRequest(id=issued, hold=77)),  # type: ignore[arg-type]
        ("Suspend", unknown),
        ("Suspend", pb.SuspendDeviceRequest(id=issued, remark="y" * (1 << 20)).SerializeToString()),
        ("Suspend", b"\x0a\x7f"),
        ("ReportIncident", pb.ReportIncidentRequest(id=issued)),
        ("Terminate", pb.TerminateDeviceRequest(id=issued, reason=pb.DEVICE_REASON_NOT_NEEDED)),
        ("Terminate", pb.TerminateDeviceRequest(id=issued, disposition=pb.DISPOSITION_LOST)),
        ("ReleasePuk", pb.ReleasePukRequest(id=issued)),
        ("Find", pb.FindDevicesRequest(person="nobody")),
        ("Find", pb.FindDevicesRequest(page_size=201)),
        ("Find", pb.FindDevicesRequest(page_token="WyJhIl0=")),
    ):
        assert await refused(served, method, request) == MALFORMED, (method, request)
    for method in ("Get", "Unbind", "Activate", "Resume", "Recycle", "Dispose"):
        assert await refused(served, method, b"") == MALFORMED, method
    hold = pb.SuspendDeviceRequest(id=issued, hold=pb.HOLD_REASON_PERSON)
    assert await refused(served, "Suspend", hold, world.helper) == ("INVALID_ARGUMENT", "BAD_DEVICE")
    assert await served.recorded() == before
    assert (await world.device(UUID(issued))).state is DeviceState.ISSUED


async def unlocking(served: Managed) -> tuple[pb.ReleasePukRequest, UUID]:
    """A session that carries out an unlock request, of which nothing is told yet."""
    world = served.world
    device = await world.issued()
    opened = await world.database.transact(
        lambda unit: world.services.requests.create_unlock(unit, world.helper, device.id)
    )
    session = uuid4()
    permission = as_operator(world.helper)
    await world.database.transact(
        lambda unit: world.services.requests.start(unit, permission, opened.request.id, session)
    )
    return pb.ReleasePukRequest(id=str(device.id), request=str(opened.request.id)), session


async def told_of_puks(database: Database) -> list[UUID]:
    statement = select(outbox.c.person).where(outbox.c.name == "device.puk-released")
    return [row.person for row in await database.read(lambda unit: unit.rows(statement))]


async def test_a_puk_is_told_and_its_holder_hears_of_it(served: Managed) -> None:
    world = served.world
    request, session = await unlocking(served)
    served.contacts.told[session] = Contact(uuid4(), card_proved=True, trusted=False, puk=(3, 1))
    answer = await ask(served, "ReleasePuk", request, world.helper)
    card = VaultCard(str(world.org), request.id, 3, 1)
    expected = await served.vault.puk(card, PukPurpose.UNLOCK, Authorization("test", "test"))
    assert answer.puk == expected.reveal()
    holder = (await world.device(UUID(request.id))).person
    assert await told_of_puks(world.database) == [holder]
    directory = PersonsConcerned(world.services.people, "Example")
    mails = Dispatcher(world.database, [MailConsumer(directory, domain="example.org", portal="https://example.org")])
    while await mails.step():
        pass
    wanted = select(mail.c.recipient, mail.c.subject).where(mail.c.template == "device.puk-released")
    (queued,) = await world.database.read(lambda unit: unit.rows(wanted))
    assert holder is not None
    person = await world.database.read(lambda unit: world.services.people.person(unit, world.org, holder))
    assert (queued.recipient, queued.subject) == (person.mail, "The PUK of your card was released")


async def test_a_puk_is_not_told(served: Managed) -> None:
    world = served.world
    request, session = await unlocking(served)
    for contact in (
        None,
        Contact(uuid4(), card_proved=False, trusted=True, puk=(1, 1)),
        Contact(uuid4(), card_proved=True, trusted=True, puk=None),
    ):
        if contact is not None:
            served.contacts.told[session] = contact
        assert await refused(served, "ReleasePuk", request, world.helper) == ("FAILED_PRECONDITION", "PUK_REFUSED")
    served.contacts.told[session] = Contact(uuid4(), card_proved=True, trusted=True, puk=(1, 1))
    assert (await refused(served, "ReleasePuk", request, world.issuer))[0] == "PERMISSION_DENIED"
    elsewhere = pb.ReleasePukRequest(id=str((await world.issued()).id), request=request.request)
    assert await refused(served, "ReleasePuk", elsewhere, world.helper) == ("NOT_FOUND", "NO_SUCH_REQUEST")
    holder = await make_operator(
        world.database, world.org, Role.HELP_DESK, person=(await world.device(UUID(request.id))).person
    )
    assert (await refused(served, "ReleasePuk", request, holder))[0] == "PERMISSION_DENIED"
    await world.database.transact(lambda unit: world.services.devices.suspend(unit, world.helper, UUID(request.id)))
    assert await refused(served, "ReleasePuk", request, world.helper) == ("FAILED_PRECONDITION", "PUK_REFUSED")
    assert await told_of_puks(world.database) == []


async def test_the_quota_of_an_operator_ends(served: Managed) -> None:
    world = served.world
    request, session = await unlocking(served)
    served.contacts.told[session] = Contact(uuid4(), card_proved=True, trusted=True, puk=(1, 1))
    for _ in range(5):  # "puk.unlock.card" of the vault's quotas
        await ask(served, "ReleasePuk", request, world.helper)
    assert await refused(served, "ReleasePuk", request, world.helper) == ("RESOURCE_EXHAUSTED", "VAULT_QUOTA")


def test_every_state_and_reason_has_a_number() -> None:
    assert {STATES.one(STATES.number(one), "state") for one in DeviceState} == set(DeviceState)
    assert REASONS.number(Reason.NONE) == 0
    named = [one for one in Reason if one is not Reason.NONE]
    assert [REASONS.one(REASONS.number(one), "reason") for one in named] == named


async def test_a_person_is_nobody_s_issuer(served: Managed) -> None:
    world = served.world
    person = await make_person(world.database, world.org, "plain")
    plain = await world.proven(person, Method.LDAP_PASSWORD)
    request = pb.RegisterDevicesRequest(
        kind=pb.DEVICE_KIND_SMART_CARD, devices=[pb.DeliveredDevice(serial="NOT-MINE")]
    )
    assert (await refused(served, "Register", request, plain))[0] == "PERMISSION_DENIED"
