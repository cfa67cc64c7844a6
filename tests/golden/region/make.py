"""Writes region.npz: what two Darknets compute for a [region] head in training mode; see README.md.

python tests/golden/region/make.py PJREDDIE_PROGRAM ALEXEYAB_PROGRAM
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

BATCH, WIDTH, HEIGHT, CLASSES, MAX = 2, 5, 4, 3, 30
ANCHORS = ((0.8, 1.1), (2.0, 1.5), (1.6, 3.2))  # in cells
ENTRIES = 5 + CLASSES
VOC = {"softmax": 1, "bias_match": 1, "rescore": 1, "thresh": 0.6, "object_scale": 5.0}
SCALES = {"noobject_scale": 0.5, "object_scale": 3.0, "class_scale": 2.0, "coord_scale": 1.5}
DEFAULTS = {
  "softmax": 0, "bias_match": 0, "rescore": 0, "classfix": 0, "focal_loss": 0, "thresh": 0.5, "noobject_scale": 1.0,
  "object_scale": 1.0, "class_scale": 1.0, "coord_scale": 1.0,
}  # fmt: skip
# Name -> which program ("pj" or "ab"), images seen, keys of the section.
VARIANTS: dict[str, tuple[str, int, dict[str, Any]]] = {
  "pj_voc": ("pj", 20_000, VOC),
  "pj_warm_up": ("pj", 12_799, VOC),
  "pj_seen_12800": ("pj", 12_800, VOC),
  "pj_predicted_sizes": ("pj", 20_000, {"softmax": 1, "thresh": 0.3}),
  "pj_scales": ("pj", 20_000, VOC | SCALES),
  "ab_voc": ("ab", 20_000, VOC),
  "ab_warm_up": ("ab", 12_799, VOC),
  "ab_predicted_sizes": ("ab", 12_800, {"softmax": 1, "thresh": 0.3}),
  "ab_scales": ("ab", 20_000, VOC | SCALES | {"rescore": 0}),
  "ab_raw_classes": ("ab", 20_000, VOC | {"softmax": 0}),
  "ab_classfix_minus_1": ("ab", 20_000, VOC | {"classfix": -1}),
  "ab_classfix_1": ("ab", 20_000, VOC | {"classfix": 1, "thresh": 0.4}),
  "ab_classfix_2": ("ab", 20_000, VOC | SCALES | {"classfix": 2, "thresh": 0.4}),
  "ab_focal": ("ab", 20_000, VOC | {"focal_loss": 1, "classfix": 1, "thresh": 0.4}),
}


def made_up(seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Raw head inputs (n, h, w, a * e), and truths (n, MAX, 5) with a list that ends at x = 0.

  Of the truths of each image two meet in one cell and anchor, one lies at the border, one is found almost exactly by
  another anchor than its own, and one has a prediction of its size at its place.
  """
  rng = np.random.default_rng(seed)
  raw = rng.normal(0, 1.0, (BATCH, HEIGHT, WIDTH, len(ANCHORS), ENTRIES)).astype(np.float32)
  truth = np.zeros((BATCH, MAX, 5), np.float32)
  for n in range(BATCH):
    boxes = [(0.31, 0.42, 0.35, 0.4), (0.33, 0.45, 0.45, 0.3), (0.985, 0.03, 0.2, 0.3), (0.5, 0.9, 0.3, 0.7)]
    boxes += [tuple(rng.uniform((0.1, 0.1, 0.1, 0.1), (0.9, 0.9, 0.6, 0.6))) for _ in range(2 + n)]
    truth[n, : len(boxes), :4] = boxes
    truth[n, : len(boxes), 4] = rng.integers(0, CLASSES, len(boxes))
    truth[n, 1, 4] = (truth[n, 0, 4] + 1) % CLASSES
    for index, anchor in ((3, 0), (4, 1)):
      x, y, w, h = truth[n, index, :4] * (WIDTH, HEIGHT, WIDTH, HEIGHT)
      column, row = int(x), int(y)
      logits = [np.log(v / (1 - v)) for v in (x - column, y - row)]
      sizes = [np.log(w / ANCHORS[anchor][0]), np.log(h / ANCHORS[anchor][1])]
      raw[n, row, column, anchor, :4] = np.asarray(logits + sizes) + rng.normal(0, 0.05, 4)
  return raw.reshape(BATCH, HEIGHT, WIDTH, -1), truth


def run(program: str, kind: str, seen: int, keys: dict[str, Any], raw: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
  """The output and the delta (n, h, w, c) and the cost, as `program` has them."""
  with tempfile.TemporaryDirectory() as folder:
    paths = [str(Path(folder) / name) for name in ("input", "truth", "output", "delta")]
    (raw.transpose(0, 3, 1, 2) if kind == "pj" else raw).astype("<f4").tofile(paths[0])
    truth.astype("<f4").tofile(paths[1])
    anchors = [str(v) for pair in ANCHORS for v in pair]
    if kind == "pj":
      section = "\n".join(f"{key}={value}" for key, value in keys.items() if key != "classfix")
      cfg = Path(folder) / "net.cfg"
      cfg.write_text(
        f"[net]\nbatch={BATCH}\nsubdivisions=1\nwidth={WIDTH}\nheight={HEIGHT}\nchannels={raw.shape[-1]}\n\n[region]\n"
        f"classes={CLASSES}\ncoords=4\nnum={len(ANCHORS)}\nanchors={','.join(anchors)}\n{section}\n"
      )
      command = [program, str(cfg), str(seen), *paths]
    else:
      values = DEFAULTS | keys
      numbers = [BATCH, WIDTH, HEIGHT, len(ANCHORS), CLASSES, MAX, *(values[key] for key in DEFAULTS)]
      command = [program, str(seen), *paths, *map(str, numbers), *anchors]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    output, delta = (np.fromfile(path, "<f4") for path in paths[2:])
  shape = raw.shape if kind == "ab" else (BATCH, raw.shape[-1], HEIGHT, WIDTH)
  output, delta = (v.reshape(shape) for v in (output, delta))
  if kind == "pj":
    output, delta = output.transpose(0, 2, 3, 1), delta.transpose(0, 2, 3, 1)
  return {"output": output, "delta": delta, "cost": np.float32(text.split("cost ")[1])}


def main() -> None:
  programs = dict(zip(("pj", "ab"), sys.argv[1:], strict=True))
  arrays: dict[str, np.ndarray] = {}
  for seed, (name, (kind, seen, keys)) in enumerate(VARIANTS.items()):
    raw, truth = made_up(seed)
    found = {"raw": raw, "truth": truth} | run(programs[kind], kind, seen, keys, raw, truth)
    arrays |= {f"{name}/{key}": value for key, value in found.items()}
  np.savez_compressed(Path(__file__).parent / "region.npz", **arrays)


if __name__ == "__main__":
  main()
