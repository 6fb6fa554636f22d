"""A real MIT Kerberos KDC for tests: in a folder of its own, with PKINIT, and kinit beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.slapd import free_port

REALM = "EXAMPLE.TEST"
MODULE = "opensc-pkcs11.so"

_KRB5 = """
[libdefaults]
    default_realm = {realm}
    dns_lookup_realm = false
    dns_lookup_kdc = false
    rdns = false
[realms]
    {realm} = {{
        kdc = 127.0.0.1:{port}
        pkinit_anchors = FILE:{folder}/kdc-ca.pem
        pkinit_anchors = FILE:{folder}/anchor.pem
        pkinit_pool = FILE:{folder}/pool.pem
        pkinit_eku_checking = kpKDC
        pkinit_cert_match = <EKU>msScLogin
    }}
"""
_KDC = """
[kdcdefaults]
    kdc_listen = 127.0.0.1:{port}
    kdc_tcp_listen = 127.0.0.1:{port}
[realms]
    {realm} = {{
        database_name = {folder}/principal
        key_stash_file = {folder}/stash
        acl_file = {folder}/acl
        pkinit_identity = FILE:{folder}/kdc.pem,{folder}/kdc.key
        pkinit_anchors = FILE:{folder}/anchor.pem
        pkinit_pool = FILE:{folder}/pool.pem
        pkinit_require_crl_checking = true
        pkinit_allow_upn = {upn}
{revoke}
    }}
[logging]
    kdc = FILE:{folder}/kdc.log
"""
_KDC_CERTIFICATE = """
[kdc]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature, keyEncipherment, keyAgreement
extendedKeyUsage = 1.3.6.1.5.2.3.5
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = otherName:1.3.6.1.5.2.2;SEQUENCE:kdc_name
[kdc_name]
realm = EXP:0, GeneralString:{realm}
name = EXP:1, SEQUENCE:kdc_principal
[kdc_principal]
type = EXP:0, INTEGER:1
parts = EXP:1, SEQUENCE:kdc_parts
[kdc_parts]
first = GeneralString:krbtgt
second = GeneralString:{realm}
"""


@dataclass
class Kdc:
    """A KDC of the realm EXAMPLE.TEST: it trusts ``anchor`` and knows the authorities of ``pool`` (PEM files)."""

    folder: Path
    anchor: Path
    pool: Path
    allow_upn: bool = False
    port: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _lists: list[Path] = field(default_factory=list)

    def add(self, name: str) -> None:
        """A principal who can only log in with a certificate."""
        self._admin("kadmin.local", "-r", REALM, "-q", f"addprinc -randkey +requires_preauth {name}")

    def restart(self, lists: Sequence[Path]) -> None:
        """Start anew with these revocation lists (PEM files): MIT's KDC reads them once."""
        self.stop()
        self._lists = list(lists)
        self._configure()
        log = self.folder / "kdc.log"
        log.write_text("")
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "--", _program("krb5kdc"), "-n", "-r", REALM],
            env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while "commencing operation" not in log.read_text():
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the KDC did not start: {log.read_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End the process, if it runs."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def login(self, name: str, pin: str) -> tuple[bool, str]:
        """kinit with the card that OpenSC's module finds. Whether there is a ticket, and all that was said."""
        module = next(Path("/usr/lib").rglob(MODULE), None)
        if module is None:
            pytest.skip(f"{MODULE} is not installed (package opensc-pkcs11)")
        cache = self.folder / "ticket"
        cache.unlink(missing_ok=True)
        identity = f"PKCS11:module_name={module}"
        done = subprocess.run(
            ["kinit", "-c", str(cache), "-X", f"X509_user_identity={identity}", f"{name}@{REALM}"],
            env=self.environment, input=f"{pin}\n".encode(), capture_output=True, check=False, timeout=120,
        )  # fmt: skip
        said = (done.stdout + done.stderr).decode(errors="replace")
        if done.returncode != 0:
            return False, said + self.log
        listed = subprocess.run(["klist", "-c", str(cache)], env=self.environment, capture_output=True, check=True)
        text = listed.stdout.decode()
        return f"Default principal: {name}@{REALM}" in text and f"krbtgt/{REALM}@{REALM}" in text, said + text

    @property
    def log(self) -> str:
        """What the KDC wrote since its start."""
        return (self.folder / "kdc.log").read_text(errors="replace")

    @property
    def environment(self) -> dict[str, str]:
        """Where Kerberos programs find this realm and no other."""
        kept = {name: os.environ[name] for name in ("PATH", "PCSCLITE_CSOCK_NAME") if name in os.environ}
        return kept | {
            "KRB5_CONFIG": str(self.folder / "krb5.conf"),
            "KRB5_KDC_PROFILE": str(self.folder / "kdc.conf"),
            "HOME": str(self.folder),
        }

    def create(self) -> None:
        """Make realm, database and the KDC's own certificate, by openssl under an authority of its own."""
        self.port = free_port()
        shutil.copy(self.anchor, self.folder / "anchor.pem")
        shutil.copy(self.pool, self.folder / "pool.pem")
        self._configure()
        self._certify()
        self._admin("kdb5_util", "-r", REALM, "create", "-s", "-P", "no-person-knows-this")

    def _configure(self) -> None:
        revoke = "\n".join(f"        pkinit_revoke = FILE:{path}" for path in self._lists)
        values = {
            "folder": self.folder, "port": self.port, "realm": REALM, "revoke": revoke,
            "upn": str(self.allow_upn).lower(),
        }  # fmt: skip
        (self.folder / "krb5.conf").write_text(_KRB5.format(**values))
        (self.folder / "kdc.conf").write_text(_KDC.format(**values))

    def _certify(self) -> None:
        (self.folder / "kdc.cnf").write_text(_KDC_CERTIFICATE.format(realm=REALM))
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        authority = ("-x509", "-days", "30", "-subj", "/CN=Test KDC authority", "-out", "kdc-ca.pem")
        self._openssl("req", *key, "-keyout", "kdc-ca.key", *authority)
        self._openssl("req", *key, "-keyout", "kdc.key", "-subj", "/CN=kdc", "-out", "kdc.csr")
        issuer = ("-CA", "kdc-ca.pem", "-CAkey", "kdc-ca.key", "-set_serial", "2", "-days", "30")
        self._openssl(
            "x509", "-req", "-in", "kdc.csr", *issuer, "-extfile", "kdc.cnf", "-extensions", "kdc", "-out", "kdc.pem"
        )

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, capture_output=True, check=True, timeout=60)

    def _admin(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [_program(program), *arguments], env=self.environment, capture_output=True, check=False, timeout=60
        )
        assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")


@contextmanager
def kdc(anchor: Path, pool: Path, *, allow_upn: bool = False) -> Iterator[Kdc]:
    """A realm with its database; ``restart`` starts the process."""
    for program in ("krb5kdc", "kdb5_util", "kadmin.local"):
        _program(program)
    if shutil.which("kinit") is None:
        pytest.skip("kinit is not installed (package krb5-user)")
    folder = Path(tempfile.mkdtemp(prefix="cw-kdc-"))
    made = Kdc(folder, anchor, pool, allow_upn)
    try:
        made.create()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed (packages krb5-kdc and krb5-admin-server)")
    return found
