"""The published card images are read completely and come back as they were."""

from __future__ import annotations

import json
from pathlib import Path

from cardwright_cardops.iso7816.tlv import Tlv
from cardwright_cardops.piv import containers, objects, signed
from cardwright_cardops.piv.objects import BiometricObject, Chuid, SecurityObject
from cardwright_cardops.piv.objects.chuid import signature_input
from cardwright_cardops.piv.objects.layout import Need
from cardwright_cardops.piv.objects.security_object import HashTable


def images(shared_data: Path) -> dict[str, dict[int, bytes]]:
    paths = sorted(shared_data.glob("icam-cards/[0-9]*.json")) + sorted(shared_data.glob("nist-sd33-cards/*.json"))
    return {
        path.stem: {int(tag, 16): bytes.fromhex(raw) for tag, raw in json.loads(path.read_text())["objects"].items()}
        for path in paths
    }


def test_every_object_is_read_and_written_back(shared_data: Path) -> None:
    cards = images(shared_data)
    assert len(cards) == 46
    changed, legacy, empty = [], set(), []
    for card, contents in cards.items():
        for tag, answer in contents.items():
            value = containers.unwrap(tag, answer)
            if not value:
                empty.append((card, tag))
                continue
            seen = objects.decode(tag, value)
            assert seen.unknown == (), (card, tag)
            legacy |= {item.tag for item in seen.legacy}
            if not seen.legacy and seen.encode() != value:
                changed.append((card, tag))
    assert empty == [("46_Golden_FIPS_201-2_PIV_ICI_8", 0x5FC108)]
    assert legacy == {0xEE, 0x32, 0x33}
    assert changed == [("sd33-card-02", 0x5FC122)]  # another gzip compressed it


def test_nist_signatures_of_every_kind_verify(shared_data: Path) -> None:
    kinds = set()
    for card, contents in images(shared_data).items():
        if not card.startswith("sd33"):
            continue
        value = containers.unwrap(0x5FC102, contents[0x5FC102])
        chuid = Chuid.decode(value)
        seen, signer = signed.verify(chuid.signature, signed.CHUID_CONTENT, content=signature_input(value))
        kinds.add((seen.signature_algorithm, seen.digest))
        for tag in (0x5FC103, 0x5FC108):
            record = BiometricObject.decode(containers.unwrap(tag, contents[tag]))
            attributes, _ = signed.verify(
                record.signature, signed.BIOMETRIC_CONTENT,
                content=record.signed_content, certificates=[signer], uuid=chuid.guid,
            )  # fmt: skip
            assert attributes.fascn == (None if card == "sd33-card-16" else chuid.fascn)
    assert kinds == {
        ("rsassa_pss", "sha256"), ("rsassa_pkcs1v15", "sha256"), ("ecdsa", "sha256"), ("ecdsa", "sha384")
    }  # fmt: skip


def test_published_digest_inputs(shared_data: Path) -> None:
    vectors = json.loads((shared_data / "test-vectors.json").read_text())
    row = vectors["chuid_digest"]
    value = containers.unwrap(0x5FC102, bytes.fromhex(row["chuid_object"]))
    assert signed.read(Chuid.decode(value).signature).digest_matches(signature_input(value))

    row = vectors["security_object_hash"]
    contents = images(shared_data)[row["card"]]
    hashes = {}
    seen = SecurityObject.decode(containers.unwrap(0x5FC106, contents[0x5FC106]))
    assert seen.encode()[:2] + bytes.fromhex(row["ba"]) == seen.encode()[:17]
    table = HashTable.decode(signed.read(seen.signed).content or b"")
    for number, owner in seen.groups:
        container = containers.CONTAINERS_BY_ID[owner]
        content = containers.hashed_content(container.tag, contents[container.tag])
        assert table.matches(number, content) is True
        assert table.matches(number, content + b"x") is False
        hashes[f"DG{number} {owner:04x} {container.tag_text}"] = dict(table.hashes)[number].hex()
    assert hashes == {name: each["sha256"] for name, each in row["example"].items()}
    assert HashTable.decode(table.encode()) == table


def test_the_table_of_containers(shared_data: Path) -> None:
    tables = json.loads((shared_data / "piv-tables.json").read_text())
    assert len(tables["objects"]) == len(containers.PIV_CONTAINERS) == 36
    for row in tables["objects"]:
        own = containers.CONTAINERS[int(row["tag"], 16)]
        assert (
            own.container_id, own.oid, own.min_capacity, own.contact.value, own.contactless.value, own.bare
        ) == (
            int(row["container_id"], 16), row["oid"], row["min_capacity"], row["read_contact"],
            row["read_contactless"], row["outer"] != "53",
        )  # fmt: skip
        assert own.presence.value[0].upper() == row["presence"][0]
        layout = objects.CODECS[own.tag].LAYOUT
        listed = {int(each["tag"], 16) for each in row["inner"]}
        assert listed - {each.tag for each in layout} == set()
        assert {each.tag for each in layout if each.need is not Need.LEGACY} - listed == set()
    assert Tlv(0x53, b"").encode() == containers.wrap(0x5FC102, b"")
