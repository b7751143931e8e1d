"""What is to be done to pictures, checked, and what of each picture is given to the sampler.

Hidden pixels are set to NaN here, at the door: whatever reads one of them shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.types import Spec

from .canvas import Picture, Pictures, as_floats, centred, flags, one_each, pictures
from .pictures import bytes_of
from .wish import asked, check_counts

__all__ = ["Edit", "Piece", "check_edit", "pieces"]

HIDDEN = 0.0  # the grey that shows people where a picture is hidden


@dataclass(frozen=True, kw_only=True, eq=False)
class Edit:
    """What is to be done to pictures.

    Attributes:
        image: The pictures: files, folders, tensors (C,H,W) uint8 or floats in [-1, 1], or several.
            May be left out with a reference, which then gives the low band of new pictures.
        mask: White where to repaint: one for all, one for each, or a folder of equal names. All
            white is taken: then everything is repainted.
        reference: Pictures whose low band the results take (ILVR); as `mask`.
        factor: Of the low band: a larger one leaves more freedom. It divides both sides.
        strength: The time to begin at, above 0; 1 is noise, of which nothing of the picture is
            left. Below 1 also what a mask hides is begun from.
        from_label: Class of the pictures, for a translation; none by default.
        to_label: Class to translate to: up the ODE as `from_label`, and down as this.
        upscale: The pictures are that many times smaller than the model's, means of its pixels.
        colourise: The pictures are grey, their colours are to be found.
        outpaint: The pictures are smaller than the model's and stand in the `centre` or at (top,
            left); the rest is painted.
        method: `keep`, `repaint`, `diffpir`, `dps` or `posterior`; by default what is best for the
            model.
        cond: What the results are to be, by condition: a class name, numbers or words.
        n: Results a picture.
        seed: Seed of the first result; result i has seed + i.
    """

    image: Pictures | None = None
    mask: Pictures | None = None
    reference: Pictures | None = None
    factor: int = 4
    strength: float = 1.0
    from_label: str | None = None
    to_label: str | None = None
    upscale: int | None = None
    colourise: bool = False
    outpaint: str | tuple[int, int] | None = None
    method: str | None = None
    cond: Mapping[str, Any] = field(default_factory=dict)
    n: int = 1
    seed: int = 0

    @property
    def masked(self) -> bool:
        """Whether a part of the pictures is repainted."""
        return self.mask is not None or self.outpaint is not None

    @property
    def whole(self) -> bool:
        """Whether the drawing begins from the picture, hidden parts and all."""
        return self.strength < 1.0 or self.to_label is not None


@dataclass(frozen=True, eq=False)
class Piece:
    """One picture to edit.

    Attributes:
        given: What travels with its wishes.
        shown: What people see of it, (C,H,W) uint8 by title: before, masked, reference.
        record: Its files with their SHA-256.
        notes: What its owner ought to know.
    """

    given: Mapping[str, Tensor]
    shown: Mapping[str, Tensor]
    record: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the picture."""
        return (self.record["image"] or self.record["reference"])["file"]


