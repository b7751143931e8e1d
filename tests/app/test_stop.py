"""The signals that end a program, as a flag."""

from __future__ import annotations

import os
import signal

import pytest

from steerable.app.console import Stop

NAMES = [name for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]


@pytest.mark.parametrize("name", NAMES)
def test_a_signal_sets_the_code_and_a_second_one_leaves(name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with Stop() as stop:
        os.kill(os.getpid(), number)
        assert stop.code == 128 + number
        with pytest.raises(SystemExit) as end:
            os.kill(os.getpid(), number)
        assert end.value.code == 128 + number
    assert signal.getsignal(number) == before


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_a_signal_that_is_ignored_stays_ignored():
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stop() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.code == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
