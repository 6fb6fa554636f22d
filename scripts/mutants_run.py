"""Try the mutants of a cosmic-ray session: ``mutants_run.py CONFIG SESSION``, in a copy of the tree.

It stands for ``cosmic-ray exec``, which starts an interpreter and runs all tests for each mutant. Here one process has
imported once what does not depend on the changed package, and forks for each mutant; and the tests that enter the
changed function run first, the quickest first, up to the first failure. Only if those pass, all others run too, so that
a mutant that lives has passed the whole list of the configuration.

Which test enters which function is noted by a first run on unchanged code. It has to pass; so has a second one, which
runs as those for mutants do (forked, in their order), and a third one at the end: what fails by itself would make
mutants look noticed. A mutant counts as noticed if a test fails, if the tests cannot even be collected, or if they use
much more processor time, or memory, than on unchanged code, or wait for ever. Other ends are errors of the run.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import importlib
import importlib.abc
import json
import os
import resource
import shlex
import shutil
import sys
import threading
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, SIGXCPU
from types import CodeType, FrameType, ModuleType

import cosmic_ray.plugins
import pytest
from cosmic_ray.mutating import use_mutation
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkResult

KEPT = Path(".mutants")
NOTES = KEPT / "tests.json"
OUTPUT = KEPT / "output.txt"
OPTIONS = ["-q", "-x", "-p", "no:xdist", "-p", "no:anyio", "-p", "no:cacheprovider"]
MEMORY = 8 << 30
"""Octets of address space for one run."""
SPARE = 15.0
"""Seconds of processor time for one run, beside three times what its tests took when they were noted."""

Function = tuple[str, int]
"""File, and the line its definition begins at (that of the first decorator)."""


class Recorder:
    """Notes the functions of the package that are entered during collection, and those that each test enters. Those of
    a shared fixture count for the first test."""

    def __init__(self, package: Path) -> None:
        self.files = {str(path.resolve()): str(path) for path in package.rglob("*.py")}
        self.entered: dict[str, set[Function]] = defaultdict(set)
        self.at_import: set[Function] = set()
        self.seconds: dict[str, float] = defaultdict(float)
        self._now = self.at_import
        self._foreign: set[CodeType] = set()

    def _trace(self, frame: FrameType, _event: str, _argument: object) -> None:
        code = frame.f_code
        if code in self._foreign:
            return
        path = self.files.get(code.co_filename)
        if path is None:
            self._foreign.add(code)
        else:
            self._now.add((path, code.co_firstlineno))

    @contextlib.contextmanager
    def _tracing(self, into: set[Function]) -> Iterator[None]:
        self._now = into
        threading.settrace(self._trace)
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(None)
            threading.settrace(None)

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self) -> Iterator[None]:
        with self._tracing(self.at_import):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        with self._tracing(self.entered[item.nodeid]):
            return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration

    def write(self) -> None:
        tests_folder = str(Path("tests").resolve())
        modules = [
            name for name, module in list(sys.modules.items())
            if name != "__main__" and not str(getattr(module, "__file__", None) or "").startswith(tests_folder)
        ]  # fmt: skip
        tests = {name: {"seconds": self.seconds[name], "enters": sorted(self.entered[name])} for name in self.entered}
        notes = {"tests": tests, "at_import": sorted(self.at_import), "modules": modules}
        NOTES.write_text(json.dumps(notes), encoding="utf-8")


class Chosen:
    """Leaves the tests of ``order`` only, in that order."""

    def __init__(self, order: list[str]) -> None:
        self.place = {name: index for index, name in enumerate(order)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((item for item in items if item.nodeid in self.place), key=lambda one: self.place[one.nodeid])


@dataclass(frozen=True, slots=True)
class Run:
    """How one forked pytest ended."""

    status: int
    """As os.waitpid tells it."""
    output: str
    late: bool
    """Whether it was stopped because its wall clock time was over."""

    @property
    def passed(self) -> bool:
        return self.status == 0

    @property
    def verdict(self) -> str | None:
        """Why the mutant counts as noticed; None if it does not."""
        if self.passed:
            return None
        if self.late:
            return "by waiting"
        match os.waitstatus_to_exitcode(self.status):
            case status if status == -SIGXCPU:
                return "by processor time"
            case pytest.ExitCode.TESTS_FAILED:
                return "by a test"
            case pytest.ExitCode.INTERRUPTED:
                return "by an import"
            case _:
                raise SystemExit(f"mutants: pytest ended in another way ({self.status}):\n{self.output}")


def forked(arguments: list[str], plugin: Recorder | Chosen, seconds: float, wall: float) -> Run:
    """pytest in a process of its own, with ``seconds`` of processor time."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        with OUTPUT.open("wb") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 10))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        status = 70
        try:
            status = int(pytest.main([*OPTIONS, *arguments], plugins=[plugin]))
            if isinstance(plugin, Recorder):
                plugin.write()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    end, late = time.monotonic() + wall, False
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() > end:
            late = True
            os.killpg(pid, SIGKILL)
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        # What the tests started and left behind.
        os.killpg(pid, SIGKILL)
    return Run(status, OUTPUT.read_text(encoding="utf-8", errors="replace"), late)


