"""Writes docs/paper.md: what the partial residual paper and its authors published, and what our graphs have.

`python -m prn_jax.experiments.paper` writes the page; a test checks that the committed one is current. Needs no JAX.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prn_jax.graph.cost import Cost, cost
from prn_jax.models import build_graph, get_spec
from prn_jax.models.registry import Published

PAGE = Path(__file__).resolve().parents[2] / "docs" / "paper.md"
PAPER, README, RESULTS = SOURCES = ("paper", "README", "Results.md")
COUNTED = ("conv", "connected")  # kinds that Darknet's older count knows


class Figure(NamedTuple):
  """Figures of one model at one size, as printed.

  Attributes:
    model: registered name.
    size: width and height of the input in pixels.
    sources: which of `SOURCES` print them.
    bflops: billions of operations, a multiply-add counting two.
    params_m: "# parameter" in millions.
    ap, ap50: COCO test-dev, percent.
    fps: images a second on GPU and on CPU; the sources that we have name neither device.
  """

  model: str
  size: int
  sources: tuple[str, ...]
  bflops: float
  params_m: float | None = None
  ap: float | None = None
  ap50: float | None = None
  fps: tuple[int, int] | None = None


class Reading(NamedTuple):
  """A network that a description leaves open to more than one reading.

  Attributes:
    name: what it is called on the page.
    options: options of the model's builder.
  """

  name: str
  options: dict[str, Any]


class Erratum(NamedTuple):
  """A printed figure that cannot be right.

  Attributes:
    model, size: whose; size 0 where it is a statement on all sizes.
    printed, right: both as text.
    reason: how we know.
  """

  model: str
  size: int
  printed: str
  right: str
  reason: str


# Paper: tables 2 and 3. README and Results.md: WongKinYiu/PartialResidualNetworks.
FIGURES = (
  Figure("yolov3", 320, (PAPER,), 38.973, ap=28.2),
  Figure("yolov3", 416, (PAPER,), 65.864, ap=31.0),
  Figure("yolov3-fprn", 320, (PAPER,), 38.973, ap=29.2),
  Figure("yolov3-fprn", 416, (PAPER,), 65.864, ap=31.5),
  Figure("yolov3-prn", 320, (PAPER,), 25.106, ap=28.4),
  Figure("yolov3-prn", 416, (PAPER,), 42.429, ap=30.8),
  Figure("yolov3-tiny", 416, (PAPER, README), 5.571, 8.86, ap50=33.1, fps=(300, 8)),
  Figure("yolov3-tiny-prn", 416, (PAPER, README), 3.467, 4.95, ap50=33.1, fps=(370, 13)),
  Figure("enet-b0-prn", 320, (PAPER, README), 2.208, ap50=41.0),
  Figure("enet-b0-prn", 416, (README,), 3.730, ap50=45.5),
  Figure("pelee-ssd", 304, (PAPER, README), 2.58, 5.98, ap50=38.3),
  Figure("pelee-prn", 320, SOURCES, 2.39, 3.16, 20.9, 40.9),
  Figure("pelee-prn", 416, SOURCES, 4.04, 3.16, 23.3, 45.0),
  Figure("pelee-prn-3l", 320, (README, RESULTS), 3.98, 3.36, 21.2, 42.5),
  Figure("pelee-prn-3l", 416, (README, RESULTS), 5.03, 3.36, 24.1, 46.3),
  Figure("pelee-fpn", 320, (README, RESULTS), 2.86, 3.75, 21.3, 41.4),
  Figure("pelee-fpn", 416, (README, RESULTS), 4.84, 3.75, 23.9, 45.7),
  Figure("pelee-yolov3", 320, (README, RESULTS), 2.99, 3.91, 21.2, 41.4),
  Figure("pelee-yolov3", 416, (README, RESULTS), 5.06, 3.91, 23.6, 45.3),
  Figure("mpelee-prn", 320, (README, RESULTS), 2.82, 3.81, 22.2, 42.7),
  Figure("mpelee-prn", 416, (README, RESULTS), 4.76, 3.81, 24.8, 46.8),
)
YOLOV3_PRN = (
  Reading("halved towers", {"head": "halved_towers"}),
  Reading("halved 3x3", {"head": "halved_3x3"}),
  Reading("YOLOv3's own head", {"head": "yolov3"}),
)
# Figure 11 and section 4.2: top-1 on ImageNet's validation images, percent, by gamma.
FIGURE_11 = {
  "PRN-shrink": {0.75: 76.8, 0.5: 76.4},
  "PRN-expand": {0.75: 75.7, 0.5: 72.7},
  "PRN-bottleneck": {0.75: 75.5, 0.5: 72.7},
}
ERRATA = (
  Erratum("pelee-prn-3l", 320, "3.98 BFLOPs", "2.98", "5.03 at 416 shrinks by (416/320)^2 = 1.69, as all others do"),
  Erratum("yolov3-tiny-prn", 416, "4.95M parameters", "4.94M", "the published weights hold 4,939,758 values"),
  Erratum(
    "yolov3-tiny-prn", 0, "37% fewer parameters than YOLOv3-tiny", "44%", "1 - 4.94 / 8.86; the operations fall by 38%"
  ),
  Erratum(
    "yolov3-prn",
    0,
    "55% fewer parameters than YOLOv3",
    "45%",
    "of the two networks that have the published operations, one keeps 55% and the other 62% (see above)",
  ),
)
# Models of the paper without figures of their cost, and comparators.
OTHERS = (
  "darknet53", "darknet53-fprn", "darknet53-prn-shrink", "darknet53-prn-expand", "darknet53-prn-bottleneck",
  "yolov3-tiny-prn-3l", "peleenet", "resnet101", "resnet152", "resnext50", "densenet121", "densenet201",
  "sparsenet-40-24", "sparsenet-bc-100-24",
)  # fmt: skip
EXPLAINED = (
  "darknet53_prn",
  "prn",
  "pelee",
  "efficientnet",
  "resnet",
  "densenet",
  "sparsenet",
)  # files of prn_jax/models
NOT_BUILT = {
  "tiny-dsod": "a comparator. Its authors' code has no licence, so that we did not open it, and what could be read of "
  "its description does not give the widths of its depthwise feature pyramid."
}


def corrected(figure: Figure) -> Figure:
  """The figure with its errata corrected, in the digits of the sources."""
  if (figure.model, figure.size) == ("pelee-prn-3l", 320):
    return figure._replace(bflops=2.98)
  if figure.model == "yolov3-tiny-prn":
    return figure._replace(params_m=4.94)
  return figure


def conv_bflops(found: Cost) -> float:
  """Billions of operations of convolutions alone, the count that table 2 has."""
  return sum(row.flops for row in found.layers if row.layer.kind in COUNTED) / 1e9


def costs() -> dict[tuple[str, int], Cost]:
  """(model, size) -> cost of our graph, for every row of `FIGURES`."""
  return {
    (figure.model, figure.size): cost(build_graph(figure.model, width=figure.size, height=figure.size))
    for figure in FIGURES
  }


def reasoning(module: str) -> str:
  """What the header of a file of `prn_jax/models` says, without its table."""
  text = sys.modules[f"prn_jax.models.{module}"].__doc__ or ""
  lines = [line for line in textwrap.dedent(text).splitlines() if not line.startswith("|")]
  return "\n".join(lines).strip()


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  """A Markdown table."""
  lines = [header, ["---"] * len(header), *rows]
  return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def difference(ours: float, theirs: float) -> str:
  return f"{(ours / theirs - 1) * 100:+.2f}%".replace("-0.00", "+0.00")


def by_source(figure: Figure, value: Callable[[Figure], float | None], digits: str) -> list[str]:
  number = value(figure)
  return [format(number, digits) if number is not None and source in figure.sources else "" for source in SOURCES]


def name_of(figure: Figure) -> str:
  marks = {"reconstructed": " (r)", "exact": "", "own": ""}
  return f"{figure.model}{marks[get_spec(figure.model).status]}"


def operations(found: dict[tuple[str, int], Cost]) -> str:
  rows = []
  for figure in FIGURES:
    ours, right = found[figure.model, figure.size], corrected(figure).bflops
    erratum = " (erratum)" if right != figure.bflops else ""
    digits = ".3f" if figure.model.startswith(("yolov3", "enet")) else ".2f"
    printed = [text + erratum if text else "" for text in by_source(figure, lambda f: f.bflops, digits)]
    rows.append(
      [name_of(figure), str(figure.size), *printed, f"{conv_bflops(ours):.3f}", f"{ours.bflops:.3f}",
       difference(ours.bflops, right)]
    )  # fmt: skip
  return table(["model", "size", *SOURCES, "ours, convolutions", "ours, all", "difference"], rows)


def parameters(found: dict[tuple[str, int], Cost]) -> str:
  rows, seen = [], set()
  for figure in FIGURES:
    if figure.params_m is None or figure.model in seen:
      continue
    seen.add(figure.model)
    ours, right = found[figure.model, figure.size], corrected(figure).params_m
    assert right is not None
    erratum = " (erratum)" if right != figure.params_m else ""
    printed = [text + erratum if text else "" for text in by_source(figure, lambda f: f.params_m, ".2f")]
    rows.append(
      [name_of(figure), *printed, f"{ours.weight_file_floats:,}", f"{ours.params:,}",
       difference(ours.weight_file_floats / 1e6, right)]
    )  # fmt: skip
  return table(
    ["model", *(f"{s}, M" for s in SOURCES), "ours, values in the file", "ours, learnable", "difference"], rows
  )


def accuracies() -> str:
  rows = [
    [name_of(f), str(f.size), ", ".join(f.sources), *(f"{v:.1f}" if v is not None else "" for v in (f.ap, f.ap50))]
    for f in FIGURES
  ]
  return table(["model", "size", "sources", "AP", "AP50"], rows)


def readings() -> str:
  """The readings of yolov3-prn beside YOLOv3."""
  whole = cost(build_graph("yolov3"))
  printed = {(figure.model, figure.size): figure.bflops for figure in FIGURES}
  theirs = [printed["yolov3-prn", size] for size in (416, 320)]
  rows = [["published", *(f"{value:.3f}" for value in theirs), "", "", f"{theirs[0] / printed['yolov3', 416]:.1%}"]]
  for reading in YOLOV3_PRN:
    at = {size: cost(build_graph("yolov3-prn", width=size, height=size, **reading.options)) for size in (416, 320)}
    option = ", ".join(f"`{key}={value!r}`" for key, value in reading.options.items())
    rows.append([
      f"{reading.name} ({option})", *(f"{conv_bflops(found):.3f}" for found in at.values()), f"{at[416].params:,}",
      f"{at[416].params / whole.params:.1%}", f"{conv_bflops(at[416]) / conv_bflops(whole):.1%}",
    ])  # fmt: skip
  header = ("head", "BFLOPs at 416", "at 320", "parameters", "of YOLOv3's parameters", "of its operations")
  return table(header, rows)


def speeds() -> str:
  rows = [[name_of(f), str(f.size), str(f.fps[0]), str(f.fps[1])] for f in FIGURES if f.fps]
  return table(["model", "size", "GPU", "CPU"], rows)


def notes() -> str:
  """What the registered models say about themselves."""
  names = dict.fromkeys(figure.model for figure in FIGURES)
  return "\n".join(f"- {name}: {get_spec(name).note}." for name in names if get_spec(name).note)


def figure_11() -> str:
  rows = [[name, *(f"{values[gamma]:.1f}" for gamma in (0.75, 0.5))] for name, values in FIGURE_11.items()]
  return table(["model", "gamma 0.75", "gamma 0.5"], rows)


def _printed(figures: Published) -> str:
  """Operations, or where a source gives none parameters, and the source."""
  if figures.bflops:
    return f"{figures.bflops:g} BFLOPs ({figures.source})"
  return f"{figures.params_m:g}M parameters ({figures.source})" if figures.params_m else ""


def others() -> str:
  rows = []
  for name in OTHERS:
    spec = get_spec(name)
    found = cost(build_graph(name))
    printed = next(filter(None, (_printed(p) for p in spec.published if p.size == spec.width)), "")
    mark = " (r)" if spec.status == "reconstructed" else ""
    rows.append([f"{name}{mark}", str(spec.width), f"{found.params:,}", f"{found.bflops:.3f}", printed, spec.reference])
  return table(["model", "size", "learnable", "BFLOPs", "published", "reference"], rows)


HEAD = """# The paper's figures and ours

