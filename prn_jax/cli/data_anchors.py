"""`prn data anchors`: clusters the sizes of boxes into anchors for a network."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from prn_jax.cli.common import add_json, add_lenient, parse_size, print_json, resized
from prn_jax.errors import PrnError
from prn_jax.files.json_text import json_text
from prn_jax.files.places import to_path

if TYPE_CHECKING:
  from prn_jax.data_pipelines.doctor.anchors import Anchors
  from prn_jax.model import Model

SUMMARY = "cluster the sizes of boxes into anchors for a network"
EXAMPLE = "prn data anchors arrayrecord:prepared:train --model yolov3-tiny-prn --size 608x608 --out mine.cfg"
RESULT = (
  "Prints the anchors= line of a cfg, in pixels unless --cells is given; config.anchors of a training takes the\n"
  "same numbers as pairs. Recall is the best that is possible: the share of boxes that overlap an anchor so much."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--model", metavar="MODEL", help="the network: its number of anchors, its size, and its own anchors"
  )
  parser.add_argument(
    "--num", type=int, metavar="N", help="number of anchors, of all heads together (default: MODEL's)"
  )
  parser.add_argument("--size", metavar="WxH", help="input of the network in pixels (default: MODEL's)")
  parser.add_argument(
    "--resize",
    choices=("stretch", "letterbox"),
    help="how images are fitted to that input (default: as MODEL does, else stretch)",
  )
  parser.add_argument(
    "--metric",
    choices=("iou", "whitened-l2"),
    default="iou",
    help="iou: k-means with the distance 1 - IoU. whitened-l2: k-means on width and height, each divided by its standard "
    "deviation, then 1000 random changes of which the better ones stay (default iou)",
  )
  parser.add_argument(
    "--cells",
    type=int,
    metavar="N",
    help="print anchors in cells of N pixels, as a [region] head (YOLOv2) counts them: N is the input's width divided by "
    "its map's, 32 for YOLOv2 (default: in pixels, as [yolo] heads count them)",
  )
  parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the clustering (default 0)")
  parser.add_argument(
    "--out", metavar="FILE", help="write MODEL with these anchors (FILE.cfg), or anchors and figures (any other name)"
  )
  add_lenient(parser)
  parser.add_argument(
    "--on-bad-data",
    choices=("stop", "skip"),
    default="skip",
    help="stop at bad data, or skip, count and list it (default skip)",
  )
  add_json(parser)


def run(args: argparse.Namespace, list_problems: Any) -> int:
  """Runs the command; `list_problems` says what is wrong with a data set."""
  from prn_jax.data_pipelines.doctor.anchors import box_sizes, fit_anchors, score_anchors
  from prn_jax.data_pipelines.spec import open_spec

  model = _model(args)
  size = (model.graph.width, model.graph.height) if model else parse_size(args.size)
  if args.cells is not None and not 1 <= args.cells <= min(size):
    raise PrnError(f"--cells {args.cells}: expected the side of a cell in pixels, 1 to {min(size)}.")
  own = _own_anchors(model) if model else None
  num = args.num if own is None else args.num or len(own)
  resize = args.resize or (str(model.resize) if model else "stretch")
  dataset = open_spec(args.spec, args.on_bad_data)
  sizes = box_sizes(dataset, size, resize)
  anchors = fit_anchors(sizes, num, seed=args.seed, metric=args.metric)
  list_problems(dataset)
  result = {"spec": args.spec, "size": list(size), "resize": resize, "metric": args.metric} | anchors.to_json()
  if args.cells:
    result |= {"cell_px": args.cells, "anchors_cells": anchors.in_cells(args.cells).tolist()}
  lines = [f"{w:>8g} x {h:<8g} best for {number:>7,} boxes"
           for (w, h), number in zip(anchors.sizes_wh_px, anchors.counts, strict=True)]  # fmt: skip
  lines.append(f"mean IoU with the best anchor {_figures(anchors)}, over {anchors.num_boxes:,} boxes")
  if model and own is not None:
    before = score_anchors(sizes, own)
    lines.append(f"those of {model.graph.name}: {_figures(before)}")
    result["before"] = before.to_json()
  lines.append(anchors.cfg_line(args.cells))
  print("\n".join(lines), file=sys.stderr if args.json else sys.stdout)
  if args.out:
    _write(args, model, anchors, result)
  if args.json:
    print_json(result)
  return 0


def _figures(anchors: Anchors) -> str:
  recall = ", ".join(f"{share:.1%} at IoU {threshold:g}" for threshold, share in anchors.recall.items())
  return f"{anchors.mean_iou:.4f}; recall {recall}"


def _model(args: argparse.Namespace) -> Model | None:
  """The network at its size; None without --model."""
  import dataclasses

  if args.model is None:
    for option in ("num", "size"):
      if getattr(args, option) is None:
        raise PrnError(f"--{option} is missing. Give it, or the network that the anchors are for: --model MODEL.")
    if args.out and args.out.lower().endswith(".cfg"):
      raise PrnError(f"--out {args.out}: a .cfg holds a network; give the one that gets the anchors: --model MODEL.")
    return None
  from prn_jax.loading import load

  model = load(args.model, strict=not args.lenient)
  return dataclasses.replace(model, graph=resized(model.graph, args.size)) if args.size else model


def _own_anchors(model: Model) -> Any:
  """(n, 2) width and height in pixels of the network's input.

  Raises:
    PrnError: it has none, or lists that differ from head to head.
  """
  import numpy as np

  from prn_jax.transforms.num_classes import anchors_of

  return np.array(anchors_of(model.graph), np.float64)


def _write(args: argparse.Namespace, model: Model | None, anchors: Anchors, result: dict[str, Any]) -> None:
  from prn_jax.files.disk import write_text
  from prn_jax.formats import darknet_cfg
  from prn_jax.transforms.num_classes import with_anchors

  if args.out.lower().endswith(".cfg"):
    assert model is not None
    graph = with_anchors(model.graph, [(float(w), float(h)) for w, h in anchors.sizes_wh_px])
    text = darknet_cfg.dump(graph, model.training)
  else:
    text = json_text(result, indent=1) + "\n"
  write_text(to_path(args.out), text)
  print(f"wrote {args.out}", file=sys.stderr)
