"""``AuditService`` of the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final

from cardwright_cardops.errors import CardwrightError
from cardwright_proto.cms.v1 import audit_pb2 as pb
from cardwright_proto.cms.v1 import audit_pb2_grpc

from ..audit.desk import MOST_ANCHORS, AuditService
from ..audit.model import Outcome
from ..audit.service import Found
from ..audit.store import Filter
from ..audit.verify import Anchor, Expectations, Progress, Report
from ..authentication.principal import Principal
from ..store.unit import Unit
from . import pages
from . import reading as read
from .calling import Calls, Context
from .choices import Choices
from .errors import abort

LONGEST_ACTION: Final = 80
LONGEST_ANCHOR: Final = 200
MOST_FINDINGS: Final = 200
OUTCOMES = Choices(Outcome, pb.AuditOutcome, "AUDIT_OUTCOME")


class AuditServicer(audit_pb2_grpc.AuditServiceServicer):
    """Decodes, calls the service, encodes."""

    def __init__(self, calls: Calls, service: AuditService) -> None:
        self._calls = calls
        self._service = service

    async def Find(self, request: pb.FindAuditRequest, context: Context) -> pb.FindAuditResponse:
        """A page of entries, newest first."""

        async def work(unit: Unit, principal: Principal) -> pb.FindAuditResponse:
            page = read.page(request.page_size, request.page_token, keys=2)
            wanted, before = _filter(request), pages.after_moment(page)
            found = await self._service.find(unit, principal, wanted, before=before, limit=page.asked)
            shown, last = page.cut(found)
            token = "" if last is None else read.page_token(last.created_at.isoformat(), str(last.id))
            return pb.FindAuditResponse(records=map(_record, shown), next_page_token=token)

        return await self._calls.read(context, work)

    async def Verify(
        self, request: pb.VerifyAuditRequest, context: Context
    ) -> AsyncIterator[pb.VerifyAuditResponse]:
        """Judge the chain, and say how far it is."""

        async def permit(principal: Principal) -> tuple[Principal, Expectations]:
            read.at_most(request.anchors, MOST_ANCHORS, "anchors")
            anchors = [read.line(one, "anchors", LONGEST_ANCHOR) for one in request.anchors]
            since = read.line(request.since, "since", LONGEST_ANCHOR)
            return principal, await self._service.permit(principal, anchors, since)

        principal, expected = await self._calls.act(context, permit)
        try:
            async with aclosing(self._service.verify(principal, expected)) as steps:
                async for step in steps:
                    yield _progress(step) if isinstance(step, Progress) else _report(step)
        except CardwrightError as error:
            await abort(context, error)

    async def Anchor(self, request: pb.AnchorAuditRequest, context: Context) -> pb.AnchorAuditResponse:
        """The anchor to keep elsewhere."""
        return pb.AnchorAuditResponse(anchor=_anchor(await self._calls.act(context, self._service.anchor)))


def _progress(step: Progress) -> pb.VerifyAuditResponse:
    return pb.VerifyAuditResponse(valid=step.valid, blocks=step.blocks, entries=step.entries, of=step.of)


def _report(report: Report) -> pb.VerifyAuditResponse:
    findings = [
        pb.AuditFinding(fault=one.fault, block=one.block, text=one.text) for one in report.findings[:MOST_FINDINGS]
    ]
    return pb.VerifyAuditResponse(
        valid=report.valid,
        blocks=report.blocks,
        entries=report.entries,
        findings=findings,
        anchor=_anchor(report.anchor),
        of=report.blocks,
        finished=True,
    )


def _filter(request: pb.FindAuditRequest) -> Filter:
    return Filter(
        action=read.line(request.action, "action", LONGEST_ACTION) or None,
        target=read.optional_identifier(request.target, "target"),
        who=read.optional_identifier(request.who, "who"),
        person=read.optional_identifier(request.person, "person"),
        session=read.optional_identifier(request.session, "session"),
        correlation=read.optional_identifier(request.correlation, "correlation"),
        since=_moment(request, "since"),
        until=_moment(request, "until"),
    )


def _moment(request: pb.FindAuditRequest, name: str) -> datetime | None:
    return read.moment(getattr(request, name), name) if request.HasField(name) else None  # type: ignore[arg-type]


def _record(found: Found) -> pb.AuditRecord:
    document = found.document
    made = pb.AuditRecord(
        id=str(found.id),
        at=read.stamp(found.created_at),
        action=document["action"],
        outcome=OUTCOMES.number(Outcome(document["outcome"])),
        who_kind=document["who_kind"],
        methods=document["methods"].split(),
        front=document["front"],
        target_kind=document["target_kind"],
        personal=found.personal or {},
        block=found.block or 0,
    )
    for name in ("who", "person", "target", "correlation", "session"):
        setattr(made, name, document[name] or "")
    for name, value in document["facts"].items():
        made.facts.append(_fact(name, value))
    return made


def _fact(name: str, value: Any) -> pb.AuditFact:
    match value:
        case bool():
            return pb.AuditFact(name=name, truth=value)
        case int():
            return pb.AuditFact(name=name, number=value)
        case str():
            return pb.AuditFact(name=name, text=value)
        case _:
            return pb.AuditFact(name=name)


def _anchor(anchor: Anchor | None) -> str:
    return "" if anchor is None else str(anchor)
