"""Chains of attestation statements: how far up, to whom, and what a statement may leave out."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from cardwright_cardops.piv.algorithms import Algorithm, PinPolicy, TouchPolicy
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.piv.vendor.attestation import (
    FIRMWARE,
    POLICY,
    SERIAL,
    Attestation,
    AttestationInvalid,
    verify_attestation,
)

Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]
START, END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC)


def issue(name: str, by: Pair | None = None, extensions: dict[x509.ObjectIdentifier, bytes] | None = None) -> Pair:
    """A certificate of ``name`` on P-256, signed by itself where there is no other."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(
        by[0].subject if by else subject, subject, key.public_key(), x509.random_serial_number(), START, END
    )
    for oid, value in (extensions or {}).items():
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=False)
    return builder.sign(by[1] if by else key, hashes.SHA256()), key


def chain(length: int) -> list[x509.Certificate]:
    """``length`` certificates from a root down to a token's, then the statement."""
    made = [issue("Root")]
    for number in range(1, length):
        made.append(issue(f"Authority {number}", made[-1]))
    made.append(issue("Attestation 9a", made[-1]))
    return [certificate for certificate, _ in made]


def test_all_that_a_statement_says() -> None:
    signer = issue("Token")
    told = {FIRMWARE: b"\x05\x07\x04", SERIAL: b"\x02\x03\x01\x00\x02", POLICY: b"\x03\x02"}
    statement, key = issue("YubiKey PIV Attestation 8b", signer, told)
    assert verify_attestation(statement, signer[0], []) == Attestation(
        public_key=key.public_key(), algorithm=Algorithm.P256, slot=Slot.RETIRED_10, serial="65538", firmware="5.7.4",
        pin_policy=PinPolicy.ALWAYS, touch_policy=TouchPolicy.ALWAYS, trusted=False,
    )  # fmt: skip


def test_what_a_statement_does_not_say_is_none() -> None:
    signer = issue("Token")
    statement, key = issue("a statement", signer)
    assert verify_attestation(statement, signer[0], []) == Attestation(
        public_key=key.public_key(), algorithm=Algorithm.P256, slot=None, serial=None, firmware=None,
        pin_policy=None, touch_policy=None, trusted=False,
    )  # fmt: skip


@pytest.mark.parametrize("policies", [b"", b"\x01", b"\x01\x01\x01"])
def test_policies_are_two_octets_or_none(policies: bytes) -> None:
    signer = issue("Token")
    statement, _ = issue("Attestation 9a", signer, {POLICY: policies})
    said = verify_attestation(statement, signer[0], [])
    assert (said.slot, said.pin_policy, said.touch_policy) == (Slot.AUTHENTICATION, None, None)


@pytest.mark.parametrize(
    "extensions", [{POLICY: b"\x09\x01"}, {POLICY: b"\x01\x09"}, {SERIAL: b"\x04\x01\x00"}, {SERIAL: b""}]
)
def test_damage_is_one_error(extensions: dict[x509.ObjectIdentifier, bytes]) -> None:
    signer = issue("Token")
    statement, _ = issue("Attestation 9a", signer, extensions)
    with pytest.raises(AttestationInvalid, match="damaged"):
        verify_attestation(statement, signer[0], [])


def test_a_statement_for_no_slot_is_damaged() -> None:
    signer = issue("Token")
    with pytest.raises(AttestationInvalid, match="damaged: There is no slot '9b'"):
        verify_attestation(issue("Attestation 9b", signer)[0], signer[0], [])
    assert verify_attestation(issue("Attestation 9a b", signer)[0], signer[0], []).slot is None


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5])
def test_a_chain_of_up_to_five_is_followed_to_its_root(length: int) -> None:
    *above, signer, statement = chain(length)
    pool = [*above, signer] if length == 1 else above
    assert verify_attestation(statement, signer, pool).trusted
    assert verify_attestation(statement, signer, reversed(pool)).trusted
    assert not verify_attestation(statement, signer, pool[1:]).trusted


def test_a_longer_chain_is_not_followed() -> None:
    *above, signer, statement = chain(6)
    assert not verify_attestation(statement, signer, above).trusted


def test_a_self_signed_certificate_that_is_not_known_is_not_trusted() -> None:
    signer, statement = chain(1)
    assert not verify_attestation(statement, signer, chain(2)).trusted


def test_the_signer_is_looked_for_among_the_known() -> None:
    *above, signer, statement = chain(2)
    assert verify_attestation(statement, None, [*above, signer]).trusted
    with pytest.raises(AttestationInvalid, match="shows no certificate"):
        verify_attestation(statement, None, above)


def test_a_statement_of_another_key_is_refused() -> None:
    signer, statement = chain(1)
    for other in (chain(1)[0], issue("Root")[0], statement):
        with pytest.raises(AttestationInvalid, match="not signed by the token"):
            verify_attestation(statement, other, [signer])
