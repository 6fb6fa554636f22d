"""Enums of the contract and ours, paired by the names of their members."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import Any, Generic, TypeVar

from . import reading as read

E = TypeVar("E", bound=Enum)


class Choices(Generic[E]):
    """``KIND_USB_KEY`` of the contract is ``Kind.USB_KEY`` of ours, with ``prefix`` "KIND".

    ``wire`` is the generated class of the enum. ``unset`` is the member that 0 stands for in answers. ``renamed`` has
    the contract's name, without prefix, of members that it calls otherwise. Raises ValueError unless each member has
    exactly one number, and each number but 0 a member.
    """

    def __init__(
        self,
        ours: type[E],
        wire: Any,
        prefix: str,
        *,
        unset: E | None = None,
        renamed: Mapping[E, str] | None = None,
    ) -> None:
        names = {f"{prefix}_{(renamed or {}).get(one, one.name)}": one for one in ours if one is not unset}
        numbers = {name: number for name, number in wire.items() if number}
        if names.keys() != numbers.keys():
            raise ValueError(f"{ours.__name__} and {prefix} differ in {sorted(names.keys() ^ numbers.keys())}")
        self._members: Mapping[int, E] = {numbers[name]: one for name, one in names.items()}
        self._numbers = {one: number for number, one in self._members.items()}
        if unset is not None:
            self._numbers[unset] = 0

    def one(self, number: int, name: str) -> E:
        """The member of a field that has to be given. Raises RequestMalformed."""
        return read.choice(self._members, number, name)

    def optional(self, number: int, name: str) -> E | None:
        """The member, or None for 0. Raises RequestMalformed."""
        return read.optional_choice(self._members, number, name)

    def several(self, numbers: Sequence[int], name: str) -> frozenset[E]:
        """The members of a repeated field, each at most once. Raises RequestMalformed."""
        read.at_most(numbers, len(self._members), name)
        return frozenset(self.one(number, name) for number in numbers)

    def number(self, value: E | None) -> Any:
        """The contract's number; 0 for None. Typed for the field of whichever enum it is."""
        return 0 if value is None else self._numbers[value]

    def numbers(self, values: Collection[E]) -> list[Any]:
        """Numbers in rising order."""
        return sorted(self._numbers[one] for one in values)
