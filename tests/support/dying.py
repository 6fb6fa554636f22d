"""Run work in a forked process that is killed at its n-th durable step."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

STEPS = ("write", "fsync", "replace", "ftruncate", "unlink", "mkdir")


def deaths(work: Callable[[Callable[[str], None]], None]) -> Iterator[list[str] | None]:
    """Fork and run ``work(say)``, killed with SIGKILL before step 1, in the middle of step 1, before step 2, and so on.

    Gives what was said before each death; the last time, when no step was left to die at, None. The caller puts the
    files back between two turns.
    """
    number = 0
    while True:
        number += 1
        for halfway in (False, True):
            said, killed = _once(work, number, halfway)
            if not killed:
                yield None
                return
            yield said


def _once(work: Callable[[Callable[[str], None]], None], number: int, halfway: bool) -> tuple[list[str], bool]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        real_write = os.write
        try:
            _arm(number, halfway, writing)
            work(lambda text: _say(real_write, writing, text))
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode().splitlines()
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or status == 0, status
    return said, killed


def _say(write: Callable[[int, bytes], int], descriptor: int, text: str) -> None:
    write(descriptor, text.encode() + b"\n")


def _arm(number: int, halfway: bool, pipe: int) -> None:
    count = [0]

    def dying(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            count[0] += 1
            if count[0] == number:
                try:
                    if halfway and name == "write":
                        real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                    elif halfway:
                        real(*arguments, **options)
                finally:
                    os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return step

    for name in STEPS:
        setattr(os, name, dying(name, getattr(os, name)))
