"""What starting costs, in modules loaded: times are in bench/."""

from __future__ import annotations

import subprocess
import sys

from click.testing import CliRunner

from cardwright_clients.cli.commands import help_text
from cardwright_clients.cli.tree import cardwright


def loaded_by(code: str) -> set[str]:
    """Top-level packages that are loaded after ``code`` in a fresh interpreter."""
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stderr.split()}


def test_the_help_that_needs_no_click_is_what_click_says() -> None:
    said = CliRunner().invoke(cardwright, ["--help"], prog_name="cardwright", terminal_width=80)
    assert said.exit_code == 0
    assert help_text() == said.output


def test_help_loads_no_command_and_no_click() -> None:
    code = (
        "from cardwright_clients.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as stop: assert stop.code == 0"
    )
    assert not loaded_by(code) & {"click", "cryptography", "smartcard", "cardwright_cardops", "cardwright_simulators"}


def test_talking_to_a_card_loads_no_x509() -> None:
    code = "from cardwright_cardops.transport import pcsc\nfrom cardwright_cardops.program import local, runner"
    loaded = loaded_by(code)
    assert "smartcard" in loaded
    assert not loaded & {"cryptography", "asn1crypto", "pyhanko_certvalidator", "pkcs11", "google"}


def test_a_plan_and_a_check_without_paths_load_no_validator() -> None:
    code = "import cardwright_cardops.plan.init, cardwright_cardops.plan.bare, cardwright_cardops.check"
    assert not loaded_by(code) & {"pyhanko_certvalidator", "pkcs11", "google", "requests", "aiohttp"}


def test_the_daemon_answers_before_it_loads_the_guard() -> None:
    """What only a session needs is loaded behind the first answers, or by the session that is there first."""
    said = subprocess.run(
        [sys.executable, "-c", "import sys, cardwright_daemon.app\nprint('\\n'.join(sys.modules))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    late = ("cardwright_cardops.guard", "cardwright_cardops.check", "cardwright_cardops.pkcs11")
    loaded = said.stdout.split()
    assert [name for name in loaded if name.startswith((*late, "cardwright_daemon.relay", "cardwright_server"))] == []
