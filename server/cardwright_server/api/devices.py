"""``DeviceService`` of the contract."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

from sqlalchemy import Row

from cardwright_cardops.secret import Secret
from cardwright_proto.cms.v1 import devices_pb2 as pb
from cardwright_proto.cms.v1 import devices_pb2_grpc

from ..authentication.principal import Principal
from ..devices.model import (
    Derivation,
    Device,
    DeviceState,
    Disposition,
    HoldReason,
    Lot,
    Reason,
    SecretName,
    SecretSource,
)
from ..devices.puk_desk import PukDesk, ReleasedPuk
from ..devices.service import DeviceService
from ..devices.stock import MOST_AT_ONCE, Delivered, SecretSealer, StockService
from ..policies.model import DeviceKind
from ..store.ids import new_id
from ..store.unit import Database, Unit
from . import pages, showing
from . import reading as read
from .calling import Calls, Context
from .choices import Choices

LONGEST_NAME: Final = 60
LONGEST_SERIAL: Final = 80
LONGEST_REMARK: Final = 500
LONGEST_SECRET: Final = 64
MOST_SECRETS: Final = len(SecretName)

KINDS = Choices(DeviceKind, pb.DeviceKind, "DEVICE_KIND")
STATES = Choices(DeviceState, pb.DeviceState, "DEVICE_STATE")
REASONS = Choices(Reason, pb.DeviceReason, "DEVICE_REASON", unset=Reason.NONE)
HOLDS = Choices(HoldReason, pb.HoldReason, "HOLD_REASON")
DISPOSITIONS = Choices(Disposition, pb.Disposition, "DISPOSITION")
SOURCES = Choices(SecretSource, pb.SecretSource, "SECRET_SOURCE")
DERIVATIONS = Choices(Derivation, pb.SecretDerivation, "SECRET_DERIVATION", unset=Derivation.NONE)
SECRETS = Choices(SecretName, pb.SecretName, "SECRET_NAME")


class DeviceServicer(devices_pb2_grpc.DeviceServiceServicer):
    """Decodes, calls the services, encodes. ``database`` is for calls that need the vault between two units."""

    def __init__(
        self,
        calls: Calls,
        database: Database,
        devices: DeviceService,
        stock: StockService,
        sealer: SecretSealer,
        puks: PukDesk,
    ) -> None:
        self._calls = calls
        self._database = database
        self._devices = devices
        self._stock = stock
        self._sealer = sealer
        self._puks = puks

    async def Register(self, request: pb.RegisterDevicesRequest, context: Context) -> pb.RegisterDevicesResponse:
        """Take devices into stock. Their own secrets are sealed after the caller's right was asked, before the unit."""

        async def act(principal: Principal) -> pb.RegisterDevicesResponse:
            lot = read.optional_identifier(request.lot, "lot")
            kind = (KINDS.one if lot is None else KINDS.optional)(request.kind, "kind")
            read.at_most(request.devices, MOST_AT_ONCE, "devices")
            if not request.devices:
                raise read.RequestMalformed("devices is empty.")
            told = [
                (read.line(one.serial, "serial", LONGEST_SERIAL, least=1), _secrets(one.secrets))
                for one in request.devices
            ]
            org = await self._database.read(partial(self._stock.may_register, principal=principal))
            delivered = [
                await self._sealer.delivered(org, serial, secrets) if secrets else Delivered(new_id(), serial)
                for serial, secrets in told
            ]
            made = await self._database.transact(
                lambda unit: self._stock.register(unit, principal, kind, delivered, lot)
            )
            return pb.RegisterDevicesResponse(ids=map(str, made))

        return await self._calls.act(context, act)

    async def RegisterLot(self, request: pb.RegisterLotRequest, context: Context) -> pb.RegisterLotResponse:
        """Add a lot; its secrets are sealed as in ``Register``."""

        async def act(principal: Principal) -> pb.RegisterLotResponse:
            name = read.line(request.name, "name", LONGEST_NAME, least=1)
            kind = KINDS.one(request.kind, "kind")
            source = SOURCES.one(request.source, "source")
            derivation = DERIVATIONS.optional(request.derivation, "derivation") or Derivation.NONE
            secrets = _secrets(request.secrets)
            org = await self._database.read(partial(self._stock.may_register_lot, principal=principal))
            lot = Lot(new_id(), org, name, kind, source, derivation)
            sealed = await self._sealer.seal(org, lot.id, secrets)
            await self._database.transact(lambda unit: self._stock.register_lot(unit, principal, lot, sealed))
            return pb.RegisterLotResponse(id=str(lot.id))

        return await self._calls.act(context, act)

    async def FindLots(self, request: pb.FindLotsRequest, context: Context) -> pb.FindLotsResponse:
        """A page of lots."""

        async def work(unit: Unit, principal: Principal) -> pb.FindLotsResponse:
            page = read.page(request.page_size, request.page_token)
            found = await self._stock.find_lots(unit, principal, after=pages.after(page), limit=page.asked)
            shown, last = page.cut(found)
            return pb.FindLotsResponse(lots=map(_lot, shown), next_page_token=pages.token(last))

        return await self._calls.read(context, work)

    async def Get(self, request: pb.GetDeviceRequest, context: Context) -> pb.GetDeviceResponse:
        """One device, with holds and history."""

        async def work(unit: Unit, principal: Principal) -> pb.GetDeviceResponse:
            identifier = read.identifier(request.id, "id")
            device = await self._devices.get(unit, principal, identifier)
            holds = await self._devices.holds(unit, principal, identifier)
            history = await self._devices.history(unit, principal, identifier)
            return pb.GetDeviceResponse(
                device=_device(device),
                holds=HOLDS.numbers(holds),
                history=map(_step, history),
                lock_ordered=await self._devices.lock_ordered(unit, principal, identifier),
            )

        return await self._calls.read(context, work)

    async def Find(self, request: pb.FindDevicesRequest, context: Context) -> pb.FindDevicesResponse:
        """A page of devices."""

        async def work(unit: Unit, principal: Principal) -> pb.FindDevicesResponse:
            page = read.page(request.page_size, request.page_token)
            found = await self._devices.find(
                unit,
                principal,
                person=read.optional_identifier(request.person, "person"),
                states=STATES.several(request.states, "states"),
                serial=read.line(request.serial, "serial", LONGEST_SERIAL),
                after=pages.after(page),
                limit=page.asked,
            )
            shown, last = page.cut(found)
            return pb.FindDevicesResponse(devices=map(_device, shown), next_page_token=pages.token(last))

        return await self._calls.read(context, work)

    async def Bind(self, request: pb.BindDeviceRequest, context: Context) -> pb.Device:
        """Give a device of the stock to a person."""

        async def work(unit: Unit, principal: Principal) -> Device:
            return await self._devices.bind(
                unit,
                principal,
                read.identifier(request.id, "id"),
                read.identifier(request.person, "person"),
                policy=read.line(request.policy, "policy", LONGEST_NAME) or None,
                replacement=read.optional_identifier(request.replacement, "replacement"),
            )

        return _device(await self._calls.write(context, work))

    async def Unbind(self, request: pb.UnbindDeviceRequest, context: Context) -> pb.Device:
        """Put an unwritten device back to stock."""

        async def work(unit: Unit, principal: Principal) -> Device:
            return await self._devices.unbind(unit, principal, read.identifier(request.id, "id"))

        return _device(await self._calls.write(context, work))

    async def Activate(self, request: pb.ActivateDeviceRequest, context: Context) -> pb.Device:
        """The holder has it, and set its PIN."""

        async def work(unit: Unit, principal: Principal) -> Device:
            return await self._devices.activate(unit, principal, read.identifier(request.id, "id"))

        return _device(await self._calls.write(context, work))

    async def Suspend(self, request: pb.SuspendDeviceRequest, context: Context) -> pb.Device:
        """Hold it for one more reason."""

        async def work(unit: Unit, principal: Principal) -> Device:
            return await self._devices.suspend(
                unit,
                principal,
                read.identifier(request.id, "id"),
                HOLDS.optional(request.hold, "hold") or HoldReason.OPERATOR,
                lock_card=request.lock_card,
                remark=read.line(request.remark, "remark", LONGEST_REMARK),
            )

        return _device(await self._calls.write(context, work))

    async def Resume(self, request: pb.ResumeDeviceRequest, context: Context) -> pb.Device:
        """Lift one hold."""

        async def work(unit: Unit, principal: Principal) -> Device:
            hold = HOLDS.optional(request.hold, "hold") or HoldReason.OPERATOR
            return await self._devices.resume(unit, principal, read.identifier(request.id, "id"), hold)

        return _device(await self._calls.write(context, work))

    async def ReportIncident(self, request: pb.ReportIncidentRequest, context: Context) -> pb.Device:
        """Out of use, with certificates on hold."""

        async def work(unit: Unit, principal: Principal) -> Device:
            return await self._devices.report_incident(
                unit,
                principal,
                read.identifier(request.id, "id"),
                REASONS.one(request.incident, "incident"),
                remark=read.line(request.remark, "remark", LONGEST_REMARK),
            )

        return _device(await self._calls.write(context, work))

    async def Terminate(self, request: pb.TerminateDeviceRequest, context: Context) -> pb.Device:
        """End it."""

        async def work(unit: Unit, principal: Principal) -> Device:
            return await self._devices.terminate(
                unit,
                principal,
                read.identifier(request.id, "id"),
                REASONS.one(request.reason, "reason"),
                DISPOSITIONS.one(request.disposition, "disposition"),
                request=read.optional_identifier(request.request, "request"),
                remark=read.line(request.remark, "remark", LONGEST_REMARK),
            )

        return _device(await self._calls.write(context, work))

    async def Recycle(self, request: pb.RecycleDeviceRequest, context: Context) -> pb.Device:
        """Put a device that was wiped back to stock."""

        async def work(unit: Unit, principal: Principal) -> Device:
            return await self._devices.recycle(unit, principal, read.identifier(request.id, "id"), found=request.found)

        return _device(await self._calls.write(context, work))

    async def Dispose(self, request: pb.DisposeDeviceRequest, context: Context) -> pb.Device:
        """It is gone for good."""

        async def work(unit: Unit, principal: Principal) -> Device:
            disposition = DISPOSITIONS.optional(request.disposition, "disposition") or Disposition.DESTROYED
            remark = read.line(request.remark, "remark", LONGEST_REMARK)
            identifier = read.identifier(request.id, "id")
            return await self._devices.dispose(unit, principal, identifier, disposition, remark=remark)

        return _device(await self._calls.write(context, work))

    async def ReleasePuk(self, request: pb.ReleasePukRequest, context: Context) -> pb.ReleasePukResponse:
        """Tell the PUK, once its release is committed."""

        async def act(principal: Principal) -> pb.ReleasePukResponse:
            device = read.identifier(request.id, "id")
            wanted = read.identifier(request.request, "request")

            async def work(unit: Unit) -> ReleasedPuk:
                return await self._puks.record(unit, principal, device, wanted)

            released = await self._database.transact(work)
            return pb.ReleasePukResponse(puk=(await self._puks.give(released)).reveal())

        return await self._calls.act(context, act)


