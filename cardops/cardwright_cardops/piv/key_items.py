"""Key items become commands here, at the executing end, with the person's PIN and this end's own random."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ..errors import CardwrightError
from ..iso7816.apdu import CommandAPDU, ResponseAPDU
from ..iso7816.exchange import Sends
from ..iso7816.status import SW, tries_left
from ..iso7816.tlv import MalformedTlv, parse_one, parse_unique
from ..program.items import (
    INS_GENERATE,
    INS_GET_METADATA,
    INS_VERIFY,
    Answer,
    Block,
    Item,
    ItemRefused,
    KeyItem,
    Outcome,
    Prove,
    SetPin,
    SetPuk,
    SignIn,
    SignRequest,
    Unblock,
    UseKey,
    VerifyPin,
)
from ..secret import Secret
from . import commands, proofs
from .algorithms import Algorithm, KeyKind, PublicKey
from .pins import Custodian, TriesGuard
from .private_key import CardEd25519Key, CardPrivateKey, CardX25519Key, card_private_key
from .references import PinReference, Slot
from .responses import dynamic_authentication, parse_public_key
from .signing import default_hash, message_block, signature_of

_OBSERVED = frozenset((INS_VERIFY, INS_GET_METADATA, INS_GENERATE))
_MOST_TRIES = 256
"""A counter has one octet, so nothing is left to spend after that."""


class KeyItems:
    """Builds and sends the key items of one executing end.

    ``custodian`` gives PINs, ``guard`` keeps the last try. ``observe`` must see every APDU item that was
    answered: it learns counters and the keys that were generated in this session. ``local`` allows UseKey.
    """

    def __init__(
        self,
        custodian: Custodian,
        guard: TriesGuard | None = None,
        *,
        local: bool = False,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._custodian = custodian
        self.guard = guard or TriesGuard()
        self._local = local
        self._random = random
        self._generated: dict[int, tuple[Algorithm, PublicKey]] = {}
        self.pin_used = False
        """Whether a PIN status may stand on the card."""

    def forget(self) -> None:
        """A transaction begins: counters and statuses are unknown."""
        self.guard.forget()
        self.pin_used = False

    def observe(self, command: CommandAPDU, response: ResponseAPDU) -> None:
        """Learn from an answered APDU item."""
        if command.ins not in _OBSERVED:
            return
        if command.ins == INS_VERIFY:
            self.guard.note_status(command.p2, response.sw)
        elif response.sw == SW.OK and command.ins == INS_GENERATE:
            self._note_generated(command, response)
        elif command.ins != INS_GENERATE and command.p2 in (PinReference.PIN, PinReference.PUK):
            if response.sw == SW.OK:
                self._note_metadata(command.p2, response.data)
            else:
                self.guard.note_untold(command.p2)

    def _note_generated(self, command: CommandAPDU, response: ResponseAPDU) -> None:
        self._generated.pop(command.p2, None)
        try:
            template = parse_unique(parse_one(command.data, 0xAC).value)
            algorithm = Algorithm(template[0x80][0])
            self._generated[command.p2] = algorithm, parse_public_key(algorithm, response.data)
        except (CardwrightError, ValueError, KeyError, IndexError):
            return  # no key to sign a request for; the program that asked reads the answer itself

    def _note_metadata(self, reference: int, data: bytes) -> None:
        try:
            counts = parse_unique(data).get(0x06, b"")
        except MalformedTlv:
            return
        if len(counts) == 2:
            self.guard.note_count(reference, counts[1])

    def prepare(self, items: Iterable[Item]) -> None:
        """Have the custodian ask for what ``items`` will need, while no transaction is open. Raises NoPin."""
        for item in items:
            if isinstance(item, VerifyPin | SetPin):
                self._custodian.current_pin(item.reference, self.guard.tries(item.reference))
            if isinstance(item, SetPin | Unblock):
                reference = item.reference if isinstance(item, SetPin) else PinReference.PIN
                self._custodian.new_pin(reference)

    def perform(self, item: KeyItem, card: Sends) -> Answer:
        """Send ``item`` and return its answer; Prove, SignRequest and SignIn answer with DER.

        Raises ItemRefused, NoPin, LastTry, AlreadyBlocked before anything is sent; TransportError and
        BrokenExchange as ``card.send`` does.
        """
        match item:
            case VerifyPin():
                return self._verify(item.reference, card)
            case SetPin():
                return self._set_pin(item.reference, card)
            case Unblock():
                return self._unblock(item, card)
            case SetPuk():
                return self._set_puk(item, card)
            case Block():
                return self._block(item.reference, card)
            case Prove():
                return self._prove(item.slot, item.algorithm, proofs.PROOF_AUDIENCE, item.nonce, card)
            case SignIn():
                return self._prove(Slot.AUTHENTICATION, item.algorithm, item.audience, item.nonce, card)
            case SignRequest():
                return self._sign_request(item, card)
            case UseKey():
                return self._use_key(item, card)

    def _guarded(self, reference: int, card: Sends) -> None:
        """Make sure that a value may be sent to ``reference``. Raises LastTry, AlreadyBlocked."""
        if self.guard.must_ask(reference) and reference != PinReference.PUK:
            response = card.send(commands.pin_state(reference))
            self.guard.note_status(reference, response.sw)
        self.guard.check(reference)

    def _verify(self, reference: int, card: Sends) -> Answer:
        self._guarded(reference, card)
        pin = self._custodian.current_pin(reference, self.guard.tries(reference))
        self.pin_used = True
        return self._counted(reference, card.send(commands.verify(reference, pin)))

    def _set_pin(self, reference: int, card: Sends) -> Answer:
        self._guarded(reference, card)
        old = self._custodian.current_pin(reference, self.guard.tries(reference))
        new = self._custodian.new_pin(reference)
        self.pin_used = True  # success makes the PIN status TRUE (SP 800-73-5 part 2 section 3.2.2)
        return self._counted(reference, card.send(commands.change_reference_data(reference, old, new)))

    def _unblock(self, item: Unblock, card: Sends) -> Answer:
        self._guarded(PinReference.PUK, card)
        new = self._custodian.new_pin(PinReference.PIN)
        answer = self._counted(PinReference.PUK, card.send(commands.reset_retry_counter(item.puk, new)))
        if answer.ok:
            self.guard.note_restored(PinReference.PIN)
        return answer

    def _set_puk(self, item: SetPuk, card: Sends) -> Answer:
        self._guarded(PinReference.PUK, card)
        response = card.send(commands.change_reference_data(PinReference.PUK, item.old, item.new))
        return self._counted(PinReference.PUK, response)

    def _block(self, reference: int, card: Sends) -> Answer:
        """Send made-up values until none is taken any more; one that fits by chance only costs another round."""
        if reference not in (PinReference.PIN, PinReference.PUK):
            raise ItemRefused(f"Reference {reference:02X} is not blocked.")
        answer = Answer(Outcome.ANSWERED, SW.CONDITIONS)
        for _ in range(_MOST_TRIES):
            wrong, other = (Secret(bytes(0x30 + octet % 10 for octet in self._random(8))) for _ in range(2))
            if reference == PinReference.PIN:
                response = card.send(commands.verify(reference, wrong))
            else:
                response = card.send(commands.change_reference_data(reference, wrong, other))
            answer = self._counted(reference, response)
            left = tries_left(response.sw)
            if left == 0:
                return Answer(Outcome.ANSWERED, SW.OK)
            if left is None and response.sw not in (SW.OK, SW.VERIFICATION_FAILED):
                break
        return answer

    def _counted(self, reference: int, response: ResponseAPDU) -> Answer:
        self.guard.note_status(reference, response.sw)
        if tries_left(response.sw) is not None:
            self.pin_used = False  # a wrong value makes the PIN status FALSE (2.3.2)
        return Answer(Outcome.ANSWERED, response.sw)

    def _prove(self, slot: int, code: int, audience: str, nonce: bytes, card: Sends) -> Answer:
        algorithm = _known(code)
        try:
            made = proofs.prepare(audience, nonce, self._random(proofs.RANDOM_OCTETS))
        except ValueError as error:
            raise ItemRefused(f"The nonce of a proof does not fit: {error}.") from error
        block = message_block(made.message, algorithm, default_hash(algorithm))
        response = card.send(commands.use_key(algorithm, slot, block))
        if response.sw != SW.OK:
            return Answer(Outcome.ANSWERED, response.sw)
        signature = signature_of(dynamic_authentication(response.data, commands.TAG_RESPONSE), algorithm)
        return Answer(Outcome.ANSWERED, response.sw, proofs.token(made, algorithm, signature))

    def _sign_request(self, item: SignRequest, card: Sends) -> Answer:
        made = self._generated.get(item.slot)
        if made is None:
            raise ItemRefused(f"No key was made in slot {item.slot:02X} in this session; no request is signed for it.")
        algorithm, public = made

        def use(data: bytes, agree: bool) -> bytes:
            response = card.send(commands.use_key(algorithm, item.slot, data, agree=agree))
            if response.sw != SW.OK:
                raise _Stopped(response.sw)
            return dynamic_authentication(response.data, commands.TAG_RESPONSE)

        try:
            request = certification_request(item.subject, card_private_key(public, use), algorithm)
        except _Stopped as stopped:
            return Answer(Outcome.ANSWERED, stopped.sw)
        return Answer(Outcome.ANSWERED, SW.OK, request)

    def _use_key(self, item: UseKey, card: Sends) -> Answer:
        if not self._local:
            raise ItemRefused("Free use of a card key is for programs on this workstation only.")
        response = card.send(commands.use_key(item.algorithm, item.slot, item.data, agree=item.agree))
        if response.sw != SW.OK:
            return Answer(Outcome.ANSWERED, response.sw)
        return Answer(Outcome.ANSWERED, SW.OK, dynamic_authentication(response.data, commands.TAG_RESPONSE))


class _Stopped(Exception):
    """A status word on its way out of cryptography's builder."""

    def __init__(self, sw: int) -> None:
        super().__init__(f"{sw:04X}")
        self.sw = sw


def _known(code: int) -> Algorithm:
    try:
        algorithm = Algorithm(code)
    except ValueError:
        raise ItemRefused(f"There is no signing algorithm {code:02X}.") from None
    if algorithm.kind is KeyKind.X25519:
        raise ItemRefused("An X25519 key does not sign.")
    return algorithm


def certification_request(subject: bytes, key: CardPrivateKey, algorithm: Algorithm) -> bytes:
    """A PKCS #10 request (DER) for ``key`` with the DER Name ``subject``, signed by the key itself.

    Raises ItemRefused for a subject that is no Name or a key that does not sign, else what the key raises.
    """
    if isinstance(key, CardX25519Key):
        raise ItemRefused("An X25519 key does not sign, so it has no certification request.")
    try:
        name = x509.Name.from_bytes(subject)
    except ValueError as error:
        raise ItemRefused("The subject of a certification request is no DER Name.") from error
    hashed = None if isinstance(key, CardEd25519Key) else default_hash(algorithm)
    built = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashed)
    return built.public_bytes(Encoding.DER)
