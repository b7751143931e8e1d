"""Vision transformers from a folder of weights on this disk; nothing is ever downloaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from steerable.core.errors import UserError

__all__ = ["vision_model"]


def vision_model(name: str, path: str, *, types: tuple[str, ...], where: str) -> Any:
    """A frozen model of the library `transformers`, in float32.

    Args:
        name: Name of the class, such as `Dinov2Model`.
        path: Folder with `config.json` and safetensors files.
        types: What `model_type` in the config may be.
        where: The extractor, for messages.

    Raises:
        UserError: E-CONFIG without such a folder, E-EXTRA without the library, E-CKPT-PICKLE for
            weights that could run code, E-CKPT-HEADER and E-CKPT-ARCH for damaged or other ones.
    """
    folder = _folder(path, types, where)
    try:
        import transformers
        from transformers.utils import logging

        model_class = getattr(transformers, name)
    except ImportError as error:
        do, got = 'pip install "steerable[vision-transformers]"', f"no {error.name}"
        raise UserError("E-EXTRA", where=where, got=got, do=do) from error
    with _quiet(logging):
        try:
            net, loading = model_class.from_pretrained(
                str(folder),
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                dtype=torch.float32,
            )
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:
            got = f"not to be read: {str(error).splitlines()[0][:160]}"
            raise UserError("E-CKPT-HEADER", where=f"{where}, {folder.name}", got=got) from error
    lacking = sorted(map(str, {*loading["missing_keys"], *loading["mismatched_keys"]}))
    if lacking:  # the library would fill them with random numbers
        got = f"without {len(lacking)} tensors: {', '.join(lacking[:5])}"
        raise UserError("E-CKPT-ARCH", where=f"{where}, {folder.name}", got=got)
    return net.eval().requires_grad_(False)


def _folder(path: str, types: tuple[str, ...], where: str) -> Path:
    folder, config = Path(path), Path(path) / "config.json"
    do = "give the option `path`, a folder with config.json and safetensors weights"
    if not path or not config.is_file():
        got = f"no config.json in '{folder.name}'" if path else "no folder of weights"
        raise UserError("E-CONFIG", where=f"{where}, path", got=got, do=do)
    try:
        found = json.loads(config.read_text("utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        got = f"a config.json that is none: {error}"
        raise UserError("E-CONFIG", where=f"{where}, path", got=got, do=do) from error
    if found not in types:
        got, takes = f"model_type {found!r}", ", ".join(types)
        raise UserError("E-CONFIG", where=f"{where}, path", got=got, takes=takes)
    if not any(folder.glob("*.safetensors")):
        pickled = [p.name for ending in ("bin", "pt", "pth") for p in folder.glob(f"*.{ending}")]
        got, takes = ", ".join(sorted(pickled)) or "no weights", "safetensors files"
        if pickled:
            raise UserError("E-CKPT-PICKLE", where=f"{where}, path", got=got, takes=takes)
        raise UserError("E-CONFIG", where=f"{where}, path", got=got, takes=takes)
    return folder


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """Neither bars nor remarks of the library, whose own settings are put back afterwards."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
