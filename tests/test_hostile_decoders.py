"""What no other test spoils at random: files and documents are read, or refused with a documented error.

The targets of ``make fuzz`` do the same with the same functions, for longer and guided by what they reach.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cardwright_cardops.check import TrustUnreadable, load_certificates
from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.piv.vendor.attestation import AttestationInvalid, verify_attestation
from cardwright_cardops.plan.authority import Certify
from cardwright_cardops.plan.inventory import fingerprint
from cardwright_cardops.plan.journal_file import FileJournal, JournalMalformed
from cardwright_cardops.plan.local_authority import LocalAuthority
from cardwright_cardops.plan.records import Entry, Kind, MemoryJournal
from cardwright_cardops.secret import Secret
from tests.support import hostile
from tests.support.piv_card import AT

_SLOW = {"trust", "believed", "image"}
"""Each of their inputs is checked as a whole card."""


@st.composite
def spoiled(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """A good content with some octets changed, or short octets that say how a good document is spoiled."""
    if not seeds or draw(st.booleans()):
        return draw(st.binary(max_size=12))
    content = bytearray(draw(st.sampled_from(seeds)))
    for place, octet in draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=4)):
        content[place] = octet
    return bytes(content)


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@pytest.mark.parametrize("name", hostile.DECODERS)
def test_anything_is_read_or_refused_as_documented(name: str) -> None:
    seeds = tuple(hostile.SEEDS[name]()) if name in hostile.SEEDS else ()
    for seed in seeds:
        hostile.DECODERS[name](seed)

    @settings(
        max_examples=20 if name in _SLOW else settings().max_examples, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(spoiled(seeds))
    def anything(raw: bytes) -> None:
        hostile.DECODERS[name](raw)

    anything()


def test_a_response_about_a_digest_that_is_unknown_is_refused_or_reported() -> None:
    known, unknown = bytes.fromhex("06052B0E03021A"), bytes.fromhex("0605000E03021A")
    responses = [seed for seed in hostile.SEEDS["trust"]() if known in seed]
    assert responses
    for response in responses:
        hostile.trust(response.replace(known, unknown))


def test_a_certificate_whose_parts_cannot_be_read_is_no_anchor(tmp_path: Path) -> None:
    """The library raises what is no ValueError for the first, and for the second only where its parts are read."""
    good = hostile.trust_seeds()[1]
    for what, instead in (("a003020102", "a00302017f"), ("0603550406", "0603550486")):
        assert bytes.fromhex(what) in good
        (tmp_path / "file").write_bytes(good.replace(bytes.fromhex(what), bytes.fromhex(instead)))
        with pytest.raises(TrustUnreadable):
            load_certificates(tmp_path / "file")


@pytest.mark.parametrize(
    "row",
    [
        '{"kind":"management key candidate","reference":["a"]}',
        '{"algorithm":"9D","kind":"management key candidate","reference":"a","value":"00"}',
        '{"algorithm":"0A","kind":"management key candidate","reference":"a","value":"00"}',
        '{"kind":"management key candidate","reference":"a","value":"00"}',
        '{"kind":"puk candidate","reference":"a","value":"000102030405060708"}',
    ],
)
def test_a_secrets_file_with_what_no_card_takes_is_damaged(row: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text('{"cardwright":"secrets of one card","format":1}\n' + row + "\n")
    with pytest.raises(JournalMalformed):
        FileJournal.resume(tmp_path / "file")


@pytest.mark.parametrize("kind", [Kind.KEY, Kind.CERTIFICATE])
def test_what_a_secrets_file_holds_for_a_slot_must_be_readable(kind: Kind) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    kept = Entry(kind, slot=Slot.AUTHENTICATION, fingerprint=fingerprint(key), algorithm=0x11, value=Secret(b"no"))
    made = LocalAuthority(journal=MemoryJournal([kept]), new_puk=None, now=AT)
    with pytest.raises(JournalMalformed):
        made.answer((Certify(Slot.AUTHENTICATION, Algorithm.P256, "self-signed", key, None),))


def test_a_statement_with_a_key_of_an_unknown_curve_is_no_attestation() -> None:
    statement = hostile.attestation_seeds()[0]
    p256, odd = bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d03017f")
    assert p256 in statement
    der = hostile.signed(statement.replace(p256, odd), "CA")
    with pytest.raises(AttestationInvalid):
        verify_attestation(x509.load_der_x509_certificate(der), hostile.attester(), [])
