"""Files that are given by name: pipes never hang a command, and names match in any form."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
import torch
from PIL import Image

from steerable.core.errors import UserError
from steerable.core.types import Spec
from steerable.jobs.canvas import one_each, pictures
from steerable.jobs.edited import settings_in
from steerable.jobs.encode import picture_of
from steerable.jobs.run import Run
from steerable.recipes.recipe import from_yaml
from steerable.recipes.store import open_model

SPEC = Spec("toys", (1, 8, 8))
READERS = {
    "picture": lambda path: pictures(path, "image"),
    "encoded picture": lambda path: picture_of(path, SPEC),
    "replayed PNG": settings_in,
    "recipe": from_yaml,
    "model": open_model,
    "data report": lambda path: Run(path.parent).data_report() or _none(),
    "data items": lambda path: Run(path.parent).data_items() or _none(),
}


def _none():
    raise UserError("E-CONFIG", where="items", got="none")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["pipe", "link", "device"])
def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path, reader, kind):
    names = {"data report": "data-report.json", "data items": "data-items.json"}
    path = tmp_path / names.get(reader, "odd.png")
    if kind == "pipe":
        os.mkfifo(path)
    else:
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe" if kind == "link" else "/dev/zero")
    with pytest.raises(UserError):
        READERS[reader](path)


def test_masks_are_found_in_every_unicode_form(tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    for name, level in (("Café", 10), ("thé", 20)):
        form = unicodedata.normalize("NFD", name)
        Image.new("L", (8, 8), level).save(folder / f"{form}.png")
    given = []
    for name in ("thé", "café"):
        path = tmp_path / f"{unicodedata.normalize('NFC', name)}.png"
        Image.new("L", (8, 8), 0).save(path)
        given += pictures(path, "image")
    found = one_each(Path(folder), given, "mask")
    assert [int(torch.as_tensor(one.x).max()) for one in found if one] == [20, 10]
