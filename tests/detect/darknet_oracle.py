"""Darknet's deltas as plain loops in float64, written from docs/darknet.md e5 to e7: slow, and easy to check by eye."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from prn_jax.formats.darknet_training import HeadTraining

Box = tuple[float, float, float, float]


def edges(box: Box) -> tuple[float, float, float, float]:
  """Top, bottom, left, right."""
  x, y, w, h = box
  return y - h / 2, y + h / 2, x - w / 2, x + w / 2


def overlaps(p: Box, t: Box) -> dict[str, float]:
  """The four measures of docs/darknet.md e6."""
  pt, pb, pl, pr = edges(p)
  tt, tb, tl, tr = edges(t)
  iw, ih = min(pr, tr) - max(pl, tl), min(pb, tb) - max(pt, tt)
  inter = iw * ih if iw > 0 and ih > 0 else 0.0
  union = p[2] * p[3] + t[2] * t[3] - inter
  iou = inter / union if inter else 0.0
  cw, ch = max(pr, tr) - min(pl, tl), max(pb, tb) - min(pt, tt)
  c, c2, s = cw * ch, cw * cw + ch * ch, (p[0] - t[0]) ** 2 + (p[1] - t[1]) ** 2
  ar = 4 / math.pi**2 * (math.atan2(t[2], t[3]) - math.atan2(p[2], p[3])) ** 2
  al = ar / (1 - iou + ar + 1e-6)
  return {
    "iou": iou,
    "giou": iou - (c - union) / c if c else iou,
    "diou": iou - (s / c2) ** 0.6 if c2 else iou,
    "ciou": iou - (s / c2 + al * ar) if c2 else iou,
  }


def gradient(p: Box, t: Box, kind: str) -> np.ndarray:
  """(gx, gy, gw, gh) of docs/darknet.md e6."""
  p = (p[0], p[1], p[2] or 1.0, p[3] or 1.0)
  pt, pb, pl, pr = edges(p)
  tt, tb, tl, tr = edges(t)
  pw, ph = pr - pl, pb - pt
  iw, ih = min(pr, tr) - max(pl, tl), min(pb, tb) - max(pt, tt)
  cw, ch = max(pr, tr) - min(pl, tl), max(pb, tb) - min(pt, tt)
  i = iw * ih
  u = pw * ph + (tb - tt) * (tr - tl) - i
  c, apart = cw * ch, iw <= 0 or ih <= 0
  q = []
  for dx, di, dc in (
    (-pw, -iw if pt > tt else 0, -cw if pt < tt else 0),
    (pw, iw if pb < tb else 0, cw if pb > tb else 0),
    (-ph, -ih if pl > tl else 0, -ch if pl < tl else 0),
    (ph, ih if pr < tr else 0, ch if pr > tr else 0),
  ):
    du = dx - di
    value = (u * di - i * du) / u**2 if u > 0 else 0.0
    if kind == "giou" and c > 0:
      extra = (c * du - u * dc) / c**2
      value = extra if apart else value + extra
    q.append(value)
  top, bottom, left, right = q
  g = np.array([left + right, top + bottom, right - left, bottom - top])
  if kind not in ("diou", "ciou"):
    return g
  c2, s = cw * cw + ch * ch, (p[0] - t[0]) ** 2 + (p[1] - t[1]) ** 2
  ax, ay = int(pr > tr) - int(pl < tl), int(pb > tb) - int(pt < tt)
  aw, ah = 0.5 * (pr > tr) + 0.5 * (pl < tl), 0.5 * (pb > tb) + 0.5 * (pt < tt)
  e = np.array(
    [
      (2 * (t[0] - p[0]) * c2 - 2 * cw * ax * s) / c2**2,
      (2 * (t[1] - p[1]) * c2 - 2 * ch * ay * s) / c2**2,
      2 * cw * aw * s / c2**2,
      2 * ch * ah * s / c2**2,
    ]
  )
  if kind == "ciou":
    d = math.atan(t[2] / t[3]) - math.atan(pw / ph)
    ar = 4 / math.pi**2 * d * d
    al = ar / (1 - i / u + ar + 1e-6)
    e[2] += al * 8 / math.pi**2 * d * ph
    e[3] -= al * 8 / math.pi**2 * d * pw
  return e if apart else g + e


class Oracle:
  """One image of one head.

  Args:
    x: (h, w, a, e) activated outputs.
    truth: (t, 5) rows x, y, w, h, class.
    head: fields of the layer: anchors, mask, classes, new_coords, yolo_point, gaussian.
    settings: of the loss.
    net: width and height of the network.
  """

  def __init__(
    self, x: np.ndarray, truth: np.ndarray, head: dict[str, Any], settings: HeadTraining, net: tuple[int, int]
  ) -> None:
    self.x, self.truth, self.head, self.cfg, self.net = x.astype(np.float64), truth, head, settings, net
    self.d = np.zeros_like(self.x)
    self.gaussian = head["gaussian"]
    self.mu = (0, 2, 4, 6) if self.gaussian else (0, 1, 2, 3)
    self.obj, self.cls = (8, 9) if self.gaussian else (4, 5)
    self.shift = {"center": 0.0, "left_top": -0.5, "right_bottom": 0.5}[head["yolo_point"]]
    counters = [max(1, int(c)) for c in settings.counters_per_class]
    self.mult = [min(max(counters) / c, settings.max_delta) for c in counters] if counters else [1.0] * head["classes"]
    self.count, self.iou_sum, self.giou_sum = 0, 0.0, 0.0

  def run(self) -> np.ndarray:
    smooth = self.cfg.objectness_smooth and not self.gaussian
    h, w, a, _ = self.x.shape
    rows = []
    for row in self.truth:
      if row[0] == 0:
        break
      if 0 <= int(row[4]) < self.head["classes"]:
        rows.append((tuple(float(v) for v in row[:4]), int(row[4])))
    for j in range(h):
      for i in range(w):
        for n in range(a):
          self.background(j, i, n, rows, smooth)
    for box, c in rows:
      self.train(box, c, smooth)
    if self.cfg.iou_thresh < 1 or self.gaussian:
      for at in np.ndindex(h, w, a):
        d = self.d[at]
        k = (d[self.cls :] > 0).sum()
        if k and (self.gaussian or d[self.obj] != 0):
          d[: self.obj] /= k
    return self.d

  def box(self, j: int, i: int, n: int) -> Box:
    px, py, pw, ph = (self.x[j, i, n, e] for e in self.mu)
    aw, ah = self.head["anchors"][self.head["mask"][n]]
    h, w = self.x.shape[:2]
    bw, bh = (4 * pw * pw, 4 * ph * ph) if self.head["new_coords"] else (math.exp(pw), math.exp(ph))
    bw, bh = bw * aw / self.net[0], bh * ah / self.net[1]
    return (i + px) / w - self.shift * bw, (j + py) / h - self.shift * bh, bw, bh

  def background(self, j: int, i: int, n: int, rows: list[tuple[Box, int]], smooth: bool) -> None:
    out, d, cfg = self.x[j, i, n], self.d[j, i, n], self.cfg
    box = self.box(j, i, n)
    ious = [overlaps(box, t)["iou"] for t, _ in rows]
    best = max(ious, default=0.0)
    match = best if (out[self.cls :] > 0.25).any() else 0.0
    d[self.obj] = cfg.obj_normalizer * (0 - out[self.obj])
    if match > cfg.ignore_thresh:
      d[self.obj] = max(d[self.obj], cfg.obj_normalizer * (match - out[self.obj])) if smooth else 0.0
    if best > cfg.truth_thresh:
      t, c = rows[ious.index(best)]
      target = best**2 if smooth else 1.0
      d[self.obj] = cfg.obj_normalizer * (target - out[self.obj])
      self.class_delta(j, i, n, c)
      if smooth:
        d[self.cls + c] = self.mult[c] * (target - out[self.cls + c])
      self.box_delta(j, i, n, t, c)

  def train(self, t: Box, c: int, smooth: bool) -> None:
    h, w = self.x.shape[:2]
    i = int(np.float32(np.float32(t[0]) + np.float32(self.shift * t[2])) * np.float32(w))
    j = int(np.float32(np.float32(t[1]) + np.float32(self.shift * t[3])) * np.float32(h))
    i, j = min(max(i, 0), w - 1), min(max(j, 0), h - 1)
    sizes = [(0.0, 0.0, aw / self.net[0], ah / self.net[1]) for aw, ah in self.head["anchors"]]
    centred = (0.0, 0.0, t[2], t[3])
    ious = [overlaps(size, centred)["iou"] for size in sizes]
    best = ious.index(max(ious))
    for n, anchor in enumerate(self.head["mask"]):
      kind = overlaps(sizes[anchor], centred)[self.cfg.iou_thresh_kind]
      is_chosen = anchor == best or (self.cfg.iou_thresh < 1 and kind > self.cfg.iou_thresh)
      if not is_chosen or anchor in self.head["mask"][:n]:
        continue
      self.box_delta(j, i, n, t, c)
      out, d = self.x[j, i, n], self.d[j, i, n]
      if not smooth or d[self.obj] == 0:
        d[self.obj] = self.mult[c] * self.cfg.obj_normalizer * (1 - out[self.obj])
      self.class_delta(j, i, n, c)
      values = overlaps(self.box(j, i, n), t)
      self.count, self.iou_sum, self.giou_sum = (
        self.count + 1,
        self.iou_sum + values["iou"],
        self.giou_sum + values["giou"],
      )

  def class_delta(self, j: int, i: int, n: int, c: int) -> None:
    p, d = self.x[j, i, n, self.cls :], self.d[j, i, n, self.cls :]
    eps = self.cfg.label_smooth_eps
    if d[0 if self.gaussian else c] != 0:
      d[c] = (1 - eps + 0.5 * eps - p[c]) * self.mult[c]
      return
    if self.cfg.focal_loss and not self.gaussian:
      pt = float(np.float32(p[c]) + np.float32(1e-15))  # exactly 1 for a certain class
      g = -(1 - pt) * (2 * pt * math.log(pt) + pt - 1)
      d[:] = [((k == c) - p[k]) * 0.5 * g for k in range(len(p))]
      return
    d[:] = [(k == c) * (1 - eps) + 0.5 * eps - p[k] for k in range(len(p))]
    if self.cfg.counters_per_class:
      d[c] *= self.mult[c] * self.cfg.cls_normalizer

  def box_delta(self, j: int, i: int, n: int, t: Box, c: int) -> None:
    out, d, cfg = self.x[j, i, n], self.d[j, i, n], self.cfg
    h, w = self.x.shape[:2]
    aw, ah = self.head["anchors"][self.head["mask"][n]]
    rw, rh = t[2] * self.net[0] / aw, t[3] * self.net[1] / ah
    size = (math.sqrt(rw / 4), math.sqrt(rh / 4)) if self.head["new_coords"] else (math.log(rw), math.log(rh))
    target = np.array([(t[0] + self.shift * t[2]) * w - i, (t[1] + self.shift * t[3]) * h - j, *size])
    value, s = out[list(self.mu)], 2 - t[2] * t[3]
    error, weight = target - value, cfg.iou_normalizer * self.mult[c]
    limit = cfg.max_delta
    if self.gaussian:
      sigma = out[[1, 3, 5, 7]]
      e = error / sigma
      density = np.exp(-e * e / 2) / (math.sqrt(2 * math.pi) * (sigma + 0.3))
      k = 0.5 * density / (density + 1e-9) * s
      d[[1, 3, 5, 7]] += np.clip(k * (e * e / sigma - 1 / (sigma + 0.3)) * cfg.uc_normalizer, -limit, limit)
      if cfg.iou_loss == "mse":
        d[list(self.mu)] += np.clip(k * e / sigma * weight, -limit, limit)
    elif cfg.iou_loss == "mse":
      d[:4] += s * error * weight
    if cfg.iou_loss != "mse":
      g = gradient(self.box(j, i, n), t, cfg.iou_loss)
      g[:2] += self.shift * g[2:]
      if not self.head["new_coords"]:
        g[2:] *= np.exp(value[2:])
      d[list(self.mu)] += np.clip(g * weight, -limit, limit)


def batch_cost(images: list[Oracle]) -> float:
  """Darknet's cost of the images of a batch, after `run`."""
  cfg, obj = images[0].cfg, images[0].obj
  if images[0].gaussian or cfg.iou_loss == "mse" or not cfg.show_details:
    return float(sum((image.d**2).sum() for image in images))
  overlap = sum(image.giou_sum if cfg.iou_loss == "giou" else image.iou_sum for image in images)
  count = sum(image.count for image in images)
  others = float(sum((image.d[..., obj:] ** 2).sum() for image in images))
  return cfg.iou_normalizer * (count - overlap) / max(count, 1) + cfg.obj_normalizer * others
