"""The secrets' part of an execution: management key by candidates, PUK by candidates, PIN, tries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from ..iso7816.status import SW, VerificationFailed
from ..piv import commands
from ..piv.algorithms import ManagementAlgorithm
from ..piv.management_key import ManagementKeyRefused, refused
from ..piv.vendor import yubico
from ..program.items import Answer, Apdu, Outcome, Unblock, VerifyPin, ask
from ..program.items import SetPuk as PutPuk
from ..secret import Secret
from .acts import Act, Session, expect
from .authority import (
    Algorithms,
    AnswerWitness,
    CheckWitness,
    Granted,
    KeyAlgorithms,
    Puk,
    SecretGiven,
    WitnessAnswer,
)
from .candidates import GIVEN, management_candidates, puk_candidates
from .conduct import Execution, asking
from .records import DEFAULT, FACTORY, Entry, Kind
from .steps import SetManagementKey, SetPin, SetPuk, SetRetries

MakesAct: TypeAlias = Callable[[str, Secret], Act]
"""From name and value of a PUK to what is done with it."""

_WRONG_ALGORITHM: Final = frozenset((int(SW.WRONG_P1P2), int(SW.WRONG_DATA), int(SW.REFERENCE_NOT_FOUND)))
_DOING: Final = "authenticating with the management key"


def authenticate(session: Session) -> Execution[None]:
    """Try the candidates of the management key. Raises ManagementKeyUnknown, ManagementKeyRefused.

    A change of the key that turns out to be done is marked as done.
    """
    told = session.inventory.management_key
    known = ManagementAlgorithm(told.algorithm) if told.algorithm in set(ManagementAlgorithm) else None
    names = management_candidates(
        session.inventory, session.records.management_key, session.backend, given=session.how.management_key_given
    )
    changes = session.steps(SetManagementKey)
    for name in names:
        if name == DEFAULT and name not in session.records.management_key.names:
            yield from session.note(Entry(Kind.MANAGEMENT_KEY, name))
        reply, = yield from asking(KeyAlgorithms(name, known))
        for algorithm in expect(Algorithms, reply, "a management key").algorithms:
            accepted = yield from _try(session, name, algorithm)
            if accepted is None:
                continue
            if not accepted:
                yield from session.note(Entry(Kind.MANAGEMENT_KEY_REFUSED, name))
                break
            own = name not in (DEFAULT, GIVEN)
            if changes or own:
                yield from session.note(Entry(Kind.MANAGEMENT_KEY_SET, name))
            if own and told.is_default is None:
                session.done += [step for step in changes if step.algorithm is algorithm and not step.touch]
            return
    raise ManagementKeyRefused("The card accepted no management key that it may have.")


def respond(session: Session) -> Execution[Callable[[], Execution[None]]]:
    """Hold the response to the witness that came with the observation, for the one candidate that there is.

    Returns what has to be run once it was sent: it makes sure that the card proved itself. With no witness, or
    several candidates, authenticates at once.
    """
    witness = session.how.witness
    names = management_candidates(
        session.inventory, session.records.management_key, session.backend, given=session.how.management_key_given
    )
    told = session.inventory.management_key.algorithm
    if witness is None or len(names) != 1 or told not in (None, witness.algorithm):
        yield from authenticate(session)
        return _nothing
    name = names[0]
    proofs: list[bytes] = []
    if name == DEFAULT and name not in session.records.management_key.names:
        yield from session.note(Entry(Kind.MANAGEMENT_KEY, name))
    reply, = yield from asking(AnswerWitness(name, witness.algorithm, witness.data))
    step = expect(WitnessAnswer, reply, "an answer to the card's witness")

    def judge(answer: Answer) -> None:
        if answer.outcome is Outcome.ANSWERED and refused(answer):
            raise ManagementKeyRefused("The card did not accept the management key that it should have.")

    def check() -> Execution[None]:
        checked, = yield from asking(CheckWitness(name, witness.algorithm, step.challenge, proofs[0]))
        expect(Granted, checked, "the card's proof of the management key")

    confirm = (Entry(Kind.MANAGEMENT_KEY_SET, name),) if session.steps(SetManagementKey) else ()
    items = (Apdu(step.command),)
    yield from session.hold(Act(None, items, _DOING, confirm, judge, lambda group: proofs.append(group[0].data)))
    return check


def _nothing() -> Execution[None]:
    yield from ()


def _try(session: Session, name: str, algorithm: ManagementAlgorithm) -> Execution[bool | None]:
    """True: authenticated. False: the value is wrong. None: the card's key is of another algorithm."""
    stage = session.how.stage
    asked, = yield from ask(Apdu(commands.management_witness(algorithm)), stage=stage, essential=True)
    if asked.outcome is Outcome.ANSWERED and asked.sw in _WRONG_ALGORITHM:
        return None
    reply, = yield from asking(AnswerWitness(name, algorithm, asked.require(_DOING)))
    step = expect(WitnessAnswer, reply, "an answer to the card's witness")
    answer, = yield from ask(Apdu(step.command), stage=stage, essential=True)
    if answer.outcome is Outcome.ANSWERED and refused(answer):
        return False
    proof = answer.require(_DOING)
    checked, = yield from asking(CheckWitness(name, algorithm, step.challenge, proof))
    expect(Granted, checked, "the card's proof of the management key")
    return True


