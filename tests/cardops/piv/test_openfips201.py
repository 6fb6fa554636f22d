"""OpenFIPS201 administration through SCP03 on a virtual card that has it; what was set is then used the PIV way."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from cardwright_cardops.globalplatform.channel import authenticate as open_channel
from cardwright_cardops.globalplatform.scp03 import (
    CardAnswer,
    SecurityLevel,
    StaticKeys,
    check_authenticated,
    initialize_update,
    new_host_challenge,
)
from cardwright_cardops.globalplatform.sealing import seal
from cardwright_cardops.iso7816.apdu import CommandAPDU
from cardwright_cardops.piv.algorithms import Algorithm, ManagementAlgorithm, PrivateKey, UnsupportedAlgorithm
from cardwright_cardops.piv.commands import TAG_RESPONSE, select, use_key
from cardwright_cardops.piv.management_key import ManagementKey, authenticate
from cardwright_cardops.piv.responses import MalformedAnswer, dynamic_authentication
from cardwright_cardops.piv.signing import default_hash, message_block, signature_of
from cardwright_cardops.piv.vendor.openfips201 import (
    AccessMode,
    Administration,
    Attribute,
    CreateKey,
    CreateObject,
    DeleteKey,
    DeleteObject,
    Role,
    administer,
    get_status,
    get_version,
    parse_information,
    set_key,
    set_management_key,
    set_reference,
)
from cardwright_cardops.program.items import Apdu, Program, VerifyPin, ask
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from cardwright_simulators.card.factory import FACTORY_CHANNEL_KEY
from tests.support.virtual import Bench, bench


def administered(*commands: CommandAPDU) -> tuple[Bench, list[int | None]]:
    """A card to which ``commands`` went through SCP03, and its status words."""
    with_card = bench("globalplatform", current=Secret(b"271828"))
    plain = with_card.executor.plain
    host = new_host_challenge()
    answer = CardAnswer.parse(plain.send(initialize_update(0xFF, host)), host)
    keys = StaticKeys(*(Secret(FACTORY_CHANNEL_KEY) for _ in range(3)))
    command, channel = open_channel(keys, answer, SecurityLevel.ALL)
    check_authenticated(plain.send(command))
    sealed = seal(channel, list(commands), max_data=255)
    words = [one.sw for one in sealed.open(with_card.executor.execute(sealed.batch))]
    plain.send(select())
    return with_card, words


OPEN_KEY = CreateKey(0x9E, 0x11, AccessMode.ALWAYS, AccessMode.ALWAYS, Role.SIGN, Attribute.IMPORTABLE)


@pytest.mark.parametrize(
    ("step", "wire"),
    [
        (CreateObject(0x5FC102, AccessMode.ALWAYS, AccessMode.ALWAYS), "640b8b035fc1028c017f8d017f"),
        (CreateObject(0x7E, AccessMode.ALWAYS, AccessMode.NEVER), "64098b017e8c017f8d0100"),
        (DeleteObject(0x5FC105), "65058b035fc105"),
        (
            CreateKey(0x9A, 0x11, AccessMode.PIN, AccessMode.NEVER, Role.SIGN, Attribute.IMPORTABLE),
            "66128b019a8c01018d01008e01118f0104900110",
        ),
        (DeleteKey(0x9A), "67038b019a"),
    ],
)
def test_requests_are_those_of_the_applets_documentation(step: Administration, wire: str) -> None:
    assert administer(step).encode().hex() == f"00db3f00{len(wire) // 2:02x}{wire}"


def test_values_are_those_of_the_applets_documentation() -> None:
    assert {one.name: int(one) for one in AccessMode.__members__.values()} == {
        "NEVER": 0x00, "PIN": 0x01, "PIN_ALWAYS": 0x02, "OCC": 0x04, "USER_ADMIN": 0x10, "ALWAYS": 0x7F,
    }  # fmt: skip
    assert {one.name: int(one) for one in Role} == {"AUTHENTICATE": 1, "KEY_ESTABLISHMENT": 2, "SIGN": 4}
    assert {one.name: int(one) for one in Attribute.__members__.values()} == {
        "NONE": 0x00, "INTERNAL": 0x02, "EXTERNAL": 0x04, "MUTUAL": 0x08, "IMPORTABLE": 0x10,
    }  # fmt: skip
    both = CreateKey(0x9B, 0x0C, AccessMode.PIN | AccessMode.OCC, AccessMode.NEVER, Role.AUTHENTICATE | Role.SIGN)
    assert administer(both).data.hex() == "66128b019b8c01058d01008e010c8f0105900100"


@pytest.mark.parametrize(
    ("command", "wire"),
    [
        (set_reference(0x81, Secret(b"1234567")), "0024ff810831323334353637ff"),
        (set_reference(0x00, Secret(b"12345678")), "0024ff00083132333435363738"),
        (set_management_key(ManagementKey(ManagementAlgorithm.AES128, Secret(bytes(16)))),
         "0024089b14" + "30128010" + "00" * 16),
        (get_version(), "00cb3f00055c032f475600"),
        (get_status(), "00cb3f00055c032f475300"),
    ],
)  # fmt: skip
def test_commands_octet_by_octet(command: CommandAPDU, wire: str) -> None:
    assert command.encode().hex() == wire


def test_several_steps_go_together() -> None:
    raw = administer(DeleteKey(0x9A), DeleteObject(0x7E)).data.hex()
    assert raw == "6a0a" + "67038b019a" + "65038b017e"
    with pytest.raises(ValueError, match="nothing"):
        administer()


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)])
def test_an_imported_key_signs(key: PrivateKey) -> None:
    algorithm = Algorithm.of(key.public_key())
    created = CreateKey(0x9E, algorithm, AccessMode.ALWAYS, AccessMode.ALWAYS, Role.SIGN, Attribute.IMPORTABLE)
    with_card, words = administered(administer(created), *set_key(0x9E, key))
    assert set(words) == {0x9000}
    block = message_block(b"message", algorithm, default_hash(algorithm))
    answer = with_card.executor.plain.send(use_key(algorithm, 0x9E, block))
    signature = signature_of(dynamic_authentication(answer.data, TAG_RESPONSE), algorithm)
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        public.verify(signature, b"message", padding.PKCS1v15(), hashes.SHA256())
    elif isinstance(public, ec.EllipticCurvePublicKey):
        public.verify(signature, b"message", ec.ECDSA(hashes.SHA256()))
        with pytest.raises(InvalidSignature):
            public.verify(signature, b"massage", ec.ECDSA(hashes.SHA256()))


def test_a_half_sent_key_is_none() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    with_card, words = administered(administer(OPEN_KEY), set_key(0x9E, key)[0])
    assert set(words) == {0x9000}
    assert with_card.executor.plain.send(use_key(0x11, 0x9E, bytes(32))).sw != 0x9000


def test_the_administrator_sets_pin_and_management_key() -> None:
    management = ManagementKey(ManagementAlgorithm.AES256, Secret(bytes(range(32))))
    with_card, words = administered(set_reference(0x80, Secret(b"271828")), set_management_key(management))
    assert words == [0x9000, 0x9000]

    def program() -> Program[bool]:
        selected, verified = yield from ask(Apdu(select()), VerifyPin(), stage="use")
        yield from authenticate(management, stage="use")
        return selected.ok and verified.ok

    assert run(program(), with_card.executor)


def test_outside_the_channel_nothing_is_administered() -> None:
    plain = bench("globalplatform").executor.plain
    assert plain.send(administer(OPEN_KEY)).sw == 0x6982
    assert plain.send(set_reference(0x80, Secret(b"271828"))).sw != 0x9000


def test_version_and_status_are_read() -> None:
    plain = bench("globalplatform").executor.plain
    assert parse_information(plain.send(get_version()).data)
    assert parse_information(plain.send(get_status()).data)
    for damaged in (b"", b"\x73\x02\x01", b"\x53\x00"):
        with pytest.raises(MalformedAnswer):
            parse_information(damaged)


def test_keys_that_the_applet_does_not_have_are_refused() -> None:
    with pytest.raises(UnsupportedAlgorithm):
        set_key(0x9E, ed25519.Ed25519PrivateKey.generate())
