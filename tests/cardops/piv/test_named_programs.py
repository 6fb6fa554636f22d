"""The programs that people run by name, at a virtual card, judged by the card itself."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cardwright_cardops.iso7816.apdu import CommandAPDU
from cardwright_cardops.iso7816.status import Blocked, StatusError, VerificationFailed
from cardwright_cardops.piv import commands, programs
from cardwright_cardops.piv.algorithms import Algorithm, ManagementAlgorithm, PinPolicy, TouchPolicy
from cardwright_cardops.piv.management_key import ManagementKey, ManagementKeyRefused
from cardwright_cardops.piv.objects import CertificateObject
from cardwright_cardops.piv.references import PinReference, Slot
from cardwright_cardops.piv.vendor import yubico
from cardwright_cardops.piv.vendor.attestation import verify_attestation
from cardwright_cardops.program.items import Program
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from tests.support.virtual import NEW_PIN, NEW_PUK, PUK, Bench, bench, default_management_key

FACTORY = default_management_key("yubikey-5.7")


def sw(made: Bench, command: CommandAPDU) -> int:
    return made.executor.plain.send(command).sw


def verify(made: Bench, value: Secret) -> int:
    return sw(made, CommandAPDU(0, 0x20, 0, 0x80, value.reveal().ljust(8, b"\xff")))


def marks(made: Bench) -> programs.Marks:
    return run(programs.read_marks(), made.executor)


def as_manager(made: Bench, body: Program[None], keys: list[ManagementKey] | None = None) -> None:
    """Run ``body`` in the stage in which the management key was proved."""

    def whole() -> Program[None]:
        yield from programs.open_management(keys or [FACTORY], known, "write")
        yield from body

    known = marks(made)
    run(whole(), made.executor)


def test_pin_puk_and_unblocking() -> None:
    made = bench(new=NEW_PIN)
    run(programs.change_pin(marks(made)), made.executor)
    assert verify(made, Secret(b"123456")) == 0x63C2
    assert verify(made, NEW_PIN) == 0x9000
    run(programs.change_puk(marks(made), PUK, NEW_PUK), made.executor)
    for left in (0x63C2, 0x63C1, 0x63C0):
        assert verify(made, Secret(b"000000")) == left
    with pytest.raises(VerificationFailed) as caught:
        run(programs.unblock_pin(marks(made), PUK), made.executor)
    assert caught.value.tries_left == 2 and str(caught.value).startswith("unblocking the PIN")
    run(programs.unblock_pin(marks(made), NEW_PUK), made.executor)
    assert verify(made, NEW_PIN) == 0x9000


def test_verifying_ends_with_the_stage_and_a_wrong_value_is_said() -> None:
    made = bench()
    run(programs.verify_pin(marks(made)), made.executor)
    wrong = bench(current=Secret(b"654321"))
    with pytest.raises(VerificationFailed, match=r"verifying the PIN.*63C2"):
        run(programs.verify_pin(marks(wrong)), wrong.executor)
    blocked = bench(keep=0)
    for _ in range(3):
        verify(blocked, Secret(b"000000"))
    with pytest.raises(Blocked):
        run(programs.verify_pin(marks(blocked)), blocked.executor)


def test_another_card_gets_nothing() -> None:
    made = bench(new=NEW_PIN)
    for program in (
        programs.change_pin(programs.Marks(b"\0\0\0\x09")),
        programs.change_puk(programs.Marks(chuid=b"x"), PUK, NEW_PUK),
        programs.unblock_pin(programs.Marks(), PUK),
    ):
        with pytest.raises(programs.AnotherCard):
            run(program, made.executor)
    assert verify(made, Secret(b"123456")) == 0x9000


def test_an_imported_key_and_its_certificate_are_there() -> None:
    """As any other program, ``as_manager`` leaves the application behind it."""
    made = bench()
    key = ec.generate_private_key(ec.SECP256R1())
    as_manager(made, programs.import_key(Slot.SIGNATURE, key, PinPolicy.ONCE, TouchPolicy.CACHED, "write"))
    assert run(programs.slot_key(Slot.SIGNATURE), made.executor) == key.public_key()
    assert run(programs.slot_key(Slot.KEY_MANAGEMENT), made.executor) is None
    told = yubico.parse_metadata(made.executor.plain.send(yubico.get_metadata(Slot.SIGNATURE)).data)
    assert told.origin is yubico.KeyOrigin.IMPORTED
    assert (told.pin_policy, told.touch_policy) == (PinPolicy.ONCE, TouchPolicy.CACHED)
    assert run(programs.read_certificate(Slot.SIGNATURE), made.executor) is None
    content = CertificateObject(b"\x30\x01\x00").encode()
    as_manager(made, programs.write_object(Slot.SIGNATURE.certificate_tag, content, "writing", "write"))
    found = run(programs.read_certificate(Slot.SIGNATURE), made.executor)
    assert found is not None and found.der == b"\x30\x01\x00"


def test_writing_without_the_management_key_is_refused_by_name() -> None:
    made = bench()
    for program, doing in (
        (programs.write_object(0x5FC109, b"", "writing the printed information", ""), "writing the printed"),
        (programs.import_key(
            Slot.SIGNATURE, ec.generate_private_key(ec.SECP256R1()), PinPolicy.ONCE, TouchPolicy.NEVER, ""
        ), "importing a key into slot 9C"),
    ):  # fmt: skip
        with pytest.raises(StatusError, match=doing) as caught:
            run(program, made.executor)
        assert caught.value.sw == 0x6982


def test_three_management_keys_are_tried_in_order() -> None:
    wrong = [ManagementKey(ManagementAlgorithm(FACTORY.algorithm), Secret(bytes((n,)) * 24)) for n in (1, 2, 3)]
    done: list[str] = []

    def body() -> Program[None]:
        done.append("done")
        return
        yield

    as_manager(bench(), body(), [*wrong[:2], FACTORY])
    assert done == ["done"]
    for keys in ([*wrong, FACTORY], wrong[:1]):
        with pytest.raises(ManagementKeyRefused):
            as_manager(bench(), body(), keys)
    made = bench()
    with pytest.raises(ManagementKeyRefused, match="No management key was given"):
        run(programs.open_management([], marks(made), "write"), made.executor)


def test_the_card_attests_what_it_made() -> None:
    made = bench()

    def generate() -> Program[None]:
        yield from programs.generate_key(
            Slot.KEY_MANAGEMENT, Algorithm.P384, PinPolicy.ALWAYS, TouchPolicy.NEVER, "write"
        )

    as_manager(made, generate())
    statement, signer = run(programs.attestation(Slot.KEY_MANAGEMENT), made.executor)
    assert signer is not None
    said = verify_attestation(statement, signer, [])
    assert (said.slot, said.algorithm, said.trusted) == (Slot.KEY_MANAGEMENT, Algorithm.P384, False)
    assert (said.pin_policy, said.touch_policy) == (PinPolicy.ALWAYS, TouchPolicy.NEVER)
    serial = made.executor.plain.send(yubico.get_serial()).data
    version = made.executor.plain.send(yubico.get_version()).data
    assert said.serial == str(int.from_bytes(serial, "big"))
    assert said.firmware == ".".join(str(one) for one in version)
    assert said.public_key == run(programs.slot_key(Slot.KEY_MANAGEMENT), made.executor)
    with pytest.raises(StatusError, match="attesting the key of slot 9C"):
        run(programs.attestation(Slot.SIGNATURE), made.executor)


def test_octets_that_are_no_certificate() -> None:
    with pytest.raises(programs.MalformedCertificate):
        programs.load_certificate(b"\x30\x00")


def test_vendor_commands_are_written_as_their_documentation_has_them() -> None:
    key = ManagementKey(ManagementAlgorithm.AES192, Secret(bytes(range(24))))
    rows = {
        yubico.get_version(): "00fd000000",
        yubico.get_serial(): "00f8000000",
        yubico.attest(Slot.SIGNATURE): "00f99c0000",
        yubico.set_retries(5, 4): "00fa0504",
        yubico.reset(): "00fb0000",
        yubico.move_key(0x9A, 0x82): "00f6829a",
        yubico.delete_key(0x9A): "00f6ff9a",
        yubico.set_management_key(key): "00ffffff1b0a9b18" + bytes(range(24)).hex(),
        yubico.set_management_key(key, touch=True): "00fffffe1b0a9b18" + bytes(range(24)).hex(),
        yubico.get_metadata(0x9A): "00f7009a00",
        commands.clear_status(PinReference.PIN): "0020ff80",
    }
    for command, wire in rows.items():
        short = CommandAPDU(command.cla, command.ins, command.p1, command.p2, command.data, min(command.le, 256))
        assert short.encode().hex() == wire
