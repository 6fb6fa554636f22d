"""The local authority question by question: values from the journal first, and new ones where there are none."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from cardwright_cardops.piv import containers
from cardwright_cardops.piv.algorithms import Algorithm, ManagementAlgorithm
from cardwright_cardops.piv.management_key import DEFAULT_KEY
from cardwright_cardops.piv.objects import Ccc, Chuid, KeyHistory
from cardwright_cardops.piv.references import RETIRED_SLOTS, Slot
from cardwright_cardops.plan.authority import (
    Algorithms,
    Certify,
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
)
from cardwright_cardops.plan.candidates import GIVEN, ManagementKeyUnknown, PukUnknown
from cardwright_cardops.plan.inventory import Identity, Inventory, ObjectState, Presence, fingerprint
from cardwright_cardops.plan.local_authority import LocalAuthority, SecretMalformed, make_key, new_puk
from cardwright_cardops.plan.records import DEFAULT, Entry, Kind, MemoryJournal
from cardwright_cardops.plan.self_signed import Draft
from cardwright_cardops.plan.steps import Plan
from cardwright_cardops.program.items import UseKey
from cardwright_cardops.secret import Secret

NOW = datetime(2026, 6, 1, 12, 30, 15, 999, tzinfo=UTC)
GUID, OTHER = UUID(int=1 << 100), UUID(int=2)
PUK, KEY24, KEY16 = Secret(b"31415926"), Secret(b"k" * 24), Secret(b"K" * 16)
TDES, AES128, AES192 = ManagementAlgorithm.TDES, ManagementAlgorithm.AES128, ManagementAlgorithm.AES192
P256 = Algorithm.P256


class Counting:
    """Random octets that a test knows: every one as large as the call's number."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, size: int) -> bytes:
        self.calls += 1
        return bytes((0xF0 + self.calls,)) * size


def authority(*entries: Entry, **options: Any) -> LocalAuthority:
    wanted: dict[str, Any] = {"new_puk": PUK, "now": NOW, "random": Counting()} | options
    return LocalAuthority(journal=MemoryJournal(entries), **wanted)


def ask(asked: LocalAuthority, question: Question) -> Reply:
    (reply,) = asked.answer((question,))
    return reply


def begin(asked: LocalAuthority, inventory: Inventory) -> Reply:
    return ask(asked, Preflight(Plan("", inventory.identity, ()), inventory))