def check_edit(wanted: Edit, spec: Spec) -> None:
    """Refuse what cannot be done with any picture.

    Raises:
        UserError: E-SHAPE, E-LIMIT, E-LABEL or E-CONFIG.
    """
    if len(spec.shape) != 3:
        raise UserError(
            "E-SHAPE", where="edit", got=f"items of shape {spec.shape}", takes="a model of pictures"
        )
    if not 0.0 < wanted.strength <= 1.0:
        takes = "above 0, up to 1: the time to begin at, 1 is noise"
        raise UserError("E-LIMIT", where="strength", got=f"{wanted.strength:g}", takes=takes)
    ways = {"mask": wanted.masked, "upscale": wanted.upscale, "colourise": wanted.colourise}
    on = [name for name, given in ways.items() if given]
    if len(on) > 1:
        raise UserError(
            "E-CONFIG", where="edit", got=" and ".join(on), takes="one of them at a time"
        )
    if wanted.image is None:
        if wanted.reference is None or on or wanted.whole:
            raise UserError("E-CONFIG", where="image", got="no picture", takes="a picture to edit")
    elif not on and not wanted.whole:
        got = "nothing that is to be done to the picture"
        takes = "mask, outpaint, strength below 1, to_label, upscale or colourise"
        alone = "leave image out: a reference alone gives the low band of new pictures"
        raise UserError(
            "E-CONFIG",
            where="edit",
            got=got,
            takes=takes,
            do=alone if wanted.reference is not None else "",
        )
    if wanted.outpaint is not None and wanted.whole:
        what = "to_label" if wanted.to_label is not None else "strength below 1"
        raise UserError(
            "E-CONFIG",
            where="outpaint",
            got=f"with {what}",
            takes="strength 1: there is nothing yet to begin from",
        )
    _check_labels(wanted, spec)
    _check_factors(wanted, spec.shape)


def _check_labels(wanted: Edit, spec: Spec) -> None:
    for name, value in wanted.cond.items():
        asked(spec, name, value)
    for where, name in (("from_label", wanted.from_label), ("to_label", wanted.to_label)):
        if name is not None:
            asked(spec, "label", name, where=where)
    if wanted.to_label is None:
        if wanted.from_label is not None:
            raise UserError(
                "E-CONFIG", where="from_label", got="without to_label", takes="both, or none"
            )
    elif "label" in wanted.cond:
        raise UserError("E-CONFIG", where="to_label", got="with label", takes="one of them")
    elif wanted.n != 1:
        got = f"{wanted.n} of each picture"
        raise UserError(
            "E-LIMIT", where="to_label", got=got, takes="1: a translation draws no noise"
        )


def _check_factors(wanted: Edit, shape: tuple[int, ...]) -> None:
    factor = wanted.factor if wanted.reference is not None else None
    for name, number in (("factor", factor), ("upscale", wanted.upscale)):
        if number is None or (number >= 2 and not any(side % number for side in shape[1:])):
            continue
        fine = [k for k in range(2, min(shape[1:]) + 1) if not any(s % k for s in shape[1:])]
        got = f"{number}, which does not divide {shape[1]} x {shape[2]}"
        takes = ", ".join(map(str, fine)) or "no factor for such a size"
        raise UserError("E-LIMIT", where=name, got=got if number >= 2 else str(number), takes=takes)
    if wanted.colourise and shape[0] != 3:
        takes = "a model of colour pictures, 3 channels"
        raise UserError(
            "E-SHAPE", where="colourise", got=f"a model of pictures {shape}", takes=takes
        )


def pieces(wanted: Edit, spec: Spec) -> list[Piece]:
    """Every picture with what is given of it to the sampler.

    Raises:
        UserError: What cannot be done, or is no picture, or does not fit.
    """
    check_edit(wanted, spec)
    source = wanted.image if wanted.image is not None else wanted.reference
    assert source is not None
    images = pictures(source, "image" if wanted.image is not None else "reference")
    check_counts(len(images) * wanted.n, wanted.seed)
    masks = one_each(wanted.mask, images, "mask")
    no_image = wanted.image is None
    references = images if no_image else one_each(wanted.reference, images, "reference")
    made = []
    for image, mask, reference in zip(images, masks, references, strict=True):
        made.append(_piece(wanted, spec, None if no_image else image, mask, reference))
    return made


