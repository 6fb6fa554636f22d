"""What persons prove themselves with later: questions and answers, passwords that operators hand over, locks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.secret import Secret

from ..audit.model import AuditEntry, Fact, Target
from ..machine import Actor
from ..notify.model import DomainEvent
from ..people.service import PeopleService
from ..store.unit import Unit
from . import answers, counters, store
from .authorize import Authorize, CallTarget
from .errors import MethodNotOffered
from .hashing import Hasher
from .journal import answers_event, password_event
from .machine import MethodEvent
from .matrix import Call
from .methods import folded_password, new_password
from .model import Method
from .principal import Principal, PrincipalKind

INITIAL = timedelta(days=30)
EMERGENCY = timedelta(minutes=10)
MOST_QUESTIONS = 10
LONGEST_QUESTION = 300


class BadQuestion(CardwrightError):
    """A list of questions that cannot be asked."""

    code = "BAD_QUESTION"
    default_effect = "The questions are as they were."
    default_advice = "Correct the questions."


class NoOpenUnlock(CardwrightError):
    """There is no such request, it is no request to unlock a card of this person, or it is closed. Not said which."""

    code = "NO_OPEN_UNLOCK"
    default_effect = "No password was made."
    default_advice = "Make a new request to unlock the person's card."


class QuestionsChanged(CardwrightError):
    """The answers are not to the questions that are asked now."""

    code = "QUESTIONS_CHANGED"
    default_effect = "No answer was changed."
    default_advice = "Read the questions again, and answer all of them."


@dataclass(frozen=True, slots=True)
class Question:
    """A question that everyone of an organization answers."""

    id: UUID
    text: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and whether somebody has an answer to it."""

    question: Question
    answered: bool


class OpenUnlocks(Protocol):
    """What is known of requests: the domain of requests."""

    async def is_open(self, unit: Unit, org: UUID, request: UUID, person: UUID) -> bool:
        """Whether it is a request to unlock a card of the person, and can still be carried out."""


@dataclass(frozen=True, slots=True)
class Handed:
    """A password to be handed over, made before the transaction that keeps its hash. Shown once, kept nowhere."""

    text: str = field(repr=False)
    hash: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PreparedAnswers:
    """Answers with their hashes, made before the transaction that keeps these."""

    texts: Mapping[UUID, str] = field(repr=False)
    hashes: Mapping[UUID, str] = field(repr=False)


