"""Detectors that put the head of one family on the backbone of another: `compose(g, BACKBONE, HEAD)`.

The registered ones are those that others have published, and partial residual heads on small backbones. Reference of
YOLOv3's heads on MobileNetV3 and GhostNet: the cfg files of SpursLipu's repository, from a description layer by layer; the
files themselves (GPL) we have not opened. Layers stand at the described indices; parameters agree to the last one, and so
do the published operations of the first two. What the description leaves open in yolov3-ghostnet: that the way around a
unit comes after its branch, and ReLU behind the stem, as in the paper. Backbones are in the form "cfg" of
`mobilenetv3.py` and `ghostnet.py`; form="timm" builds them in that of ImageNet weights (docs/backbones.md).

Partial residual heads are that of pelee-prn (`prn.py`); nobody has published them on these backbones.

| model                          | size | parameters | BFLOPs |
|--------------------------------|------|------------|--------|
| yolov3-mobilenetv3             | 416  | 24,209,877 | 18.041 |
| yolov3-tiny-mobilenetv3-small  | 416  | 3,041,430  | 1.592  |
| yolov3-ghostnet                | 416  | 23,867,141 | 17.484 |
| yolov3-tiny-efficientnet-b0    | 416  | 6,933,486  | 5.990  |
| yolov3-tiny-efficientnet-lite0 | 416  | 5,662,718  | 4.049  |
| mobilenetv3-prn                | 416  | 4,107,862  | 2.061  |
| mobilenetv3-small-prn          | 416  | 2,094,870  | 0.978  |
| ghostnet-prn                   | 416  | 3,781,510  | 1.510  |
| yolov3-timm                    | 416  | 61,949,149 | 65.879 |
| resnet50-prn                   | 416  | 24,902,334 | 28.872 |
| efficientnet-lite0-prn         | 416  | 4,568,702  | 3.236  |
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

from prn_jax.errors import PrnError, did_you_mean
from prn_jax.graph.builder import Builder
from prn_jax.models import (
  darknet,
  efficientnet,
  efficientnet_lite,
  ghostnet,
  mobilenetv3,
  pelee,
  prn,
  timm_forms,
  yolov3,
)
from prn_jax.models.blocks import Anchors, Levels, Masks, yolo_head
from prn_jax.models.registry import Published, Status, register
from prn_jax.models.sources import SPURSLIPU_README, SPURSLIPU_REPOSITORY
from prn_jax.models.yolov3 import ANCHORS, TINY_ANCHORS, Head


class HeadFamily(NamedTuple):
  """What stands on a backbone: levels and their heads, its anchors, and which of them each level has."""

  build: Callable[[Builder, Levels, Head], object]
  anchors: Anchors
  masks: Masks


BACKBONES: dict[str, Callable[[Builder], Levels]] = {
  "csdarknet53": darknet.csdarknet53_backbone,
  "csdarknet53-timm": timm_forms.csdarknet53_backbone,
  "darknet53": darknet.darknet53_backbone,
  "darknet53-timm": timm_forms.darknet53_backbone,
  "densenet121-timm": timm_forms.densenet121_backbone,
  "efficientnet-b0": functools.partial(efficientnet.backbone, dropout=0.0),
  "efficientnet-b0-timm": efficientnet_lite.b0_backbone,
  **{
    f"efficientnet-lite{i}{'' if form == 'tf' else '-timm'}": functools.partial(
      efficientnet_lite.lite_backbone, model=f"efficientnet-lite{i}", number=i, form=form
    )
    for i in efficientnet_lite.LITE
    for form in efficientnet_lite.FORMS
  },
  "ghostnet": functools.partial(ghostnet.backbone, form_name="cfg"),
  "ghostnet-timm": functools.partial(ghostnet.backbone, form_name="timm"),
  **{
    f"mobilenetv3-{size}{'' if form == 'cfg' else f'-{form}'}": functools.partial(
      mobilenetv3.backbone, model=f"mobilenetv3-{size}", size=table, form=form
    )
    for size, table in (("large", mobilenetv3.LARGE), ("small", mobilenetv3.SMALL))
    for form in mobilenetv3.FORMS
  },
  "peleenet": pelee.backbone,
  "resnet50-timm": functools.partial(timm_forms.resnet_backbone, name="resnet50"),
  "resnet101-timm": functools.partial(timm_forms.resnet_backbone, name="resnet101"),
}
HEADS = {
  "prn": HeadFamily(lambda g, levels, head: prn.prn_pyramid(g, levels.p4, head), TINY_ANCHORS, prn.MASKS),
  "prn-3l": HeadFamily(prn.prn_pyramid_3l, ANCHORS, yolov3.MASKS),
  "yolov3": HeadFamily(yolov3.branches, ANCHORS, yolov3.MASKS),
  "yolov3-spp": HeadFamily(yolov3.pooled_branches, ANCHORS, yolov3.MASKS),
  "yolov3-tiny": HeadFamily(
    lambda g, levels, head: yolov3.tiny_pyramid(g, levels.p4, head), TINY_ANCHORS, yolov3.TINY_MASKS
  ),
  "yolov3-tiny3": HeadFamily(yolov3.tiny_pyramid_3l, ANCHORS, yolov3.MASKS),
}


def compose(g: Builder, backbone: str, head: str, num_classes: int = 80, anchors: Anchors | None = None) -> None:
  """Writes a detector: `backbone` of `BACKBONES` with the levels and heads of `head` of `HEADS`.

  Args:
    g: an empty network.
    backbone, head: names.
    num_classes: classes of every level.
    anchors: (width, height) pairs in pixels; those of the head's family by default.

  Raises:
    PrnError: there is no such backbone or head. GraphError: the input's size, or the number of anchors, does not fit.

  Example: g = Builder(416, 416); compose(g, "ghostnet", "yolov3-spp", num_classes=3); g.graph()
  """
  for what, name, table in (("backbone", backbone, BACKBONES), ("head", head, HEADS)):
    if name not in table:
      raise PrnError(f"there is no {what} '{name}'{did_you_mean(str(name), table)}; expected {' or '.join(table)}.")
  family = HEADS[head]
  make = functools.partial(
    yolo_head, g, anchors=family.anchors if anchors is None else anchors, masks=family.masks, num_classes=num_classes
  )
  family.build(g, BACKBONES[backbone](g), make)


OURS = "prn_jax: a published head on a published backbone"


def forms_of(backbone: str, default: str) -> dict[str, str]:
  """The forms of a backbone and their names in `BACKBONES`; the one without a suffix is called `default`."""
  others = {form: f"{backbone}-{form}" for form in ("timm", "tf") if f"{backbone}-{form}" in BACKBONES}
  return {default: backbone, **others}


def _register(
  name: str,
  backbone: str,
  head: str,
  *,
  reference: str = OURS,
  status: Status = "own",
  published: tuple[Published, ...] = (),
  default_form: str = "cfg",
) -> None:
  """A registered detector, with a choice between the forms of its backbone if that has several."""
  anchors_of_head, forms = HEADS[head].anchors, forms_of(backbone, default_form)

  def plain(g: Builder, num_classes: int = 80, anchors: Anchors = anchors_of_head) -> None:
    compose(g, backbone, head, num_classes, anchors)

  def formed(g: Builder, num_classes: int = 80, anchors: Anchors = anchors_of_head, form: str = default_form) -> None:
    if form not in forms:
      hint = did_you_mean(str(form), forms)
      raise PrnError(f"model '{name}': form={form!r}{hint}; expected {' or '.join(forms)}.")
    compose(g, forms[form], head, num_classes, anchors)

  register(name, size=416, task="detect", reference=reference, status=status, published=published)(
    formed if len(forms) > 1 else plain
  )


_register(
  "yolov3-mobilenetv3",
  "mobilenetv3-large",
  "yolov3",
  reference=f"{SPURSLIPU_REPOSITORY}, yolov3-mobilenet",
  status="reconstructed",
  published=(Published(size=608, ap=34.6, ap50=54.7, source=SPURSLIPU_README),),
)
_register(
  "yolov3-tiny-mobilenetv3-small",
  "mobilenetv3-small",
  "yolov3-tiny",
  reference=f"{SPURSLIPU_REPOSITORY}, yolov3tiny-mobilenet-small",
  status="reconstructed",
  published=(Published(size=608, ap=21.4, ap50=37.9, source=SPURSLIPU_README),),
)
_register(
  "yolov3-ghostnet", "ghostnet", "yolov3", reference=f"{SPURSLIPU_REPOSITORY}, yolov3-ghostnet", status="reconstructed"
)
_register("yolov3-tiny-efficientnet-b0", "efficientnet-b0", "yolov3-tiny")
_register("yolov3-tiny-efficientnet-lite0", "efficientnet-lite0", "yolov3-tiny", default_form="tf")
_register("mobilenetv3-prn", "mobilenetv3-large", "prn")
_register("mobilenetv3-small-prn", "mobilenetv3-small", "prn")
_register("ghostnet-prn", "ghostnet", "prn")
_register("efficientnet-lite0-prn", "efficientnet-lite0", "prn", default_form="tf")
_register("yolov3-timm", "darknet53-timm", "yolov3")
_register("resnet50-prn", "resnet50-timm", "prn")