def _piece(
    wanted: Edit,
    spec: Spec,
    image: Picture | None,
    mask: Picture | None,
    reference: Picture | None,
) -> Piece:
    given: dict[str, Tensor] = {}
    shown: dict[str, Tensor] = {}
    notes: list[str] = []
    if image is not None and wanted.masked:
        whole, hidden = _canvas(wanted, spec, image, mask)
        if bool(hidden.all()):
            name = mask.name if mask is not None else "outpaint"
            notes.append(f"{name}: white all over, so everything is repainted")
        shown["before"] = whole.nan_to_num(HIDDEN)
        shown["masked"] = whole.masked_fill(hidden, HIDDEN)
        given["image"] = whole if wanted.whole else whole.masked_fill(hidden, torch.nan)
        given["mask"] = hidden.to(torch.float32)
        given["measured"] = whole.masked_fill(hidden, 0.0)
    elif image is not None:
        whole, measured = _unmasked(wanted, spec, image)
        shown["before"] = whole
        given |= {"image": whole} if wanted.whole else {}
        given |= {} if measured is None else {"measured": measured}
    if reference is not None:
        given["reference"] = as_floats(reference, spec.shape, "reference", grey_only=True)
        shown["reference"] = given["reference"]
    for name in set(given) - {"mask"}:
        _check_finite(name, given[name], given.get("mask") if not wanted.whole else None)
    three = {"image": image, "mask": mask, "reference": reference}
    record = {name: picture and picture.record() for name, picture in three.items()}
    return Piece(given, {k: bytes_of(v) for k, v in shown.items()}, record, tuple(notes))


def _check_finite(name: str, x: Tensor, mask: Tensor | None) -> None:
    """Refuse NaN where a picture is known, which only a tensor can bring."""
    known = x if mask is None else x.masked_fill(mask >= 0.5, 0.0)
    if not bool(known.isfinite().all()):
        raise UserError(
            "E-CONFIG",
            where=name,
            got="values that are not finite",
            takes="finite numbers where it is known",
        )


def _unmasked(wanted: Edit, spec: Spec, image: Picture) -> tuple[Tensor, Tensor | None]:
    """A picture in the form of the model, and the measurement that it is, if it is one."""
    channels, height, width = spec.shape
    if wanted.upscale is not None:
        k = wanted.upscale
        small = (channels, height // k, width // k)
        if image.size != small[1:]:
            got = f"{image.size[0]} x {image.size[1]}"
            takes = f"{small[1]} x {small[2]}, {k} times smaller than the model's pictures"
            raise UserError("E-SHAPE", where=f"upscale {image.name}", got=got, takes=takes)
        measured = as_floats(image, small, "image")
        return measured.repeat_interleave(k, 1).repeat_interleave(k, 2), measured
    if wanted.colourise:
        measured = as_floats(image, (1, height, width), "image")
        return measured.expand(spec.shape).clone(), measured
    return as_floats(image, spec.shape, "image"), None


def _canvas(
    wanted: Edit, spec: Spec, image: Picture, mask: Picture | None
) -> tuple[Tensor, Tensor]:
    """A picture (C,H,W) in the size of the model, and where it is hidden, (1,H,W)."""
    size = (spec.shape[1], spec.shape[2])
    if wanted.outpaint is None:
        assert mask is not None
        whole, hidden = as_floats(image, spec.shape, "image"), flags(mask, image, size)
    else:
        top, left = centred(size, image.size, wanted.outpaint)
        rows, columns = (slice(a, a + n) for a, n in zip((top, left), image.size, strict=True))
        whole = torch.full(spec.shape, HIDDEN)
        whole[:, rows, columns] = as_floats(image, (spec.shape[0], *image.size), "image")
        hidden = torch.ones(1, *size, dtype=torch.bool)
        hidden[:, rows, columns] = False
        if mask is not None and mask.size == image.size:
            hidden[:, rows, columns] = flags(mask, image, image.size)
        elif mask is not None:
            hidden |= flags(mask, image, size)
    if not bool(hidden.any()):
        where = f"mask {mask.name}" if mask is not None else "outpaint"
        takes = "a mask that is white (255, or 1 in floats) where to repaint"
        raise UserError("E-CONFIG", where=where, got="nothing to repaint: no white", takes=takes)
    return whole, hidden
