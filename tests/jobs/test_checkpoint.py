import errno
import os
import random
import shutil

import pytest
import torch

from steerable.core.errors import UserError
from steerable.jobs import checkpoint, durable
from steerable.recipes import store


def parts(value=1.0):
    return {
        "model": {"a.weight": torch.full((2, 3), value), "a.bias": torch.arange(3.0)},
        "ema": {"a.weight": torch.full((2, 3), value / 2)},
        "optimiser": {},
    }


def saved(run, iteration, **more):
    state = {"seed": 3, "loss_scale": 0.1 * iteration}
    facts = {"recipe": "00ff", "labels": ["cat", "d\u00f6g"]}
    more = {"parts": parts(iteration), "state": state, "facts": facts, **more}
    return checkpoint.save(run, iteration, **more)


def code(work, *arguments, **more):
    with pytest.raises(UserError) as caught:
        work(*arguments, **more)
    return caught.value.code


def names(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_t01_what_was_saved_is_loaded_bit_for_bit(tmp_path):
    path = saved(tmp_path, 12000)
    assert path == tmp_path / "checkpoints" / "iter-00012000"
    weights = {f"{part}.safetensors" for part in ("model", "ema", "optimiser")}
    told = {"state.json", "manifest.json", "manifest.sha256"}
    assert {file.name for file in path.iterdir()} == weights | told
    found, skipped = checkpoint.newest(tmp_path)
    assert skipped == []
    assert (found.iteration, found.path) == (12000, path)
    assert found.state == {"seed": 3, "loss_scale": 0.1 * 12000}
    assert found.facts == {"recipe": "00ff", "labels": ["cat", "d\u00f6g"]}
    assert {part: set(found.parts[part]) for part in found.parts} == {
        part: set(tensors) for part, tensors in parts().items()
    }
    for part, tensors in parts(12000).items():
        assert all(torch.equal(found.parts[part][name], value) for name, value in tensors.items())


def test_t01_a_run_without_checkpoints_has_none(tmp_path):
    assert checkpoint.newest(tmp_path) == (None, [])
    (tmp_path / "checkpoints").mkdir()
    assert checkpoint.newest(tmp_path) == (None, [])
    for name in ("iter-5", "iter-000000005", ".iter-00000005.tmp-1-1-1", "iter-0000000x", "LATEST"):
        (tmp_path / "checkpoints" / name).mkdir()
    assert checkpoint.newest(tmp_path) == (None, [])


def test_c03_every_one_of_1000_bit_flips_is_found(tmp_path):
    path = saved(tmp_path, 7)
    files = {file: file.read_bytes() for file in path.iterdir()}
    draw = random.Random(0)
    found = 0
    for i in range(1000):
        # Every file equally often: the small ones would be missed if bytes were drawn.
        file, data = sorted(files.items())[i % len(files)]
        bad = bytearray(data)
        bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
        file.write_bytes(bad)
        found += code(checkpoint.load, path).startswith("E-CKPT-")
        file.write_bytes(data)
    assert found == 1000
    assert checkpoint.load(path).iteration == 7


def test_c03_flips_in_a_model_file_of_real_size_are_found():
    draw = random.Random(1)
    data = store.pack({f"layer{i}": torch.randn(64, 64) for i in range(20)}, {"kind": "unet"})
    bad = bytearray(data)
    for _ in range(500):
        at, bit = draw.randrange(len(bad)), 1 << draw.randrange(8)
        bad[at] ^= bit
        assert code(store.unpack, bytes(bad), where="m").startswith("E-CKPT-")
        bad[at] ^= bit
    assert bytes(bad) == data


def test_c03_truncation_anywhere_is_found_and_the_one_before_is_taken(tmp_path):
    good, path = saved(tmp_path, 5), saved(tmp_path, 7)
    for file in sorted(path.iterdir()):
        data = file.read_bytes()
        for size in sorted({0, 1, len(data) // 2, len(data) - 1, *range(0, len(data), 97)}):
            file.write_bytes(data[:size])
            found, skipped = checkpoint.newest(tmp_path)
            assert found.path == good
            assert len(skipped) == 1
            assert skipped[0].startswith("iter-00000007: E-CKPT-HASH: ")
        file.write_bytes(data + b"\n")
        assert checkpoint.newest(tmp_path)[0].path == good
        file.write_bytes(data)
    assert checkpoint.newest(tmp_path)[0].path == path


def test_c05_c06_missing_extra_link_and_foreign_files(tmp_path):
    saved(tmp_path, 5)
    path = saved(tmp_path, 7)
    spare = shutil.copytree(path, tmp_path / "spare")

    def restore():
        shutil.rmtree(path) if not path.is_symlink() else path.unlink()
        shutil.copytree(spare, path)

    for name in sorted(file.name for file in spare.iterdir()):
        (path / name).unlink()
        assert code(checkpoint.load, path) == "E-CKPT-HASH"
        (path / name).symlink_to(spare / name)  # the right bytes, but through a link
        assert code(checkpoint.load, path) == "E-CKPT-HASH"
        (path / name).unlink()
        os.mkfifo(path / name)
        assert code(checkpoint.load, path) == "E-CKPT-HASH"
        restore()
    for name in ("more.json", ".hidden", "model.safetensors.bak", "\u202ex", "new\nline"):
        (path / name).write_bytes(b"")
        with pytest.raises(UserError, match="do not belong here") as caught:
            checkpoint.load(path)
        assert ascii(name) in caught.value.got
        restore()
    shutil.rmtree(path)
    path.symlink_to(spare)
    assert code(checkpoint.load, path) == "E-CKPT-HASH"
    found, skipped = checkpoint.newest(tmp_path)
    assert found.iteration == 5
    assert "link" in skipped[0]
    restore()
    assert checkpoint.newest(tmp_path)[0].iteration == 7


def reseal(path, change):
    """A manifest that somebody changed, with a right hash."""
    manifest = store.strict_json((path / "manifest.json").read_bytes(), "m")
    change(manifest)
    data = store.plain_json(manifest).encode()
    (path / "manifest.json").write_bytes(data)
    (path / "manifest.sha256").write_bytes(checkpoint._seal(data))


HOSTILE = ["../a", "/etc/passwd", "C:\\a", "\\\\host\\a", "a\0b", "CON", "a#b", "a?b", "%2e%2e%2fa"]
HOSTILE += ["..%252fa", "a\u2215b", "a\uff0fb", "", ".", "..", "model.safetensors/"]


@pytest.mark.parametrize("name", HOSTILE)
def test_c05_names_in_a_manifest_are_of_a_closed_set(tmp_path, name):
    path = saved(tmp_path, 7)
    reseal(path, lambda m: m["files"].update({name: {"bytes": 0, "sha256": checkpoint._sha(b"")}}))
    with pytest.raises(UserError, match="form of a checkpoint") as caught:
        checkpoint.load(path)
    assert caught.value.exit_code == 4


def test_c04_newer_and_malformed_manifests(tmp_path):
    for i, (change, want) in enumerate(
        [
            (lambda m: m.update(schema=checkpoint.SCHEMA + 1), "E-CKPT-NEWER"),
            (lambda m: m.update(schema="1"), "E-CKPT-HASH"),
            (lambda m: m.update(iteration=6), "E-CKPT-HASH"),
            (lambda m: m.update(files=[]), "E-CKPT-HASH"),
            (lambda m: m.update(facts=None), "E-CKPT-HASH"),
            (lambda m: m["files"].pop("model.safetensors"), "E-CKPT-HASH"),
            (lambda m: m["files"].pop("ema.safetensors"), "E-CKPT-HASH"),
            (lambda m: m["files"].update({"state.json": {}}), "E-CKPT-HASH"),
            (lambda m: m["files"]["state.json"].update(bytes="9"), "E-CKPT-HASH"),
        ]
    ):
        path = saved(tmp_path / str(i), 7)
        reseal(path, change)
        assert code(checkpoint.load, path) == want


def test_c03_files_of_two_checkpoints_do_not_mix(tmp_path):
    one, two = saved(tmp_path, 5), saved(tmp_path, 7)
    shutil.copy(one / "ema.safetensors", two)
    assert code(checkpoint.load, two) == "E-CKPT-HASH"
    data = (one / "ema.safetensors").read_bytes()
    told = {"bytes": len(data), "sha256": checkpoint._sha(data)}
    reseal(two, lambda m: m["files"].update({"ema.safetensors": told}))
    with pytest.raises(UserError, match="of another checkpoint"):
        checkpoint.load(two)
    one.rename(tmp_path / "checkpoints" / "iter-00000009")
    with pytest.raises(UserError, match="holds iteration 5"):
        checkpoint.load(tmp_path / "checkpoints" / "iter-00000009")


def test_c03_none_whole_is_an_error_that_names_them(tmp_path):
    for iteration in (5, 7):
        (saved(tmp_path, iteration) / "state.json").unlink()
    with pytest.raises(UserError) as caught:
        checkpoint.newest(tmp_path)
    assert caught.value.code == "E-CKPT-HASH"
    assert all(name in caught.value.got for name in ("iter-00000005", "iter-00000007"))
    assert str(tmp_path) not in str(caught.value)


def test_t13_a_named_checkpoint_is_not_swapped_for_another(tmp_path):
    saved(tmp_path, 5)
    assert code(checkpoint.load, tmp_path / "checkpoints" / "iter-00000006") == "E-CONFIG"


def test_t02_retention_counts_only_whole_ones(tmp_path):
    for iteration in (1, 2, 3):
        saved(tmp_path, iteration)
    assert names(tmp_path) == ["iter-00000002", "iter-00000003"]
    (tmp_path / "checkpoints/iter-00000003/state.json").write_bytes(b"{}")
    saved(tmp_path, 4)  # the damaged third does not count, so the second stays
    assert names(tmp_path) == ["iter-00000002", "iter-00000003", "iter-00000004"]
    saved(tmp_path, 5)
    assert names(tmp_path) == ["iter-00000004", "iter-00000005"]
    for iteration in (6, 7, 8):
        saved(tmp_path, iteration, keep=3, pinned={4})
    assert names(tmp_path) == [f"iter-0000000{i}" for i in (4, 6, 7, 8)]


@pytest.mark.parametrize("keep", [1, 0, -1])
def test_t02_keeping_only_one_is_refused(tmp_path, keep):
    assert code(saved, tmp_path, 1, keep=keep) == "E-LIMIT"
    assert not list(tmp_path.iterdir())


def test_t01_a_damaged_checkpoint_is_replaced_when_its_iteration_comes_again(tmp_path):
    saved(tmp_path, 5)
    path = saved(tmp_path, 7)
    (path / "model.safetensors").write_bytes(b"")
    assert checkpoint.newest(tmp_path)[0].iteration == 5
    saved(tmp_path, 7)
    assert checkpoint.newest(tmp_path)[0].iteration == 7
    assert names(tmp_path) == ["iter-00000005", "iter-00000007"]


class Broken:
    """An operating system with one fault."""

    def __init__(self, **faults):
        self.faults = faults

    def __getattr__(self, name):
        return self.faults.get(name) or getattr(durable.Disk(), name)


def test_t03_a_disk_that_gives_back_other_bytes_costs_no_old_checkpoint(tmp_path, monkeypatch):
    for iteration in (1, 2):
        saved(tmp_path, iteration)

    def lie(fd, data):
        return os.write(fd, bytes(data)[:-1] + b"?")

    monkeypatch.setattr(durable, "disk", Broken(write=lie))
    assert code(saved, tmp_path, 3) == "E-CKPT-HASH"
    found, skipped = checkpoint.newest(tmp_path)
    assert (found.iteration, len(skipped)) == (2, 1)
    assert "iter-00000001" in names(tmp_path)


def test_t02_an_old_checkpoint_that_cannot_go_is_a_counted_warning(tmp_path, monkeypatch):
    for iteration in (1, 2):
        saved(tmp_path, iteration)

    def stuck(path):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(durable, "disk", Broken(unlink=stuck))
    before = durable.tally["undeleted"]
    with pytest.warns(RuntimeWarning, match="not deleted"):
        saved(tmp_path, 3)
    assert durable.tally["undeleted"] == before + 1
    assert checkpoint.newest(tmp_path)[0].iteration == 3


def test_t04_a_full_disk_names_what_is_kept(tmp_path, monkeypatch):
    def full(fd, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(durable, "disk", Broken(write=full, sleep=lambda seconds: None))
    for kept in ("no checkpoint yet", "checkpoint iter-00000005"):
        with pytest.raises(UserError, match="No space left on device: needs") as caught:
            saved(tmp_path, 7)
        assert (caught.value.code, caught.value.kept) == ("E-DISK", kept)
        with monkeypatch.context() as patch:
            patch.setattr(durable, "disk", durable.Disk())
            saved(tmp_path, 5)
    assert names(tmp_path) == ["iter-00000005"]


def test_t05_numbers_that_are_not_finite_do_not_reach_the_state(tmp_path):
    assert code(saved, tmp_path, 1, state={"loss": float("nan")}) == "E-NUM"