def _secrets(told: Iterable[pb.InitialSecret]) -> Mapping[SecretName, Secret]:
    """Secrets by their names, each once. Raises RequestMalformed."""
    made: dict[SecretName, Secret] = {}
    for one in told:
        name = SECRETS.one(one.name, "secrets.name")
        if name in made:
            raise read.RequestMalformed("secrets names something twice.")
        made[name] = Secret(read.octets(one.value, "secrets.value", 1, LONGEST_SECRET))
    return made


def _lot(found: Lot) -> pb.Lot:
    return pb.Lot(
        id=str(found.id),
        name=found.name,
        kind=KINDS.number(found.kind),
        source=SOURCES.number(found.source),
        derivation=DERIVATIONS.number(found.derivation),
    )


def _device(found: Device) -> pb.Device:
    return pb.Device(
        id=str(found.id),
        kind=KINDS.number(found.kind),
        serial=found.serial,
        lot=showing.identifier(found.lot),
        state=STATES.number(found.state),
        reason=REASONS.number(found.reason),
        person=showing.identifier(found.person),
        policy=showing.identifier(found.policy),
        policy_number=found.policy_number or 0,
        replaces=showing.identifier(found.replaces),
        temporary=found.temporary,
        guid=showing.identifier(found.guid),
        fascn=found.fascn or "",
        session=showing.identifier(found.session),
        life=found.life,
        card_locked=found.card_locked,
        issued_at=showing.moment(found.issued_at),
        expires_at=showing.moment(found.expires_at),
        activate_by=showing.moment(found.activate_by),
        disposition=DISPOSITIONS.number(Disposition(found.disposition) if found.disposition else None),
    )


def _step(row: Row[Any]) -> pb.DeviceStep:
    return pb.DeviceStep(
        number=row.number,
        at=read.stamp(row.created_at),
        event=row.event,
        before=STATES.number(None if row.source is None else DeviceState(row.source)),
        after=STATES.number(DeviceState(row.target)),
        actor=row.actor,
        who=showing.identifier(row.who),
        reason=row.reason,
    )