Wang, Liao, Chen, Hsieh, "Enriching Variety of Layer-wise Learning Information by Gradient Combination" (ICCVW 2019).
Written by `python -m prn_jax.experiments.paper`; do not edit. (r): reconstructed from text and figures that leave a choice; the
reasoning stands below. The others follow from a public cfg or from a description that leaves none. Differences are those of our full count from the printed figure, or from the corrected one.

## Operations

Billions, a multiply-add counting two. Darknet of 2019 counted convolutions, then pools; today's counts the additions
of shortcuts as well ("ours, all"). Table 2 has the older count: YOLOv3's 65.864 are convolutions alone.
"""
PARAMETERS = """## Parameters

The sources count what a weights file holds: rolling means and variances too. Pelee-SSD's 5.98M is its own paper's count,
of learnable values."""
ACCURACIES = """## Accuracy

As published, COCO test-dev, percent: AP in table 2 and Results.md, AP50 in table 3, README and
Results.md. Nobody has trained these on COCO here; the page states no figure of ours."""
READINGS_TEXT = """## YOLOv3-PRN: what is published, and two readings

Table 2 gives its operations, and the abstract says "the same accuracy as YOLO-v3 with a 55% reduction of parameters and
35% reduction of computation, while increasing the speed of execution by twice". Operations are those of convolutions.
Both narrower heads meet 42.429 and 25.106 to the last digit, and so the 35%: 1 - 42.429 / 65.864 = 35.6%. The first leaves
55% of YOLOv3's parameters, which explains the abstract's number as the share that is left, and is what `yolov3-prn` builds;
nothing else decides between the two. The other is an option of the model: `prn_jax.build("yolov3-prn", head="halved_3x3")`,
or `head` in `config.model_options`."""
NOTES = "Ours differ from what these figures are of:"
SPEEDS = """## Speed

