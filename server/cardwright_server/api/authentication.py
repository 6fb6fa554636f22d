"""``AuthenticationService`` of the contract. Nothing of what persons prove themselves with is kept, shown or named."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from cardwright_proto.cms.v1 import authentication_pb2 as pb
from cardwright_proto.cms.v1 import authentication_pb2_grpc, sessions_pb2

from ..authentication.enrolment import MOST_QUESTIONS, Asked, EnrolmentService, Question
from ..authentication.handing import HandingService
from ..authentication.matrix import Call, methods_of
from ..authentication.methods import AnswersEvidence, CardEvidence, Evidence, PasswordEvidence
from ..authentication.model import Assurance, Authentication, Method
from ..authentication.principal import Principal
from ..authentication.service import Attempt, AuthenticationService
from ..sessions.model import Purpose
from ..store.unit import Unit
from . import reading as read
from .calling import Calls, Context
from .choices import Choices

LONGEST_LOGIN: Final = 1000
LONGEST_ANSWER: Final = 1000
LONGEST_EVIDENCE: Final = 16 * 1024
METHODS = Choices(Method, pb.Method, "METHOD")
PURPOSES = Choices(Purpose, sessions_pb2.Purpose, "PURPOSE")
ASSURANCES = Choices(Assurance, pb.Assurance, "ASSURANCE")
_KINDS = {Method.SECURITY_ANSWERS: "answers", Method.CARD: "card", Method.CLIENT_KEY: ""}
"""Which kind of evidence a method takes: a password, unless it is here."""


class AuthenticationServicer(authentication_pb2_grpc.AuthenticationServiceServicer):
    """Decodes, calls the services, encodes."""

    def __init__(
        self, calls: Calls, service: AuthenticationService, enrolment: EnrolmentService, handing: HandingService
    ) -> None:
        self._calls = calls
        self._service = service
        self._enrolment = enrolment
        self._handing = handing

    async def Methods(self, request: pb.MethodsRequest, context: Context) -> pb.MethodsResponse:
        """What is offered, and what is asked."""
        purpose = PURPOSES.optional(request.purpose, "purpose")
        offered = self._service.methods
        if purpose is not None:
            offered &= methods_of(Call(f"SessionService.Run/{purpose}"))
        asked = await self._calls.read(context, self._enrolment.questions)
        if not asked:
            offered -= {Method.SECURITY_ANSWERS}
        return pb.MethodsResponse(methods=METHODS.numbers(offered), questions=map(_question, asked))

    async def Prove(self, request: pb.ProveRequest, context: Context) -> pb.ProveResponse:
        """Judge an attempt."""

        async def act(principal: Principal) -> Authentication:
            login = read.block(request.login, "login", LONGEST_LOGIN)
            return await self._service.prove(principal, Attempt(login, _evidence(request.evidence)))

        made = await self._calls.act(context, act)
        return pb.ProveResponse(
            session=str(made.id),
            person=str(made.subject),
            methods=METHODS.numbers(made.methods),
            assurance=ASSURANCES.number(made.assurance),
            expires_at=read.stamp(made.expires_at),
        )

    async def End(self, request: pb.EndRequest, context: Context) -> pb.EndResponse:
        """End the proof of this call, or all of the caller's."""

        async def work(unit: Unit, principal: Principal) -> int:
            proof = principal.authentication
            only = None if request.all or proof is None else proof.id
            return await self._service.end(unit, principal, only)

        return pb.EndResponse(ended=await self._calls.write(context, work))

    async def SetQuestions(self, request: pb.SetQuestionsRequest, context: Context) -> pb.SetQuestionsResponse:
        """Ask these."""

        async def work(unit: Unit, principal: Principal) -> list[Question]:
            read.at_most(request.texts, read.MOST_ROWS, "texts")
            texts = [read.line(text, "texts") for text in request.texts]
            return await self._enrolment.set_questions(unit, principal, texts)

        return pb.SetQuestionsResponse(questions=map(_question, await self._calls.write(context, work)))

    async def ListQuestions(self, request: pb.ListQuestionsRequest, context: Context) -> pb.ListQuestionsResponse:
        """What is asked, and what of it is answered."""

        async def work(unit: Unit, principal: Principal) -> list[Asked]:
            person = read.optional_identifier(request.person, "person")
            return await self._enrolment.list_questions(unit, principal, person)

        found = await self._calls.read(context, work)
        rows = [pb.AskedQuestion(question=_question(one.question), answered=one.answered) for one in found]
        return pb.ListQuestionsResponse(questions=rows)

    async def SetAnswers(self, request: pb.SetAnswersRequest, context: Context) -> pb.SetAnswersResponse:
        """Replace the caller's answers."""

        async def act(principal: Principal) -> None:
            await self._handing.set_answers(principal, _answers(request.answers))

        await self._calls.act(context, act)
        return pb.SetAnswersResponse()

    async def ResetAnswers(self, request: pb.ResetAnswersRequest, context: Context) -> pb.ResetAnswersResponse:
        """Remove a person's answers."""

        async def work(unit: Unit, principal: Principal) -> None:
            await self._enrolment.reset_answers(unit, principal, read.identifier(request.person, "person"))

        await self._calls.write(context, work)
        return pb.ResetAnswersResponse()

    async def UnlockMethod(self, request: pb.UnlockMethodRequest, context: Context) -> pb.UnlockMethodResponse:
        """End a lock."""

        async def work(unit: Unit, principal: Principal) -> None:
            person, method = read.identifier(request.person, "person"), METHODS.one(request.method, "method")
            await self._enrolment.unlock_method(unit, principal, person, method)

        await self._calls.write(context, work)
        return pb.UnlockMethodResponse()

    async def SetInitialPassword(self, request: pb.SetInitialPasswordRequest, context: Context) -> pb.GivenPassword:
        """Hand a first password over."""

        async def act(principal: Principal) -> tuple[str, datetime]:
            return await self._handing.initial_password(principal, read.identifier(request.person, "person"))

        return _given(*await self._calls.act(context, act))

    async def SetEmergencyPassword(self, request: pb.SetEmergencyPasswordRequest, context: Context) -> pb.GivenPassword:
        """Hand a password over for one request to unlock."""

        async def act(principal: Principal) -> tuple[str, datetime]:
            person, asked = read.identifier(request.person, "person"), read.identifier(request.request, "request")
            return await self._handing.emergency_password(principal, person, asked)

        return _given(*await self._calls.act(context, act))


