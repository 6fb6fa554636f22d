"""The executing end of a session on a PKCS#11 token: steps under the guard, as calls into its module.

The user is logged in when a step needs it and stays so until the session lets go; when the module's process ended, the
next batch logs in again with the PIN that was proved right. Blocking: for the thread of the module.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Final, NoReturn, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key

from ..errors import CardwrightError
from ..guard.executor import GuardRefused
from ..guard.tokens import TokenGuard, done_on_token, judge_token
from ..guard.verdict import Deny, Rule
from ..piv import proofs
from ..piv.algorithms import Algorithm
from ..piv.proofs import ProofInvalid
from ..piv.references import Slot
from ..piv.signing import default_hash
from ..pkcs11.errors import (
    AnswerInvalid,
    DeviceFailed,
    KeyRefused,
    ModuleCrashed,
    ModuleTimeout,
    NotLoggedIn,
    ObjectNotFound,
    ObjectRejected,
    Pkcs11Error,
    SessionLost,
    TokenRemoved,
    UnsupportedByToken,
)
from ..pkcs11.keys import TokenEcKey, TokenRsaKey
from ..pkcs11.token import PrivateKey, Token
from ..pkcs11.values import KeyAlgorithm, LoginState
from ..program import token_items as t
from ..program.items import ItemRefused, Outcome
from ..secret import Secret
from .inventory import Inventory, public_key
from .token import TokenAnswer
from .token_state import bare, broken, inventory_of

LABELS: Final = {
    Slot.AUTHENTICATION: "Authentication",
    Slot.SIGNATURE: "Digital signature",
    Slot.KEY_MANAGEMENT: "Key management",
    Slot.CARD_AUTHENTICATION: "Device authentication",
}
_CANNOT: Final = (NotLoggedIn, ObjectNotFound, KeyRefused, UnsupportedByToken)
"""Errors of a key that does not sign without a login, or is not there."""
_DOUBTFUL: Final = (AnswerInvalid, DeviceFailed, ModuleCrashed, ModuleTimeout, SessionLost, TokenRemoved)
"""Errors after which nobody knows whether the step was done."""


def label_of(slot: Slot) -> str:
    """What other programs show for the slot's objects."""
    return LABELS.get(slot) or f"Retired key management {slot - Slot.RETIRED_1 + 1}"


class TokenPins(Protocol):
    """Who has the PINs, which were asked for before."""

    def current_pin(self) -> Secret:
        """The user's PIN of now. Raises NoPin."""

    def new_pin(self) -> Secret:
        """The one that shall be set, which is the current one from then on. Raises NoPin."""


class TokenExecutor:
    """One token in one session. ``state`` is the guard's; ``logs_in``: reads are made behind the login, too."""

    def __init__(
        self,
        token: Token,
        pins: TokenPins,
        state: TokenGuard,
        *,
        logs_in: bool = False,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._token = token
        self._pins = pins
        self._random = random
        self.state = state
        self.logs_in = logs_in

    def execute(self, batch: t.TokenBatch) -> tuple[TokenAnswer, ...]:
        """One answer for each step. The first that is not done ends the batch.

        Raises GuardRefused before anything of a step that is not allowed is done; nothing of the batch is done where
        the first one is not. Raises NoPin where a PIN is needed that was not asked for.
        """
        answers: list[TokenAnswer] = []
        for index, item in enumerate(batch.items):
            allowed = judge_token(self.state, item)
            if isinstance(allowed, Deny):
                refused = GuardRefused(Deny(allowed.rule, allowed.reason, index))
                if not index:
                    raise refused
                answers.append(TokenAnswer(Outcome.NOT_SENT, cause=refused))
                break
            answer = self._one(item, allowed)
            answers.append(answer)
            if answer.outcome is not Outcome.ANSWERED:
                break
        left = len(batch.items) - len(answers)
        return (*answers, *(TokenAnswer(Outcome.NOT_SENT) for _ in range(left)))

    def close(self) -> None:
        """Log out. Never raises: a process that is gone has nobody logged in."""
        with contextlib.suppress(Pkcs11Error):
            self._token.logout()

    def log_in(self, pin: Secret) -> None:
        """C_Login, unless somebody is logged in. Raises Pkcs11Error."""
        if self._token.login_state() is not LoginState.USER:
            self._token.login(pin)

    def _one(self, item: t.TokenItem, allowed: TokenGuard) -> TokenAnswer:
        try:
            if isinstance(item, t.NEEDS_LOGIN) or (self.logs_in and isinstance(item, t.ReadToken)):
                self.log_in(self._pins.current_pin())
            elif isinstance(item, t.SECRETS):
                self._token.logout()
        except CardwrightError as error:
            return TokenAnswer(Outcome.NOT_SENT, cause=error)
        self.state = allowed
        try:
            answer = self._done(item)
        except CardwrightError as error:
            doubt = isinstance(error, _DOUBTFUL) and not isinstance(item, t.ReadToken | t.ProveToken)
            return TokenAnswer(Outcome.IN_DOUBT if doubt else Outcome.NOT_SENT, cause=error)
        self.state = done_on_token(self.state, item, answer.data)
        return answer

    def _done(self, item: t.TokenItem) -> TokenAnswer:
        token, data = self._token, b""
        match item:
            case t.ReadToken():
                return self._read()
            case t.ProveToken(nonce=nonce):
                data = prove(token, Slot.CARD_AUTHENTICATION, proofs.PROOF_AUDIENCE, nonce, random=self._random)
            case t.SetSoPin(old=old, new=new):
                token.change_so_pin(old, new)
            case t.InitPin(so_pin=so_pin):
                token.unlock(so_pin, self._pins.new_pin())
            case t.MakeTokenKey(slot=slot, algorithm=algorithm, always=always):
                made = token.generate(
                    token.id_of(slot),
                    _algorithm(algorithm),
                    label=label_of(Slot(slot)),
                    overwrite=True,
                    always_authenticate=always,
                    open=slot == Slot.CARD_AUTHENTICATION,
                )
                if made.public_key is None:
                    raise ObjectNotFound("The public half of the new key cannot be read.", effect="The key was made.")
                data = made.public_key
            case t.RequestTokenCertificate(slot=slot, subject=subject):
                data = self._request(slot, subject)
            case t.PutTokenKey(slot=slot, key=key):
                token.import_key(token.id_of(slot), _private(key), label=label_of(Slot(slot)), overwrite=True)
            case t.PutTokenCertificate(slot=slot, certificate=der):
                certificate = x509.load_der_x509_certificate(der)
                token.write_certificate(token.id_of(slot), certificate, label=label_of(Slot(slot)), overwrite=True)
            case t.RemoveToken(slot=slot):
                self._remove(slot)
        return TokenAnswer(Outcome.ANSWERED, data)

    def _read(self) -> TokenAnswer:
        self._token.refresh()
        found = self._token.inventory()
        hidden = self._token.login_state() is not LoginState.USER
        return TokenAnswer(
            Outcome.ANSWERED,
            seen=inventory_of(self._token, found),
            broken=frozenset() if hidden else broken(self._token, found),
            bare=frozenset() if hidden else bare(self._token, found),
        )

    def _request(self, slot: int, subject: bytes) -> bytes:
        try:
            name = x509.Name.from_bytes(subject)
        except ValueError as error:
            raise ItemRefused("The subject of a certification request is no DER Name.") from error
        key = self._token.private_key(self._token.id_of(slot), pin=self._pins.current_pin)
        hashed = default_hash(Algorithm.of(key.public_key()))
        built = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashed)
        return built.public_bytes(Encoding.DER)

    def _remove(self, slot: int) -> None:
        """Certificates first: a key without one is never taken for whole."""
        identifier = self._token.id_of(slot)
        found = self._token.inventory()
        for certificate in found.certificates:
            if certificate.id == identifier and not certificate.attestation:
                self._token.delete_certificate(certificate)
        if found.key(identifier) is not None:
            self._token.delete_key(identifier)


