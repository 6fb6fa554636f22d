"""One of our bare jobs on the card in a reader, as a process of its own:

    python -m bench.our_jobs READER JOB FORM FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.program.items import Program
from cardwright_cardops.program.runner import run
from cardwright_cardops.transport import pcsc
from tests.support import bare_jobs

ALGORITHMS = {"p256": Algorithm.P256, "rsa2048": Algorithm.RSA2048}


def program(job: str, files: Path) -> Program[Any]:
    """The program of ``job``; a personalization reads its key and certificate from ``files``."""
    match job.partition("-"):
        case "read", _, _:
            return bare_jobs.reading()
        case "verify", _, _:
            return bare_jobs.verifying()
        case "change", _, _:
            return bare_jobs.changing()
        case "unblock", _, _:
            return bare_jobs.unblocking()
        case "personalize", _, name:
            certificate = x509.load_pem_x509_certificate((files / f"{name}.pem").read_bytes())
            key: Any = load_pem_private_key((files / f"{name}.key").read_bytes(), None)
            return bare_jobs.personalization(ALGORITHMS[name], bare_jobs.Certified(key, certificate))
    raise ValueError(f"there is no job {job}")


def main(reader: str, job: str, form: str, folder: str) -> None:
    """Run ``job`` in APDUs of ``form``: "short" or "extended"."""
    work = program(job, Path(folder))
    with pcsc.connect(reader) as connection:
        run(work, bare_jobs.bare_executor(connection, short=form == "short"))


if __name__ == "__main__":
    main(*sys.argv[1:])
