"""What will not fit is refused with its figures, before it is read."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from steerable.core.errors import UserError
from steerable.intake import memory


def test_more_than_there_is_is_refused_with_both_figures():
    with pytest.raises(UserError, match=r"6 pictures need \d[\d,.]* \w+ of memory") as caught:
        memory.require(2**60, where="set", what="6 pictures", do="fewer")
    assert caught.value.code == "E-MEM" and caught.value.exit_code == 5
    assert "are free" in caught.value.got
    memory.require(1, where="set", what="one", do="fewer")


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_the_limit_of_the_process_counts():
    import resource

    before = memory.available()
    old = resource.getrlimit(resource.RLIMIT_DATA)
    used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (used + 10**8, old[1]))
    try:
        now = memory.available()
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, old)
    assert before is not None and now is not None
    assert now[0] < 1.2 * 10**8 and "limit of the process" in now[1]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (983_680_510, "984 MB"),
     (1_050_000_000, "1.05 GB"), (2**41, "2199 GB")],
)  # fmt: skip
def test_bytes_are_written_for_people(count, text):
    assert memory.written(count) == text


def test_the_machine_says_what_is_free():
    found = memory.available()
    assert found is not None and 0 <= found[0] <= os.sysconf("SC_PHYS_PAGES") * os.sysconf(
        "SC_PAGE_SIZE"
    )
