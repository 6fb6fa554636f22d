"""Card scripts as values, and their strict reader. docs/card-scripts.md describes the format."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from .template import ScriptMalformed
from .template import parse as template

MAX_FILE: Final = 1 << 20
_STATUS: Final = re.compile(r"!?[0-9A-F]{2}[0-9A-FX]{2}|[0-9A-F]{3}<[a-z_]+(-[0-9])?>")
_HERE: Final = Path(__file__).parent / "conformance"
_MACROS: Final = "macros.toml"
_BUILT: Final = frozenset(
    ("send", "be", "encipher", "decipher", "altered", "point", "fits", "slot", "certificate", "generated", "algorithm",
     "proof", "signer", "protect", "unprotect")
)  # fmt: skip
"""Fields whose text is built; ``data`` is compared with."""


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every step has: ``each`` repeats it, with ``it`` or the names of a table bound to templates.

    A step is left out on cards without a feature that it ``needs``.
    """

    each: tuple[str | dict[str, str], ...] = ()
    needs: tuple[str, ...] = ()


class Send(Step, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Send a command; ``sw`` are the status words allowed, ``data`` what the answer looks like.

    ``raw``: one APDU, and its answer is not followed up. ``extended``: in extended length. ``protected``: by secure
    messaging. ``tries``: where the X of 63CX is kept. ``status``: where the status word is kept.
    """

    send: str
    sw: str = "9000"
    data: str | None = None
    raw: bool = False
    extended: bool = False
    protected: bool = False
    tries: str = ""
    status: str = ""


class Do(Step, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The steps of a macro, with values bound to names."""

    do: str
    given: dict[str, str] = {}


class Reset(Step, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Warm reset of the card."""

    reset: Literal[True]


class Over(Step, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Go on over this interface of the same card; nothing is selected there yet."""

    over: Literal["contact", "contactless"]


class Let(Step, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bind a name to one of: a template, a block under the management key, a value with its last octet altered, a
    point on the curve of an algorithm."""

    let: str
    be: str | None = None
    encipher: str | None = None
    decipher: str | None = None
    altered: str | None = None
    point: str | None = None


class Same(Step, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of these templates build the same octets; with ``differ`` no two do."""

    same: tuple[str, ...]
    differ: bool = False


class Fits(Step, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the template builds looks like ``data``; with ``fails`` it does not."""

    fits: str
    data: str
    fails: bool = False


class Question(Step, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Think of something that only the key of ``slot`` can answer; NAME, NAME_algorithm are bound.

    The public key comes from ``certificate`` (an answer of GET DATA) or from ``generated`` (an answer of GENERATE
    with ``algorithm``).
    """

    question: str
    slot: str
    certificate: str | None = None
    generated: str | None = None
    algorithm: str | None = None


class Proof(Step, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The card's answer to the question named ``of`` proves its key; with ``fails`` it does not."""

    proof: str
    of: str
    fails: bool = False


class Establish(Step, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Open secure messaging; GUID of the card's certificate under the name. ``signer``: GET DATA of 5FC122."""

    establish: str
    signer: str | None = None


class Protect(Step, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Wrap a command without sending it; its data field under ``into``. ``padded`` false: with wrong padding."""

    protect: str
    into: str
    padded: bool = True


class Unprotect(Step, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Unwrap the answer to the command that was protected last, and compare what was inside."""

    unprotect: str
    sw: str = "9000"
    data: str | None = None


class Judge(Step, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Read every object and check the card at a level: these objects are there, and nothing of ``without`` is found.

    An empty ``without`` allows no error at all.
    """

    judge: Literal["piv", "piv-i", "civ", "basic"]
    objects: tuple[str, ...]
    without: tuple[str, ...] = ()


VERBS: Final[dict[str, type[Step]]] = {
    "send": Send, "do": Do, "reset": Reset, "over": Over, "let": Let, "same": Same, "fits": Fits, "question": Question,
    "proof": Proof, "establish": Establish, "protect": Protect, "unprotect": Unprotect, "judge": Judge,
}  # fmt: skip


class _ScriptRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    title: str
    steps: list[dict[str, Any]]
    interface: Literal["contact", "contactless"] = "contact"
    needs: tuple[str, ...] = ()
    card: str = "personal"
    changes: bool = False


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    script: tuple[_ScriptRow, ...] = ()
    macro: dict[str, list[dict[str, Any]]] = {}


class Script(msgspec.Struct, frozen=True):
    """One script. ``card`` names the content it is written for, ``needs`` what the kind of card must have.

    ``changes``: whether it leaves the card other than it found it, up to a blocked PIN.
    """

    name: str
    title: str
    steps: tuple[Step, ...]
    interface: str
    needs: tuple[str, ...]
    card: str
    changes: bool
    macros: dict[str, tuple[Step, ...]]


def load(path: str | Path) -> tuple[Script, ...]:
    """The scripts of a TOML file, with the common macros and its own. Raises ScriptMalformed, OSError."""
    path = Path(path)
    if path.stat().st_size > MAX_FILE:
        raise ScriptMalformed(f"{path.name} is larger than {MAX_FILE} octets")
    return parse(path.read_bytes(), path.name)


def parse(text: bytes, source: str = "the script") -> tuple[Script, ...]:
    """The same from the text of a file. Raises ScriptMalformed."""
    rows, own = _file(text, source)
    macros = _macros() | {name: _steps(steps, f"{source}, macro {name}") for name, steps in own.items()}
    scripts = tuple(
        Script(
            row.name, row.title, _steps(row.steps, f"{source}, {row.name}"), row.interface, row.needs, row.card,
            row.changes, macros,
        )
        for row in rows
    )  # fmt: skip
    for script in scripts:
        _require_macros(script.steps, macros, (), script.name)
    return scripts


def conformance() -> tuple[Script, ...]:
    """The card-edge conformance suite, in the order of its names. Raises ScriptMalformed, OSError."""
    files = sorted(path for path in _HERE.iterdir() if path.suffix == ".toml" and path.name != _MACROS)
    return tuple(sorted((script for path in files for script in load(path)), key=lambda script: script.name))


def _macros() -> dict[str, tuple[Step, ...]]:
    rows = _file((_HERE / _MACROS).read_bytes(), _MACROS)[1]
    return {name: _steps(steps, f"macro {name}") for name, steps in rows.items()}


def _file(text: bytes, source: str) -> tuple[tuple[_ScriptRow, ...], dict[str, list[dict[str, Any]]]]:
    try:
        seen = msgspec.convert(tomllib.loads(text.decode()), _File)
    except (ValueError, msgspec.ValidationError) as error:
        raise ScriptMalformed(f"{source}: {error}") from error
    return seen.script, seen.macro


def _steps(rows: list[dict[str, Any]], place: str) -> tuple[Step, ...]:
    return tuple(_step(row, f"{place}, step {number}") for number, row in enumerate(rows, 1))


def _step(row: dict[str, Any], place: str) -> Step:
    verbs = [VERBS[key] for key in row if key in VERBS]
    if len(verbs) != 1:
        raise ScriptMalformed(f"{place} has {len(verbs)} verbs, not one of: {', '.join(VERBS)}")
    try:
        step = msgspec.convert(row, verbs[0])
    except msgspec.ValidationError as error:
        raise ScriptMalformed(f"{place}: {error}") from error
    if isinstance(step, Send | Unprotect):
        for word in step.sw.split() or ("",):
            if not _STATUS.fullmatch(word):
                raise ScriptMalformed(f"{place}: {word!r} is no status word")
    for text, builds in _texts(step):
        if builds and not template(text).builds:
            raise ScriptMalformed(f"{place}: {text!r} does not say each octet")
    return step


def _texts(step: Step) -> Iterator[tuple[str, bool]]:
    """The step's templates, each read; whether it has to say each octet."""
    for bound in step.each:
        yield from ((text, True) for text in ((bound,) if isinstance(bound, str) else bound.values()))
    for name in step.__struct_fields__:
        value = getattr(step, name)
        if name in _BUILT and isinstance(value, str):
            yield value, True
        elif name == "data" and isinstance(value, str):
            template(value)
            yield value, False
        elif name in ("same", "objects"):
            yield from ((text, True) for text in value)
        elif name == "given":
            yield from ((text, True) for text in value.values())


def _require_macros(
    steps: tuple[Step, ...], macros: dict[str, tuple[Step, ...]], open_ones: tuple[str, ...], place: str
) -> None:
    for step in steps:
        if not isinstance(step, Do):
            continue
        if step.do not in macros or step.do in open_ones:
            raise ScriptMalformed(f"{place}: there is no macro {step.do!r}, or it calls itself")
        _require_macros(macros[step.do], macros, (*open_ones, step.do), place)
