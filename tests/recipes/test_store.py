import io
import json
import os
import pickle
import random
import struct
import tarfile
import zipfile

import numpy
import pytest
import safetensors.torch
import torch

from steerable.core.errors import UserError
from steerable.recipes import store

ABOUT = {"recipe": {"kind": "unet", "width": 8}, "labels": ["a", "b"], "lr": 0.1}


def tensors():
    draw = torch.Generator().manual_seed(0)
    return {
        "net.weight": torch.randn(3, 4, generator=draw),
        "net.bias": torch.randn(4, generator=draw).to(torch.bfloat16),
        "step": torch.tensor(7),
        "mask": torch.tensor([True, False, True]),
        "none": torch.zeros(0, 5),
    }


def refused(data):
    with pytest.raises(UserError) as caught:
        store.unpack(bytes(data), where="m.safetensors")
    assert caught.value.where == "m.safetensors"
    assert caught.value.code.startswith("E-CKPT-")
    return caught.value.code


def safe(header, payload=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + payload


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def sealed(header_change, payload=b""):
    """A file whose metadata and hash are right, with any other header."""
    told = {"schema": "1", "sha256": "0" * 64, "steerable": "{}"}
    header = {"__metadata__": told}
    header_change(header)
    data = safe(json.dumps(header, separators=(",", ":")).encode(), payload)
    at = data.index(b'"sha256":"') + 10
    return data[:at] + store._digest(data, at) + data[at + 64 :]


def test_c03_round_trip_keeps_every_bit_and_is_repeatable():
    data = store.pack(tensors(), ABOUT)
    back, about = store.unpack(data, where="x")
    assert about == ABOUT
    assert set(back) == set(tensors())
    for name, value in tensors().items():
        assert back[name].dtype == value.dtype
        assert torch.equal(back[name], value)
    assert all(store.pack(tensors(), ABOUT) == data for _ in range(20))
    assert set(safetensors.torch.load(data)) == set(back)  # any other program can read it too


def test_c03_returned_tensors_are_owned_and_shared_ones_are_written_twice():
    shared = torch.arange(6.0)
    data = bytearray(store.pack({"a": shared, "b": shared, "c": shared.view(2, 3).T}, {}))
    back, _ = store.unpack(bytes(data), where="x")
    back["a"].zero_()
    assert torch.equal(back["b"], shared)
    assert torch.equal(back["c"], shared.view(2, 3).T)


def test_c03_every_single_bit_flip_is_found():
    data = store.pack({"w": torch.arange(5.0)}, {"k": 1})
    for bit in range(8 * len(data)):
        bad = bytearray(data)
        bad[bit // 8] ^= 1 << bit % 8
        refused(bad)


def test_c03_every_cut_and_every_tail_is_found():
    data = store.pack({"w": torch.arange(5.0)}, {"k": 1})
    for size in range(len(data)):
        refused(data[:size])
    for tail in (b"\0", b" ", data):
        assert refused(data + tail) == "E-CKPT-HEADER"


def test_c03_damage_of_the_data_is_named_as_damage():
    data = bytearray(store.pack({"w": torch.arange(5.0)}, {}))
    data[-1] ^= 1
    assert refused(data) == "E-CKPT-HASH"


def test_c04_newer_schema_is_said_to_be_newer():
    def newer(header):
        header["__metadata__"]["schema"] = str(store.SCHEMA + 1)

    assert refused(sealed(newer)) == "E-CKPT-NEWER"
    for schema in ("", "one", "-1", "1.0", "٣", "9" * 5000):
        told = {"schema": schema, "sha256": "0" * 64, "steerable": "{}"}
        assert refused(sealed(lambda header, told=told: header.update(__metadata__=told))) == (
            "E-CKPT-HEADER"
        )


def test_c02_file_of_another_program_is_told_what_to_do():
    with pytest.raises(UserError, match="without the metadata of steerable") as caught:
        store.unpack(safetensors.torch.save({"w": torch.ones(2)}), where="x")
    assert caught.value.code == "E-CKPT-HEADER"
    assert "recipe" in caught.value.do


def hostile():
    e = entry()
    yield from (safe({"a": entry(offsets=o)}, b"\0" * 4) for o in [(0, 3), (4, 0), (1, 5), (-4, 0)])
    yield from (safe({"a": entry(offsets=o)}, b"\0" * 4) for o in [(0,), (0, 4, 4), (0, 4.0)])
    yield from (safe({"a": entry(shape=s)}, b"\0" * 4) for s in [(2,), (-1,), (True,), (1.0,)])
    yield safe({"a": entry(shape=(1,) * 9)}, b"\0" * 4)
    yield safe({"a": entry(shape=(2**62, 4), offsets=(0, 0))})
    yield safe({"a": entry(shape=(2**62, 0), offsets=(0, 0))})
    yield safe({"a": entry(shape=(2**32, 2**32, 0), offsets=(0, 0))})
    yield safe({"a": entry(shape=(10**400,), offsets=(0, 4 * 10**400))})
    yield safe({"a": entry(offsets=(0, 2**64 + 4))}, b"\0" * 4)
    yield from (safe({"a": entry(dtype=d)}, b"\0" * 4) for d in ["F31", "f32", "C64", None, 1, []])
    yield safe({"a": e, "b": e}, b"\0" * 4)  # overlap
    yield safe({"a": e, "b": entry(offsets=(8, 12))}, b"\0" * 12)  # hole
    yield safe({"a": e}, b"\0" * 8)  # trailing bytes
    yield safe({"a": e}, b"")
    yield safe({"a": {**e, "more": 1}}, b"\0" * 4)
    yield from (safe({"a": other}, b"\0" * 4) for other in [None, 1, "x", [], {}, [e]])
    names = [
        "",
        "../x",
        "a/b",
        "a\\b",
        "a b",
        "\0",
        "n" * 201,
        "é",
        "\ud800",
        "a\n",
        "C:x",
        "#",
        "%2e",
    ]
    yield from (safe({name: e}, b"\0" * 4) for name in names)
    yield safe(b'{"a":%s,"a":%s}' % ((json.dumps(e).encode(),) * 2), b"\0" * 4)
    yield safe(b'{"__metadata__":{},"__metadata__":{}}')
    yield safe(b'{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"\0" * 4)
    yield from (safe({"__metadata__": told}) for told in [1, [], None, {"a": 1}, {"a": {}}])
    raw = [b"{", b"{}}", b"{]", b"{\xff}", b'{"a":NaN}', b"{" * 90_000, b'{"a":' + b"[" * 30_000]
    raw += [b'{"a":' * 19_000, b'{"a":' + b"9" * 5000 + b"}", b'{"' + b'\\"' * 900_000]
    raw += [b'{"a":[' + b"[]," * 600_000 + b"[]]}", b'{"' + b"a" * 1_999_990, b'{"\\', b'{"a\\']
    yield from (safe(text) for text in raw)
    yield safe({f"t{i}": entry(shape=(0,), offsets=(0, 0)) for i in range(store.MAX_TENSORS + 1)})
    yield struct.pack("<Q", 2**63) + b"{}"
    yield struct.pack("<Q", store.MAX_HEADER + 1) + b"{}" + b" " * store.MAX_HEADER
    yield from (b"", b"\0", b"{", b"\0" * 8, b"\0" * 4096, struct.pack("<Q", 2) + b"[]")
    yield '{"a":1}'.encode("utf-16")


def test_c02_hostile_headers_are_refused_before_anything_is_built(monkeypatch):
    monkeypatch.setattr(safetensors.torch, "load", lambda data: pytest.fail("was parsed"))
    cases = list(hostile())
    assert len(cases) >= 70
    for data in cases:
        assert refused(data) == "E-CKPT-HEADER", data[:100]


def test_c02_a_right_hash_does_not_help_a_wrong_header():
    changes = [
        lambda h: h.update(a=entry(offsets=(4, 8))),
        lambda h: h.update(a=entry(), b=entry()),
        lambda h: h.update({"../a": entry()}),
        lambda h: h.update(a=entry(shape=(2,))),
        lambda h: h["__metadata__"].update(steerable="[]"),
        lambda h: h["__metadata__"].update(steerable='{"a":1,"a":2}'),
        lambda h: h["__metadata__"].update(steerable='{"a":Infinity}'),
        lambda h: h["__metadata__"].update(steerable='{"a":' + "[" * 50_000),
    ]
    assert store.unpack(sealed(lambda h: h.update(a=entry()), b"\0" * 4), where="x")[1] == {}
    for change in changes:
        assert refused(sealed(change, b"\0" * 4)) == "E-CKPT-HEADER"


def test_c02_two_thousand_mutants_of_a_header_are_refused():
    draw = random.Random(2)
    data = store.pack({"w": torch.arange(5.0), "b": torch.ones(2, 3)}, {"k": [1, "x"]})
    end = 8 + int.from_bytes(data[:8], "little")
    for _ in range(2000):
        bad = bytearray(data)
        for _ in range(draw.randint(1, 4)):
            kind, at = draw.randrange(4), draw.randrange(end)
            if kind == 0:
                bad[at] = draw.choice(b'{}[]",:0123456789\\ \0\xff')
            elif kind == 1:
                del bad[at : at + draw.randint(1, 9)]
            elif kind == 2:
                bad[at:at] = bad[at : at + draw.randint(1, 30)]
            else:
                bad[at : at + 2] = draw.randbytes(2)
        if bytes(bad) != data:
            refused(bad)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def code_files(canary):
    for protocol in range(6):
        yield pickle.dumps(Bomb(canary), protocol)
        yield pickle.dumps({"w": [1.0, 2.0], "b": Bomb(canary)}, protocol)
    for legacy in (True, False):
        out = io.BytesIO()
        torch.save({"a": Bomb(canary)}, out, _use_new_zipfile_serialization=not legacy)
        yield out.getvalue()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Bomb(canary)))
    whole = out.getvalue()
    yield from (whole, b"XXXX" + whole[4:], b"\0" * 64 + whole, whole[:-8])
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        file.addfile(tarfile.TarInfo("data.pkl"))
    yield out.getvalue()
    out = io.BytesIO()
    numpy.save(out, numpy.array([Bomb(canary)], dtype=object), allow_pickle=True)
    yield out.getvalue()
    yield b"cposix\nsystem\n(S'touch " + canary.encode() + b"'\ntR."
    yield b"\x1f\x8b\x08" + b"\0" * 60


def test_c01_code_is_refused_by_content_and_never_runs(tmp_path):
    canary = tmp_path / "canary"
    cases = list(code_files(str(canary)))
    for i, data in enumerate(cases):
        assert refused_pickle(data), (i, data[:40])
        path = tmp_path / f"m{i}.safetensors"
        path.write_bytes(data)
        with pytest.raises(UserError) as caught:
            store.open_model(path)
        assert caught.value.code == "E-CKPT-PICKLE"
        assert str(tmp_path) not in str(caught.value)
    assert len(cases) >= 20
    assert not canary.exists()


def refused_pickle(data):
    return refused(data) == "E-CKPT-PICKLE"


def test_c03_open_model_reads_a_file_and_nothing_else(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(store.pack(tensors(), ABOUT))
    assert store.open_model(path)[1] == ABOUT
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("absent", "folder", "pipe"):
        with pytest.raises(UserError, match="no such file") as caught:
            store.open_model(tmp_path / name)
        assert caught.value.code == "E-CONFIG"


def test_c02_what_could_not_be_read_back_is_not_written():
    with pytest.raises(UserError) as caught:
        store.pack({"w": torch.ones(1)}, {"lr": float("nan")})
    assert caught.value.code == "E-NUM"
    with pytest.raises(UserError) as caught:
        store.pack({"w": torch.ones(1)}, {"labels": ["x" * 100] * 20_000})
    assert caught.value.code == "E-LIMIT"
