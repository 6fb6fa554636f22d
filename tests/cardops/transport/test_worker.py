"""The thread that may hang, and the one that stops waiting for it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from cardwright_cardops.transport.worker import Late, Over, Worker


def worker(clean_up: Callable[[], None] = lambda: None, shortest: float = 0.05) -> Worker:
    return Worker("test", clean_up, shortest)


def test_values_and_errors_pass() -> None:
    one = worker()
    assert one.call(lambda: 7) == 7
    with pytest.raises(KeyError):
        one.call(lambda: {}[1])  # type: ignore[index]
    assert one.call(lambda: 8) == 8
    assert one.call(lambda: one.call(lambda: 9)) == 9
    one.stop(10)


def test_work_without_a_deadline_may_take_its_time() -> None:
    one, release = worker(shortest=0.01), threading.Event()
    threading.Timer(0.1, release.set).start()
    assert one.call(lambda: release.wait(30)) is True
    one.stop(10)


def test_late_work_is_given_up_and_cleaned_up_when_it_returns() -> None:
    cleaned, release = threading.Event(), threading.Event()
    one = worker(cleaned.set)
    seen: list[str] = []

    def work() -> None:
        one.allow(0.05)
        release.wait(30)
        seen.append("returned")
        one.returned()
        seen.append("went on")

    with pytest.raises(Late):
        one.call(work)
    assert not cleaned.is_set()
    with pytest.raises(Over):
        one.call(lambda: 1)
    release.set()
    assert cleaned.wait(30)
    assert seen == ["returned"]


def test_each_deadline_starts_anew() -> None:
    one, never = worker(shortest=1.0), threading.Event()

    def work() -> int:
        for _ in range(4):
            one.allow(1.0)
            never.wait(0.3)
            one.returned()
        return 4

    assert one.call(work) == 4
    one.stop(10)


def test_stop_cleans_up_once_and_before_it_returns() -> None:
    cleaned: list[int] = []
    one = worker(lambda: cleaned.append(threading.get_ident()))
    assert one.call(lambda: 1) == 1
    one.stop(10)
    one.stop(10)
    assert cleaned == [one.ident]
    with pytest.raises(Over):
        one.call(lambda: 1)


def test_stop_from_another_thread_gives_running_work_up() -> None:
    cleaned, running, release = threading.Event(), threading.Event(), threading.Event()
    one = worker(cleaned.set)
    errors: list[BaseException] = []

    def work() -> None:
        one.allow(60)
        running.set()
        release.wait(30)
        one.returned()

    def caller() -> None:
        try:
            one.call(work)
        except Over as error:
            errors.append(error)

    thread = threading.Thread(target=caller)
    thread.start()
    assert running.wait(30)
    one.stop(10)
    release.set()
    thread.join(30)
    assert cleaned.wait(30) and len(errors) == 1


def test_an_interrupted_caller_gives_its_work_up(monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned, release = threading.Event(), threading.Event()
    one = worker(cleaned.set)

    def interrupt() -> None:
        raise KeyboardInterrupt

    def work() -> None:
        one.allow(60)
        release.wait(30)
        one.returned()

    monkeypatch.setattr(Worker, "_wait", lambda self: interrupt())
    with pytest.raises(KeyboardInterrupt):
        one.call(work)
    release.set()
    assert cleaned.wait(30)


def test_callers_take_turns() -> None:
    one = worker()
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        inside.append(1)
        most.append(len(inside))
        inside.pop()

    threads = [threading.Thread(target=lambda: [one.call(work) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 200
    one.stop(10)