def set_person_secrets(session: Session) -> Execution[None]:
    """PUK, PIN, tries, in this order. Raises PukBlocked, PukUnknown, VerificationFailed, LastTry."""
    for puk_step in session.steps(SetPuk):
        yield from _set_puk(session, puk_step)
    for pin_step in session.steps(SetPin):
        yield from _set_pin(session, pin_step)
    for retries in session.steps(SetRetries):
        yield from _set_retries(session, retries)


def _target(session: Session) -> Execution[tuple[str, Secret]]:
    """The PUK that shall be set."""
    reply, = yield from asking(Puk())
    given = expect(SecretGiven, reply, "a PUK")
    return given.name, given.value


def _candidates(session: Session, target: str) -> tuple[str, ...]:
    """A PUK that was to follow the tries comes last where the card shows that those were not set."""
    how, recorded = session.how, session.records.puk
    names = puk_candidates(session.inventory, recorded, given=how.puk_given, target=target, factory=how.factory_puk)
    follows = recorded.names[:1] == (FACTORY,) and bool(session.steps(SetRetries))
    return (*names[1:], names[0]) if follows else names


def _set_puk(session: Session, step: SetPuk) -> Execution[None]:
    target, value = yield from _target(session)
    recorded = session.records.puk
    names = _candidates(session, target)
    older = [Entry(Kind.PUK, name) for name in reversed(names) if name not in (*recorded.names, target)]
    yield from session.note(*older, Entry(Kind.PUK, target, value=value))

    def change(name: str, puk: Secret) -> Act:
        return Act(step, (PutPuk(puk, value),), "changing the PUK", (Entry(Kind.PUK_SET, target),))

    yield from _with_candidates(session, names, change)
    session.puk = target, value


def _set_pin(session: Session, step: SetPin) -> Execution[None]:
    def unblock(name: str, puk: Secret) -> Act:
        return Act(step, (Unblock(puk),), "setting the PIN", (Entry(Kind.PIN_SET),))

    if session.puk is None:
        target, _ = yield from _target(session)
        names = _candidates(session, target)
        yield from session.note(Entry(Kind.PIN))
        yield from _with_candidates(session, names, unblock)
    else:
        yield from session.note(Entry(Kind.PIN))
        yield from session.hold(unblock(*session.puk))


def _with_candidates(session: Session, names: tuple[str, ...], make: MakesAct) -> Execution[None]:
    """Do what needs the PUK with one candidate after the other, while the card leaves more than one try.

    Where the card does not count, one attempt is made. Every attempt was recorded before.
    """
    if len(names) == 1:
        reply, = yield from asking(Puk(names[0]))
        session.puk = names[0], expect(SecretGiven, reply, "a PUK").value
        yield from session.hold(make(*session.puk))
        return
    yield from session.send()
    for number, name in enumerate(names):
        reply, = yield from asking(Puk(name))
        value = expect(SecretGiven, reply, "a PUK").value
        try:
            yield from session.send(make(name, value))
        except VerificationFailed as error:
            if number + 1 == len(names) or error.tries_left is None or error.tries_left < 2:
                raise
        else:
            session.puk = name, value
            return


def _set_retries(session: Session, step: SetRetries) -> Execution[None]:
    """The card puts PIN and PUK back to factory values; the same group sets both again.

    A PUK that the card has already is recorded as newer than the factory's, another one as older: see ``_candidates``.
    """
    name, puk = session.puk or (yield from _target(session))
    candidate = Entry(Kind.PUK, name, value=puk)
    tries = Entry(Kind.RETRIES)
    yield from session.note(*((tries, candidate) if session.puk else (candidate, tries)))
    items = (
        VerifyPin(),
        Apdu(yubico.set_retries(step.pin, step.puk)),
        PutPuk(yubico.DEFAULT_PUK, puk),
        Unblock(puk),
    )
    confirm = (Entry(Kind.PUK_SET, name), Entry(Kind.PIN_SET))
    yield from session.hold(Act(step, items, "setting the numbers of tries", confirm))
    session.puk = name, puk
