import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from steerable.core.errors import UserError
from steerable.jobs import durable, lease
from steerable.jobs.lease import Lease

ENV = {**os.environ, "PYTHONPATH": str(Path(lease.__file__).parents[2])}
HOLD = """
import sys
from pathlib import Path
from steerable.jobs.lease import Lease
with Lease(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""

RACE = """
import os, signal, sys
from pathlib import Path
from steerable.core.errors import UserError
from steerable.jobs.lease import Lease
assert "torch" not in sys.modules, "the lease must stay light"
home, rounds, stale = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "stale"

def compete(run, gate, result, hold):
    os.read(gate, 1)  # end of file: all start at once
    try:
        with Lease(run) as held:
            os.write(result, b"T" if held.previous else b"W")
            os.read(hold, 1)
    except UserError as error:
        os.write(result, b"L" if error.code == "E-LOCK" and error.exit_code == 7 else b"?")
    os._exit(0)

for i in range(rounds):
    run = home / str(i)
    run.mkdir()
    if stale:
        pid = os.fork()
        if not pid:
            Lease(run).__enter__()
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
        assert (run / "lease.json").exists()
    (gate, open_gate), (results, result), (hold, let_go) = os.pipe(), os.pipe(), os.pipe()
    pids = []
    for _ in range(8):
        pid = os.fork()
        if not pid:
            os.close(open_gate), os.close(let_go)
            compete(run, gate, result, hold)
        pids.append(pid)
    os.close(open_gate)
    seen = b""
    while len(seen) < 8:
        seen += os.read(results, 8)
    os.close(let_go)
    for pid in pids: os.waitpid(pid, 0)
    for fd in (gate, results, result, hold): os.close(fd)
    assert sorted(seen) == sorted(b"LLLLLLL" + (b"T" if stale else b"W")), (i, seen)
    assert not (run / "lease.json").exists()
print("one winner each")
"""


@pytest.mark.parametrize("kind", ["fresh", "stale"])
def test_t08_of_eight_processes_exactly_one_wins(tmp_path, kind):
    command = [sys.executable, "-c", RACE, str(tmp_path), "25", kind]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=100)
    assert (done.stdout.strip(), done.stderr) == ("one winner each", "")


def holder(run):
    command = [sys.executable, "-c", HOLD, str(run)]
    child = subprocess.Popen(command, env=ENV, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"held\n"
    return child


def refused(run):
    with pytest.raises(UserError) as caught, Lease(run):
        pass
    assert caught.value.code == "E-LOCK"
    return caught.value


def test_t08_second_trainer_is_told_the_pid_and_enters_when_it_is_free(tmp_path):
    child = holder(tmp_path)
    fault = refused(tmp_path)
    assert f"process {child.pid}" in fault.got
    assert fault.exit_code == 7
    assert str(tmp_path.parent) not in str(fault)
    child.communicate()
    with Lease(tmp_path) as held:
        assert held.previous is None
        assert f"process {os.getpid()}" in refused(tmp_path).got
    assert not (tmp_path / "lease.json").exists()


def test_t08_killed_owner_is_replaced_at_once(tmp_path):
    child = holder(tmp_path)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # not reaped: a zombie is dead
    with Lease(tmp_path) as held:
        assert held.previous == child.pid
    child.communicate()


def card(**change):
    here = {"pid": os.getpid(), "started": durable.started(os.getpid()), **lease._place()}
    return {**here, "heartbeat": time.time(), **change}


@pytest.mark.parametrize(
    ("change", "taken"),
    [
        ({}, False),  # this very process is named: its lock may have been lost
        ({"started": 1}, True),  # the pid was used again
        ({"pid": 2**30}, True),
        ({"boot": "other"}, False),  # another machine that was alive a moment ago
        ({"boot": "other", "heartbeat": time.time() - 3600}, True),
        ({"boot": "other", "heartbeat": time.time() + 86_400}, True),  # its clock was off
        ({"space": "pid:[1]"}, True),  # another container: the kernel says that its lock is free
    ],
)
def test_t08_who_counts_as_alive(tmp_path, change, taken):
    (tmp_path / "lease.json").write_text(json.dumps(card(**change)))
    if taken:
        with Lease(tmp_path) as held:
            assert held.previous == card(**change)["pid"]
    else:
        refused(tmp_path)
        assert json.loads((tmp_path / "lease.json").read_text())["started"] == card()["started"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"pid": 1}', '{"pid": "x"}', "\0" * 99])
def test_t13_torn_lease_is_nobody(tmp_path, text):
    (tmp_path / "lease.json").write_text(text)
    with Lease(tmp_path) as held:
        assert held.previous is None
        assert json.loads((tmp_path / "lease.json").read_text())["pid"] == os.getpid()


def test_t08_heartbeat_is_written_and_notices_a_thief(tmp_path, monkeypatch):
    with Lease(tmp_path) as held:
        first = (tmp_path / "lease.json").read_text()
        held.beat()
        assert (tmp_path / "lease.json").read_text() == first  # too early to write
        monkeypatch.setattr(lease, "BEAT", 0.0)
        time.sleep(0.01)
        held.beat()
        second = json.loads((tmp_path / "lease.json").read_text())
        assert second["heartbeat"] > json.loads(first)["heartbeat"]
        thief = json.dumps(card(pid=4321))
        (tmp_path / "lease.json").write_text(thief)
        with pytest.raises(UserError, match="process 4321") as caught:
            held.beat()
        assert caught.value.code == "E-LOCK"
    assert (tmp_path / "lease.json").read_text() == thief  # not ours to remove


def test_t13_run_folder_is_missing_or_deleted(tmp_path):
    with pytest.raises(UserError) as caught, Lease(tmp_path / "absent"):
        pass
    assert caught.value.code == "E-DISK"
    run = tmp_path / "run"
    run.mkdir()
    with Lease(run):
        (run / "lease.json").unlink()
        (run / "lease.lock").unlink()
        run.rmdir()
    run.mkdir()
    with Lease(run):
        pass
