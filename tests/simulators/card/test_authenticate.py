"""GENERAL AUTHENTICATE and GENERATE: management key, key rules, raw operations; openssl's library is the judge."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from cardwright_cardops.iso7816.tlv import parse_unique
from cardwright_cardops.transport.connection import Interface
from cardwright_simulators.card import PROFILES, KeyUse, ManagementAuthentication, MemoryStore, VirtualCard, Write
from cardwright_simulators.card.authenticate import encipher
from tests.support.raw_card import PIN, POOL, RawCard, wrap

HASH = hashlib.sha256(b"message").digest()


@pytest.fixture
def card() -> RawCard:
    """A standard card with the administrator's status."""
    host = RawCard("sp800-73-5")
    assert host.admin() == 0x9000
    return host


def point(public: bytes) -> bytes:
    return parse_unique(public)[0x86]


def value(answer: tuple[str, int]) -> bytes:
    """What tag 82 of a successful answer holds."""
    assert answer[1] == 0x9000
    return parse_unique(parse_unique(bytes.fromhex(answer[0]))[0x7C])[0x82]


def rsa_public(public: bytes) -> rsa.RSAPublicKey:
    parts = parse_unique(public)
    numbers = rsa.RSAPublicNumbers(int.from_bytes(parts[0x82], "big"), int.from_bytes(parts[0x81], "big"))
    return numbers.public_key()


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_mutual_authentication_with_every_factory_key(name: str) -> None:
    host = RawCard(name)
    host.select()
    profile = PROFILES[name]
    header = f"0087{profile.management_algorithm:02X}9B"
    data, sw = host.send(header, "7C028000")
    assert sw == 0x9000
    octets = 8 if profile.management_algorithm == 0x03 else 16
    assert bytes.fromhex(data)[:4] == bytes((0x7C, octets + 2, 0x80, octets))
    witness = decipher(profile.management_algorithm, profile.management_key, bytes.fromhex(data)[4:])
    challenge = bytes(range(octets))
    data, sw = host.send(header, wrap(0x7C, wrap(0x80, witness) + wrap(0x81, challenge) + b"\x82\x00"))
    assert value((data, sw)) == encipher(profile.management_algorithm, profile.management_key, challenge)
    assert host.put("5FC107", b"x") == 0x9000


def decipher(algorithm: int, key: bytes, block: bytes) -> bytes:
    from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    cipher = TripleDES(key) if algorithm == 0x03 else algorithms.AES(key)
    run = Cipher(cipher, modes.ECB()).decryptor()
    return run.update(block) + run.finalize()


def test_a_wrong_answer_ends_status_and_challenge(card: RawCard) -> None:
    data, _ = card.send("0087089B", "7C028100")
    right = encipher(0x08, PROFILES["sp800-73-5"].management_key, bytes.fromhex(data)[4:])
    assert card.sw("0087089B", wrap(0x7C, wrap(0x82, bytes(16)))) == 0x6982
    assert card.put("5FC107", b"x") == 0x6982
    assert card.sw("0087089B", wrap(0x7C, wrap(0x82, right))) == 0x6982
    assert card.card.log[-2:] == [ManagementAuthentication(False)] * 2


def test_asking_for_a_challenge_ends_the_status(card: RawCard) -> None:
    assert card.sw("0087089B", "7C028100") == 0x9000
    assert card.put("5FC107", b"x") == 0x6982


def test_answers_to_nothing_and_to_the_other_question(card: RawCard) -> None:
    assert card.sw("0087089B", wrap(0x7C, wrap(0x82, bytes(16)))) == 0x6982
    data, _ = card.send("0087089B", "7C028000")
    witness = decipher(0x08, PROFILES["sp800-73-5"].management_key, bytes.fromhex(data)[4:])
    assert card.sw("0087089B", wrap(0x7C, wrap(0x82, witness))) == 0x6982
    card.send("0087089B", "7C028000")
    assert card.send("0087089B", wrap(0x7C, wrap(0x80, bytes(16)) + wrap(0x81, bytes(16)))) == ("", 0x6982)


@pytest.mark.parametrize("algorithm", ["00", "03", "0A", "0C", "07", "11"])
def test_another_algorithm_than_the_management_keys(card: RawCard, algorithm: str) -> None:
    assert card.sw(f"0087{algorithm}9B", "7C028100") == 0x6A86


def test_3tdea_goes_by_both_numbers() -> None:
    host = RawCard("tdes-only")
    host.select()
    assert host.send("0087009B", "7C028100")[1] == 0x9000
    assert host.send("0087039B", "7C028100")[1] == 0x9000


