"""``CardService``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Final

from cardwright_cardops import wire
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_proto.agent.v1 import agent_pb2_grpc

from .. import checking
from ..cards import Card, Change
from ..desk import Desk, DueNews, News, TokenNews
from ..operations import Operation
from . import encoding as to
from .asking import prompter_of
from .edge import Context
from .updates import due_message

_LEVELS: Final = {
    "basic": pb.CHECK_LEVEL_BASIC,
    "civ": pb.CHECK_LEVEL_CIV,
    "piv-i": pb.CHECK_LEVEL_PIV_I,
    "piv": pb.CHECK_LEVEL_PIV,
}
_SEVERITIES: Final = {
    "info": pb.SEVERITY_INFO,
    "warning": pb.SEVERITY_WARNING,
    "error": pb.SEVERITY_ERROR,
}


class CardServicer(agent_pb2_grpc.CardServiceServicer):
    """Readers, cards, what is on them, and what happens to them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def ListReaders(self, request: pb.ListReadersRequest, context: Context) -> pb.ListReadersResponse:
        """All readers."""
        cards, failed = self._desk.cards, self._desk.tokens.problems
        return pb.ListReadersResponse(
            readers=[to.reader(reader) for reader in cards.readers],
            service=to.error(cards.service),
            modules=[pb.FailedModule(path=path, problem=to.error(error)) for path, error in failed.items()],
        )

    async def ListCards(self, request: pb.ListCardsRequest, context: Context) -> pb.ListCardsResponse:
        """All cards."""
        found = [to.card(card) for card in self._desk.cards.all]
        if request.tokens:
            found += [to.token(device) for device in await self._desk.tokens.list()]
        return pb.ListCardsResponse(cards=found)

    async def GetInventory(self, request: pb.GetInventoryRequest, context: Context) -> pb.GetInventoryResponse:
        """What is on a card."""
        device = await self._desk.device(request.card)
        if not isinstance(device, Card):
            inventory = await self._desk.tokens.inventory(device)
            keys = [
                pb.TokenObject(
                    id=key.id,
                    label=key.label,
                    algorithm=key.algorithm.value if key.algorithm else "",
                    key_reference="" if key.key_reference is None else f"{key.key_reference:02X}",
                    der=key.public_key or b"",
                )
                for key in inventory.keys
            ]
            certificates = [
                pb.TokenObject(id=one.id, label=one.label, der=one.der, is_certificate=True, subject=one.subject)
                for one in inventory.certificates
            ]
            return pb.GetInventoryResponse(
                objects=[*keys, *certificates], problems=inventory.problems, observed_at=to.time(datetime.now(UTC))
            )
        seen = await self._desk.cards.inventory(device, refresh=request.refresh)
        return pb.GetInventoryResponse(inventory=wire.inventory_to_wire(seen), observed_at=to.time(device.observed_at))

    async def CheckCard(self, request: pb.CheckCardRequest, context: Context) -> pb.CheckCardResponse:
        """Conformance of what is on a card."""
        card = await self._desk.card(request.card)
        report = await self._desk.checks.check(
            card,
            level=to.key_of(_LEVELS, request.level, "level", "basic"),
            at=to.moment_of(request, "at") or datetime.now(UTC),
            evidence=checking.Evidence(tuple(request.trust), tuple(request.crls)),
            prompter=prompter_of(self._desk, request.asking) if request.with_pin else None,
        )
        findings = [
            pb.Finding(
                code=one.code,
                severity=_SEVERITIES[one.severity.value],
                object=one.object,
                message=one.message,
                reference=one.reference,
            )
            for one in report.findings
        ]
        return pb.CheckCardResponse(
            good=report.good, findings=findings, objects=report.objects, at=to.time(report.at)
        )

    async def TraceCard(self, request: pb.TraceCardRequest, context: Context) -> pb.TraceCardResponse:
        """The redacted record."""
        entries = (await self._desk.card(request.card)).trace.entries
        begin = entries[0].at if entries else 0.0
        return pb.TraceCardResponse(entries=[to.trace_entry(entry, begin) for entry in entries])

    async def WatchEvents(
        self, request: pb.WatchEventsRequest, context: Context
    ) -> AsyncIterator[pb.WatchEventsResponse]:
        """What is there, then what happens."""
        desk = self._desk
        with desk.hub.listen() as listener:
            for reader in desk.cards.readers:
                yield self._event(Change(reader))
            for card in desk.cards.all:
                yield self._event(Change(card=card))
            for token in desk.tokens.present:
                yield self._event(TokenNews(token, True))
            for operation in desk.operations.all:
                if not operation.over:
                    yield self._event(operation)
            if desk.cards.service is not None:
                yield self._event(Change(service=desk.cards.service))
            yield pb.WatchEventsResponse(synced=pb.Synced())
            async for delivery in listener:
                event = self._event(delivery.event)
                event.missed = delivery.missed
                yield event

    def _event(self, news: News) -> pb.WatchEventsResponse:
        if isinstance(news, Operation):
            return pb.WatchEventsResponse(operation=pb.OperationEvent(operation=to.operation(news)))
        if isinstance(news, DueNews):
            due = due_message(self._desk, news.card, news.due)
            return pb.WatchEventsResponse(due=pb.DueEvent(card=news.card.id, due=due))
        if isinstance(news, TokenNews):
            return pb.WatchEventsResponse(card=pb.CardEvent(card=to.token(news.token), present=news.present))
        if news.reader is not None:
            return pb.WatchEventsResponse(
                reader=pb.ReaderEvent(reader=to.reader(news.reader), present=news.present)
            )
        if news.card is not None:
            return pb.WatchEventsResponse(card=pb.CardEvent(card=to.card(news.card), present=news.present))
        return pb.WatchEventsResponse(service=pb.ServiceEvent(error=to.error(news.service)))
