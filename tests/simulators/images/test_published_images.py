"""Published card images as virtual cards: each object by its access rule, each key by its certificate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cardwright_cardops.iso7816.apdu import CommandAPDU, ResponseAPDU
from cardwright_cardops.iso7816.exchange import Exchange, Limits
from cardwright_cardops.iso7816.tlv import parse_one, parse_unique
from cardwright_cardops.piv import commands, containers
from cardwright_cardops.piv.cvc import ContentSigner
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.objects import SmSigner
from cardwright_cardops.piv.pins import FixedPins, TriesGuard
from cardwright_cardops.piv.responses import dynamic_authentication
from cardwright_cardops.piv.secure_messaging import SmExchange, SmHandshake, SmSuite
from cardwright_cardops.plan.inventory import Inventory, Presence
from cardwright_cardops.plan.observe import EVERYTHING, observe
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.program.runner import run
from cardwright_cardops.transport.connection import Interface
from cardwright_cardops.transport.direct import DirectConnection
from cardwright_simulators.card import VirtualCard, images
from cardwright_simulators.card.profiles import PROFILES
from cardwright_simulators.scripts.proofs import ask, certified_key

ICAM, NIST = 41, 5
PIN = b"123456\xff\xff"
UNDER_PIN = {0x5FC103, 0x5FC108, 0x5FC109, 0x5FC121}
WITHOUT_CONTACTS = {0x5FC102, 0x5FC101, 0x7E, 0x7F61, 0x5FC122}
OTHER_KEYS = {"23_Public_Private_Key_mismatch.json": {0x9A, 0x9E}}
"""Images whose keys are not those of their certificates, as their own list of defects says."""
HASHES_THAT_DO_NOT_HOLD = {"04_Tampered_CHUID.json", "48_T0_with_Non-Zero_PPS_LEN_Value.json"}
"""Images where the Security Object does not fit what is free to read; two more do not fit what the PIN opens."""


def files(folder: Path) -> list[Path]:
    icam = [path for path in (folder / "icam-cards").glob("*.json") if path.name != "INDEX.json"]
    return sorted(icam) + sorted((folder / "nist-sd33-cards").glob("*.json"))


@pytest.fixture(params=range(ICAM + NIST))
def image(request: pytest.FixtureRequest, shared_data: Path) -> Path:
    path: Path = files(shared_data)[request.param]
    return path


def document(path: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(path.read_text())
    return read


def objects(path: Path) -> dict[int, bytes]:
    return {int(tag, 16): bytes.fromhex(answer) for tag, answer in document(path)["objects"].items()}


def exchange(card: VirtualCard) -> Exchange:
    made = Exchange(DirectConnection(card, interface=card.interface), Limits(extended=False))
    assert made.send(commands.select()).sw == 0x9000
    return made


def read(card: Exchange | SmExchange, tags: set[int]) -> dict[int, bytes | int]:
    """Each object's octets, or the status word of the refusal."""
    answers = {tag: card.send(commands.get_data(tag)) for tag in tags}
    return {tag: answer.data if answer.sw == 0x9000 else answer.sw for tag, answer in answers.items()}


def verify(card: Exchange | SmExchange, reference: int, value: bytes) -> None:
    assert card.send(CommandAPDU(0, 0x20, 0, reference, value)).sw == 0x9000


def test_how_many_images_there_are(shared_data: Path) -> None:
    paths = files(shared_data)
    assert (len(paths), sum(path.parent.name == "icam-cards" for path in paths)) == (ICAM + NIST, ICAM)


def test_objects_read_back_by_their_rules(image: Path) -> None:
    wanted = objects(image)
    card = exchange(images.load(image))
    before = read(card, set(wanted))
    assert before == {tag: 0x6982 if tag in UNDER_PIN else answer for tag, answer in wanted.items()}
    verify(card, 0x80, PIN)
    assert read(card, set(wanted)) == wanted
    absent = {row.tag for row in containers.PIV_CONTAINERS} - set(wanted)
    assert set(read(card, absent).values()) == {0x6A82}


def test_objects_without_contacts(image: Path) -> None:
    wanted = objects(image)
    card = exchange(images.load(image, interface=Interface.CONTACTLESS))
    free = {tag: answer if tag in WITHOUT_CONTACTS else 0x6982 for tag, answer in wanted.items()}
    assert read(card, set(wanted)) == free


