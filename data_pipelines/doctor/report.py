"""A summary of a data set for readers: text for the terminal, charts and a sheet of samples."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from prn_jax.data_pipelines.doctor.summary import MEDIUM_SIDE_PX, SMALL_SIDE_PX, Summary
from prn_jax.data_pipelines.images import read_image
from prn_jax.data_pipelines.images.hatched import hatched
from prn_jax.data_pipelines.records import Dataset, Record, count_problems
from prn_jax.fonts import Letters, fitted, letters

Draw = Callable[[NDArray[np.uint8], NDArray[Any], Sequence[str], NDArray[Any]], Image.Image]
"""Draws boxes (corners in pixels) with their labels and class numbers on an RGB picture."""

MOST_CLASSES = 30
BAR = 24  # characters
SHEET_COLUMNS, SHEET_ROWS = 4, 4
CELL_WIDTH, CELL_HEIGHT, CAPTION_PX, GAP_PX = 400, 300, 26, 8
BLUE, GREY = "#3b6ea8", "#9aa5b1"


# -- text --------------------------------------------------------------------------------------------------------------


def text(summary: Summary, *, most_problems: int = 20) -> str:
  """The summary as lines for the terminal."""
  lines = [summary.spec, f"  images          {len(summary.image_ids):,}"]
  if not summary.is_classification:
    lines += _object_lines(summary)
  lines += [f"  image sizes     {_sizes_text(summary)}", "", *_class_lines(summary)]
  if not summary.is_classification and len(summary.classes):
    lines += ["", *_box_lines(summary)]
  if summary.notes:
    lines += ["", "Worth a look", *(f"  {note} [{note.check}]" for note in summary.notes)]
  lines += ["", *_problem_lines(summary, most_problems)]
  if found := sorted({finding.check for finding in summary.findings}):
    lines += ["", "What to do", *(f"  {check}: {check.fix}" for check in found)]
  return "\n".join(lines)


def _object_lines(summary: Summary) -> list[str]:
  counts = summary.objects_per_image
  kinds = [f"{int(flags.sum()):,} {name}" for name, flags in
           (("crowd regions", summary.is_crowd), ("difficult", summary.is_difficult)) if flags.any()]  # fmt: skip
  among = f" ({', '.join(kinds)})" if kinds else ""
  where = summary.ignored_of
  ignored = [f"  ignored regions {len(where):,} in {len(np.unique(where)):,} images"] if len(where) else []
  return [
    f"  objects         {len(summary.classes):,}{among}",
    f"  per image       mean {counts.mean():.1f}, median {np.median(counts):g}, most {counts.max()}; "
    f"{int((counts == 0).sum()):,} without any",
    *ignored,
  ]


def _sizes_text(summary: Summary) -> str:
  sizes = Counter(map(tuple, summary.sizes_wh_px.tolist()))
  if len(sizes) <= 3:
    return ", ".join(f"{w}x{h} ({number:,})" for (w, h), number in sizes.most_common())
  (low_w, low_h), (high_w, high_h) = summary.sizes_wh_px.min(0), summary.sizes_wh_px.max(0)
  (w, h), number = sizes.most_common(1)[0]
  return f"{len(sizes):,} sizes, width {low_w} to {high_w}, height {low_h} to {high_h}; most often {w}x{h} ({number:,})"


def _class_lines(summary: Summary) -> list[str]:
  examples = summary.images_per_class if summary.is_classification else summary.objects_per_class
  total, most = max(1, int(examples.sum())), max(1, int(examples.max()))
  order = np.argsort(-examples, kind="stable")
  shown = order if len(order) <= MOST_CLASSES else np.concatenate([order[: MOST_CLASSES - 5], order[-5:]])
  width = max(5, *(len(summary.names[k]) for k in shown))
  head = (
    f"{len(order)} classes{'' if len(shown) == len(order) else f' (the {MOST_CLASSES - 5} most and 5 least frequent)'}"
  )
  columns = "images" if summary.is_classification else f"objects {'in images':>11}"
  lines = [head, f"  {'':<{width}} {columns:>10}"]
  for position, k in enumerate(shown):
    if len(shown) < len(order) and position == MOST_CLASSES - 5:
      lines.append("  ...")
    images = "" if summary.is_classification else f" {summary.images_per_class[k]:>10,}"
    bar = "█" * round(BAR * examples[k] / most)
    lines.append(f"  {summary.names[k]:<{width}} {examples[k]:>9,}{images} {examples[k] / total:>7.1%} {bar}".rstrip())
  return lines


def _box_lines(summary: Summary) -> list[str]:
  total = len(summary.classes)
  coco = ", ".join(f"{name} {number:,} ({number / total:.0%})" for name, number in summary.coco_sizes.items())
  wide, high = summary.box_sizes_wh_px.T
  return [
    "Boxes                 smallest        5%    median       95%   largest",
    _row("width in pixels", wide),
    _row("height in pixels", high),
    _row("side / image", summary.sides_rel, 3),
    _row("width / height", summary.aspects, 2),
    f"  by area (COCO's limits {SMALL_SIDE_PX}² and {MEDIUM_SIDE_PX}² pixels): {coco}",
  ]


def _row(name: str, values: NDArray[Any], decimals: int = 0) -> str:
  cells = np.quantile(values, (0, 0.05, 0.5, 0.95, 1))
  return f"  {name:<18}" + "".join(f"{value:>10,.{decimals}f}" for value in cells)


def _problem_lines(summary: Summary, most: int) -> list[str]:
  if not summary.problems:
    return [f"No problems found{'' if summary.was_decoded else ' (pixels were not looked at)'}"]
  counts = ", ".join(f"{number} {kind}" for kind, number in count_problems(summary.problems).items())
  lines = [f"{len(summary.problems):,} problems, left out here: {counts}"]
  lines += [f"  {problem} [{problem.check}]" for problem in summary.problems[:most]]
  if len(summary.problems) > most:
    lines.append(f"  ... and {len(summary.problems) - most:,} more (--json lists all)")
  return lines


# -- samples -----------------------------------------------------------------------------------------------------------


def choose_samples(summary: Summary, count: int) -> list[int]:
  """Positions in the data set of images to show: rare classes first, each once, then spread evenly; in order."""
  examples = summary.images_per_class
  chosen: list[int] = []
  shown: set[int] = set()
  for k in np.argsort(examples, kind="stable"):
    if len(chosen) >= count // 2 or examples[k] == 0 or int(k) in shown:
      continue
    has_class = summary.labels == k if summary.is_classification else np.isin(
      np.arange(len(summary.image_ids)), summary.image_of[summary.classes == k]
    )  # fmt: skip
    candidates = [int(i) for i in np.flatnonzero(has_class) if int(i) not in chosen]
    if candidates:
      chosen.append(candidates[len(candidates) // 2])
      shown |= set(summary.classes[summary.image_of == chosen[-1]].tolist()) | {int(k)}
  rest = [i for i in range(len(summary.image_ids)) if i not in chosen]
  spread = np.unique(np.linspace(0, len(rest) - 1, min(count - len(chosen), len(rest))).round().astype(int))
  chosen += [rest[i] for i in spread]
  return [int(summary.indices[i]) for i in sorted(chosen)]


def sample_sheet(dataset: Dataset, indices: Sequence[int], draw: Draw) -> Image.Image:
  """A grid of images with their boxes and, below, their class or id.

  Args:
    dataset: any.
    indices: positions to show, at most 16.
    draw: draws boxes, as `prn_jax.detect.draw.draw_boxes`.
  """
  columns = min(SHEET_COLUMNS, len(indices))
  rows = -(-len(indices) // columns)
  size = (columns * (CELL_WIDTH + GAP_PX) + GAP_PX, rows * (CELL_HEIGHT + CAPTION_PX + GAP_PX) + GAP_PX)
  sheet = Image.new("RGB", size, "white")
  canvas, font = ImageDraw.Draw(sheet), letters(15)
  for position, index in enumerate(indices):
    record = dataset[index]
    left = GAP_PX + position % columns * (CELL_WIDTH + GAP_PX)
    top = GAP_PX + position // columns * (CELL_HEIGHT + CAPTION_PX + GAP_PX)
    picture = _thumbnail(record, dataset.names, draw)
    canvas.rectangle((left, top, left + CELL_WIDTH - 1, top + CELL_HEIGHT - 1), fill="#eef0f2")
    sheet.paste(picture, (left + (CELL_WIDTH - picture.width) // 2, top + (CELL_HEIGHT - picture.height) // 2))
    caption = _shortened(_caption(record, dataset.names), font)
    font.draw(canvas, (left + 2, top + CELL_HEIGHT + 4), caption, "#222222")
  return sheet


def _thumbnail(record: Record, names: Sequence[str], draw: Draw) -> Image.Image:
  pixels = read_image(record.image, name=str(record.image_id))
  height, width = pixels.shape[:2]
  scale = min(CELL_WIDTH / width, CELL_HEIGHT / height)
  # Enlarged by whole pixels, so that small images look as they are.
  how = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
  size = max(1, round(width * scale)), max(1, round(height * scale))
  picture = Image.fromarray(pixels).resize(size, how)
  factor = np.array([size[0] / width, size[1] / height] * 2)
  shown = hatched(np.asarray(picture), record.ignored_xyxy_px * factor)
  if not len(record.classes):
    return Image.fromarray(shown)
  marks = [" crowd" if crowd else " difficult" if hard else ""
           for crowd, hard in zip(record.is_crowd, record.is_difficult, strict=True)]  # fmt: skip
  labels = [names[k] + mark for k, mark in zip(record.classes, marks, strict=True)]
  return draw(shown, record.boxes_xyxy_px * factor, labels, record.classes)


def _caption(record: Record, names: Sequence[str]) -> str:
  size = f"{record.width}x{record.height}" if record.width else ""
  if record.label is not None:
    name = names[record.label]
    return f"{'' if str(record.image_id).startswith(name) else f'{name}  '}{record.image_id}  {size}"
  number = len(record.classes)
  ignored = f", {len(record.ignored_xyxy_px)} ignored" if len(record.ignored_xyxy_px) else ""
  return f"{record.image_id}  {size}  {number} object{'' if number == 1 else 's'}{ignored}"


def _shortened(caption: str, font: Letters) -> str:
  while len(caption) > 4 and font.length(caption) > CELL_WIDTH - 4:
    caption = caption[:-2].rstrip("…") + "…"
  return caption


# -- charts ------------------------------------------------------------------------------------------------------------


def charts(summary: Summary) -> bytes:
  """Histograms as one PNG: classes and image sizes; for detection also objects per image and sizes of boxes."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure  # without pyplot, whose state outlives the call

  is_detection = not summary.is_classification and len(summary.classes) > 0
  figure = Figure(figsize=(15, 9 if is_detection else 5), layout="constrained")
  FigureCanvasAgg(figure)
  axes = figure.subplots(2 if is_detection else 1, 3 if is_detection else 2, squeeze=False).ravel()
  _class_chart(axes[0], summary)
  _image_size_chart(axes[1], summary)
  if is_detection:
    _count_chart(axes[2], summary)
    _side_chart(axes[3], summary)
    _box_shape_chart(axes[4], summary)
    _place_chart(axes[5], figure, summary)
  for axis in axes:
    axis.spines[["top", "right"]].set_visible(False)
  figure.suptitle(summary.spec, fontsize=10, color="#555555")
  buffer = io.BytesIO()
  with fitted(figure):
    figure.savefig(buffer, format="png", dpi=100)
  return buffer.getvalue()


