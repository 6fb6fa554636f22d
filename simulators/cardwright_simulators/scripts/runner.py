"""The interpreter of card scripts: small, strict, and content with any Connection."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Final

from cardwright_cardops.check import CardData, Level, Severity, check
from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.iso7816.apdu import MAX_EXTENDED_LE, MAX_SHORT_DATA, MAX_SHORT_LE, CommandAPDU, ResponseAPDU
from cardwright_cardops.iso7816.exchange import BrokenExchange, Exchange, Limits
from cardwright_cardops.iso7816.status import SW
from cardwright_cardops.piv import commands, containers
from cardwright_cardops.piv.algorithms import ManagementAlgorithm
from cardwright_cardops.piv.management_key import ManagementKey
from cardwright_cardops.piv.secure_messaging import SmSuite
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.connection import Connection, Interface, Transmission, TransportError

from .messaging import Messaging
from .model import (
    Do,
    Establish,
    Fits,
    Judge,
    Let,
    Over,
    Proof,
    Protect,
    Question,
    Reset,
    Same,
    Script,
    Send,
    Step,
    Unprotect,
)
from .proofs import Asked, Unfit, ask, certified_key, generated_key, point
from .template import Group, ScriptMalformed, ScriptValueMissing, Template, parse

Connect = Callable[[Interface], Connection]

_DERIVED: Final = ("PIN", "PUK", "GLOBAL_PIN", "PAIRING_CODE", "FINGER")
_parse = cache(parse)


class ScriptChangesCard(CardwrightError):
    """A card script that changes the card was started without the word that it may."""

    code = "SCRIPT_CHANGES_CARD"
    default_effect = "Nothing was sent to the card."
    default_advice = "Run it on a card whose content, PIN and PUK may be lost, and say so when you start it."


class ScriptNeedsInterface(CardwrightError):
    """A card script goes on over another interface, and there is no way to the card over that one."""

    code = "SCRIPT_NEEDS_INTERFACE"
    default_effect = "The script stopped; what it did before that step was done."
    default_advice = "Run it where the card can be reached both by its contacts and without."


@dataclass(frozen=True, slots=True)
class StepResult:
    """One step as it went. ``place``: 3.1[2] is the second repetition of step 1 in the macro that step 3 does.

    ``text`` is the script's own, without any value; ``found`` is a status word, or says what did not fit.
    """

    place: str
    text: str
    ok: bool
    found: str


@dataclass(frozen=True, slots=True)
class Result:
    """A script as it went; it ends with the first step that did not go as written."""

    name: str
    steps: tuple[StepResult, ...]
    applies: bool = True
    """Whether the card has what the script needs; else nothing was sent."""

    @property
    def passed(self) -> bool:
        """Whether all steps went as written."""
        return self.applies and all(step.ok for step in self.steps)

    @property
    def outcome(self) -> str:
        """``passed``, ``not applicable``, or where it ended and what was found there."""
        if not self.applies:
            return "not applicable"
        failed = next((step for step in self.steps if not step.ok), None)
        return "passed" if failed is None else f"{failed.place}: {failed.found}"


def run_script(
    script: Script,
    connection: Connection,
    secrets: Mapping[str, Secret | bytes],
    *,
    connect: Connect | None = None,
    features: Collection[str] = (),
    may_change: bool = False,
    at: datetime | None = None,
) -> Result:
    """Run ``script`` on the card behind ``connection``, which has to be over the script's interface.

    ``secrets`` are the values that scripts name: PIN and PUK as they are sent (8 octets), and so on; see
    docs/card-scripts.md. ``connect`` reaches the same card over an interface, for scripts that go on over the other.
    ``features`` are what the kind of card has. ``at``: the time that certificates are judged at.
    Raises ScriptChangesCard, ScriptValueMissing, ScriptMalformed, ScriptNeedsInterface, TransportError, BrokenExchange.
    """
    if script.changes and not may_change:
        raise ScriptChangesCard(f"The script {script.name} changes the card.")
    if not set(features).issuperset(script.needs):
        return Result(script.name, (), applies=False)
    run = _Run(script, connection, secrets, connect, frozenset(features), at or datetime.now(UTC))
    steps = []
    for step in run.steps(script.steps, ""):
        steps.append(step)
        if not step.ok:
            break
    return Result(script.name, tuple(steps))


class _Run:
    """One script under way."""

    def __init__(
        self,
        script: Script,
        connection: Connection,
        secrets: Mapping[str, Secret | bytes],
        connect: Connect | None,
        features: frozenset[str],
        at: datetime,
    ) -> None:
        self._script = script
        self._connect = connect
        self._features = features
        self._at = at
        self._values = {name: value.reveal() if isinstance(value, Secret) else value for name, value in secrets.items()}
        for name in _DERIVED:
            if name in self._values:
                self._values[f"WRONG_{name}"] = _wrong(self._values[name])
        self._questions: dict[str, Asked] = {}
        self._messaging: Messaging | None = None
        self._use(connection)

    def _use(self, connection: Connection) -> None:
        self._connection = connection
        self._exchange = Exchange(connection, Limits(extended=False))

    def steps(self, steps: tuple[Step, ...], above: str) -> Iterator[StepResult]:
        """Each step's result, as it is done."""
        for number, step in enumerate(steps, 1):
            if not self._features.issuperset(step.needs):
                continue
            for turn, bound in enumerate(step.each or ({},), 1):
                place = f"{above}{number}" + (f"[{turn}]" if step.each else "")
                names = {"it": bound} if isinstance(bound, str) else bound
                self._values |= {name: self._build(text) for name, text in names.items()}
                if isinstance(step, Do):
                    self._values |= {name: self._build(text) for name, text in step.given.items()}
                    yield from self.steps(self._script.macros[step.do], f"{place}.")
                else:
                    yield self._result(step, place)

    def _result(self, step: Step, place: str) -> StepResult:
        try:
            found, ok = self._found(step)
        except (ScriptMalformed, ScriptValueMissing, ScriptNeedsInterface, TransportError, BrokenExchange):
            raise
        except (Unfit, CardwrightError) as error:
            found, ok = error.code if isinstance(error, CardwrightError) else str(error), False
        return StepResult(place, _text(step), ok, found)

    def _found(self, step: Step) -> tuple[str, bool]:
        """What came of a step, and whether it is what was wanted."""
        match step:
            case Send():
                return self._sent(step)
            case Reset():
                self._connection.reset()
            case Over():
                self._go_over(step)
            case Let():
                self._values[step.let] = self._let(step)
            case Same():
                built = [self._build(text) for text in step.same]
                different = len(set(built))
                return ("the same", not step.differ) if different == 1 else (
                    "different",
                    step.differ and different == len(built),
                )
            case Fits():
                found, ok = self._fits(self._build(step.fits), step.data)
                return found, ok is not step.fails
            case Question():
                self._question(step)
            case Proof():
                if step.of not in self._questions:
                    raise ScriptMalformed(f"{self._script.name}: there is no question {step.of!r}")
                proved = self._questions[step.of].proves(self._build(step.proof))
                return "proved" if proved else "not proved", proved is not step.fails
            case Establish():
                self._establish(step)
            case Protect():
                command, _ = self._command(step.protect)
                self._values[step.into] = self._session().protect(command, padded=step.padded)
            case Unprotect():
                response = self._session().session.unwrap(ResponseAPDU(self._build(step.unprotect), SW.OK))
                return self._judged(response, step.sw, step.data)
            case Judge():
                return self._judge(step)
        return "done", True

    def _sent(self, step: Send) -> tuple[str, bool]:
        command, raw = self._command(step.send, raw=step.raw)
        if step.raw:
            response = ResponseAPDU.parse(self._connection.transmit(raw))
        elif step.protected:
            session = self._session().session
            response = self._follow(session.wrap(command))
            if response.sw == SW.OK:
                response = session.unwrap(response)
        else:
            response = self._follow(command, extended=step.extended)
        if step.status:
            self._values[step.status] = response.sw.to_bytes(2, "big")
        if step.tries and response.sw & 0xFFF0 == 0x63C0:
            self._values[step.tries] = bytes((response.sw & 0x0F,))
        return self._judged(response, step.sw, step.data)

    def _follow(self, command: CommandAPDU, *, extended: bool = False) -> ResponseAPDU:
        """The whole answer; a block that the card refuses answers for the whole command."""
        exchange = self._exchange
        if extended:
            exchange = Exchange(self._connection, Limits(extended=True))
            command = CommandAPDU(
                command.cla, command.ins, command.p1, command.p2, command.data, MAX_EXTENDED_LE if command.le else 0
            )
        try:
            return exchange.send(command)
        except BrokenExchange as error:
            if error.sw is None:
                raise
            return ResponseAPDU(b"", error.sw)

    def _judged(self, response: ResponseAPDU, sw: str, data: str | None) -> tuple[str, bool]:
        word = f"{response.sw:04X}"
        if not any(self._allows(wanted, word) for wanted in sw.split()):
            return word, False
        if data is None:
            return word, True
        found, ok = self._fits(response.data, data)
        return word if ok else f"{word} {found}", ok

    def _allows(self, wanted: str, word: str) -> bool:
        if "<" in wanted:
            name, _, less = wanted[4:-1].partition("-")
            if name not in self._values:
                raise ScriptValueMissing(name)
            return word == f"{wanted[:3]}{self._values[name][0] - int(less or 0):X}"
        if wanted.startswith("!"):
            return not self._allows(wanted[1:], word)
        return all(letter in ("X", digit) for letter, digit in zip(wanted, word, strict=True))

    def _fits(self, data: bytes, pattern: str) -> tuple[str, bool]:
        kept = _parse(pattern).match(data, self._values)
        if kept is None:
            return f"{len(data)} octets that do not fit", False
        self._values |= kept
        return "fits", True

    def _build(self, text: str) -> bytes:
        return _parse(text).build(self._values)

    def _command(self, text: str, *, raw: bool = False) -> tuple[CommandAPDU, bytes]:
        """The logical command of a text, and its octets as one APDU.

        A raw text without ``( )`` behind the first four octets is the APDU as it stands.
        """
        template = _parse(text)
        places = [number for number, item in enumerate(template.items) if isinstance(item, Group)]
        if not places:
            octets = template.build(self._values)
            le = octets[4] or MAX_SHORT_LE if len(octets) == 5 else 0
            if not raw and len(octets) not in (4, 5):
                raise ScriptMalformed(f"{self._script.name}: {text!r} is no header and Le")
            cla, ins, p1, p2 = octets[:4] if len(octets) in (4, 5) else bytes(4)
            return CommandAPDU(cla, ins, p1, p2, b"", le), octets
        at = places[0]
        head = Template(template.items[:at]).build(self._values)
        group = template.items[at]
        assert isinstance(group, Group)
        data = Template(group.items).build(self._values)
        tail = Template(template.items[at + 1 :]).build(self._values)
        if len(head) != 4 or len(tail) > 1 or (raw and len(data) > MAX_SHORT_DATA):
            raise ScriptMalformed(f"{self._script.name}: {text!r} is no header, ( data ) and Le that fit one command")
        le = tail[0] or MAX_SHORT_LE if tail else 0
        cla, ins, p1, p2 = head
        command = CommandAPDU(cla, ins, p1, p2, data, le)
        # T=0 has no case 4, so that a command that has both is sent without Le (ISO 7816-3 section 12.2).
        cut = tail if self._connection.link.transmission is Transmission.T1 else b""
        return command, head + bytes((len(data) & 0xFF,)) + data + cut

    def _let(self, step: Let) -> bytes:
        if step.encipher is not None:
            return self._management_key().encrypt(self._block(step.encipher))
        if step.decipher is not None:
            return self._management_key().decrypt(self._block(step.decipher))
        if step.altered is not None:
            value = self._build(step.altered)
            if not value:
                raise Unfit("nothing to alter")
            return value[:-1] + bytes((value[-1] ^ 1,))
        if step.point is not None:
            return point(self._octet(step.point))
        if step.be is None:
            raise ScriptMalformed(f"{self._script.name}: nothing is said about the value {step.let}")
        return self._build(step.be)

    def _management_key(self) -> ManagementKey:
        try:
            algorithm = ManagementAlgorithm(self._octet("<MANAGEMENT_ALGORITHM>"))
            return ManagementKey(algorithm, Secret(self._build("<MANAGEMENT_KEY>")))
        except ValueError as error:
            raise ScriptMalformed(f"{self._script.name}: the management key given is none: {error}") from error

    def _block(self, text: str) -> bytes:
        """One block of the management key's cipher."""
        block = self._build(text)
        if len(block) != self._management_key().algorithm.block_octets:
            raise Unfit(f"{len(block)} octets are no block")
        return block

    def _octet(self, text: str) -> int:
        """The one octet that ``text`` builds."""
        octets = self._build(text)
        if len(octets) != 1:
            raise ScriptMalformed(f"{self._script.name}: {text!r} is not one octet")
        return octets[0]

    def _go_over(self, step: Over) -> None:
        if self._connect is None:
            raise ScriptNeedsInterface(f"The script {self._script.name} goes on over the {step.over} interface.")
        self._connection.close()
        self._use(self._connect(Interface(step.over)))

    def _question(self, step: Question) -> None:
        slot = self._octet(step.slot)
        if step.generated is not None and step.algorithm is not None:
            key = generated_key(self._octet(step.algorithm), self._build(step.generated))
        elif step.certificate is not None:
            key = certified_key(self._slot_tag(slot), self._build(step.certificate))
        else:
            raise ScriptMalformed(f"{self._script.name}: the question {step.question} is for no key")
        asked = ask(slot, key)
        self._questions[step.question] = asked
        self._values |= {step.question: asked.element, f"{step.question}_algorithm": bytes((asked.algorithm,))}

    def _slot_tag(self, slot: int) -> int:
        if slot not in containers.CONTAINERS_BY_SLOT:
            raise ScriptMalformed(f"{self._script.name}: {slot:02X} is no slot")
        return containers.CONTAINERS_BY_SLOT[slot].tag

    def _establish(self, step: Establish) -> None:
        signer = None if step.signer is None else self._build(step.signer)
        try:
            suite = SmSuite(self._octet("<SM_SUITE>"))
        except ValueError as error:
            raise ScriptMalformed(f"{self._script.name}: the cipher suite given is none: {error}") from error
        self._messaging = Messaging(suite, self._exchange, signer)
        self._values[step.establish] = self._messaging.session.card.guid

    def _session(self) -> Messaging:
        if self._messaging is None:
            raise ScriptMalformed(f"{self._script.name} sends protected commands before it opened a session")
        return self._messaging

    def _judge(self, step: Judge) -> tuple[str, bool]:
        objects: dict[int, bytes | None] = {}
        for row in containers.PIV_CONTAINERS:
            response = self._follow(commands.get_data(row.tag))
            if response.sw == SW.OK:
                objects[row.tag] = response.data
        missing = [tag for tag in step.objects if int.from_bytes(self._build(tag), "big") not in objects]
        if missing:
            return f"no object {missing[0]}", False
        report = check(CardData(objects), level=Level(step.judge), at=self._at)
        codes = {each.code for each in report.findings}
        wrong = codes & set(step.without) if step.without else {each.code for each in report.of(Severity.ERROR)}
        return ", ".join(sorted(wrong)) or "good", not wrong


def _text(step: Step) -> str:
    """The step's main text, as it stands in the script."""
    fields = [str(getattr(step, name)) for name in step.__struct_fields__ if name not in ("each", "needs")]
    return f"{type(step).__name__.lower()} {fields[0]}"


def _wrong(value: bytes) -> bytes:
    """Another value of the same form: the last octet before the padding is another digit, or has another bit."""
    end = len(value.rstrip(b"\xff")) - 1
    last = value[end]
    other = 0x30 + (last - 0x30 + 1) % 10 if 0x30 <= last <= 0x39 else last ^ 1
    return value[:end] + bytes((other,)) + value[end + 1 :]
