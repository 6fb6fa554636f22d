"""The public tools on our jobs: their command lines, and which of them are installed."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

M: Final = "010203040506070801020304050607080102030405060708"
M2: Final = bytes(range(1, 49, 2)).hex()
SLOTS: Final = ("9a", "9c", "9d", "9e")
Commands = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Way:
    """One way to do a job: its name and the processes it takes, each a command line."""

    name: str
    commands: Commands


def find(name: str) -> str | None:
    """Path of a program, beside our interpreter first."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def ours(reader: str, job: str, form: str, files: Path) -> Way:
    """Our bare job in one process."""
    command = (sys.executable, "-m", "bench.our_jobs", reader, job, form, str(files))
    return Way(f"cardwright bare, {form}", (command,))


def yubikit(reader: str, job: str, files: Path) -> list[Way]:
    """One process, one session."""
    if find("ykman") is None:
        return []
    return [Way("yubikit, one session", ((sys.executable, "-m", "bench.yubikit_session", reader, job, str(files)),))]


def ykman(reader: str, job: str, files: Path) -> list[Way]:
    """One process for each act."""
    program = find("ykman")
    if program is None:
        return []
    name = job.partition("-")[2]
    algorithm = {"p256": "ECCP256", "rsa2048": "RSA2048"}.get(name, "")
    certificate, key, out = files / f"{name}.pem", files / f"{name}.key", files / "ykman.out"
    acts: dict[str, list[str]] = {
        "read": ["info", *(f"certificates export {slot} {out}" for slot in SLOTS)],
        "change": ["access change-pin -P 123456 -n 654321"],
        "unblock": ["access unblock-pin -p 12345678 -n 654321"],
        "personalize": [
            f"access change-management-key -m {M} -n {M2} -a tdes -f",
            f"objects generate -m {M2} -P 123456 CHUID",
            f"objects generate -m {M2} -P 123456 CCC",
            *(
                act
                for slot in ("9a", "9c", "9e")
                for act in (
                    f"keys generate -m {M2} -P 123456 -a {algorithm} {slot} {out}",
                    f"certificates import -m {M2} -P 123456 {slot} {certificate}",
                )
            ),
            f"keys import -m {M2} -P 123456 9d {key}",
            f"certificates import -m {M2} -P 123456 9d {certificate}",
            "access change-puk -p 12345678 -n 87654321",
            "access change-pin -P 123456 -n 654321",
        ],
    }
    lines = acts.get(job.partition("-")[0], [])
    return [Way("ykman", tuple((program, "-r", reader, "piv", *line.split()) for line in lines))] if lines else []


def yubico_piv_tool(reader: str, job: str, files: Path) -> list[Way]:
    """One process for each act, as few as it can."""
    program = find("yubico-piv-tool")
    if program is None:
        return []
    name = job.partition("-")[2]
    algorithm = {"p256": "ECCP256", "rsa2048": "RSA2048"}.get(name, "")
    certificate, key, out = files / f"{name}.pem", files / f"{name}.key", files / "yubico.out"
    acts: dict[str, list[str]] = {
        "read": ["-a status", *(f"-a read-certificate -s {slot} -o {out}" for slot in SLOTS)],
        "verify": ["-a verify-pin -P 123456"],
        "change": ["-a change-pin -P 123456 -N 654321"],
        "unblock": ["-a unblock-pin -P 12345678 -N 654321"],
        "personalize": [
            f"-a set-mgm-key -n {M2}",
            f"-k {M2} -a set-chuid -a set-ccc",
            *(
                act
                for slot in ("9a", "9c", "9e")
                for act in (
                    f"-k {M2} -a generate -s {slot} -A {algorithm} -o {out}",
                    f"-k {M2} -a import-certificate -s {slot} -i {certificate}",
                )
            ),
            f"-k {M2} -a import-key -s 9d -i {key}",
            f"-k {M2} -a import-certificate -s 9d -i {certificate}",
            "-a change-puk -P 12345678 -N 87654321",
            "-a change-pin -P 123456 -N 654321",
        ],
    }
    # -k takes its value only when it is glued on.
    commands = tuple(
        (program, "-r", reader, *line.replace("-k ", "-k").split()) for line in acts[job.partition("-")[0]]
    )
    return [Way("yubico-piv-tool", commands)]


def opensc(reader: str, job: str, files: Path) -> list[Way]:
    """pkcs15-tool, which cannot personalize."""
    program = find("pkcs15-tool")
    acts = {
        "read": "-D",
        "verify": "--verify-pin --pin 123456",
        "change": "--change-pin --pin 123456 --new-pin 654321",
        "unblock": "--unblock-pin --puk 12345678 --new-pin 654321",
    }
    if program is None or job not in acts:
        return []
    return [Way("pkcs15-tool", ((program, "--reader", reader, *acts[job].split()),))]
