"""Losses: Darknet's deltas and costs against the real program and against plain loops; clean losses by differences."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prn_jax.detect.box_gradients import IOU_LOSSES, box_gradient
from prn_jax.detect.loss import autodiff_loss, darknet_deltas, darknet_loss, detection_loss
from prn_jax.errors import PrnError
from prn_jax.formats import darknet_cfg
from prn_jax.formats.darknet_training import HeadTraining
from prn_jax.kinds.gaussian_yolo import GaussianYolo
from prn_jax.kinds.yolo import AnchorHead, Yolo
from tests.conftest import shared_params
from tests.detect.darknet_oracle import Oracle, batch_cost

NET = (96, 64)
ANCHORS = ((6.0, 9.0), (12.0, 14.0), (20.0, 24.0), (30.0, 22.0), (40.0, 48.0), (60.0, 56.0))


# Many variants are compiled and each runs once: compiling quickly matters more than the code's speed.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.partial(quick_jit, static_argnames=("head", "settings"))
def run_deltas(output: Any, truth: Any, head: AnchorHead, settings: HeadTraining, mask: Any = None) -> Any:
  return darknet_deltas(output, truth, head, settings, NET, mask=mask)


@functools.partial(quick_jit, static_argnames=("head", "settings"))
def run_gradient(raw: Any, truth: Any, head: AnchorHead, settings: HeadTraining) -> Any:
  return jax.value_and_grad(darknet_loss, has_aux=True)(raw, truth, head, settings, NET)


@functools.partial(quick_jit, static_argnames=("head", "settings"))
def clean_gradient(raw: Any, truth: Any, head: AnchorHead, settings: HeadTraining) -> Any:
  return jax.value_and_grad(autodiff_loss)(raw, truth, head, settings, NET)


# -- the real program --------------------------------------------------------------------------------------------------


def read_golden(folder: Path) -> tuple[darknet_cfg.DarknetCfg, dict[str, Any], dict[str, dict[str, np.ndarray]]]:
  """The cfg, meta.json, and "yolo_input", "output" and "delta" of each head as NHWC."""
  cfg, meta = darknet_cfg.read(folder / "net.cfg"), json.loads((folder / "meta.json").read_text())
  arrays = {
    name: {
      head.name: np.load(folder / f"{name}_{index}.npy").transpose(0, 2, 3, 1)
      for head, index in zip(cfg.graph.heads, meta["layers"], strict=True)
    }
    for name in ("yolo_input", "output", "delta")
  }
  return cfg, meta, arrays


@pytest.mark.parametrize("folder", shared_params("golden/loss_*"))
def test_deltas_and_cost_equal_darknet(folder: Path) -> None:
  cfg, meta, arrays = read_golden(folder)
  net_size, losses = (cfg.graph.width, cfg.graph.height), cfg.training.sections

  @quick_jit
  def run(outputs: Any, truth: Any) -> Any:
    return {h.name: darknet_deltas(outputs[h.name], truth, h, losses[h.name], net_size) for h in cfg.graph.heads}  # type: ignore[arg-type]

  results = run(arrays["output"], np.load(folder / "truth.npy"))
  for head, expected in zip(cfg.graph.heads, meta["layers"].values(), strict=True):
    deltas, metrics = results[head.name]
    np.testing.assert_allclose(deltas, arrays["delta"][head.name], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(metrics.cost, expected["cost"], rtol=1e-5)
    assert metrics.num_assigned == expected["count"]


@pytest.mark.parametrize("folder", shared_params("golden/loss_mse_default_prn", "golden/loss_gaussian_ciou"))
def test_training_sees_minus_delta_and_the_mean_cost(folder: Path) -> None:
  cfg, meta, arrays = read_golden(folder)
  net_size = (cfg.graph.width, cfg.graph.height)

  @quick_jit
  def run(raws: Any, truth: Any) -> Any:
    losses = cfg.training.sections
    return jax.value_and_grad(detection_loss, has_aux=True)(raws, truth, cfg.graph.heads, losses, net_size)  # type: ignore[arg-type]

  (value, _), gradient = run(arrays["yolo_input"], np.load(folder / "truth.npy"))
  np.testing.assert_allclose(value, meta["net_cost"], rtol=1e-5)
  for name, delta in arrays["delta"].items():
    np.testing.assert_allclose(gradient[name], -delta, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", IOU_LOSSES)
def test_box_gradients_equal_darknet(shared: Path, kind: str) -> None:
  pairs = np.load(shared / "golden/iou_pairs/iou_pairs.npz")
  gradient = jax.jit(box_gradient, static_argnums=2)(pairs["pred"], pairs["truth"], kind)
  np.testing.assert_allclose(gradient, pairs[f"grad_{kind}"], rtol=1e-5, atol=1e-5)


def test_box_gradient_refuses_other_kinds() -> None:
  with pytest.raises(ValueError, match="kind of overlap is 'eiou'; expected one of iou, giou, diou, ciou"):
    box_gradient(jnp.ones((1, 4)), jnp.ones((1, 4)), "eiou")


# -- plain loops -------------------------------------------------------------------------------------------------------


def make_head(mask: tuple[int, ...] = (1, 2, 3), classes: int = 3, **fields: Any) -> AnchorHead:
  """A yolo head, or a Gaussian one if a `yolo_point` is given."""
  kind = GaussianYolo if "yolo_point" in fields else Yolo
  return kind(name="head", inputs=("conv",), classes=classes, anchors=ANCHORS, mask=mask, **fields)


def random_case(
  seed: int, head: AnchorHead, num_truths: int = 12, grid: tuple[int, int] = (6, 4), crowded: bool = True
) -> tuple[np.ndarray, np.ndarray]:
  """Raw head inputs (2, h, w, c) and truths (2, num_truths + 3, 5), many of them in the same cells."""
  rng = np.random.default_rng(seed)
  raw = rng.normal(0, 1.2, (2, grid[1], grid[0], len(head.anchor_indices) * head.entries)).astype(np.float32)
  if isinstance(head, Yolo) and head.new_coords:
    raw = 1 / (1 + np.exp(-raw))
  truth = np.zeros((2, num_truths + 3, 5), np.float32)
  truth[:, :num_truths, :2] = rng.uniform(0.02, 0.98, (2, num_truths, 2))
  if crowded:
    cells = rng.uniform(0.1, 0.9, (2, 3, 2))[:, rng.integers(0, 3, num_truths)]
    truth[:, :num_truths, :2] = np.where(rng.random((2, num_truths, 1)) < 0.7, cells, truth[:, :num_truths, :2])
  truth[:, :num_truths, 2:4] = rng.uniform(0.04, 0.7, (2, num_truths, 2))
  truth[:, :num_truths, 4] = rng.integers(0, head.classes, (2, num_truths))
  return raw, truth


def expect_oracle(output: np.ndarray, truth: np.ndarray, head: AnchorHead, loss: HeadTraining) -> None:
  """Asserts that deltas, cost and counts equal those of the loops."""
  fields = {
    "anchors": head.anchors,
    "mask": head.anchor_indices,
    "classes": head.classes,
    "new_coords": getattr(head, "new_coords", False),
    "yolo_point": getattr(head, "yolo_point", "center"),
    "gaussian": isinstance(head, GaussianYolo),
  }
  shape = (*output.shape[:3], -1, head.entries)
  oracles = [Oracle(x, rows, fields, loss, NET) for x, rows in zip(output.reshape(shape), truth, strict=True)]
  expected = np.stack([oracle.run() for oracle in oracles]).reshape(output.shape)
  deltas, metrics = run_deltas(output, truth, head, loss)
  np.testing.assert_allclose(deltas, expected, rtol=2e-4, atol=2e-5)
  assert metrics.num_assigned == sum(oracle.count for oracle in oracles)
  np.testing.assert_allclose(metrics.iou, sum(oracle.iou_sum for oracle in oracles), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(metrics.cost, batch_cost(oracles), rtol=1e-4)


VARIANTS = {
  "plain": ({}, {}),
  "smooth labels": ({}, {"label_smooth_eps": 0.1, "iou_loss": "ciou", "iou_thresh": 0.213}),
  "smooth objectness": ({}, {"objectness_smooth": True, "ignore_thresh": 0.2, "iou_loss": "diou", "truth_thresh": 0.4}),
  "focal": ({}, {"focal_loss": True, "iou_thresh": 0.3, "iou_loss": "iou", "truth_thresh": 0.3}),
  "counters": ({}, {"counters_per_class": (100.0, 0.0, 7.0), "cls_normalizer": 0.5, "max_delta": 8.0, "iou_thresh": 0.2}),
  "kind": ({"scale_x_y": 1.2}, {"iou_loss": "giou", "iou_thresh": 0.1, "iou_thresh_kind": "ciou", "max_delta": 0.3}),
  "diou kind": ({}, {"iou_loss": "diou", "iou_thresh": 0.1, "iou_thresh_kind": "diou", "obj_normalizer": 0.4}),
  "new coords": ({"new_coords": True, "scale_x_y": 2.0}, {"iou_loss": "ciou", "objectness_smooth": True, "iou_thresh": 0.2}),
  "new coords mse": ({"new_coords": True}, {"truth_thresh": 0.3, "iou_thresh": 0.2, "label_smooth_eps": 0.2}),
  "gaussian": ({"yolo_point": "center"}, {"iou_thresh": 0.2, "uc_normalizer": 0.4, "truth_thresh": 0.4}),
  "gaussian left top": ({"yolo_point": "left_top", "scale_x_y": 1.1}, {"iou_loss": "giou", "max_delta": 0.2, "iou_thresh": 0.3}),
  "gaussian right bottom": ({"yolo_point": "right_bottom"}, {"counters_per_class": (1.0, 2.0, 3.0), "label_smooth_eps": 0.1}),
  "repeated mask": ({"mask": (2, 2, 4)}, {"iou_thresh": 0.2}),
  "all anchors": ({"mask": (5, 0, 3, 1, 2, 4)}, {"iou_loss": "iou", "show_details": False}),
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_deltas_equal_plain_loops(variant: str) -> None:
  fields, keys = VARIANTS[variant]
  head, loss = make_head(**fields), HeadTraining(**{"ignore_thresh": 0.4, **keys})  # type: ignore[arg-type]
  for seed in range(3):
    raw, truth = random_case(seed, head)
    output = np.array(head.lower([jnp.asarray(raw)], None))  # type: ignore[arg-type]
    rng = np.random.default_rng(seed)
    values = output.reshape(*output.shape[:3], -1, head.entries)[..., head.entries - head.classes - 1 :]
    # Saturated probabilities: a delta of exactly 0 decides how the next truth of the cell is treated.
    where = rng.random(values.shape)
    values[where < 0.15] = 0.0
    values[where > 0.85] = 1.0
    expect_oracle(output, truth, head, loss)


loss_settings = st.builds(
  HeadTraining,
  ignore_thresh=st.sampled_from([0.2, 0.5]),
  truth_thresh=st.sampled_from([1.0, 0.35]),
  iou_thresh=st.sampled_from([1.0, 0.2]),
  iou_thresh_kind=st.sampled_from(["iou", "giou"]),
  iou_loss=st.sampled_from(["mse", "ciou"]),
  iou_normalizer=st.just(0.6),
  cls_normalizer=st.just(0.7),
  objectness_smooth=st.booleans(),
  label_smooth_eps=st.sampled_from([0.0, 0.1]),
  counters_per_class=st.sampled_from([(), (10.0, 3.0, 1.0)]),
  focal_loss=st.booleans(),
  max_delta=st.sampled_from([float("inf"), 2.0]),
)


@pytest.mark.slow
@settings(max_examples=8, deadline=None, derandomize=True)
@given(loss=loss_settings, is_gaussian=st.booleans(), seed=st.integers(0, 99))
def test_any_combination_of_keys_equals_plain_loops(loss: HeadTraining, is_gaussian: bool, seed: int) -> None:
  head = make_head(**({"yolo_point": "left_top"} if is_gaussian else {}))
  raw, truth = random_case(seed, head)
  expect_oracle(np.asarray(head.lower([jnp.asarray(raw)], None)), truth, head, loss)  # type: ignore[arg-type]


# -- rows that do not count, and borders -------------------------------------------------------------------------------


def test_the_list_ends_at_the_first_x_of_zero_and_other_classes_are_skipped() -> None:
  head, loss = make_head(), HeadTraining(iou_thresh=0.2)
  raw, truth = random_case(1, head, num_truths=4)
  longer = truth.copy()
  longer[:, 6] = [0.5, 0.5, 0.3, 0.3, 1]  # after an empty row
  foreign = np.concatenate([np.float32([[[0.4, 0.4, 0.3, 0.3, 3]], [[0.4, 0.4, 0.3, 0.3, -1]]]), truth], 1)
  extra = np.concatenate([truth, np.ones_like(truth)], -1)[..., :6]  # a track id
  expected = run_deltas(raw, truth, head, loss)[0]
  for other in (longer, foreign, extra):
    np.testing.assert_array_equal(run_deltas(raw, other, head, loss)[0], expected)
  mask = np.pad(truth[..., 0] != 0, ((0, 0), (1, 0)))
  np.testing.assert_array_equal(run_deltas(raw, foreign, head, loss, mask)[0], expected)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("loss_kind", "fields"),
  [
    ("mse", {}),
    ("giou", {}),
    ("ciou", {}),
    ("mse", {"new_coords": True}),
    ("ciou", {"new_coords": True}),
    ("mse", {"yolo_point": "right_bottom"}),
    ("diou", {"yolo_point": "right_bottom"}),
  ],
  ids=str,
)
def test_nothing_is_nan(loss_kind: str, fields: dict[str, Any]) -> None:
  head, loss = make_head(**fields), HeadTraining(iou_loss=loss_kind, iou_thresh=0.2, truth_thresh=0.4)
  raw, truth = random_case(2, head, num_truths=9)
  truth[0, :9] = [
    [1.0, 1.0, 0.2, 0.2, 0],  # on the corner
    [1e-9, 0.0, 0.1, 0.1, 1],  # on the left border and the upper
    [0.5, 0.5, 0.0, 0.0, 2],  # without size
    [0.3, 0.5, 0.2, 0.0, 2],
    [0.3, 0.5, 0.0, 0.2, 2],
    [0.5, 0.5, 1.0, 1.0, 0],
    [0.5, 0.5, 4.0, 4.0, 0],  # beyond the image
    [1.7, -0.4, 0.1, 0.1, 1],
    [0.25, 0.25, 1e-7, 1e-7, 1],
  ]
  truth[1] = 0  # no truth at all
  raw[:, 2, 3, :4] = 0 if fields.get("new_coords") else -200  # predictions without size
  raw[:, 1, 1, 2:4] = 60
  (cost, metrics), gradient = run_gradient(raw, truth, head, loss)
  assert np.isfinite(cost)
  assert np.isfinite(gradient).all()
  assert all(np.isfinite(value) for value in metrics)
  assert metrics.num_assigned > 0
  if not fields:  # with exp(60) as a size, distances overflow float32 in the clean losses, too
    raw[:, 1, 1, 2:4] = 1
  value, clean = clean_gradient(raw, truth, head, loss)
  assert np.isfinite(value)
  assert np.isfinite(clean).all()
  empty = run_gradient(raw, np.zeros_like(truth), head, loss)
  assert empty[0][1].num_assigned == 0
  assert np.isfinite(empty[1]).all()


def test_a_truth_on_the_right_border_belongs_to_the_last_cell() -> None:
  # Grid 6 x 4, box 20 x 24 pixels of 96 x 64: anchor 2, the second of the mask. x = 1 is 6 cells: in the last, x = 1.
  head, loss = make_head(), HeadTraining(iou_normalizer=1.0)
  raw, _ = random_case(0, head)
  truth = np.float32([[[1.0, 0.6, 20 / 96, 24 / 64, 1]]])
  deltas = np.asarray(run_deltas(raw[:1], truth, head, loss)[0]).reshape(4, 6, 3, 8)
  rows, columns, anchors = np.nonzero(deltas[..., 5:].any(-1))
  assert (rows.tolist(), columns.tolist(), anchors.tolist()) == ([2], [5], [1])
  x = raw[0].reshape(4, 6, 3, 8)[2, 5, 1]
  scale = 2 - 20 / 96 * 24 / 64
  np.testing.assert_allclose(deltas[2, 5, 1, :4], scale * (np.float32([1.0, 0.4, 0, 0]) - x[:4]), rtol=1e-5, atol=1e-6)


# -- under transformations ---------------------------------------------------------------------------------------------


def test_gradient_is_minus_delta_and_follows_the_cotangent() -> None:
  head, loss = make_head(), HeadTraining(iou_loss="ciou", iou_thresh=0.2, delta_normalizer=0.25)
  raw, truth = random_case(3, head)
  deltas, metrics = run_deltas(head.lower([jnp.asarray(raw)], None), truth, head, loss)  # type: ignore[arg-type]
  (cost, _), gradient = run_gradient(raw, truth, head, loss)
  np.testing.assert_allclose(gradient, -0.25 * deltas, rtol=1e-6, atol=1e-7)
  assert cost == metrics.cost
  through_scale = quick_jit(jax.grad(lambda k: 3 * darknet_loss(k * raw, truth, head, loss, NET)[0]))(1.0)
  np.testing.assert_allclose(through_scale, 3 * np.sum(gradient * raw), rtol=1e-4)


def test_half_precision_input_gets_a_gradient_of_its_type() -> None:
  head, loss = make_head(), HeadTraining()
  raw, truth = random_case(3, head)
  half = jnp.asarray(raw, jnp.bfloat16)
  gradient = run_gradient(half, truth, head, loss)[1]
  assert gradient.dtype == jnp.bfloat16
  expected = run_gradient(half.astype(jnp.float32), truth, head, loss)[1]
  np.testing.assert_array_equal(gradient, expected.astype(jnp.bfloat16))


def test_vmap_and_batches_add_up() -> None:
  head, loss = make_head(), HeadTraining(iou_thresh=0.2)
  raw, truth = random_case(4, head)
  whole = run_gradient(raw, truth, head, loss)[1]
  gradient_of = jax.grad(lambda raw, truth: darknet_loss(raw, truth, head, loss, NET)[0])
  each = quick_jit(jax.vmap(gradient_of))(raw[:, None], truth[:, None])
  np.testing.assert_allclose(each[:, 0], whole, rtol=1e-6, atol=1e-7)
  metrics = [run_deltas(raw[i : i + 1], truth[i : i + 1], head, loss)[1] for i in range(2)]
  both = run_deltas(raw, truth, head, loss)[1]
  np.testing.assert_allclose(np.array(both), np.sum(metrics, 0), rtol=1e-5)


def test_two_heads_and_two_styles() -> None:
  heads = (make_head(mask=(3, 4, 5)), dataclasses.replace(make_head(mask=(0, 1, 2)), name="fine"))
  raw, truth = random_case(5, heads[0])
  fine, _ = random_case(6, heads[1], grid=(12, 8))
  raws = {"head": jnp.asarray(raw), "fine": jnp.asarray(fine)}
  losses = {"fine": HeadTraining(iou_loss="giou")}  # the other one has Darknet's defaults

  def run(raws: Any, style: str) -> Any:
    loss_of = functools.partial(detection_loss, style=style)
    return jax.value_and_grad(loss_of, has_aux=True)(raws, truth, heads, losses, NET)

  run = quick_jit(run, static_argnums=1)
  (value, metrics), gradient = run(raws, "darknet")
  each = {h.name: run_gradient(raws[h.name], truth, h, losses.get(h.name, HeadTraining())) for h in heads}
  np.testing.assert_allclose(value, np.mean([cost for (cost, _), _ in each.values()]), rtol=1e-6)
  assert sorted(metrics) == ["fine", "head"]
  for name, (_, expected) in each.items():
    np.testing.assert_allclose(gradient[name], expected, rtol=1e-6, atol=1e-6)

  (clean, clean_metrics), clean_gradients = run(raws, "autodiff")
  parts = {h.name: clean_gradient(raws[h.name], truth, h, losses.get(h.name, HeadTraining())) for h in heads}
  np.testing.assert_allclose(clean, sum(value for value, _ in parts.values()), rtol=1e-6)
  np.testing.assert_allclose(clean_gradients["head"], parts["head"][1], rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(clean_metrics["fine"].cost, metrics["fine"].cost, rtol=1e-6)
  with pytest.raises(ValueError, match="'pytorch' is not a valid LossStyle"):
    detection_loss(raws, truth, heads, losses, NET, style="pytorch")


@pytest.mark.parametrize(
  ("keys", "message"),
  [
    (
      {"iou_loss": "gciou"},
      r"layer 'head' \(yolo\): iou_loss=gciou \(did you mean 'giou'\?\); expected mse, iou, giou",
    ),
    ({"iou_thresh_kind": "l2"}, r"iou_thresh_kind=l2; expected iou, giou, diou, ciou"),
    ({"counters_per_class": (1.0, 2.0)}, r"counters_per_class has 2 numbers, but there are 3 classes"),
  ],
)
def test_settings_without_a_meaning(keys: dict[str, Any], message: str) -> None:
  head = make_head()
  raw, truth = random_case(0, head)
  for function in (darknet_loss, autodiff_loss):
    with pytest.raises(PrnError, match=message):
      function(jnp.asarray(raw), truth, head, HeadTraining(**keys), NET)


# -- clean losses ------------------------------------------------------------------------------------------------------


def test_clean_mse_is_darknet_where_each_cell_has_one_truth() -> None:
  head, loss = make_head(), HeadTraining(ignore_thresh=0.4, iou_normalizer=0.6, obj_normalizer=0.8)
  raw, truth = random_case(7, head, num_truths=1)
  np.testing.assert_allclose(
    clean_gradient(raw, truth, head, loss)[1], run_gradient(raw, truth, head, loss)[1], rtol=1e-5, atol=1e-6
  )


def test_clean_classes_and_objectness_are_darknet_for_other_losses() -> None:
  loss = HeadTraining(iou_loss="ciou", label_smooth_eps=0.1, counters_per_class=(9.0, 3.0, 1.0), iou_thresh=0.3)
  head = make_head()
  raw, truth = random_case(8, head, num_truths=1)
  clean, darknet = (
    np.asarray(g).reshape(-1, head.entries)
    for g in (clean_gradient(raw, truth, head, loss)[1], run_gradient(raw, truth, head, loss)[1])
  )
  np.testing.assert_allclose(clean[:, 4:], darknet[:, 4:], rtol=1e-5, atol=1e-6)
  assert np.abs(clean[:, :4]).max() > 0
  assert (np.sign(clean[:, 2:4]) * np.sign(darknet[:, 2:4])).sum() > 0  # the same way, mostly, if not as far


@pytest.mark.slow
@pytest.mark.parametrize(
  ("fields", "keys"),
  [
    ({}, {}),
    ({"scale_x_y": 1.2}, {"focal_loss": True, "iou_thresh": 0.2}),
    ({}, {"iou_loss": "iou", "truth_thresh": 0.4}),
    ({}, {"iou_loss": "giou", "label_smooth_eps": 0.1}),
    ({}, {"iou_loss": "diou", "counters_per_class": (9.0, 3.0, 1.0), "cls_normalizer": 0.5}),
    ({}, {"iou_loss": "ciou", "iou_thresh": 0.2}),
    ({"new_coords": True, "scale_x_y": 2.0}, {"iou_loss": "ciou", "iou_thresh": 0.2}),
    ({"new_coords": True}, {"focal_loss": True}),
    ({"yolo_point": "left_top"}, {"iou_loss": "giou", "iou_thresh": 0.2}),
  ],
  ids=str,
)
def test_clean_gradients_equal_differences(fields: dict[str, Any], keys: dict[str, Any]) -> None:
  head, loss = make_head(**fields), HeadTraining(**{"ignore_thresh": 0.4, **keys})
  raw, truth = random_case(9, head, num_truths=5)
  if isinstance(head, GaussianYolo):  # by design the deviation's loss does not move the mean: see the next test
    raw.reshape(*raw.shape[:3], -1, head.entries)[..., 1:8:2] = 30.0
    loss = dataclasses.replace(loss, uc_normalizer=0.0)
  value, gradient = clean_gradient(raw, truth, head, loss)
  value, gradient = np.asarray(value), np.asarray(gradient)
  rng = np.random.default_rng(0)
  active = np.abs(gradient) > 1e-2
  direction = np.where(active, rng.normal(0, 1, raw.shape), 0).astype(np.float32)
  step = np.float32(2e-3)
  ahead, behind = (clean_gradient(raw + sign * step * direction, truth, head, loss)[0] for sign in (1, -1))
  slope = (float(ahead) - float(behind)) / (2 * float(step))
  assert active.sum() > 20
  np.testing.assert_allclose(slope, np.sum(gradient * direction, dtype=np.float64), rtol=2e-2, atol=2e-2)
  assert value > 0


def test_clean_gaussian_is_darknet_times_the_slope_of_the_sigmoid() -> None:
  head, loss = make_head(yolo_point="center"), HeadTraining(iou_normalizer=0.6, uc_normalizer=0.3)
  raw, truth = random_case(11, head, num_truths=1)
  clean = np.asarray(clean_gradient(raw, truth, head, loss)[1]).reshape(-1, head.entries)
  darknet = np.asarray(run_gradient(raw, truth, head, loss)[1]).reshape(-1, head.entries)
  p = 1 / (1 + np.exp(-raw.reshape(-1, head.entries)))
  slope = np.where(np.isin(np.arange(head.entries), (0, 1, 2, 3, 5, 7)), p * (1 - p), 1)
  np.testing.assert_allclose(clean, darknet * slope, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("style", "loss_kind", "weight"), [("darknet", "mse", 1.0), ("darknet", "ciou", 0.02), ("autodiff", "ciou", 1.0)]
)
def test_descent_finds_the_truths(style: str, loss_kind: str, weight: float) -> None:
  head = make_head(mask=(0, 1, 2, 3, 4, 5))
  loss = HeadTraining(iou_loss=loss_kind, iou_normalizer=weight)
  raw, truth = random_case(12, head, num_truths=4, crowded=False)
  raw *= 0.2  # boxes near their anchors

  def value(raw: jax.Array) -> jax.Array:
    return detection_loss({"head": raw}, truth, (head,), {"head": loss}, NET, style=style)[0]

  descend = quick_jit(lambda raw: jax.lax.fori_loop(0, 300, lambda _, raw: raw - 0.1 * jax.grad(value)(raw), raw))
  before, after = (run_deltas(head.lower([r], None), truth, head, loss)[1] for r in (jnp.asarray(raw), descend(raw)))  # type: ignore[arg-type]
  assert after.num_assigned == 8
  assert after.iou / after.num_assigned > 0.85
  assert after.objectness / after.num_assigned > 0.9
  assert after.true_class / after.num_assigned > 0.9
  assert after.any_objectness < before.any_objectness / 3