def _class_chart(axis: Any, summary: Summary) -> None:
  what = "images" if summary.is_classification else "objects"
  examples = summary.images_per_class if summary.is_classification else summary.objects_per_class
  order = np.argsort(-examples, kind="stable")[:MOST_CLASSES]
  names = [name if len(name := summary.names[k]) <= 22 else f"{name[:21]}…" for k in order]
  axis.barh(range(len(order)), examples[order], color=BLUE)
  axis.set_yticks(range(len(order)), names, fontsize=9 if len(order) <= 15 else 7)
  axis.invert_yaxis()
  for row, k in enumerate(order):
    axis.annotate(f" {examples[k]:,}", (examples[k], row), va="center", fontsize=8 if len(order) <= 15 else 6)
  axis.margins(x=0.12)
  more = f", the {MOST_CLASSES} most frequent of {len(examples):,}" if len(examples) > MOST_CLASSES else ""
  axis.set_title(f"{what} per class{more}")


def _image_size_chart(axis: Any, summary: Summary) -> None:
  sizes, number = np.unique(summary.sizes_wh_px, axis=0, return_counts=True)
  axis.scatter(sizes[:, 0], sizes[:, 1], s=20 + 300 * number / number.max(), color=BLUE, alpha=0.5, linewidths=0)
  limit = 1.1 * sizes.max()
  axis.plot([0, limit], [0, limit], color=GREY, linewidth=1, linestyle=":")
  axis.set(xlim=(0, limit), ylim=(0, limit), xlabel="width in pixels", ylabel="height in pixels")
  axis.set_aspect("equal")
  one = f"all images are {sizes[0, 0]}x{sizes[0, 1]}"
  axis.set_title(one if len(sizes) == 1 else f"image sizes ({len(sizes):,} different)")


