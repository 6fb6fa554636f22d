"""``WorkstationService``."""

from __future__ import annotations

import platform
from pathlib import PurePath
from typing import Final

from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_proto.agent.v1 import agent_pb2_grpc

from ..desk import Desk
from ..errors import BadRequest
from ..process import is_hardened
from ..report import LIBRARIES, system, version_of
from . import encoding as to
from .asking import prompter_of
from .edge import Context

MAX_LINK: Final = 2048


class WorkstationServicer(agent_pb2_grpc.WorkstationServiceServicer):
    """The workstation as a whole."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def GetReport(self, request: pb.GetReportRequest, context: Context) -> pb.GetReportResponse:
        """For the help desk."""
        desk = self._desk
        readers = [
            pb.ReportedReader(
                name=reader.name,
                has_card=reader.card is not None,
                problem=reader.card.problem.code if reader.card is not None and reader.card.problem else "",
            )
            for reader in desk.cards.readers
        ]
        errors = [pb.ReportedError(code=one.code, at=to.time(one.at), operation=one.where) for one in desk.errors.last]
        modules = [
            pb.ReportedError(code=error.code, operation=PurePath(path).name)
            for path, error in desk.tokens.problems.items()
        ]
        return pb.GetReportResponse(
            version=version_of("cardwright"),
            python=platform.python_version(),
            platform=system(),
            libraries=[pb.ReportedLibrary(name=name, version=version_of(name)) for name in LIBRARIES],
            readers=readers,
            service=desk.cards.service.code if desk.cards.service is not None else "",
            link=to.LINKS[desk.link.state],
            link_error=desk.link.error.code if desk.link.error is not None else "",
            errors=errors,
            started_at=to.time(desk.started_at),
            listeners=desk.hub.listeners,
            refused=desk.refused,
            hardened=is_hardened(),
            modules=modules,
        )

    async def SignIn(self, request: pb.SignInRequest, context: Context) -> pb.SignInResponse:
        """Sign in to a portal with the card."""
        if len(request.link) > MAX_LINK:
            raise BadRequest("This link is too long.")
        card = await self._desk.card(request.card)
        url = await self._desk.keys.sign_in(card, request.link, prompter_of(self._desk, request.asking))
        return pb.SignInResponse(url=url)
