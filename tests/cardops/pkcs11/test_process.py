"""The process around a module: crashes, hangs, PINs and their guard. The module's own notes are the witness."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from cardwright_cardops.pkcs11 import Deadlines, KeyAlgorithm, LoginState, Module, PinState, Token, TokenEcKey, User
from cardwright_cardops.pkcs11.channel import child_environment
from cardwright_cardops.pkcs11.errors import (
    DataRejected,
    ModuleCrashed,
    ModuleTimeout,
    ModuleUnusable,
    NotLoggedIn,
    PinIncorrect,
    PinLastTry,
    PinLocked,
    Pkcs11Error,
    UnsupportedByToken,
)
from cardwright_cardops.secret import Secret
from tests.cardops.pkcs11.support import USER_PIN, SoftHsm, certificate_for

FakeModule = Callable[..., Module]
GOOD_PIN = Secret(b"1234")
CANARY = Secret(b"8c4n4ry7")


def calls(tmp_path: Path) -> list[str]:
    noted = tmp_path / "calls"
    return noted.read_text().split() if noted.exists() else []


def shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(vars(error))


@pytest.mark.parametrize("behaviour", ["crash-at-start", "refuse-start"])
def test_module_that_does_not_start(fake: FakeModule, behaviour: str) -> None:
    with pytest.raises(Pkcs11Error) as caught:
        fake(behaviour).tokens()
    assert caught.value.code == ("PKCS11_MODULE_CRASHED" if "crash" in behaviour else "PKCS11_MODULE_UNUSABLE")
    assert caught.value.effect == "The token was not changed."


def test_what_is_no_module(tmp_path: Path) -> None:
    text = tmp_path / "module.so"
    text.write_text("not a library")
    with pytest.raises(ModuleUnusable):
        Module(text).tokens()
    with pytest.raises(ModuleUnusable):
        Module(tmp_path / "absent.so")
    with pytest.raises(ModuleUnusable, match="absolute"):
        Module("libsofthsm2.so")
    libc = next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/libc.so" in line)
    with pytest.raises(ModuleUnusable):
        Module(libc).tokens()


def test_crash_costs_one_operation(fake: FakeModule, tmp_path: Path) -> None:
    module = fake("crash-at-login")
    (token,) = module.tokens()
    first = module.pid
    with pytest.raises(ModuleCrashed, match=f"signal {signal.SIGSEGV:d}") as caught:
        token.login(GOOD_PIN)
    assert caught.value.effect == "Whether the token carried out the operation is not known."
    assert module.pid is None
    assert token.pin_state() is PinState.GOOD
    assert module.pid not in (None, first)
    assert calls(tmp_path) == ["C_Login"], "a PIN is never sent again"


def test_hang_costs_one_operation(fake: FakeModule, tmp_path: Path) -> None:
    module = fake("hang-at-login", seconds=3.0)
    (token,) = module.tokens()
    first = module.pid
    assert first is not None
    with pytest.raises(ModuleTimeout, match="within 3 s"):
        token.login(GOOD_PIN)
    assert not Path(f"/proc/{first}").exists()
    assert token.login_state() is LoginState.NOBODY
    assert calls(tmp_path) == ["C_Login"]


def test_killed_and_stopped_process(softhsm: SoftHsm, token: Token) -> None:
    module = softhsm.module
    token.login(USER_PIN)
    token.generate(b"\x01", KeyAlgorithm.P256)
    key = token.private_key(b"\x01")
    assert isinstance(key, TokenEcKey) and module.pid is not None
    os.kill(module.pid, signal.SIGKILL)
    with pytest.raises((ModuleCrashed, NotLoggedIn)):
        key.sign(b"x", ec.ECDSA(hashes.SHA256()))
    with pytest.raises(NotLoggedIn):
        key.sign(b"x", ec.ECDSA(hashes.SHA256()))
    token.login(USER_PIN)
    assert key.sign(b"x", ec.ECDSA(hashes.SHA256()))
    module.deadlines = Deadlines(operation=1.0)
    os.kill(module.pid, signal.SIGSTOP)
    with pytest.raises(ModuleTimeout) as caught:
        key.sign(b"x", ec.ECDSA(hashes.SHA256()))
    assert caught.value.effect == "The token was not changed."
    module.deadlines = Deadlines()
    token.login(USER_PIN)
    assert key.sign(b"x", ec.ECDSA(hashes.SHA256()))


def test_abort_from_another_thread(fake: FakeModule, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "calls")
    module = fake("hang-on-token", seconds=60.0)
    ended: list[Pkcs11Error] = []

    def list_tokens() -> None:
        try:
            module.tokens()
        except Pkcs11Error as error:
            ended.append(error)

    thread = threading.Thread(target=list_tokens)
    thread.start()
    assert (tmp_path / "calls").read_text() == "hanging\n", "the module is inside the call now"
    module.abort()
    thread.join(20)
    assert [type(error) for error in ended] == [ModuleCrashed]


def test_child_ends_with_its_parent(fake: FakeModule) -> None:
    module = fake("")
    module.tokens()
    pid = module.pid
    assert pid is not None
    module.close()
    assert not Path(f"/proc/{pid}").exists()
    assert module.pid is None
    assert len(module.tokens()) == 1, "closed modules start again when asked"


def test_threads_wait_for_each_other(softhsm: SoftHsm, token: Token) -> None:
    token.login(USER_PIN)
    token.generate(b"\x01", KeyAlgorithm.P256)
    key = token.private_key(b"\x01")
    assert isinstance(key, TokenEcKey)
    good: list[bool] = []

    def sign() -> None:
        for number in range(20):
            data = bytes([number])
            key.public_key().verify(key.sign(data, ec.ECDSA(hashes.SHA256())), data, ec.ECDSA(hashes.SHA256()))
            good.append(True)

    threads = [threading.Thread(target=sign) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(good) == 80


@pytest.mark.parametrize("user", list(User))
def test_last_try_is_not_spent_unasked(fake: FakeModule, tmp_path: Path, user: User) -> None:
    (token,) = fake("final-try").tokens()
    assert token.info.user_pin_state is PinState.FINAL_TRY
    with pytest.raises(PinLastTry) as caught:
        token.login(GOOD_PIN, user)
    assert caught.value.effect == "No PIN was sent to the token."
    assert calls(tmp_path) == []
    token.login(GOOD_PIN, user, spend_last_try=True)
    assert calls(tmp_path) == ["C_Login"]
    assert token.login_state() is (LoginState.USER if user is User.USER else LoginState.SO)


def test_last_try_guards_the_change_of_a_pin(fake: FakeModule, tmp_path: Path) -> None:
    (token,) = fake("final-try").tokens()
    with pytest.raises(PinLastTry):
        token.change_pin(GOOD_PIN, Secret(b"5678"))
    assert calls(tmp_path) == []
    token.change_pin(GOOD_PIN, Secret(b"5678"), spend_last_try=True)
    assert calls(tmp_path) == ["C_SetPIN"]


@pytest.mark.parametrize("user", list(User))
def test_locked_pin_is_not_sent_at_all(fake: FakeModule, tmp_path: Path, user: User) -> None:
    (token,) = fake("locked").tokens()
    with pytest.raises(PinLocked):
        token.login(GOOD_PIN, user, spend_last_try=True)
    with pytest.raises(PinLocked):
        token.change_pin(GOOD_PIN, Secret(b"5678"), spend_last_try=True)
    assert calls(tmp_path) == []


def test_pin_that_is_not_set(fake: FakeModule) -> None:
    (token,) = fake("unset").tokens()
    assert token.info.user_pin_state is PinState.NOT_SET


def test_unknown_module_is_told_apart_from_one_that_cannot(fake: FakeModule) -> None:
    (token,) = fake("odd-label").tokens()
    assert token.info.identity.label == "\N{REPLACEMENT CHARACTER}" * 2 + " label"
    described = token.capabilities.describe()
    operations = described["operations"]
    assert isinstance(operations, dict)
    assert operations["import_key"] == {"able": "unknown", "reason": "this module is not known"}
    assert operations["unlock"]["able"] == "no"
    with pytest.raises(UnsupportedByToken, match="no mechanism"):
        token.generate(b"\x01", KeyAlgorithm.P256)


def test_pin_is_seen_nowhere(
    fake: FakeModule, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    module = fake("print-pin")
    (token,) = module.tokens()
    needle = CANARY.reveal()
    with pytest.raises(PinIncorrect) as wrong:
        token.login(CANARY)
    process = Path(f"/proc/{module.pid}")
    seen = (process / "cmdline").read_bytes()
    with contextlib.suppress(PermissionError):  # The child lets nobody but root look.
        seen += (process / "environ").read_bytes()
    crashing = fake("crash-at-login")
    with pytest.raises(ModuleCrashed) as crashed:
        crashing.tokens()[0].login(CANARY)
    hanging = fake("hang-at-login", seconds=2.0)
    with pytest.raises(ModuleTimeout) as hung:
        hanging.tokens()[0].login(CANARY)
    texts = "".join(map(shown, (wrong.value, crashed.value, hung.value))) + caplog.text + repr(token) + repr(module)
    out, err = capfd.readouterr()
    for haystack in (seen, texts.encode(), out.encode(), err.encode(), (tmp_path / "calls").read_bytes()):
        assert needle not in haystack
        assert needle.hex().encode() not in haystack
    assert re.search(rb"cardwright_cardops\.pkcs11\.child", seen), "the right process was looked at"


def test_debug_switches_of_modules_do_not_reach_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YKCS11_DBG", "9")
    monkeypatch.setenv("OPENSC_DEBUG", "9")
    monkeypatch.setenv("KEPT", "1")
    environment = child_environment({"ADDED": "2"})
    assert "YKCS11_DBG" not in environment and "OPENSC_DEBUG" not in environment
    assert (environment["KEPT"], environment["ADDED"]) == ("1", "2")


def test_object_too_large_for_the_pipe_is_refused(token: Token) -> None:
    token.login(USER_PIN)
    key = ec.generate_private_key(ec.SECP256R1())
    large = certificate_for(key.public_key(), key, "x" * 60, padding=70_000)
    with pytest.raises(DataRejected, match="too large"):
        token.write_certificate(b"\x01", large)
    assert token.login_state() is LoginState.USER