@pytest.mark.parametrize("algorithm", ["07", "05"])
def test_rsa_signs_any_block_below_the_modulus(card: RawCard, algorithm: str) -> None:
    public = rsa_public(card.generate("9E", algorithm))
    n, size = public.public_numbers().n, public.key_size // 8
    for number in (0, 1, 2**1000 + 7, n - 1):
        signature = value(card.use("9E", number.to_bytes(size, "big"), algorithm))
        assert pow(int.from_bytes(signature, "big"), 65537, n) == number
    for refused in (n.to_bytes(size, "big"), b"\xff" * size, bytes(size - 1), bytes(size + 1), b""):
        assert card.use("9E", refused, algorithm)[1] == 0x6A80


def test_rsa_key_transport_gives_the_padded_block(card: RawCard) -> None:
    public = rsa_public(card.generate("9D", "07"))
    ciphertext = public.encrypt(b"secret", padding.PKCS1v15())
    assert card.use("9D", ciphertext, "07")[1] == 0x6982
    card.verify(PIN)
    block = value(card.use("9D", ciphertext, "07"))
    assert len(block) == 256
    assert block.startswith(b"\x00\x02")
    assert block.endswith(b"\x00secret")


@pytest.mark.parametrize(("algorithm", "octets", "curve"), [("11", 32, ec.SECP256R1()), ("14", 48, ec.SECP384R1())])
def test_ecdsa_over_given_hashes(card: RawCard, algorithm: str, octets: int, curve: ec.EllipticCurve) -> None:
    public = ec.EllipticCurvePublicKey.from_encoded_point(curve, point(card.generate("9E", algorithm)))
    signature = value(card.use("9E", HASH, algorithm))
    public.verify(signature, HASH, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    short = hashlib.sha1(b"x").digest()
    signature = value(card.use("9E", short, algorithm))
    public.verify(signature, short, ec.ECDSA(utils.Prehashed(hashes.SHA1())))
    assert card.use("9E", bytes(octets + 1), algorithm)[1] == 0x6A80
    assert card.use("9E", b"", algorithm)[1] == 0x6A80


@pytest.mark.parametrize(("algorithm", "curve"), [("11", ec.SECP256R1()), ("14", ec.SECP384R1())])
def test_ecdh_checks_the_point(card: RawCard, algorithm: str, curve: ec.EllipticCurve) -> None:
    public = ec.EllipticCurvePublicKey.from_encoded_point(curve, point(card.generate("9D", algorithm)))
    card.verify(PIN)
    other = ec.generate_private_key(curve)
    theirs = bytes.fromhex("04") + b"".join(
        part.to_bytes((curve.key_size + 7) // 8, "big")
        for part in (other.public_key().public_numbers().x, other.public_key().public_numbers().y)
    )
    assert value(card.use("9D", theirs, algorithm, 0x85)) == other.exchange(ec.ECDH(), public)
    compressed = bytes((2 + theirs[-1] % 2,)) + theirs[1 : 1 + len(theirs) // 2]
    off = theirs[:-1] + bytes((theirs[-1] ^ 1,))
    for bad in (off, compressed, theirs[:-1], theirs + b"\0", b"\0", b"", b"\x04" + bytes(len(theirs) - 1)):
        assert card.use("9D", bad, algorithm, 0x85)[1] == 0x6A80


@pytest.mark.parametrize("slot", ["9A", "9C", "9E"])
def test_signature_keys_do_not_agree_on_secrets(card: RawCard, slot: str) -> None:
    public = point(card.generate(slot))
    card.verify(PIN)
    assert card.use(slot, public, "11", 0x85) == ("", 0x6A80)


def test_rules_of_the_slots(card: RawCard) -> None:
    for slot in ("9A", "9C", "9E"):
        card.generate(slot)
    assert [card.use(slot, HASH)[1] for slot in ("9A", "9C", "9E")] == [0x6982, 0x6982, 0x9000]
    card.verify(PIN)
    assert [card.use("9A", HASH)[1] for _ in range(3)] == [0x9000] * 3
    assert card.use("9C", HASH)[1] == 0x6982
    card.verify(PIN)
    assert [card.use("9C", HASH)[1] for _ in range(2)] == [0x9000, 0x6982]
    assert card.use("9A", HASH)[1] == 0x9000
    assert card.verify() == 0x9000


@pytest.mark.parametrize(
    "between", ["00CB3FFF035C017E00", "0020008000", "00FA000000", "00A40400" + "09A0000003080000100000"]
)
def test_pin_always_is_void_after_any_command(card: RawCard, between: str) -> None:
    card.generate("9C")
    card.verify(PIN)
    card.raw(between)
    assert card.use("9C", HASH)[1] == 0x6982


def test_pin_always_survives_a_chained_signature_and_its_get_response(card: RawCard) -> None:
    card.generate("9C", "07")
    card.verify(PIN)
    block = (1).to_bytes(256, "big")
    assert card.use("9C", block, "07")[1] == 0x9000
    assert card.use("9C", block, "07")[1] == 0x6982


def test_lenient_card_keeps_pin_always_until_it_is_used() -> None:
    host = RawCard("pivapplet")
    host.select()
    host.admin()
    host.generate("9C")
    host.verify(PIN)
    host.get("7E")
    assert [host.use("9C", HASH)[1] for _ in range(2)] == [0x9000, 0x6982]


def test_contactless_only_card_authentication() -> None:
    store = MemoryStore()
    host = RawCard("sp800-73-5", store=store)
    host.admin()
    for slot in ("9A", "9C", "9D", "9E"):
        host.generate(slot)
    host = RawCard("sp800-73-5", store=store, interface=Interface.CONTACTLESS)
    assert host.use("9E", HASH)[1] == 0x9000
    assert [host.use(slot, HASH)[1] for slot in ("9A", "9C", "9D")] == [0x6982] * 3
    assert host.sw("0087089B", "7C028100") == 0x6982
    assert host.sw("0047009A", "AC03800111") == 0x6A81
    assert host.sw("002C0080", "00" * 16) == 0x6A81
    assert host.sw("00240081", "00" * 16) == 0x6A81


@pytest.mark.parametrize(
    "template",
    ["", "7C00", "7C028200", "7C0382008100", "7C06820081008100", "7C058200810100FF", "7C0482008300", "7D048200810100",
     "7C0582008101AA8100", "7C078200810100810100"],
)  # fmt: skip
def test_malformed_templates(card: RawCard, template: str) -> None:
    card.generate("9E")
    assert card.send("0087119E", template) == ("", 0x6A80)


@pytest.mark.parametrize(
    ("header", "sw"),
    [("00871101", 0x6A86), ("00871196", 0x6A86), ("008711FF", 0x6A86), ("0087069E", 0x6A86), ("0087E09E", 0x6A86),
     ("0087119A", 0x6A86), ("00872704", 0x6A86), ("0087149E", 0x6A86)],
)  # fmt: skip
def test_wrong_keys_and_algorithms(card: RawCard, header: str, sw: int) -> None:
    card.generate("9E")
    card.verify(PIN)
    assert card.send(header, wrap(0x7C, b"\x82\x00" + wrap(0x81, HASH))) == ("", sw)


def test_generate_replaces_the_key_and_leaves_the_certificate(card: RawCard) -> None:
    card.put("5FC101", b"certificate")
    first = card.generate("9E")
    second = card.generate("9E")
    assert first != second
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point(second))
    public.verify(value(card.use("9E", HASH)), HASH, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    assert card.get("5FC101") == ("530B" + b"certificate".hex().upper(), 0x9000)
    assert card.card.log.count(Write("key generated", 0x9E)) == 2


@pytest.mark.parametrize(
    ("header", "data", "sw"),
    [
        ("0047019A", "AC03800111", 0x6A86),
        ("0047009B", "AC03800111", 0x6A86),
        ("00470080", "AC03800111", 0x6A86),
        ("00470082", "AC03800111", 0x6A86),
        ("00470004", "AC03800111", 0x6A86),
        ("0047009A", "", 0x6A80),
        ("0047009A", "AC00", 0x6A80),
        ("0047009A", "AC03800106", 0x6A80),
        ("0047009A", "AC038001E0", 0x6A80),
        ("0047009A", "AC038001FF", 0x6A80),
        ("0047009A", "AC0680011181FF01", 0x6A80),
        ("0047009A", "AC06800107810103", 0x6A80),
        ("0047009A", "AC06800111AA0102", 0x6A80),
    ],
)
def test_generate_refusals(card: RawCard, header: str, data: str, sw: int) -> None:
    before = card.card.state_hash()
    assert card.send(header, data) == ("", sw)
    assert card.card.state_hash() == before


def test_generate_needs_the_management_key() -> None:
    assert RawCard("sp800-73-5").send("0047009A", "AC03800111") == ("", 0x6982)


def test_key_uses_are_witnessed(card: RawCard) -> None:
    card.generate("9E")
    card.use("9E", HASH)
    card.use("9E", bytes(33))
    uses = [record for record in card.card.log if isinstance(record, KeyUse)]
    assert uses == [KeyUse(0x9E, 0x11, hashlib.sha256(HASH).digest())]


def test_pool_keys_differ_until_it_is_used_up() -> None:
    keys = [POOL.take(1024) for _ in range(3)]
    assert len({key[:2] for key in keys}) == 3
    assert all(int.from_bytes(p) * int.from_bytes(q) >> 1023 == 1 for p, q, _ in keys)


def test_cards_do_not_share_random_numbers() -> None:
    hashes_of_fresh = {VirtualCard("sp800-73-5").state_hash() for _ in range(3)}
    assert len(hashes_of_fresh) == 3