def shows_itself(token: Token, inventory: Inventory, *, random: Callable[[int], bytes] = os.urandom) -> bool:
    """Whether ``token`` signs with the key that ``inventory`` has in 9E, without a login. Raises Pkcs11Error where it
    cannot be reached.
    """
    key = inventory.key(Slot.CARD_AUTHENTICATION)
    if key is None:
        return False
    nonce = random(proofs.RANDOM_OCTETS)
    try:
        made = prove(token, Slot.CARD_AUTHENTICATION, proofs.PROOF_AUDIENCE, nonce, random=random)
        proofs.verify(made, audience=proofs.PROOF_AUDIENCE, nonce=nonce, key=public_key(key.public_key))
    except (*_CANNOT, ProofInvalid):
        return False
    return True


def require_same(token: Token, shown: Inventory, *, proved: bool) -> None:
    """Before a PIN is sent: the token is as it was shown, and proves its key in 9E where it ``proved`` that before.

    Raises GuardRefused, Pkcs11Error.
    """
    now = inventory_of(token, token.inventory())
    if (now.identity, now.keys, now.certificates) != (shown.identity, shown.keys, shown.certificates):
        raise GuardRefused(Deny(Rule.PLAN, "the token is not as it was at the preview"))
    if proved and not shows_itself(token, shown):
        raise GuardRefused(Deny(Rule.PLAN, "the token does not prove any more that it is the one of the preview"))


def prove(
    token: Token,
    slot: Slot,
    audience: str,
    nonce: bytes,
    *,
    pin: Callable[[], Secret] | None = None,
    random: Callable[[int], bytes] = os.urandom,
) -> bytes:
    """A TokenAB (RFC 3163) for ``audience`` by the key of ``slot``. Raises ItemRefused, Pkcs11Error."""
    try:
        made = proofs.prepare(audience, nonce, random(proofs.RANDOM_OCTETS))
    except ValueError as error:
        raise ItemRefused(f"The nonce of a proof does not fit: {error}.") from error
    key = token.private_key(token.id_of(slot), pin=pin)
    algorithm = Algorithm.of(key.public_key())
    return proofs.token(made, algorithm, _signature(key, made.message, algorithm))


def _signature(key: TokenEcKey | TokenRsaKey, message: bytes, algorithm: Algorithm) -> bytes:
    hashed = default_hash(algorithm)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, padding.PKCS1v15(), hashed)
    return key.sign(message, ec.ECDSA(hashed))


def _algorithm(code: int) -> KeyAlgorithm:
    try:
        return KeyAlgorithm(Algorithm(code).label)
    except ValueError:
        _unknown()


def _unknown() -> NoReturn:
    raise ItemRefused("The token makes no keys of this kind.")


def _private(key: Secret) -> PrivateKey:
    try:
        loaded = load_der_private_key(key.reveal(), None)
    except (ValueError, TypeError) as error:
        raise ObjectRejected("The key to be written cannot be read.") from error
    if not isinstance(loaded, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise ObjectRejected("Keys of this kind do not go into a token.")
    return loaded


__all__ = ["TokenExecutor", "TokenPins", "label_of", "prove", "require_same", "shows_itself"]