def der(key: Any) -> Secret:
    return Secret(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


@pytest.mark.parametrize("octets", [0, 15, 17, 23, 25, 31, 33])
def test_management_keys_of_other_lengths_are_refused(octets: int) -> None:
    with pytest.raises(SecretMalformed, match="16, 24 or 32"):
        authority(management_key=Secret(bytes(octets)))


@pytest.mark.parametrize("octets", [0, 7, 9])
def test_puks_of_other_lengths_are_refused(octets: int) -> None:
    for options in ({"new_puk": Secret(b"1" * octets)}, {"puk": Secret(b"1" * octets)}):
        with pytest.raises(SecretMalformed, match="8 characters"):
            authority(**options)


def test_the_cards_own_uuid_comes_first_then_the_recorded_one() -> None:
    recorded = Entry(Kind.CARD, guid=OTHER)
    assert authority(recorded).guid == OTHER
    assert authority(recorded, Entry(Kind.CARD, guid=GUID)).guid == GUID
    assert authority(recorded, Entry(Kind.CARD)).guid == OTHER
    fresh = authority()
    assert fresh.guid == fresh.guid != authority().guid
    held = authority(recorded)
    assert begin(held, Inventory(Identity(GUID))) == Granted(GUID)
    assert held.guid == GUID
    assert begin(authority(recorded), Inventory()) == Granted(OTHER)


def test_management_key_algorithms_by_length_record_and_word() -> None:
    recorded = Entry(Kind.MANAGEMENT_KEY, "1", algorithm=int(AES192), value=KEY24)
    for question, options, fitting in (
        (KeyAlgorithms(DEFAULT, None), {}, (TDES, AES192)),
        (KeyAlgorithms(DEFAULT, AES192), {}, (AES192,)),
        (KeyAlgorithms(DEFAULT, AES128), {}, ()),
        (KeyAlgorithms(GIVEN, None), {"management_key": KEY16}, (AES128,)),
        (KeyAlgorithms(GIVEN, None), {"management_key": Secret(bytes(32))}, (ManagementAlgorithm.AES256,)),
        (KeyAlgorithms("1", None), {}, (AES192,)),
        (KeyAlgorithms("1", TDES), {}, ()),
    ):
        assert ask(authority(recorded, **options), question) == Algorithms(fitting)
    for name in (GIVEN, "2"):
        with pytest.raises(ManagementKeyUnknown):
            ask(authority(recorded), KeyAlgorithms(name, None))
    assert len(DEFAULT_KEY) == 24


def test_a_new_management_key_takes_the_next_name_and_odd_parity() -> None:
    made = ask(authority(), NewManagementKey(AES128))
    assert isinstance(made, ManagementKeyGiven)
    assert (made.name, made.key.algorithm, made.key.value) == ("1", AES128, Secret(b"\xf1" * 16))
    made = ask(authority(random=lambda size: bytes(range(250, 250 - size, -1))), NewManagementKey(TDES))
    assert isinstance(made, ManagementKeyGiven) and len(made.key.value) == 24
    for number, octet in enumerate(made.key.value.reveal()):
        assert octet >> 1 == (250 - number) >> 1 and octet.bit_count() % 2 == 1
    made = ask(authority(random=lambda size: bytes(range(250, 250 - size, -1))), NewManagementKey(AES192))
    assert isinstance(made, ManagementKeyGiven) and made.key.value.reveal() == bytes(range(250, 226, -1))


def test_an_unfinished_management_key_is_used_again() -> None:
    one = Entry(Kind.MANAGEMENT_KEY, "1", algorithm=int(AES128), value=KEY16)
    two = Entry(Kind.MANAGEMENT_KEY, "2", algorithm=int(AES192), value=KEY24)
    ninth = Entry(Kind.MANAGEMENT_KEY, "9", algorithm=int(AES128), value=Secret(b"9" * 16))
    settled = Entry(Kind.MANAGEMENT_KEY_SET, "1")
    for entries, name, value in (
        ((one,), "1", KEY16),
        ((one, two), "1", KEY16),
        ((one, settled), "2", Secret(b"\xf1" * 16)),
        ((two,), "1", Secret(b"\xf1" * 16)),
        ((one, two, settled), "3", Secret(b"\xf1" * 16)),
        ((one, ninth), "9", Secret(b"9" * 16)),
    ):
        made = ask(authority(*entries), NewManagementKey(AES128))
        assert isinstance(made, ManagementKeyGiven)
        assert (made.name, made.key.value, made.key.algorithm) == (name, value, AES128)


def test_puks_by_name_and_the_target() -> None:
    kept = Entry(Kind.PUK, "1", value=Secret(b"11111111"))
    rows: list[tuple[tuple[Entry, ...], dict[str, Any], str, Reply]] = [
        ((), {}, "", SecretGiven("1", PUK)),
        ((kept,), {}, "", SecretGiven("2", PUK)),
        ((kept, Entry(Kind.PUK, "2", value=PUK)), {}, "", SecretGiven("2", PUK)),
        ((), {}, DEFAULT, SecretGiven(DEFAULT, Secret(b"12345678"))),
        ((), {"puk": Secret(b"99999999")}, GIVEN, SecretGiven(GIVEN, Secret(b"99999999"))),
        ((kept,), {}, "1", SecretGiven("1", Secret(b"11111111"))),
        ((), {}, "1", SecretGiven("1", PUK)),
        ((kept,), {}, "2", SecretGiven("2", PUK)),
    ]
    for entries, options, name, reply in rows:
        assert ask(authority(*entries, **options), Puk(name)) == reply
    unknown: list[tuple[tuple[Entry, ...], dict[str, Any], str]] = [
        ((), {"new_puk": None}, ""), ((), {}, GIVEN), ((kept,), {}, "3"), ((kept,), {}, "0"),
        ((), {"new_puk": None}, "1"),
    ]  # fmt: skip
    for entries, options, name in unknown:
        with pytest.raises(PukUnknown):
            ask(authority(*entries, **options), Puk(name))


def test_keys_to_import_are_those_of_the_unfinished_session() -> None:
    first, second = make_key(P256), make_key(P256)
    slot = Slot.KEY_MANAGEMENT

    def kept(key: Any, where: Slot = slot) -> Entry:
        mark = fingerprint(key.public_key())
        return Entry(Kind.KEY, slot=where, fingerprint=mark, algorithm=int(P256), value=der(key))

    def given(*entries: Entry, mark: str = "", algorithm: Algorithm = P256) -> Any:
        reply = ask(authority(*entries), KeyToImport(slot, algorithm, mark))
        assert isinstance(reply, KeyGiven)
        return reply.key.public_key()

    known = [first.public_key(), second.public_key()]
    assert given(kept(first)) == known[0]
    assert given(kept(first), kept(second)) == known[1]
    assert given(kept(first), kept(second), mark=fingerprint(known[0])) == known[0]
    assert given(kept(first, Slot.SIGNATURE), mark=fingerprint(known[0])) == known[0]
    for other in (Slot.SIGNATURE, Slot.CARD_AUTHENTICATION, Slot.RETIRED_1):
        assert given(kept(first, other)) not in known
    assert given(kept(first), Entry(Kind.WRITTEN, slot=slot)) not in known
    assert given(kept(first), Entry(Kind.WRITTEN, slot=Slot.SIGNATURE)) == known[0]
    assert isinstance(given(kept(first), algorithm=Algorithm.P384).curve, ec.SECP384R1)
    assert given(kept(first), algorithm=Algorithm.RSA1024).key_size == 1024
    assert isinstance(ask(authority(kept(first)), KeyToImport(slot, P256, "ee" * 32)), Refused)


def certified(asked: LocalAuthority, key: Any, slot: Slot = Slot.SIGNATURE) -> Reply:
    return ask(asked, Certify(slot, P256, "self-signed", key.public_key(), key))


def test_a_certificate_ends_with_the_card() -> None:
    key = make_key(P256)
    for expiration, options, end in (
        (date(2027, 1, 2), {}, datetime(2027, 1, 2, 12, 30, 15, tzinfo=UTC)),
        (None, {}, datetime(2031, 5, 31, 12, 30, 15, tzinfo=UTC)),
        (None, {"validity": timedelta(days=3)}, datetime(2026, 6, 4, 12, 30, 15, tzinfo=UTC)),
        (date(2020, 1, 1), {}, NOW.replace(microsecond=0)),
    ):
        asked = authority(**options)
        begin(asked, Inventory(Identity(GUID), expiration=expiration))
        reply = certified(asked, key)
        assert isinstance(reply, Issued)
        made = x509.load_der_x509_certificate(reply.content)
        assert (made.not_valid_before_utc, made.not_valid_after_utc) == (NOW.replace(microsecond=0), end)
        assert made.public_key() == key.public_key()
        made.verify_directly_issued_by(made)


@pytest.mark.parametrize("octet", [0x00, 0x01, 0x7F, 0x80, 0xFF])
def test_serial_numbers_have_sixteen_octets(octet: int) -> None:
    reply = certified(authority(random=lambda size: bytes((octet,)) * size), make_key(P256))
    assert isinstance(reply, Issued)
    number = x509.load_der_x509_certificate(reply.content).serial_number
    assert number.bit_length() == 127
    assert number & (1 << 126) - 1 == int.from_bytes(bytes((octet,)) * 16, "big") & (1 << 126) - 1


def test_a_recorded_certificate_is_given_again_while_it_is_valid() -> None:
    key, other = make_key(P256), make_key(P256)
    first = certified(authority(), key)
    assert isinstance(first, Issued)

    def kept(slot: Slot, mark: Any, content: bytes = first.content) -> Entry:
        return Entry(Kind.CERTIFICATE, slot=slot, fingerprint=fingerprint(mark.public_key()), value=Secret(content))

    again = authority(kept(Slot.SIGNATURE, key))
    assert certified(again, key) == first
    for asked in (
        authority(kept(Slot.AUTHENTICATION, key)),
        authority(kept(Slot.SIGNATURE, other)),
        authority(kept(Slot.SIGNATURE, key), now=NOW + timedelta(days=3000)),
    ):
        assert certified(asked, key) != first


def test_without_the_private_key_the_card_signs_first() -> None:
    key = make_key(P256)
    question = Certify(Slot.SIGNATURE, P256, "self-signed", key.public_key(), None)
    asked = authority()
    reply = ask(asked, question)
    assert isinstance(reply, SignFirst) and isinstance(reply.item, UseKey)
    assert (reply.item.slot, reply.item.algorithm, len(reply.item.data)) == (Slot.SIGNATURE, P256, 32)
    kept = Entry(Kind.KEY, slot=Slot.SIGNATURE, fingerprint=fingerprint(key.public_key()), value=der(key))
    assert isinstance(ask(authority(kept), question), Issued)
    assert isinstance(ask(authority(Entry(Kind.KEY, fingerprint="00", value=der(key))), question), SignFirst)
    signature = key.sign(reply.item.data, ec.ECDSA(Prehashed(hashes.SHA256())))  # type: ignore[union-attr, call-arg, arg-type]
    issued = ask(asked, Signed(question, reply.item, signature))
    assert isinstance(issued, Issued)
    x509.load_der_x509_certificate(issued.content).verify_directly_issued_by(
        x509.load_der_x509_certificate(issued.content)
    )


def test_objects_that_card_init_makes() -> None:
    asked = authority(validity=timedelta(days=10))
    begin(asked, Inventory(Identity(GUID)))

    def content(tag: int, inventory: Inventory | None = None, written: dict[int, bytes] | None = None) -> bytes:
        reply = ask(asked, ObjectContent(tag, inventory or Inventory(), written or {}))
        assert isinstance(reply, Issued)
        return reply.content

    chuid = Chuid.decode(content(containers.CHUID.tag))
    assert (chuid.guid, chuid.expiration) == (GUID, date(2026, 6, 11))
    assert content(containers.CCC.tag) == Ccc().encode()
    held = Inventory(objects=(ObjectState(RETIRED_SLOTS[0].certificate_tag, Presence.PRESENT),))
    more = {RETIRED_SLOTS[1].certificate_tag: b"", containers.CHUID.tag: b""}
    for inventory, written, number in ((None, None, 0), (held, None, 1), (held, more, 2), (None, more, 1)):
        assert content(containers.KEY_HISTORY.tag, inventory, written) == KeyHistory(on_card=number).encode()
    assert isinstance(ask(asked, ObjectContent(0x5FC109, Inventory(), {})), Refused)


def test_puks_are_eight_digits() -> None:
    made = {new_puk().reveal() for _ in range(20)}
    assert all(len(value) == 8 and value.isdigit() for value in made) and len(made) > 15
    assert max(made) >= b"01000000", "all but one of 10^40 such lots reach this far"


NAMES = {
    Slot.AUTHENTICATION: "PIV Authentication", Slot.SIGNATURE: "Digital Signature",
    Slot.KEY_MANAGEMENT: "Key Management", Slot.CARD_AUTHENTICATION: "Card Authentication",
    Slot.RETIRED_3: "Retired Key 84",
}  # fmt: skip


@pytest.mark.parametrize("slot", list(NAMES))
@pytest.mark.parametrize("algorithm", [P256, Algorithm.RSA2048])
def test_self_signed_certificates_by_slot(slot: Slot, algorithm: Algorithm) -> None:
    key = make_key(algorithm)
    draft = Draft(slot, key.public_key(), GUID, 5, NOW.replace(microsecond=0), NOW + timedelta(days=1))
    made = x509.load_der_x509_certificate(draft.signed_by(key))
    (name,) = made.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert str(name.value) == f"{NAMES[slot]} {GUID.hex[:8]}" and made.issuer == made.subject
    usage = made.extensions.get_extension_for_class(x509.KeyUsage)
    agrees, wraps = algorithm is P256, algorithm is not P256
    management = slot in (Slot.KEY_MANAGEMENT, Slot.RETIRED_3)
    assert usage.critical
    assert (
        usage.value.digital_signature, usage.value.content_commitment, usage.value.key_encipherment,
        usage.value.key_agreement, usage.value.data_encipherment, usage.value.key_cert_sign, usage.value.crl_sign,
    ) == (
        not management, slot is Slot.SIGNATURE, management and wraps, management and agrees, False, False, False,
    )  # fmt: skip
    if management and agrees:
        assert not usage.value.encipher_only and not usage.value.decipher_only
    extended = [row for row in made.extensions if row.oid == ExtensionOID.EXTENDED_KEY_USAGE]
    uses = [list(row.value) for row in extended]
    match slot:
        case Slot.AUTHENTICATION:
            assert uses == [[ExtendedKeyUsageOID.CLIENT_AUTH]] and not extended[0].critical
        case Slot.CARD_AUTHENTICATION:
            assert uses == [[x509.ObjectIdentifier("2.16.840.1.101.3.6.8")]] and extended[0].critical
        case _:
            assert uses == []
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert [one.value for one in names.value] == [GUID.urn] and not names.critical