class EnrolmentService:
    """Sets and resets what methods compare with. Hashing is slow: ``prepare_*`` first, then the unit."""

    def __init__(
        self,
        authorize: Authorize,
        people: PeopleService,
        hasher: Hasher,
        unlocks: OpenUnlocks,
        *,
        emergency: timedelta = EMERGENCY,
    ) -> None:
        self._authorize = authorize
        self._people = people
        self._hasher = hasher
        self._unlocks = unlocks
        self._emergency = emergency

    async def set_questions(self, unit: Unit, principal: Principal, texts: Sequence[str]) -> list[Question]:
        """Ask exactly these, in this order; a question that stays keeps its answers.

        Who has not answered all of them must answer again before the method counts. Raises AuthorizationError,
        BadQuestion.
        """
        await self._authorize(unit, principal, Call("AuthenticationService.SetQuestions"), CallTarget(principal.org))
        forms = [answers.normalized(text) for text in texts]
        if len(texts) > MOST_QUESTIONS or len(set(forms)) != len(forms):
            raise BadQuestion(f"at most {MOST_QUESTIONS} questions, each once")
        if any(len(form) < answers.SHORTEST for form in forms) or any(len(text) > LONGEST_QUESTION for text in texts):
            raise BadQuestion(f"a question has {answers.SHORTEST} to {LONGEST_QUESTION} characters")
        known = {row.text: row.id for row in await store.questions(unit, principal.org)}
        await store.retire_questions(unit, principal.org, [known[text] for text in texts if text in known])
        for place, text in enumerate(texts):
            if text in known:
                await store.place_question(unit, known[text], place)
            else:
                await store.insert_question(unit, principal.org, text, place)
        target = Target("organization", principal.org)
        facts: dict[str, Fact] = {"questions": len(texts)}
        unit.audit(AuditEntry(principal.org, principal.who, "authentication.questions-set", target, facts=facts))
        return await self._questions(unit, principal.org)

    async def questions(self, unit: Unit, principal: Principal) -> list[Question]:
        """What is asked, in order. Everyone's are the same, so a caller who proved nothing may know them."""
        await self._authorize(unit, principal, Call("AuthenticationService.Methods"), CallTarget(principal.org))
        return await self._questions(unit, principal.org)

    async def list_questions(self, unit: Unit, principal: Principal, person: UUID | None = None) -> list[Asked]:
        """What is asked, in order, and what of it someone has answered; a person sees that of themselves.

        Raises AuthorizationError, NoSuchPerson.
        """
        whose = person if person is not None or principal.kind is not PrincipalKind.PERSON else principal.person
        target = CallTarget(principal.org, whose)
        await self._authorize(unit, principal, Call("AuthenticationService.ListQuestions"), target)
        held: Mapping[UUID, str] = {}
        if whose is not None:
            held = await store.answers(unit, principal.org, (await self._people.person(unit, principal.org, whose)).id)
        return [Asked(question, question.id in held) for question in await self._questions(unit, principal.org)]

    async def prepare_answers(self, texts: Mapping[UUID, str]) -> PreparedAnswers:
        """Hash answers. Raises MethodNotOffered for more than anyone is asked."""
        if len(texts) > MOST_QUESTIONS:
            raise MethodNotOffered("nobody is asked so many questions")
        hashes = {question: await self._hasher.hash(answers.secret_of(text)) for question, text in texts.items()}
        return PreparedAnswers(texts, hashes)

    async def set_answers(self, unit: Unit, principal: Principal, person: UUID, prepared: PreparedAnswers) -> None:
        """Replace all answers of the caller. Where there are none yet, methods other than the card will do as well.

        Raises AuthorizationError, QuestionsChanged, BadAnswer.
        """
        asked = await self.admit_answers(unit, principal, person, prepared.texts)
        unit.beforehand(answers_event(principal.org, person))
        await store.put_answers(unit, principal.org, person, prepared.hashes)
        await counters.apply(unit, principal.org, person, Method.SECURITY_ANSWERS, MethodEvent.SET, Actor.USER)
        self._record(unit, principal, "authentication.answers-set", person, {"questions": asked})

    async def admit_answers(self, unit: Unit, principal: Principal, person: UUID, texts: Mapping[UUID, str]) -> int:
        """Whether ``set_answers`` would take these, before they are hashed; how many they are. Raises as that."""
        target = CallTarget(principal.org, person)
        asked = await self._questions(unit, principal.org)
        held = await store.answers(unit, principal.org, person)
        complete = bool(asked) and all(question.id in held for question in asked)
        call = Call("AuthenticationService.SetAnswers" if complete else "AuthenticationService.SetAnswers/first")
        await self._authorize(unit, principal, call, target)
        if texts.keys() != {question.id for question in asked} or not asked:
            raise QuestionsChanged("these are not the questions that are asked")
        holder = await self._people.person(unit, principal.org, person)
        ordered = [texts[question.id] for question in asked]
        answers.check([question.text for question in asked], ordered, (holder.login, holder.display_name, holder.mail))
        return len(asked)

    async def reset_answers(self, unit: Unit, principal: Principal, person: UUID) -> None:
        """Remove a person's answers, locked or not; new ones must be set. Raises AuthorizationError, NoSuchPerson."""
        target = CallTarget(principal.org, person)
        await self._authorize(unit, principal, Call("AuthenticationService.ResetAnswers"), target)
        await self._people.person(unit, principal.org, person)
        unit.beforehand(answers_event(principal.org, person))
        await store.put_answers(unit, principal.org, person, {})
        await counters.apply(unit, principal.org, person, Method.SECURITY_ANSWERS, MethodEvent.RESET, Actor.HELP_DESK)
        self._record(unit, principal, "authentication.answers-reset", person, {})

    async def unlock_method(self, unit: Unit, principal: Principal, person: UUID, method: Method) -> None:
        """End a lock whose secret stays. Raises AuthorizationError, NoSuchPerson, MethodNotOffered, IllegalTransition.

        Only the directory's password: answers are reset, given passwords replaced.
        """
        target = CallTarget(principal.org, person)
        await self._authorize(unit, principal, Call("AuthenticationService.UnlockMethod"), target)
        await self._people.person(unit, principal.org, person)
        if method is not Method.LDAP_PASSWORD:
            raise MethodNotOffered(f"a locked {method} is replaced, not unlocked")
        await counters.apply(unit, principal.org, person, method, MethodEvent.UNLOCK, Actor.HELP_DESK)
        self._record(unit, principal, "authentication.unlocked", person, {"method": method})

    async def prepare_password(self, *, groups: int = 3) -> Handed:
        """A new password and its hash."""
        text = new_password(groups)
        return Handed(text, await self._hasher.hash(folded_password(Secret(text.encode("ascii")))))

    async def set_initial_password(self, unit: Unit, principal: Principal, person: UUID, handed: Handed) -> datetime:
        """Give a person an initial password, in place of an older one; gives its end.

        Raises AuthorizationError, NoSuchPerson.
        """
        await self.admit_initial(unit, principal, person)
        return await self._give(unit, principal, person, Method.INITIAL_PASSWORD, handed, INITIAL, None)

    async def admit_initial(self, unit: Unit, principal: Principal, person: UUID) -> None:
        """Whether ``set_initial_password`` would do it, before something is hashed. Raises as that."""
        target = CallTarget(principal.org, person)
        await self._authorize(unit, principal, Call("AuthenticationService.SetInitialPassword"), target)
        await self._people.person(unit, principal.org, person)

    async def set_emergency_password(
        self, unit: Unit, principal: Principal, person: UUID, request: UUID, handed: Handed
    ) -> datetime:
        """Give a person a password for their open request to unlock: as long as that waits, one use; gives its end.

        Raises AuthorizationError, NoSuchPerson, NoOpenUnlock.
        """
        await self.admit_emergency(unit, principal, person, request)
        return await self._give(unit, principal, person, Method.EMERGENCY_PASSWORD, handed, self._emergency, request)

    async def admit_emergency(self, unit: Unit, principal: Principal, person: UUID, request: UUID) -> None:
        """Whether ``set_emergency_password`` would do it, before something is hashed. Raises as that."""
        target = CallTarget(principal.org, person)
        await self._authorize(unit, principal, Call("AuthenticationService.SetEmergencyPassword"), target)
        await self._people.person(unit, principal.org, person)
        if not await self._unlocks.is_open(unit, principal.org, request, person):
            raise NoOpenUnlock("there is no open request to unlock a card of this person")

    async def forget_password(self, unit: Unit, principal: Principal, person: UUID, method: Method) -> None:
        """Make a given password void: the request was closed, the card was issued. The caller has authorized that."""
        gone = await store.forget_password(unit, principal.org, person, method)
        if gone is not None:
            unit.beforehand(password_event(principal.org, gone))
            self._record(unit, principal, "authentication.password-voided", person, {"method": method})

    async def _give(
        self,
        unit: Unit,
        principal: Principal,
        person: UUID,
        method: Method,
        handed: Handed,
        lifetime: timedelta,
        request: UUID | None,
    ) -> datetime:
        ends = unit.now + lifetime
        values = {
            "org": principal.org,
            "person": person,
            "method": method,
            "hash": handed.hash,
            "expires_at": ends,
            "request": request,
            "single_use": request is not None,
        }
        if (gone := await store.put_password(unit, values)) is not None:
            unit.beforehand(password_event(principal.org, gone))
        actor = Actor.ISSUANCE if method is Method.INITIAL_PASSWORD else Actor.HELP_DESK
        await counters.apply(unit, principal.org, person, method, MethodEvent.GIVE, actor)
        self._record(unit, principal, "authentication.password-given", person, {"method": method})
        return ends

    async def _questions(self, unit: Unit, org: UUID) -> list[Question]:
        return [Question(row.id, row.text) for row in await store.questions(unit, org)]

    def _record(self, unit: Unit, principal: Principal, action: str, person: UUID, facts: Mapping[str, Fact]) -> None:
        unit.audit(AuditEntry(principal.org, principal.who, action, Target("person", person), facts=facts))
        unit.emit(DomainEvent(principal.org, action, "person", person, person, dict(facts)))
