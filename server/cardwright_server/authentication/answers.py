"""Security answers: the form in which they are compared, and which answers are refused."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.secret import Secret

SHORTEST = 3
LONGEST = 200


class BadAnswer(CardwrightError):
    """An answer that must not be set. ``place`` is its question, counted from 0."""

    code = "BAD_ANSWER"
    default_effect = "No answer was changed."
    default_advice = "Choose another answer for this question."

    def __init__(self, message: str, place: int) -> None:
        super().__init__(message)
        self.place = place


def normalized(answer: str) -> str:
    """NFKC, case folded, all white space removed; NFKC once more, because folding may undo it."""
    text = unicodedata.normalize("NFKC", answer).casefold()
    return "".join(unicodedata.normalize("NFKC", text).split())


def secret_of(answer: str) -> Secret:
    """What is hashed. Over-long input is cut to a value that cannot match, so that it costs no more than others."""
    text = normalized(answer[: LONGEST + 1])
    return Secret(text.encode("utf-8", "surrogatepass") if len(answer) <= LONGEST else b"\xff")


def check(questions: Sequence[str], answers: Sequence[str], names: Iterable[str]) -> None:
    """Raises BadAnswer for the first answer that others would guess, or that is none.

    Refused: fewer than three characters in normalized form, equal to a question, to another answer, or to a name of
    the person (login, names and their words). The texts must be as many as the questions, else BadAnswer.
    """
    if len(answers) != len(questions):
        raise BadAnswer("every question needs an answer", min(len(answers), len(questions)))
    forms = [normalized(answer) for answer in answers]
    asked = {normalized(question) for question in questions} | {
        normalized(question).rstrip("?!.:") for question in questions
    }
    own = {normalized(part) for name in names for part in (name, *name.replace("@", " ").replace(".", " ").split())}
    for place, (answer, form) in enumerate(zip(answers, forms, strict=True)):
        if len(form) < SHORTEST:
            raise BadAnswer(f"an answer needs at least {SHORTEST} characters besides spaces", place)
        if len(answer) > LONGEST:
            raise BadAnswer(f"an answer has at most {LONGEST} characters", place)
        if form in asked or form.rstrip("?!.:") in asked:
            raise BadAnswer("an answer must not repeat a question", place)
        if form in own:
            raise BadAnswer("an answer must not be a name of yours", place)
        if forms.count(form) > 1:
            raise BadAnswer("two answers must not be the same", place)