def _count_chart(axis: Any, summary: Summary) -> None:
  counts = summary.objects_per_image
  most = int(counts.max())
  step = -(-(most + 1) // 50)  # whole numbers of objects a bar, or some bars would stand for more than others
  edges = np.arange(0, most + 1 + step, step) - 0.5
  axis.hist(counts, edges, color=BLUE, rwidth=0.9)
  axis.set(xlabel="objects", ylabel="images")
  axis.set_title(f"objects per image (median {np.median(counts):g})")


def _side_chart(axis: Any, summary: Summary) -> None:
  sides = np.sqrt(summary.areas_px)
  edges = np.geomspace(max(0.5, sides.min()), max(1.0, sides.max()) * 1.01, 41)
  axis.hist(sides, edges, color=BLUE)
  axis.set_xscale("log")
  top = axis.get_ylim()[1]
  for limit in (SMALL_SIDE_PX, MEDIUM_SIDE_PX):
    if edges[0] < limit < edges[-1]:
      axis.axvline(limit, color="#c0392b", linewidth=1, linestyle="--")
  total = max(1, len(sides))
  shares = ", ".join(f"{name} {number / total:.0%}" for name, number in summary.coco_sizes.items())
  axis.set(xlabel="square root of the area in pixels (dashed: COCO's limits 32 and 96)", ylabel="objects")
  axis.set_ylim(0, top)
  axis.set_xticks(
    ticks := [t for t in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096) if edges[0] <= t <= edges[-1]]
  )
  axis.set_xticklabels([str(tick) for tick in ticks])
  axis.minorticks_off()
  axis.set_title(f"object sizes: {shares}")


