"""Work by several threads: in order, a little ahead, and gone when nobody asks any more."""

from __future__ import annotations

import threading
import time
import warnings

import pytest

from steerable.intake.ahead import AHEAD, in_order, processors
from steerable.intake.gate import _hush


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order(threads):
    def work(i):
        time.sleep(0.002 * (i % 3))
        return i * i

    assert list(in_order(work, range(40), threads)) == [i * i for i in range(40)]
    assert list(in_order(work, [], threads)) == []


def test_a_fault_comes_at_its_place():
    def work(i):
        if i == 5:
            raise KeyError(i)
        return i

    results = in_order(work, range(10), 3)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(KeyError):
        next(results)


def test_no_more_is_fetched_than_is_asked_for():
    fetched = []

    def things():
        for i in range(1000):
            fetched.append(i)
            yield i

    results = in_order(abs, things(), 2)
    next(results)
    assert len(fetched) <= 2 * AHEAD + 1
    results.close()
    assert len(fetched) <= 2 * AHEAD + 1


def test_whoever_leaves_waits_for_no_thread():
    hold, done = threading.Event(), []

    def work(i):
        if i:
            hold.wait(20)
        done.append(i)
        return i

    results = in_order(work, range(100), 2)
    next(results)
    results.close()
    assert done == [0], "closing waited for work in progress"
    hold.set()


def test_warnings_are_silenced_until_the_last_thread_is_out():
    before = list(warnings.filters)
    inside, leave = threading.Barrier(3), threading.Event()

    def within():
        with _hush:
            inside.wait(10)
            leave.wait(10)

    pair = [threading.Thread(target=within) for _ in range(2)]
    for one in pair:
        one.start()
    inside.wait(10)
    assert len(warnings.filters) == len(before) + 1
    leave.set()
    for one in pair:
        one.join()
    assert list(warnings.filters) == before


def test_processors():
    assert 1 <= processors() <= 8