class Blocker(importlib.abc.MetaPathFinder):
    """Refuses to import a package."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(self, fullname: str, path: object, target: ModuleType | None = None) -> None:
        if f"{fullname}.".startswith(f"{self._package}."):
            raise ImportError(f"{fullname} is imported for each mutant anew")


def preload(modules: list[str], package: str) -> None:
    """Import those of ``modules`` that need nothing of ``package``, so that no run for a mutant has to."""
    blocker = Blocker(package)
    sys.meta_path.insert(0, blocker)
    for name in modules:
        # Some are made by other modules and cannot be imported by their names; the tests import them as ever.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    sys.meta_path.remove(blocker)
    if any(f"{name}.".startswith(f"{package}.") for name in sys.modules):
        raise SystemExit(f"mutants: {package} was imported before its mutants")


class Tests:
    """The tests of one configuration, and what the first run noted of them."""

    def __init__(self, wall: float) -> None:
        notes = json.loads(NOTES.read_text(encoding="utf-8"))
        self._wall = wall
        self._seconds = {name: test["seconds"] for name, test in notes["tests"].items()}
        self._enters = {name: {(file, line) for file, line in test["enters"]} for name, test in notes["tests"].items()}
        self._at_import = {(file, line) for file, line in notes["at_import"]}
        self.modules: list[str] = notes["modules"]

    def nearest(self, mutation: MutationSpec) -> list[str]:
        """The tests that enter the changed function; those that use the file, for a change that shows at import."""
        function = function_around(mutation)
        if function is None or function in self._at_import:
            near = {
                one for one in self._enters if any(file == str(mutation.module_path) for file, _ in self._enters[one])
            }
        else:
            near = {one for one in self._enters if function in self._enters[one]}
        return self._sorted(near)

    def others(self, order: list[str]) -> list[str]:
        """All the tests that are not in ``order``."""
        return self._sorted(set(self._enters) - set(order))

    def _sorted(self, names: set[str]) -> list[str]:
        return sorted(names, key=lambda name: (self._seconds[name], name))

    def run(self, order: list[str]) -> Run:
        files = sorted({name.partition("::")[0] for name in order})
        seconds = SPARE + 3 * sum(self._seconds[name] for name in order)
        return forked(files, Chosen(order), seconds, self._wall)

    def check(self) -> None:
        """Run all on unchanged code.

        Raises:
            SystemExit: they do not pass.
        """
        run = self.run(self.others([]))
        if not run.passed:
            raise SystemExit(f"mutants: the tests fail on unchanged code ({run.status}):\n{run.output}")

    def verdict(self, mutation: MutationSpec) -> tuple[str | None, str]:
        """Why the mutant that is now in place counts as noticed, None if it lives; and what pytest printed last."""
        near = self.nearest(mutation)
        output = ""
        for order in (near, self.others(near)):
            if order:
                run = self.run(order)
                output = run.output
                if run.verdict:
                    return run.verdict, output
        return None, output


def function_around(mutation: MutationSpec) -> Function | None:
    """The innermost function that a change lies in."""
    first, last = mutation.start_pos[0], mutation.end_pos[0]
    found: Function | None = None
    for node in ast.walk(ast.parse((KEPT / mutation.module_path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            start = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            if start <= first and last <= (node.end_lineno or start) and (not found or found[1] < start):
                found = (str(mutation.module_path), start)
    return found


def note(package: Path, arguments: list[str], wall: float) -> Tests:
    """Make the first run."""
    KEPT.mkdir()
    # Bytecode makes later runs quicker. The package itself must have none: to Python, two changes within a second look
    # the same.
    sys.dont_write_bytecode = False
    run = forked(arguments, Recorder(package), 10 * wall, wall * 5)
    if not run.passed:
        raise SystemExit(f"mutants: the tests fail on unchanged code ({run.status}):\n{run.output}")
    for folder in list(package.rglob("__pycache__")):
        shutil.rmtree(folder)
    shutil.copytree(package, KEPT / package)
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    return Tests(wall)


def main(config: Path, session: str) -> None:
    settings = tomllib.loads(config.read_text(encoding="utf-8"))["cosmic-ray"]
    program, *arguments = shlex.split(settings["test-command"])
    if program != "pytest":
        raise SystemExit(f"mutants: the test command of {config} does not begin with pytest")
    package = Path(settings["module-path"])
    tests = note(package, arguments, settings["timeout"])
    preload(tests.modules, ".".join(package.parts[1:]))
    tests.check()
    counts: Counter[str] = Counter()
    with use_db(session, WorkDB.Mode.open) as work:
        for item in work.pending_work_items:
            (mutation,) = item.mutations
            operator = cosmic_ray.plugins.get_operator(mutation.operator_name)(**mutation.operator_args)
            with use_mutation(mutation.module_path, operator, mutation.occurrence) as (before, after):
                if after is None:
                    raise SystemExit(f"mutants: there is no such place: {mutation}")
                why, output = tests.verdict(mutation)
            path = str(mutation.module_path)
            diff = "\n".join(difflib.unified_diff(before.splitlines(), after.splitlines(), path, path, lineterm=""))
            outcome = TestOutcome.KILLED if why else TestOutcome.SURVIVED
            work.set_result(item.job_id, WorkResult(WorkerOutcome.NORMAL, output, outcome, diff))
            counts[why or "not"] += 1
    tests.check()
    print(f"{counts.total()} tried; noticed: " + ", ".join(f"{why} {count}" for why, count in sorted(counts.items())))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