def _box_shape_chart(axis: Any, summary: Summary) -> None:
  from matplotlib.colors import LogNorm  # from below 1, so that a single box can be seen

  wide, high = (summary.box_sizes_wh_px / summary.sizes_wh_px[summary.image_of]).T
  axis.hist2d(wide.clip(0, 1), high.clip(0, 1), bins=40, range=((0, 1), (0, 1)), cmap="Blues", norm=LogNorm(0.2))
  axis.set(xlabel="width / image width", ylabel="height / image height")
  axis.set_aspect("equal")
  axis.set_title(f"box shapes (median width / height {np.median(summary.aspects):.2f})")


def _place_chart(axis: Any, figure: Any, summary: Summary) -> None:
  """Share of images in which a place is covered by a box."""
  grid = 48
  cover = np.zeros((grid + 1, grid + 1))
  scale = np.tile(summary.sizes_wh_px[summary.image_of], 2)
  cells = (summary.boxes_xyxy_px / scale * grid).round().clip(0, grid).astype(int)
  for x1, y1, x2, y2 in cells:  # two-dimensional differences; their running sums are the counts
    cover[y1, x1] += 1
    cover[y2, x2] += 1
    cover[y1, x2] -= 1
    cover[y2, x1] -= 1
  counts = cover.cumsum(0).cumsum(1)[:grid, :grid] / len(summary.image_ids)
  shown = axis.imshow(counts, cmap="Blues", extent=(0, 1, 1, 0), vmin=0)
  figure.colorbar(shown, ax=axis, label="boxes per image", fraction=0.046)
  axis.set(xlabel="x / image width", ylabel="y / image height")
  axis.set_title("where objects are")


def write_pictures(summary: Summary, dataset: Dataset, folder: Path, draw: Draw) -> list[Path]:
  """Writes samples.png and charts.png; returns the files."""
  samples = folder / "samples.png"
  indices = choose_samples(summary, SHEET_COLUMNS * SHEET_ROWS)
  sample_sheet(dataset, indices, draw).save(samples)
  graphs = folder / "charts.png"
  graphs.write_bytes(charts(summary))
  return [samples, graphs]
