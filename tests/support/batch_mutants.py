"""A batch with every field, order and item changed: what a hostile server could send in its place."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from cardwright_cardops.program.items import (
    Apdu,
    Batch,
    Block,
    Group,
    Item,
    Prove,
    SetPin,
    SetPuk,
    SignIn,
    SignRequest,
    Unblock,
    UseKey,
    VerifyPin,
    Want,
)
from cardwright_cardops.secret import Secret
from tests.support import guarded as g


def with_items(batch: Batch, position: int, *items: Item) -> Batch:
    """``batch`` with the item at ``position``, counted through all groups, replaced by these."""
    groups, count = [], 0
    for group in batch.groups:
        here = position - count
        count += len(group.items)
        if 0 <= here < len(group.items):
            group = replace(group, items=(*group.items[:here], *items, *group.items[here + 1 :]))
        groups.append(group)
    return Batch(tuple(group for group in groups if group.items), batch.stage)


# ------------------------------------------------------------------------------------------------ kinds of mutants
# Changes, not changed batches: challenges, keys and certificates are others in every session.

Change = Callable[[Batch], Batch]
Mutants = Iterator[tuple[str, Change]]


def at(position: int, change: Callable[[Apdu], Apdu]) -> Change:
    """A change of the command at ``position``."""

    def changed(batch: Batch) -> Batch:
        item = batch.items[position]
        assert isinstance(item, Apdu)
        return with_items(batch, position, change(item))

    return changed


def command(**fields: int) -> Callable[[Apdu], Apdu]:
    """Other fields of the command."""
    return lambda item: replace(item, command=replace(item.command, **fields))  # type: ignore[arg-type]


def data(change: Callable[[bytes], bytes]) -> Callable[[Apdu], Apdu]:
    """Other data of the command."""
    return lambda item: replace(item, command=replace(item.command, data=change(item.command.data)))


def flip(where: int, bit: int) -> Callable[[bytes], bytes]:
    """One octet changed; the last one where the data is shorter this time."""

    def flipped(octets: bytes) -> bytes:
        here = min(where, len(octets) - 1)
        return octets[:here] + bytes((octets[here] ^ bit,)) + octets[here + 1 :]

    return flipped


def apdus(batch: Batch) -> Iterator[tuple[int, Apdu]]:
    """The commands and their places."""
    return ((position, item) for position, item in enumerate(batch.items) if isinstance(item, Apdu))


def replaced(position: int, item: Item) -> Change:
    """Another item at ``position``."""
    return lambda batch: with_items(batch, position, item)


def inserted(position: int, item: Item) -> Change:
    """One more item before ``position``."""
    return lambda batch: with_items(batch, position, item, batch.items[position])


def joined(front: tuple[Group, ...] | None, behind: tuple[Group, ...] | None) -> Change:
    """These groups in one batch; None stands for those of the batch itself."""

    def change(batch: Batch) -> Batch:
        both = (batch.groups if part is None else part for part in (front, behind))
        return Batch(tuple(group for part in both for group in part), g.STAGE)

    return change


def headers(batch: Batch) -> Mutants:
    """Every value of every header octet of every command."""
    for position, _ in apdus(batch):
        for name, value in itertools.product(("cla", "ins", "p1", "p2"), range(256)):
            yield f"{position} {name} {value:02X}", at(position, command(**{name: value}))


LENGTHS: tuple[Callable[[bytes], bytes], ...] = (
    lambda octets: b"",
    lambda octets: octets[:-1],
    lambda octets: octets + b"\x00",
    lambda octets: octets + octets,
    lambda octets: octets[1:],
)


def contents(batch: Batch) -> Mutants:
    """Octets of the data changed, cut, added."""
    for position, item in apdus(batch):
        size = len(item.command.data)
        for where, bit in itertools.product(range(0, size, 1 if size < 200 else 9), (0x01, 0x80)):
            yield f"{position} octet {where} bit {bit}", at(position, data(flip(where, bit)))
        for number, change in enumerate(LENGTHS):
            yield f"{position} length {number}", at(position, data(change))


def forms(batch: Batch) -> Mutants:
    """What is wanted and expected of every command."""
    for position, _ in apdus(batch):
        for le in (0, 1, 256, 65536):
            yield f"{position} le {le}", at(position, command(le=le))
        for want in Want:
            yield f"{position} {want}", at(position, partial(replace, want=want))
        for accept in (frozenset((0x9000, 0x6982, 0x6A80)), frozenset(range(0x6000, 0x9001))):
            yield f"{position} accepts more", at(position, partial(replace, accept=accept))
        yield f"{position} expects", at(position, partial(replace, expect=bytes(32)))


REFERENCES = (0x00, 0x04, 0x80, 0x81, 0x82, 0x95, 0x96, 0x98, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0xF9, 0xFF)


def key_items(octets: Iterable[int]) -> Iterator[Item]:
    """Every kind of key item with these slots and references, and all there is to choose of the rest."""
    name, nonce = g.NAME.public_bytes(), bytes(16)
    puks = [Secret(one) for one in (g.PUK, g.NEW_PUK, b"12345678", b"00000000", b"1234567", b"123456789")]
    for octet in octets:
        yield VerifyPin(octet)
        yield SetPin(octet)
        yield Block(octet)
        yield SignRequest(octet, name)
        yield Prove(octet, 0x11, nonce)
        yield UseKey(octet, 0x11, bytes(32))
        yield UseKey(octet, 0x11, bytes(65), agree=True)
    for algorithm in (0x00, 0x07, 0x14, 0xE0, 0xFF):
        yield Prove(0x9E, algorithm, nonce)
        yield SignIn(algorithm, "https://evil.example", nonce)
    yield from (Unblock(puk) for puk in puks)
    yield from (SetPuk(old, new) for old, new in itertools.product(puks, puks))


def key_item_mutants(batch: Batch) -> Mutants:
    """Each item replaced by every key item; the last one by those of all 256 slots and references."""
    last = len(batch.items) - 1
    for position in range(last + 1):
        for item in key_items(range(256) if position == last else REFERENCES):
            yield f"{position} {item}", replaced(position, item)


def one_group(batch: Batch, items: Iterable[Item]) -> Batch:
    """These items in one essential group of the same stage."""
    return Batch((Group(tuple(items), True),), batch.stage)


def exchanged(batch: Batch, one: int, two: int) -> Batch:
    """Two items in each other's place."""
    return with_items(with_items(batch, one, batch.items[two]), two, batch.items[one])


