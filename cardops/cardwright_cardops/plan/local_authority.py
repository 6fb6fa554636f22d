"""The authority of ``card init``: everything is made here, and kept in the journal by the execution.

Self-signed certificates, an unsigned CHUID with a random GUID, a new management key, keys to import.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from cryptography import exceptions
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import load_der_private_key

from ..errors import CardwrightError
from ..piv import containers
from ..piv.algorithms import Algorithm, ManagementAlgorithm, PrivateKey, UnsupportedAlgorithm
from ..piv.management_key import DEFAULT_KEY, ManagementKey, answer_witness, check_response
from ..piv.objects import Ccc, Chuid, Fascn, KeyHistory
from ..piv.objects.certificate import readable
from ..piv.references import RETIRED_SLOTS, Slot
from ..piv.vendor import yubico
from ..program.items import UseKey
from ..secret import Secret
from .authority import (
    Algorithms,
    AnswerWitness,
    Certify,
    CheckWitness,
    Granted,
    Issued,
    KeyAlgorithms,
    KeyGiven,
    KeyToImport,
    ManagementKeyGiven,
    NewManagementKey,
    ObjectContent,
    Preflight,
    Puk,
    Question,
    Refused,
    Reply,
    SecretGiven,
    Signed,
    SignFirst,
    SignsAhead,
    WitnessAnswer,
)
from .candidates import GIVEN, ManagementKeyUnknown, PukUnknown
from .inventory import Inventory, fingerprint
from .records import DEFAULT, Entry, Journal, JournalMalformed, Kind
from .self_signed import Draft

NON_FEDERAL: Final = Fascn("9999", "9999", "999999")
"""The FASC-N of cards that no federal agency issued (SP 800-73-5 part 1 section 3.1.2)."""
VALIDITY: Final = timedelta(days=5 * 365)
_BY_LENGTH: Final = {
    16: (ManagementAlgorithm.AES128,),
    24: (ManagementAlgorithm.TDES, ManagementAlgorithm.AES192),
    32: (ManagementAlgorithm.AES256,),
}


class SecretMalformed(CardwrightError):
    """A PIN, PUK or management key that no card can have."""

    code = "SECRET_MALFORMED"
    default_effect = "Nothing was sent to the card."
    default_advice = "A PIN has 6 to 8 digits, a PUK 8 characters, a management key 16, 24 or 32 octets."


class LocalAuthority:
    """Answers for one card in one session.

    ``journal`` has what earlier sessions made; the execution keeps there what this one makes. ``new_puk`` has 8
    octets. ``management_key`` and ``puk`` are the values in use now, where the person gave them. Certificates and
    CHUID end ``validity`` after ``now``. Raises SecretMalformed.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        new_puk: Secret | None,
        now: datetime,
        management_key: Secret | None = None,
        puk: Secret | None = None,
        validity: timedelta = VALIDITY,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._journal = journal
        self._random = random
        self._given_key = management_key
        if management_key is not None and len(management_key) not in _BY_LENGTH:
            raise SecretMalformed("The management key given does not have 16, 24 or 32 octets.")
        for value in (new_puk, puk):
            if value is not None and len(value) != 8:
                raise SecretMalformed("A PUK does not have 8 characters.")
        self._puks = {DEFAULT: yubico.DEFAULT_PUK} | ({GIVEN: puk} if puk is not None else {})
        self._target_puk = new_puk
        self._now = now.replace(microsecond=0)
        self._end = (now + validity).date()
        self._guid: UUID | None = None
        self._drafts: dict[Slot, Draft] = {}

    def _of(self, kind: Kind) -> list[Entry]:
        return [entry for entry in self._journal.entries() if entry.kind is kind]

    def answer(self, questions: tuple[Question, ...]) -> tuple[Reply, ...]:
        """Raises ManagementKeyUnknown, PukUnknown, ManagementKeyRefused, MalformedAnswer."""
        return tuple(map(self._answer, questions))

    def _answer(self, question: Question) -> Reply:
        match question:
            case Preflight():
                return self._begin(question.inventory)
            case KeyAlgorithms():
                return self._key_algorithms(question)
            case AnswerWitness():
                key = self._management_key(question.name, question.algorithm)
                return WitnessAnswer(*answer_witness(key, question.witness, self._random))
            case CheckWitness():
                key = self._management_key(question.name, question.algorithm)
                check_response(key, question.challenge, question.answer)
                return Granted()
            case NewManagementKey():
                return self._new_management_key(question.algorithm)
            case Puk():
                return self._puk(question.name)
            case KeyToImport():
                return self._key_to_import(question)
            case Certify():
                return self._certify(question)
            case SignsAhead():
                return Granted()  # what it signs has the new key in it
            case Signed():
                return Issued(self._drafts[question.request.slot].with_signature(question.answer))
            case ObjectContent():
                return self._object(question)

    @property
    def guid(self) -> UUID:
        """The GUID that the card has or is to get."""
        if self._guid is None:
            recorded = [row.guid for row in self._of(Kind.CARD) if row.guid is not None]
            self._guid = recorded[-1] if recorded else uuid4()
        return self._guid

    def _begin(self, inventory: Inventory) -> Granted:
        self._guid = inventory.identity.guid or self.guid
        self._end = inventory.expiration or self._end
        return Granted(self._guid)

    # ------------------------------------------------------------------------------------------------- secrets

    def _value(self, name: str) -> Secret:
        if name == DEFAULT:
            return Secret(DEFAULT_KEY)
        if name == GIVEN and self._given_key is not None:
            return self._given_key
        found = [row.value for row in self._of(Kind.MANAGEMENT_KEY) if row.reference == name and row.value]
        if not found:
            raise ManagementKeyUnknown
        return found[-1]

    def _key_algorithms(self, question: KeyAlgorithms) -> Algorithms:
        fitting = _BY_LENGTH[len(self._value(question.name))]
        recorded = {row.reference: row.algorithm for row in self._of(Kind.MANAGEMENT_KEY)}.get(question.name)
        if recorded is not None:
            fitting = (ManagementAlgorithm(recorded),)
        if question.told is not None:
            fitting = tuple(one for one in fitting if one is question.told)
        return Algorithms(fitting)

    def _management_key(self, name: str, algorithm: ManagementAlgorithm) -> ManagementKey:
        return ManagementKey(algorithm, self._value(name))

    def _new_management_key(self, algorithm: ManagementAlgorithm) -> ManagementKeyGiven:
        """The candidate of an unfinished session again, so that there never are more than needed."""
        begun = self._of(Kind.MANAGEMENT_KEY)
        settled = {row.reference for row in self._of(Kind.MANAGEMENT_KEY_SET)}
        for row in reversed(begun):
            if row.value and row.algorithm == algorithm and row.reference not in settled:
                return ManagementKeyGiven(row.reference, ManagementKey(algorithm, row.value))
        return ManagementKeyGiven(self._name(begun), ManagementKey(algorithm, Secret(self._fresh_key(algorithm))))

    def _fresh_key(self, algorithm: ManagementAlgorithm) -> bytes:
        value = self._random(algorithm.key_octets)
        if algorithm is not ManagementAlgorithm.TDES:
            return value
        # Odd parity in every octet: some cards look at it.
        return bytes(octet & 0xFE | (octet >> 1).bit_count() + 1 & 1 for octet in value)

    @staticmethod
    def _name(entries: list[Entry]) -> str:
        taken = {entry.reference for entry in entries}
        return next(name for name in map(str, range(1, len(taken) + 2)) if name not in taken)

    def _puk(self, name: str) -> Reply:
        recorded = {row.reference: row.value for row in self._of(Kind.PUK) if row.value is not None}
        target = self._target_puk
        if not name:
            if target is None:
                raise PukUnknown
            name = next((known for known, value in recorded.items() if value == target), "")
            return SecretGiven(name or self._name(self._of(Kind.PUK)), target)
        value = self._puks.get(name) or recorded.get(name)
        if value is None and name == self._name(self._of(Kind.PUK)):
            value = target  # the person says that it is set already
        if value is None:
            raise PukUnknown
        return SecretGiven(name, value)

    # ---------------------------------------------------------------------------------- keys and certificates

    def _key_to_import(self, question: KeyToImport) -> Reply:
        """The key that an unfinished session recorded for the slot, else a new one."""
        done = {row.slot for row in self._of(Kind.WRITTEN)}
        for row in reversed(self._of(Kind.KEY)):
            ours = row.slot is question.slot and row.slot not in done and row.algorithm == question.algorithm
            if row.value and (row.fingerprint == question.fingerprint or (ours and not question.fingerprint)):
                return KeyGiven(_kept_key(row.value))
        if question.fingerprint:
            return Refused("there are no escrowed keys here.")
        return KeyGiven(make_key(question.algorithm))

    def _certify(self, question: Certify) -> Reply:
        mark = fingerprint(question.public_key)
        for row in reversed(self._of(Kind.CERTIFICATE)):
            if row.slot is question.slot and row.fingerprint == mark and row.value and self._is_valid(row.value):
                return Issued(row.value.reveal())
        end = datetime.combine(self._end, self._now.timetz())
        draft = Draft(
            question.slot, question.public_key, self.guid, self._serial_number(), self._now, max(end, self._now)
        )
        self._drafts[question.slot] = draft
        private = question.private_key or self._recorded_key(mark)
        if private is not None:
            return Issued(draft.signed_by(private))
        return SignFirst(UseKey(question.slot, question.algorithm, draft.block()))

    def _is_valid(self, der: Secret) -> bool:
        try:
            return readable(der.reveal()).not_valid_after_utc > self._now
        except ValueError:
            raise JournalMalformed("The secrets file holds a certificate that cannot be read.") from None

    def _recorded_key(self, mark: str) -> PrivateKey | None:
        """The private half of a key that an earlier session imported."""
        for row in self._of(Kind.KEY):
            if row.fingerprint == mark and row.value:
                return _kept_key(row.value)
        return None

    def _serial_number(self) -> int:
        """127 bits, the first of them set, so that all serial numbers have 16 octets in DER."""
        return (int.from_bytes(self._random(16), "big") | 1 << 126) & (1 << 127) - 1

    # ------------------------------------------------------------------------------------------------- objects

    def _object(self, question: ObjectContent) -> Reply:
        match question.tag:
            case containers.CHUID.tag:
                return Issued(Chuid(NON_FEDERAL.encode(), self.guid, self._end).encode())
            case containers.CCC.tag:
                return Issued(Ccc().encode())
            case containers.KEY_HISTORY.tag:
                held = {row.tag for row in question.inventory.objects} | question.written.keys()
                on_card = sum(slot.certificate_tag in held for slot in RETIRED_SLOTS)
                return Issued(KeyHistory(on_card=on_card).encode())
        return Refused("card init makes only CHUID, CCC, Key History and certificates.")


def _kept_key(der: Secret) -> PrivateKey:
    """A key that an earlier session made. Raises JournalMalformed."""
    try:
        key = load_der_private_key(der.reveal(), None)
        Algorithm.of(key.public_key())  # type: ignore[arg-type]
    except (ValueError, TypeError, exceptions.UnsupportedAlgorithm, UnsupportedAlgorithm):
        raise JournalMalformed("The secrets file holds a key that cannot be read.") from None
    return key  # type: ignore[return-value]


def make_key(algorithm: Algorithm) -> PrivateKey:
    """A new private key of ``algorithm``."""
    match algorithm:
        case Algorithm.P256:
            return ec.generate_private_key(ec.SECP256R1())
        case Algorithm.P384:
            return ec.generate_private_key(ec.SECP384R1())
        case Algorithm.ED25519:
            return ed25519.Ed25519PrivateKey.generate()
        case Algorithm.X25519:
            return x25519.X25519PrivateKey.generate()
        case _:
            return rsa.generate_private_key(65537, algorithm.octets * 8)


def new_puk() -> Secret:
    """Eight random digits."""
    return Secret.of(f"{secrets.randbelow(10**8):08d}")