def _evidence(rows: Sequence[pb.Evidence]) -> dict[Method, Evidence]:
    read.at_most(rows, len(Method), "evidence")
    made: dict[Method, Evidence] = {}
    for row in rows:
        method = METHODS.one(row.method, "evidence.method")
        if method in made or row.WhichOneof("kind") != _KINDS.get(method, "password"):
            raise read.RequestMalformed("evidence has a method twice, or another kind than its method takes.")
        match row.WhichOneof("kind"):
            case "answers":
                made[method] = AnswersEvidence(_answers(row.answers.answers))
            case "card":
                made[method] = CardEvidence(read.octets(row.card, "evidence.card", 1, LONGEST_EVIDENCE))
            case _:
                made[method] = PasswordEvidence(read.secret(row.password, "evidence.password"))
    return made


def _answers(rows: Iterable[Any]) -> dict[UUID, str]:
    given = list(rows)
    read.at_most(given, MOST_QUESTIONS, "answers")
    made = {read.identifier(one.question, "question"): read.block(one.text, "text", LONGEST_ANSWER) for one in given}
    if len(made) != len(given):
        raise read.RequestMalformed("answers has a question twice.")
    return made


def _question(question: Question) -> pb.Question:
    return pb.Question(id=str(question.id), text=question.text)


def _given(text: str, ends: datetime) -> pb.GivenPassword:
    return pb.GivenPassword(password=text, expires_at=read.stamp(ends))
