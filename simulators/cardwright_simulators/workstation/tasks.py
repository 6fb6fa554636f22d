"""What the workstations are given to do: cards to ask about, cards to issue."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.proofs import PROOF_AUDIENCE, RANDOM_OCTETS, check_nonce, prepare, token
from cardwright_proto.cms.v1 import sessions_pb2

from .errors import LoadRefused

PROTOCOL: Final = 1
MOST_LINES: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Named:
    """A card that is only a name: what it says of itself, and the key with which its 9E would sign, if any."""

    guid: UUID | None = None
    serial: str = ""
    key: ec.EllipticCurvePrivateKey | None = field(default=None, repr=False)

    def request(self, ahead: timedelta = timedelta(0)) -> sessions_pb2.DueRequest:
        """The question what is due for it, with a proof of this minute if it has a key, or of one that is to come."""
        name = sessions_pb2.CardName(guid="" if self.guid is None else str(self.guid), serial=self.serial)
        return sessions_pb2.DueRequest(protocol=PROTOCOL, card=name, proof=self._proof(datetime.now(UTC) + ahead))

    def _proof(self, moment: datetime) -> bytes:
        if self.key is None or self.guid is None:
            return b""
        # Our own random is as good as any here: nobody tries to make this key sign something else.
        made = prepare(PROOF_AUDIENCE, check_nonce(self.guid, moment), bytes(RANDOM_OCTETS))
        return token(made, Algorithm.P256, self.key.sign(made.message, ec.ECDSA(hashes.SHA256())))


class Task(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A card to issue: its maker's number, the request, and what its holder proves themselves with.

    ``password`` is an initial password; it is good once.
    """

    serial: int
    request: str
    login: str
    password: str

    def __repr__(self) -> str:
        return f"Task(serial={self.serial}, request={self.request!r})"


def read_names(path: Path, key: Path | None = None) -> list[Named]:
    """One card a line: a card UUID, or the maker's number of a card that has none yet.

    ``key``: the P-256 key (PEM) that all of them have in 9E; without it nothing is proven. Raises LoadRefused.
    """
    signs = None if key is None else _key(key)
    return [_named(line, signs) for line in _lines(path)]


def read_tasks(path: Path) -> list[Task]:
    """One card a line, JSON, as ``Task`` has it. Raises LoadRefused."""
    try:
        return [msgspec.json.decode(line, type=Task) for line in _lines(path)]
    except msgspec.DecodeError as error:
        raise LoadRefused(f"{path}: {error}.") from error


def _named(text: str, key: ec.EllipticCurvePrivateKey | None) -> Named:
    try:
        return Named(UUID(text), key=key)
    except ValueError:
        return Named(serial=text)


def _lines(path: Path) -> list[str]:
    try:
        found = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise LoadRefused(f"{path} cannot be read.") from error
    if not any(found) or len(found) > MOST_LINES:
        raise LoadRefused(f"{path} has no line, or more than {MOST_LINES}.")
    return [line for line in found if line]


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        found = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise LoadRefused(f"{path} holds no key.") from error
    if not isinstance(found, ec.EllipticCurvePrivateKey) or found.curve.name != "secp256r1":
        raise LoadRefused(f"{path} holds no key of P-256.")
    return found
