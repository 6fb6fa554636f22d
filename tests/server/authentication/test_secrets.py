"""Hashes, answers and handed passwords: pure values."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.secret import Secret
from cardwright_server.authentication.answers import BadAnswer, check, normalized, secret_of
from cardwright_server.authentication.hashing import Cost, Hasher
from cardwright_server.authentication.machine import METHOD, MethodEvent, MethodState
from cardwright_server.authentication.methods import ALPHABET, folded_password, new_password
from cardwright_server.machine import Actor, IllegalTransition

CHEAP = Cost(memory=64, passes=1)


@given(st.text(max_size=60))
def test_a_normalized_answer_is_its_own_form_and_spaces_and_case_do_not_count(text: str) -> None:
    form = normalized(text)
    assert normalized(form) == form
    assert normalized(f"\t{text} \n") == form
    assert not any(character.isspace() for character in form)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Straße 4", "STRASSE4"),
        ("Café", "cafe\u0301"),
        ("\uff21\uff42\uff43", "abc"),
        ("a\u00a0b\u2003c", "ABC"),
        ("\u0130", "i\u0307"),
    ],
)
def test_the_same_answer_however_it_is_typed(one: str, other: str) -> None:
    assert secret_of(one) == secret_of(other)


@pytest.mark.parametrize(
    ("answers", "place"),
    [
        (("ab", "good one"), 0),
        (("good one", " a b "), 1),
        (("good one", "GOOD  ONE"), 0),
        (("your street", "good one"), 0),
        (("good one", "Your Town?"), 1),
        (("anna.smith", "good one"), 0),
        (("good one", "Smith"), 1),
        (("x" * 201, "good one"), 0),
        (("good one",), 1),
    ],
)
def test_bad_answers_and_their_place(answers: tuple[str, ...], place: int) -> None:
    with pytest.raises(BadAnswer) as caught:
        check(("Your street?", "Your town?"), answers, ("anna.smith", "Anna Smith", "anna@example.org"))
    assert caught.value.place == place
    assert not any(answer in str(caught.value) for answer in answers)
    check(("Your street?", "Your town?"), ("good one", "other one"), ("anna.smith",))


def test_an_answer_that_is_too_long_never_matches_another() -> None:
    assert secret_of("x" * 201) == secret_of("y" * 5000) != secret_of("x" * 200)


async def test_hashes_are_argon2id_salted_and_judged_by_another_implementation_of_the_string() -> None:
    hasher = Hasher()
    first, second = [await hasher.hash(Secret(b"same")) for _ in range(2)]
    assert first != second
    assert re.fullmatch(r"\$argon2id\$v=19\$m=19456,t=2,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}", first)
    hasher.close()


async def test_every_place_counts() -> None:
    hasher = Hasher(CHEAP)
    one, two = Secret(b"one"), Secret(b"two")
    hashes = [await hasher.hash(one), await hasher.hash(two)]
    assert await hasher.matches(hashes, [one, two])
    for kept, values in (
        (hashes, [two, one]),
        (hashes, [one]),
        (hashes[:1], [one, two]),
        ([*hashes[:1], None], [one, two]),
        ([None], [one]),
        ([], []),
        ([None], []),
    ):
        assert not await hasher.matches(kept, values)
    hasher.close()


async def test_many_at_once_do_not_stop_the_loop() -> None:
    hasher = Hasher(Cost(memory=8192, passes=2))
    beats = 0
    work = asyncio.gather(*(hasher.hash(Secret(b"x")) for _ in range(10)))
    while not work.done():
        beats += 1
        await asyncio.sleep(0)
    assert len(set(await work)) == 10
    assert beats > 10
    hasher.close()


def test_handed_passwords_are_long_enough_and_read_aloud() -> None:
    made = {new_password(3) for _ in range(200)}
    assert len(made) == 200
    assert all(re.fullmatch(rf"([{ALPHABET}]{{4}}-){{2}}[{ALPHABET}]{{4}}", one) for one in made)
    assert len(ALPHABET) ** 12 == 2**60
    assert folded_password(Secret(b"l0-oi ")) == folded_password(Secret(b"1001"))
    assert folded_password(Secret(b"\xff\xfe" * 10)) == Secret(b"")


def test_the_machine_of_a_method() -> None:
    assert METHOD.final == frozenset()
    with pytest.raises(IllegalTransition):
        METHOD.next(MethodState.LOCKED, MethodEvent.EXHAUST, Actor.SERVER)
    with pytest.raises(IllegalTransition):
        METHOD.next(MethodState.LOCKED, MethodEvent.RESET, Actor.USER)
    with pytest.raises(IllegalTransition):
        METHOD.next(MethodState.ENABLED, MethodEvent.UNLOCK, Actor.HELP_DESK)


def test_the_command_line_does_not_pay_for_ldap() -> None:
    code = "import sys, cardwright_server.authentication.matrix; sys.exit('ldap' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
