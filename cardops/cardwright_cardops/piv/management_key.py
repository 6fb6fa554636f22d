"""The card application administration key 9B: authentication with SP 800-73-5's own protocols (appendix A)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import constant_time
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.modes import ECB

from ..errors import CardwrightError
from ..iso7816.apdu import CommandAPDU
from ..iso7816.status import SW, StatusError
from ..program.items import Answer, Apdu, Program, ask
from ..secret import Secret
from .algorithms import ManagementAlgorithm
from .commands import (
    TAG_CHALLENGE,
    TAG_RESPONSE,
    TAG_WITNESS,
    general_authenticate,
    management_challenge,
    management_witness,
)
from .references import MANAGEMENT_KEY
from .responses import dynamic_authentication

DEFAULT_KEY = bytes.fromhex("010203040506070801020304050607080102030405060708")
"""The value that tokens with vendor administration leave the factory with."""


class ManagementKeyRefused(CardwrightError):
    """The card did not accept the management key, or did not prove that it holds the same one."""

    code = "MANAGEMENT_KEY_WRONG"
    default_effect = "Nothing on the card was changed."
    default_advice = "Give the key that was set when the card was made; 'card init' wrote it to its secrets file."


@dataclass(frozen=True, slots=True)
class ManagementKey:
    """A value of 9B and its algorithm. Raises ValueError when the length does not fit."""

    algorithm: ManagementAlgorithm
    value: Secret

    def __post_init__(self) -> None:
        if len(self.value) != self.algorithm.key_octets:
            raise ValueError(f"a {self.algorithm.name} key has {self.algorithm.key_octets} octets")

    def encrypt(self, block: bytes) -> bytes:
        """One block, ECB."""
        encryptor = self._cipher().encryptor()
        return encryptor.update(block) + encryptor.finalize()

    def decrypt(self, block: bytes) -> bytes:
        """One block, ECB."""
        decryptor = self._cipher().decryptor()
        return decryptor.update(block) + decryptor.finalize()

    def _cipher(self) -> Cipher[ECB]:
        key = self.value.reveal()
        # The protocol of SP 800-73-5 is a single block in ECB; the caller never chooses the data.
        if self.algorithm is ManagementAlgorithm.TDES:
            return Cipher(TripleDES(key), ECB())
        return Cipher(algorithms.AES(key), ECB())


def answer_witness(
    key: ManagementKey, witness_answer: bytes, random: Callable[[int], bytes] = os.urandom
) -> tuple[CommandAPDU, bytes]:
    """Step 2 of mutual authentication: the command, and the challenge in it.

    ``witness_answer`` is the data of step 1. Raises MalformedAnswer, ManagementKeyRefused.
    """
    size = key.algorithm.block_octets
    sealed = dynamic_authentication(witness_answer, TAG_WITNESS)
    if len(sealed) != size:
        raise ManagementKeyRefused(f"The card's witness is not one block of {key.algorithm.name}.")
    challenge = random(size)
    parts = ((TAG_WITNESS, key.decrypt(sealed)), (TAG_CHALLENGE, challenge), (TAG_RESPONSE, b""))
    return general_authenticate(key.algorithm, MANAGEMENT_KEY, *parts), challenge


def check_response(key: ManagementKey, challenge: bytes, response_answer: bytes) -> None:
    """Check that the card knows the key too. Some cards answer in tag 80 instead of 82.

    Raises ManagementKeyRefused, MalformedAnswer.
    """
    answer = dynamic_authentication(response_answer, TAG_RESPONSE, TAG_WITNESS)
    if not constant_time.bytes_eq(answer, key.encrypt(challenge)):
        raise ManagementKeyRefused(
            "The card accepted the management key but did not prove that it holds the same one.",
            advice="This is not the card it says it is, or something alters what it sends: do not go on.",
        )


def refused(answer: Answer) -> bool:
    """Whether ``answer`` to step 2 says that the key was wrong."""
    return answer.sw in (SW.SECURITY_STATUS, SW.WRONG_DATA, SW.VERIFICATION_FAILED, SW.BLOCKED)


def authenticate(key: ManagementKey, *, stage: str) -> Program[None]:
    """Mutual authentication (A.2): afterwards the card takes PUT DATA and GENERATE, until ``stage`` ends.

    Raises ManagementKeyRefused, StatusError, MalformedAnswer.
    """
    witness, = yield from ask(Apdu(management_witness(key.algorithm)), stage=stage, essential=True)
    command, challenge = answer_witness(key, _step(witness, key))
    answer, = yield from ask(Apdu(command), stage=stage, essential=True)
    if refused(answer):
        raise ManagementKeyRefused("The card did not accept this management key.")
    check_response(key, challenge, answer.require("authenticating with the management key"))


def authenticate_single(key: ManagementKey, *, stage: str) -> Program[None]:
    """External authentication (A.1), for cards without the mutual form; the card proves nothing.

    Raises ManagementKeyRefused, StatusError, MalformedAnswer.
    """
    asked, = yield from ask(Apdu(management_challenge(key.algorithm)), stage=stage, essential=True)
    challenge = dynamic_authentication(_step(asked, key), TAG_CHALLENGE)
    if len(challenge) != key.algorithm.block_octets:
        raise ManagementKeyRefused(f"The card's challenge is not one block of {key.algorithm.name}.")
    command = general_authenticate(
        key.algorithm, MANAGEMENT_KEY, (TAG_RESPONSE, key.encrypt(challenge)), answers=False
    )
    answer, = yield from ask(Apdu(command), stage=stage, essential=True)
    if refused(answer):
        raise ManagementKeyRefused("The card did not accept this management key.")
    answer.require("authenticating with the management key")


def _step(answer: Answer, key: ManagementKey) -> bytes:
    try:
        return answer.require("starting management-key authentication")
    except StatusError as error:
        if error.sw in (SW.WRONG_P1P2, SW.WRONG_DATA, SW.REFERENCE_NOT_FOUND):
            raise ManagementKeyRefused(f"The card's management key is not of {key.algorithm.name}.") from error
        raise