def moved(batch: Batch, source: int, target: int) -> Batch:
    """One item at another place."""
    rest = [item for number, item in enumerate(batch.items) if number != source]
    rest.insert(target, batch.items[source])
    return one_group(batch, rest)


def repeated(batch: Batch, position: int, times: int) -> Batch:
    """One item several times, or left out."""
    return with_items(batch, position, *[batch.items[position]] * times)


def orders(batch: Batch) -> Mutants:
    """Two items exchanged, one left out, one twice, one more often than allowed, one moved."""
    places = range(len(batch.items))
    for one, two in itertools.permutations(places, 2):
        yield f"{one} and {two} exchanged", partial(exchanged, one=one, two=two)
        yield f"{one} moved to {two}", partial(moved, source=one, target=two)
    for position, times in itertools.product(places, (0, 2, 10)):
        yield f"{position} {times} times", partial(repeated, position=position, times=times)


def regrouped(batch: Batch, stage: str, essential: bool, cut: int, again: int) -> Batch:
    """All items in groups of ``cut``, several times; backwards with a negative ``cut``."""
    items = batch.items if cut > 0 else batch.items[::-1]
    step = abs(cut)
    groups = tuple(Group(items[start : start + step], essential) for start in range(0, len(items), step))
    return Batch(groups * again, stage)


def structures(batch: Batch) -> Mutants:
    """Groups cut and joined, essential or not, twice, in another transaction."""
    sizes = sorted({1, -1, 2, len(batch.items), -len(batch.items)})
    for stage, essential, cut, again in itertools.product((batch.stage, "", "other"), (True, False), sizes, (1, 2)):
        change = partial(regrouped, stage=stage, essential=essential, cut=cut, again=again)
        yield f"{stage!r} {essential} by {cut}, {again} times", change


def strangers(recorded: Sequence[Batch], batch: Batch) -> Mutants:
    """Items of all batches of another session, put in at every place; other batches in its place."""
    for number, other in enumerate(recorded):
        yield f"batch {number} instead", joined((), other.groups)
        yield f"batch {number} in front", joined(other.groups, None)
        yield f"batch {number} behind", joined(None, other.groups)
        for index, item in enumerate(other.items):
            yield f"item {number}.{index} alone", joined((), (Group((item,), True),))
            for position in range(len(batch.items)):
                yield f"item {number}.{index} at {position}", inserted(position, item)


def kinds_with(recorded: Sequence[Batch]) -> dict[str, Callable[[Batch], Mutants]]:
    """Every kind of mutant, by name. ``recorded``: batches of another session, whose items are put in, too."""
    own = (headers, contents, forms, key_item_mutants, orders, structures)
    return {**{kind.__name__: kind for kind in own}, strangers.__name__: partial(strangers, recorded)}