Images a second, as the README prints them beside table 3's rows. The abstract adds for YOLOv3-tiny-PRN "up to 12 fps" more
than YOLOv3-tiny on a Jetson TX2."""
NOT_QUOTED = """Of tables 2 and 3 the page quotes every row of networks that are built here, with operations, parameters, AP and
AP50. Their columns of times and their rows of other authors' detectors are not in the reference data that we have, so
they are not quoted."""
FIGURE_11_TEXT = """## Figure 11

Top-1 on ImageNet's validation images, percent, of Darknet53 with gamma of its channels left at the thin end of every
stage. The paper prints the numbers in section 4.2. Nobody has trained these on ImageNet here
(`configs/imagenet_darknet53_prn.py`); [experiments.md](experiments.md) has the comparison in small."""
ERRATA_TEXT = "## Errata"
OTHERS_TEXT = "## Models of the paper without figures, and comparators"
REWRITES = """## The paper's rewrites of any graph

    prn convert yolov3 yolov3-shrink.cfg --transform shrink:0.5

`shrink`, `expand` and `bottleneck` take gamma and change the results of the units of every residual stage as figure 7 does:
the last convolution of a unit has the unit's width, those before it keep theirs. Widths are the nearest multiples of 2, and
of the groups of the convolutions and the parts of the routes that make or read them, so that a network with grouped
convolutions (csresnext50) can be rewritten too. A ghost module, whose other half follows its convolution channel by channel, is
as wide as two of these; MobileNetV3 and EfficientNet-Lite change as the projections at the end of their units do. `shrink:0.5` of
ghostnet has 4,868,264 parameters and 0.212 BFLOPs (5,182,508 and 0.283), of mobilenetv3-large 5,123,284 and 0.323 (5,483,032 and
0.434), of efficientnet-lite0 4,025,352 and 0.624 (4,652,008 and 0.771). `shrink:0.5` of yolov3 is yolov3-prn with YOLOv3's own head, of darknet53
darknet53-prn-shrink. `fprn` takes rho, the share of channels that a shortcut no longer adds; `multi-source` joins the levels
of a detector by additions, as figure 4 does. Trained weights come along by their leading channels."""
REASONING = """## Reconstructions, and how each was found

From the headers of the files in `prn_jax/models`."""


def page() -> str:
  """The whole of docs/paper.md."""
  found = costs()
  errata = table(
    ["model", "size", "printed", "right", "because"],
    [[e.model, str(e.size or "all"), e.printed, e.right, e.reason] for e in ERRATA],
  )
  missing = "\n".join(f"- {name}: {why}" for name, why in NOT_BUILT.items())
  parts = [
    HEAD, operations(found), PARAMETERS, parameters(found), READINGS_TEXT, readings(), ACCURACIES, accuracies(), NOTES, notes(),
    SPEEDS, speeds(), NOT_QUOTED, FIGURE_11_TEXT, figure_11(),
    ERRATA_TEXT, errata,
    OTHERS_TEXT, others(), "Not built:", missing, REWRITES, REASONING,
  ]  # fmt: skip
  for module in EXPLAINED:
    parts += [f"### `{module}.py`", reasoning(module)]
  return "\n\n".join(part.strip() for part in parts) + "\n"


if __name__ == "__main__":
  PAGE.write_text(page(), encoding="utf-8")