def test_objects_through_the_virtual_contact_interface(image: Path) -> None:
    profile = PROFILES["secure-messaging"]
    content = document(image)
    # The Discovery object of an image speaks for its own card; this card has the virtual contact interface.
    content["objects"]["7E"] = profile.initial_objects[0x7E].hex()
    made = images.load(content, profile=profile, interface=Interface.CONTACTLESS)
    plain = exchange(made)
    stored = SmSigner.decode(containers.unwrap(0x5FC122, plain.send(commands.get_data(0x5FC122)).data))
    handshake = SmHandshake(SmSuite.CS2)
    session = handshake.finish(plain.send(handshake.command), ContentSigner.load(stored.der))
    card = SmExchange(plain, session)
    verify(card, 0x98, profile.pairing_code)
    verify(card, 0x80, PIN)
    wanted = {int(tag, 16): bytes.fromhex(answer) for tag, answer in content["objects"].items() if tag != "5FC122"}
    assert read(card, set(wanted)) == wanted
    assert parse_unique(parse_one(wanted[0x5FC102]).value)[0x34] == session.card.guid


def test_keys_are_those_of_the_certificates(image: Path) -> None:
    content = document(image)
    slots = {int(slot, 16) for slot in content["keys"]}
    assert slots >= {0x9A, 0x9C, 0x9D, 0x9E} or not slots
    answers = objects(image)
    card = exchange(images.load(image))
    wrong = set()
    for slot in slots:
        tag = containers.CONTAINERS_BY_SLOT[slot].tag
        question = ask(slot, certified_key(tag, answers[tag]))
        element = parse_one(question.element)
        use = commands.general_authenticate(question.algorithm, slot, (0x82, b""), (element.tag, element.value))
        if slot != 0x9E:
            assert card.send(use) == ResponseAPDU(b"", 0x6982)
            verify(card, 0x80, PIN)
        answer = card.send(use)
        assert answer.sw == 0x9000
        if not question.proves(dynamic_authentication(answer.data, 0x82)):
            wrong.add(slot)
        assert card.send(CommandAPDU(0, 0x20, 0xFF, 0x80)).sw == 0x9000
    assert wrong == OTHER_KEYS.get(image.name, set())


def observed(card: VirtualCard) -> Inventory:
    keys = KeyItems(FixedPins(None, None), TriesGuard(1), local=True)
    return run(observe(EVERYTHING), LocalExecutor(DirectConnection(card), keys))


def test_inventory_says_what_is_there(image: Path) -> None:
    wanted = objects(image)
    seen = observed(images.load(image))
    free = {row.tag for row in seen.objects if row.presence is Presence.PRESENT}
    assert free == set(wanted) - UNDER_PIN
    assert [row for row in seen.objects if row.presence is Presence.DAMAGED] == []
    assert seen.security_object_holds is (image.name not in HASHES_THAT_DO_NOT_HOLD)
    certificates = {containers.CONTAINERS_BY_SLOT[slot].tag for slot in range(0x82, 0xA0) if slot != 0x9B
                    and slot in containers.CONTAINERS_BY_SLOT}  # fmt: skip
    assert {row.slot.certificate_tag for row in seen.certificates} == certificates & set(wanted)
    assert seen.identity.guid is not None


def test_inventory_of_a_damaged_image(image: Path) -> None:
    """Each free object cut in its middle: the inventory says that it is damaged, and keeps the others."""
    content = document(image)
    for tag in ("5FC102", "5FC105"):
        answer = content["objects"][tag]
        content["objects"][tag] = answer[: len(answer) // 4 * 2]
    seen = observed(images.load(content))
    damaged = {row.tag: row.defect for row in seen.objects if row.presence is Presence.DAMAGED}
    assert damaged.keys() == {0x5FC102, 0x5FC105}
    assert all(damaged.values())
    assert seen.object(0x5FC101).presence is Presence.PRESENT


def test_saved_image_is_the_loaded_one(image: Path) -> None:
    saved = images.save(images.load(image))
    assert {int(tag, 16): bytes.fromhex(answer) for tag, answer in saved["objects"].items()} == objects(image)
    assert images.save(images.load(saved)) == saved
