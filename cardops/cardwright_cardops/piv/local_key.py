"""A slot's key offered locally: a ``cryptography`` private key whose operations run on the card, one stage each."""

from __future__ import annotations

from ..errors import CardwrightError
from ..program.items import Item, Program, UseKey, VerifyPin, ask
from ..program.runner import Executor, run
from .algorithms import Algorithm, PublicKey
from .containers import CONTAINERS
from .pins import reference_name
from .private_key import CardPrivateKey, card_private_key
from .programs import Marks, confirm, read_certificate, read_marks, slot_key
from .references import PinReference, Slot

STAGE = "key"


class NoKeyInSlot(CardwrightError):
    """The card shows neither a key nor a certificate for the slot."""

    code = "KEY_NOT_FOUND"
    default_effect = "Nothing was signed or decrypted; the card is as before."
    default_advice = "'cardwright card show' lists the keys; a card that hides its keys needs the certificate first."


def open_key(
    executor: Executor, slot: Slot, public: PublicKey | None = None, *, pin: PinReference | None = PinReference.PIN
) -> CardPrivateKey:
    """The key of ``slot`` for as long as ``executor`` (one that allows UseKey) has this card.

    ``public`` is read from the card when it is not given: its metadata, else the slot's certificate. Every use is a
    stage of its own, which confirms that it is still the same card, verifies ``pin`` (the custodian remembers it; None
    for keys that need none, like 9E) and uses the key in the next command, as a key that always wants the PIN asks.

    Raises NoKeyInSlot, UnsupportedAlgorithm, MalformedObject, StatusError, TransportError. The key's methods raise
    the last two as well, and AnotherCard, NoPin, LastTry, AlreadyBlocked.
    """
    marks, found = run(_find(slot, public), executor)
    algorithm = Algorithm.of(found)

    def use(data: bytes, agree: bool) -> bytes:
        return run(_use(marks, UseKey(slot, algorithm, data, agree), pin), executor)

    return card_private_key(found, use)


def _find(slot: Slot, public: PublicKey | None) -> Program[tuple[Marks, PublicKey]]:
    marks = yield from read_marks(STAGE)
    if public is None:
        public = yield from slot_key(slot, STAGE)
    if public is None:
        stored = yield from read_certificate(slot, STAGE)
        if stored is None:
            raise NoKeyInSlot(f"Slot {slot.label} shows no key and no certificate.")
        # A key of a kind that no slot holds is refused by Algorithm.of.
        public = stored.x509(CONTAINERS[slot.certificate_tag]).public_key()  # type: ignore[assignment]
    assert public is not None
    return marks, public


def _use(marks: Marks, item: UseKey, pin: PinReference | None) -> Program[bytes]:
    yield from confirm(marks, STAGE)
    items: tuple[Item, ...] = (item,) if pin is None else (VerifyPin(pin), item)
    answers = yield from ask(*items, stage=STAGE, essential=True)
    if pin is not None:
        answers[0].require(f"verifying the {reference_name(pin)}")
    return answers[-1].require(f"using the key of slot {Slot(item.slot).label}")
