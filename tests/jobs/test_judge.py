from importlib import resources

import pytest
import torch

from steerable.core.errors import UserError
from steerable.core.types import Dataset, Spec
from steerable.datasets.digits import digits
from steerable.datasets.fashion import fashion
from steerable.jobs import judge as module
from steerable.jobs.judge import read_judge, shipped_judge, train_judge


def wide_pictures(n, seed, *, classes=2):
    """Pictures of 48 x 64 x 4: class 1 is bright on the left, class 0 on the right."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 120, (n, 4, 48, 64), generator=generator, dtype=torch.uint8)
    label = torch.arange(n) % classes
    x[label == 1, :, :, :32] += 100
    x[label == 0, :, :, 32:] += 100
    spec = Spec("sides", (4, 48, 64), {"label": tuple("abc"[:classes])})
    return Dataset(spec, x, {"label": label})


@pytest.fixture(scope="module")
def shipped():
    splits = fashion(source="embedded")
    judge = shipped_judge(splits.train.spec)
    assert judge is not None
    return judge, splits.held_out


def test_the_shipped_judge_knows_held_out_pictures(shipped):
    judge, held_out = shipped
    features, predicted = judge.look(held_out.x)
    accuracy = float((predicted == held_out.cond["label"]).double().mean())
    assert accuracy >= 0.88
    # The note in the file agrees with what we see, within four standard errors.
    assert judge.accuracy >= 0.91 and judge.n == 10_000
    assert accuracy == pytest.approx(judge.accuracy, abs=4 * (0.08 * 0.92 / 1000) ** 0.5)
    assert features.shape == (1000, 128) and features.dtype == torch.float64
    assert predicted.dtype == torch.int64 and float(features.min()) == 0.0


def test_look_is_plain_and_does_not_depend_on_the_batch(shipped):
    judge, held_out = shipped
    features, predicted = judge.look(held_out.x[:300])
    again, _ = judge.look(held_out.x[:300])
    assert torch.equal(features, again)
    # Plain activations: the last layer on top of them gives the logits of the network.
    with torch.inference_mode():
        logits = judge.net(held_out.batch(torch.arange(300)).x)
        from_features = judge.net.out(features.float())
    assert torch.allclose(logits, from_features, atol=1e-4)
    assert torch.equal(logits.argmax(1), predicted)
    single, _ = judge.look(held_out.x[299:300])
    assert torch.allclose(single[0], features[299], atol=1e-4)
    assert judge.look(held_out.x[:0])[0].shape == (0, 128)


def test_look_refuses_other_pictures(shipped):
    judge, held_out = shipped
    for x in (held_out.x.float(), held_out.x[:, :, :, :27], held_out.x.expand(-1, 3, -1, -1)):
        with pytest.raises(UserError) as caught:
            judge.look(x)
        assert caught.value.code == "E-SHAPE"


def test_a_damaged_file_is_refused(monkeypatch):
    file = resources.files("steerable").joinpath("data", "judge_fashion.safetensors")
    data = bytearray(file.read_bytes())
    assert len(data) <= 1_600_000
    data[-100] ^= 1
    with pytest.raises(UserError) as caught:
        read_judge(bytes(data), sha256=module.FASHION_SHA256)
    assert caught.value.code == "E-CKPT-HASH"


def test_only_the_same_data_gets_the_shipped_judge():
    spec = fashion(source="embedded").train.spec
    assert shipped_judge(Spec("mine", (1, 28, 28), {"label": ("cat", "dog")})) is None
    assert shipped_judge(Spec("mine", (3, 28, 28), spec.labels)) is None
    assert shipped_judge(digits().train.spec) is None
    assert shipped_judge(Spec("another name", (1, 28, 28), spec.labels)) is not None


def test_a_judge_of_digits():
    splits = digits()
    judge = train_judge(splits.train, splits.held_out, seconds=4)
    assert judge.accuracy > 0.8 and judge.n == 360
    _, predicted = judge.look(splits.held_out.x)
    right = predicted == splits.held_out.cond["label"]
    assert judge.accuracy == pytest.approx(float(right.double().mean()))
    assert judge.names == tuple("0123456789") and judge.shape == (1, 8, 8)


@pytest.mark.slow
def test_few_wide_pictures_of_two_classes_are_learned():
    judge = train_judge(wide_pictures(30, 0), wide_pictures(20, 1), seconds=4)
    assert judge.accuracy == 1.0  # and no flips, which would make the classes one


@pytest.mark.slow
def test_the_same_seed_gives_the_same_judge():
    # Small data ends with its epochs, long before the time.
    splits = digits()
    train = splits.train.take(torch.arange(16))
    state = torch.random.get_rng_state()
    first, again, other = (
        train_judge(train, splits.held_out, seconds=600, seed=seed) for seed in (3, 3, 4)
    )
    assert torch.equal(state, torch.random.get_rng_state())
    assert first.sha256 == again.sha256 != other.sha256


@pytest.mark.parametrize("size", [(1, 4, 4), (3, 5, 9), (2, 40, 4)])
def test_any_size_and_a_last_batch_of_one(size):
    x = torch.zeros(9, *size, dtype=torch.uint8)
    x[1::2] = 255
    label = torch.arange(9) % 2
    data = Dataset(Spec("two", size, {"label": ("dark", "light")}), x, {"label": label})
    assert train_judge(data, data, seconds=20).accuracy == 1.0
    alone = data.take(torch.tensor([0]))
    assert train_judge(alone, alone, seconds=1).accuracy == 1.0


def test_pictures_without_a_label_are_left_out():
    data = wide_pictures(12, 2)
    label = data.cond["label"].clone()
    label[:4] = -1
    partial = Dataset(data.spec, data.x, {"label": label})
    assert train_judge(partial, partial, seconds=1).n == 8


def test_what_a_judge_cannot_learn():
    data = wide_pictures(6, 3)
    nothing = Dataset(data.spec, data.x, {"label": torch.full((6,), -1)})
    unnamed = Dataset(data.spec, data.x, {})
    one = wide_pictures(6, 3, classes=1)
    small = Dataset(Spec("s", (4, 3, 64), data.spec.labels), data.x[:, :, :3], data.cond)
    for bad, seconds, code in (
        (nothing, 1.0, "E-DATA"),
        (unnamed, 1.0, "E-DATA"),
        (one, 1.0, "E-DATA"),
        (small, 1.0, "E-SHAPE"),
        (data, 0.0, "E-LIMIT"),
    ):
        with pytest.raises(UserError) as caught:
            train_judge(bad, bad, seconds=seconds)
        assert caught.value.code == code
