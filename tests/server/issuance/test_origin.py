"""What evidence proves of a key's origin: a lying relay with a software key gets no more than it can prove (S1)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from cardwright_cardops.piv.algorithms import PinPolicy, TouchPolicy
from cardwright_cardops.piv.references import Slot
from cardwright_server.issuance.errors import OriginRefused
from cardwright_server.issuance.origin import Attested, Expected, MadeHere, Sealed, Station, evaluate
from cardwright_server.policies.model import Origin
from tests.support.issuance import Key, new_key, spki

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Maker:
    """A maker of tokens: root, one token's attestation key, and its statements."""

    root_key: Key = field(default_factory=new_key)
    token_key: Key = field(default_factory=new_key)

    @property
    def root(self) -> x509.Certificate:
        return _made("CN=Maker Root", "CN=Maker Root", self.root_key, self.root_key)

    @property
    def token(self) -> bytes:
        made = _made("CN=Token", "CN=Maker Root", self.token_key, self.root_key)
        return made.public_bytes(Encoding.DER)

    def statement(
        self, key: Key, slot: str = "9a", pin: int = 2, touch: int = 1, serial: int = 4711, signer: Key | None = None
    ) -> Attested:
        extensions = {
            "1.3.6.1.4.1.41482.3.3": bytes((5, 7, 1)),
            "1.3.6.1.4.1.41482.3.7": b"\x02\x02" + serial.to_bytes(2, "big"),
            "1.3.6.1.4.1.41482.3.8": bytes((pin, touch)),
        }
        made = _made(f"CN=Attestation {slot}", "CN=Token", key, signer or self.token_key, extensions)
        return Attested(made.public_bytes(Encoding.DER), self.token)


def _made(
    subject: str, issuer: str, key: Key, signer: Key, extensions: dict[str, bytes] | None = None
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name.from_rfc4514_string(subject))
        .issuer_name(x509.Name.from_rfc4514_string(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOW)
        .not_valid_after(_NOW + timedelta(days=9999))
    )
    for oid, value in (extensions or {}).items():
        builder = builder.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical=False)
    return builder.sign(signer, hashes.SHA256())


MAKER = Maker()


def expected(key: Key) -> Expected:
    return Expected(spki(key), Slot.AUTHENTICATION, PinPolicy.ONCE, TouchPolicy.NEVER, "4711")


def test_a_good_statement_is_attested() -> None:
    key = new_key()
    assert evaluate(MAKER.statement(key), expected(key), [MAKER.root]) is Origin.ATTESTED


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"slot": "9c"}, "slot"),
        ({"slot": "zz"}, "slot"),
        ({"pin": 1}, "policy"),
        ({"pin": 0}, "policy"),
        ({"touch": 0}, "policy"),
        ({"serial": 4712}, "device"),
        ({"signer": ec.generate_private_key(ec.SECP256R1())}, "chain"),
    ],
)
def test_a_statement_that_says_something_else_is_refused(change: dict[str, object], reason: str) -> None:
    key = new_key()
    with pytest.raises(OriginRefused) as refused:
        evaluate(MAKER.statement(key, **change), expected(key), [MAKER.root])  # type: ignore[arg-type]
    assert refused.value.reason == reason


def test_a_statement_about_another_key_is_refused() -> None:
    with pytest.raises(OriginRefused) as refused:
        evaluate(MAKER.statement(new_key()), expected(new_key()), [MAKER.root])
    assert refused.value.reason == "key"


def test_a_maker_that_nobody_knows_proves_nothing() -> None:
    key = new_key()
    assert evaluate(Maker().statement(key), expected(key), [MAKER.root]) is Origin.UNPROVEN
    assert evaluate(MAKER.statement(key), expected(key), []) is Origin.UNPROVEN


@pytest.mark.parametrize("statement", [b"", b"0", bytes(500)])
def test_garbage_is_refused(statement: bytes) -> None:
    with pytest.raises(OriginRefused):
        evaluate(Attested(statement), expected(new_key()), [MAKER.root])


def test_match_on_card_is_as_strong_as_the_pin() -> None:
    key = new_key()
    assert evaluate(MAKER.statement(key, pin=4), expected(key), [MAKER.root]) is Origin.ATTESTED
    stronger = replace(expected(key), pin_policy=PinPolicy.ALWAYS)
    with pytest.raises(OriginRefused):
        evaluate(MAKER.statement(key, pin=4), stronger, [MAKER.root])


def test_weaker_evidence() -> None:
    key = new_key()
    assert evaluate(Sealed(spki(key)), expected(key)) is Origin.SEALED
    assert evaluate(Station(trusted=True), expected(key)) is Origin.TRUSTED_STATION
    assert evaluate(Station(trusted=False), expected(key)) is Origin.UNPROVEN
    assert evaluate(MadeHere(), expected(key)) is Origin.UNPROVEN
    assert evaluate(MadeHere(trusted=True), expected(key)) is Origin.TRUSTED_STATION
    assert evaluate(None, expected(key)) is Origin.UNPROVEN
    with pytest.raises(OriginRefused):
        evaluate(Sealed(spki(new_key())), expected(key))
