"""Two evaluated runs side by side: what is paired, what is refused, and whether intervals hold."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from steerable.core.errors import UserError
from steerable.jobs import compare as job
from steerable.jobs.compare import compare
from steerable.jobs.items import Items, write_items

N = 200
REPORT = {
    "settings": {"n": N, "seed": 1},
    "reference": {"fingerprint": "f"},
    "extractor": {"sha256": "e"},
    "judge": {"sha256": "j"},
}


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def items(seed=0, shift=0.0, right=0.9, reals=2 * N):
    """Samples of a law that is off by a shift, and a judge that is right that often."""
    wanted = torch.arange(N) % 2
    hit = torch.rand(N, generator=torch.Generator().manual_seed(seed + 1)) < right
    return Items(
        draw(N, 4, seed=seed) + shift,
        draw(reals, 4, seed=77),
        wanted,
        torch.where(hit, wanted, 1 - wanted),
        torch.arange(reals) % 2,
    )


def written(folder, made, **changed):
    report = {**REPORT, **{k: {**REPORT[k], **v} for k, v in changed.items()}}
    write_items(folder / "evaluation", made)
    (folder / "evaluation" / "report.json").write_text(json.dumps(report))
    return folder


def rows(a, b):
    *_, last = compare(a, b)
    return {row["measure"]: row for row in last.rows}


def test_a_run_does_not_differ_from_itself(tmp_path):
    one = written(tmp_path / "a", items())
    two = written(tmp_path / "b", items())
    for row in rows(one, two).values():
        assert row["difference"] == 0 == row["error"] and row["better"] == "undecided"


def test_a_worse_run_is_named(tmp_path):
    good = written(tmp_path / "good", items())
    bad = written(tmp_path / "bad", items(shift=1.0, right=0.5))
    for a, b, better in ((good, bad, "a"), (bad, good, "b")):
        found = rows(a, b)
        for name in ("accuracy", "frechet", "kid", "two_sample", "coverage"):
            row = found[name]
            assert row["better"] == better, row
            assert row["low"] <= row["difference"] <= row["high"] and row["n"] >= N / 2


def test_what_is_shared_cancels(tmp_path):
    """The same samples with a little noise differ by far less than either is uncertain."""
    one = items()
    near = dataclasses.replace(one, fakes=one.fakes + 0.01 * draw(N, 4, seed=5))
    apart = items(seed=9)
    a = written(tmp_path / "a", one)
    close = rows(a, written(tmp_path / "near", near))["frechet"]["error"]
    far = rows(a, written(tmp_path / "apart", apart))["frechet"]["error"]
    assert close < far / 5


def test_intervals_hold_the_truth(tmp_path):
    """Accuracies of 0.8 and 0.7, drawn 100 times: 95 % intervals, at least 88 (4 errors below)."""
    inside = 0
    for seed in range(100):
        pair = [items(seed=2 * seed, right=0.8), items(seed=2 * seed + 1, right=0.7)]
        right = [(one.predicted == one.wanted).double() for one in pair]
        row = job._row("accuracy", None, *pair)
        assert row["difference"] == pytest.approx(float(right[1].mean() - right[0].mean()))
        inside += row["low"] <= -0.1 <= row["high"]
    assert inside >= 88


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"settings": {"n": 100}}, "settings n"),
        ({"settings": {"seed": 2}}, "settings seed"),
        ({"reference": {"fingerprint": "g"}}, "reference fingerprint"),
        ({"extractor": {"sha256": "x"}}, "extractor sha256"),
        ({"judge": {"sha256": "x"}}, "judge sha256"),
    ],
)
def test_unlike_evaluations_are_refused(tmp_path, changed, says):
    one = written(tmp_path / "a", items())
    other = written(tmp_path / "b", items(), **changed)
    with pytest.raises(UserError, match=says) as caught:
        rows(one, other)
    assert caught.value.code == "E-CONFIG"


def test_a_run_without_an_evaluation_is_refused(tmp_path):
    one = written(tmp_path / "a", items())
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match="steerable evaluate") as caught:
        rows(one, tmp_path / "b")
    assert caught.value.code == "E-EVAL"
    (one / "evaluation" / "items.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError) as caught:
        rows(one, one)
    assert caught.value.code == "E-CKPT-HEADER"
