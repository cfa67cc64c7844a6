"""What only a GPU or TPU can show: that it computes what the CPU computes. Run by `make accelerator`; skipped elsewhere.

Every comparison is with the CPU of the same process, so that JAX_PLATFORMS must name both ("cuda,cpu").
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import prn_jax
from prn_jax.examples import example_image
from prn_jax.kinds.shortcut import add_partial
from prn_jax.models.registry import build_graph
from prn_jax.network import Network, init_variables
from prn_jax.run.mesh import make_mesh, put_batch, put_state
from prn_jax.train import sharding
from prn_jax.train.losses import LossConfig, make_loss
from prn_jax.train.step import Recipe, init_state, mean
from tests.nets import tiny_detector

pytestmark = pytest.mark.skipif(
  jax.default_backend() == "cpu", reason="needs an accelerator: JAX_PLATFORMS=cuda,cpu or tpu,cpu (make accelerator)"
)


@pytest.mark.parametrize(
  "name", ["yolov3-tiny-prn", "yolov3-prn", "yolov4", "pelee-prn", "enet-b0-prn", "ghostnet-prn", "resnext50"]
)
def test_a_network_computes_what_it_computes_on_the_cpu(name: str) -> None:
  graph = build_graph(name, width=96, height=96)
  variables = init_variables(graph, seed=3)
  x = np.random.default_rng(0).random((2, 96, 96, 3), np.float32)
  here, there = (_outputs(device, graph, variables, x) for device in (jax.devices()[0], jax.devices("cpu")[0]))
  for key, value in there.items():
    np.testing.assert_allclose(here[key], value, rtol=0, atol=2e-5 * max(1.0, float(np.abs(value).max())), err_msg=key)


def _outputs(device: Any, graph: Any, variables: Any, x: np.ndarray) -> dict[str, np.ndarray]:
  with jax.default_device(device):
    return {k: np.asarray(v) for k, v in prn_jax.Model(graph, variables).forward(x).items()}


def test_the_carried_photo_has_the_boxes_of_the_cpu() -> None:
  """Full inference: half the network's speed comes from rewrites and from lower precision, which may move boxes a little."""
  image = example_image()
  found = [_found(device, image) for device in (jax.devices()[0], jax.devices("cpu")[0])]
  assert len(found[0]) == len(found[1]) > 3
  np.testing.assert_array_equal(found[0].classes, found[1].classes)
  np.testing.assert_allclose(found[0].boxes_xyxy_px, found[1].boxes_xyxy_px, rtol=0, atol=1.0)
  np.testing.assert_allclose(found[0].scores, found[1].scores, rtol=0, atol=0.01)


def _found(device: Any, image: Any) -> Any:
  with jax.default_device(device):
    return prn_jax.load("traffic-tiny-prn")(image)


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_training_goes_as_on_the_cpu(dtype: Any) -> None:
  with jax.default_matmul_precision("highest"):
    here, there = (_trained([device], dtype) for device in (jax.devices()[0], jax.devices("cpu")[0]))
  tolerance = 1e-3 if dtype is None else 5e-2
  assert there[-1] < 0.8 * there[0]
  np.testing.assert_allclose(here, there, rtol=tolerance)


def _trained(devices: list[Any], dtype: Any) -> list[float]:
  graph = tiny_detector(64)
  layers, loss_fn = make_loss(graph, LossConfig(style="autodiff"))
  recipe = Recipe(Network(graph, dtype=dtype), optax.adam(3e-3), loss_fn, layers, ema_decay=0.9)
  mesh = make_mesh(devices)
  step = sharding.compile_step(recipe, mesh, "global")
  state = put_state(jax.device_get(init_state(init_variables(graph, 1), recipe)), mesh)
  rng = np.random.default_rng(0)
  truth = np.zeros((4, 6, 5), np.float32)
  truth[:, :2] = [[0.3, 0.4, 0.2, 0.3, 0], [0.7, 0.6, 0.4, 0.2, 1]]
  batch = put_batch({"image": rng.integers(0, 256, (4, 64, 64, 3)).astype(np.uint8), "truth": truth}, mesh)
  losses = []
  for _ in range(20):
    state, metrics = step(state, batch, ())
    losses.append(float(mean(jax.device_get(metrics))["loss"]))
  return losses


def test_a_partial_sum_is_one_kernel() -> None:
  """The pad, the sum and the activations around it: no copy of the padded map is written."""
  y, x = jnp.ones((4, 26, 26, 256)), jnp.ones((4, 26, 26, 128))
  text = jax.jit(lambda y, x: jax.nn.leaky_relu(add_partial(y, x), 0.1)).lower(y, x).compile().as_text()
  entry = text[text.index("ENTRY") :]
  kernels = re.findall(r"= \S+ (fusion|pad|add|copy|concatenate)\(", entry)
  assert kernels == ["fusion"], entry


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
  """The real command on the accelerator: stopped in the middle, resumed, ended; bfloat16."""
  command = [
    sys.executable, "-m", "prn_jax", "train", "--config=demo", f"--workdir={tmp_path / 'run'}", "--config.dtype=bfloat16",
    "--config.data.train=synthetic:traffic:64", "--config.data.valid=synthetic:traffic:8@valid",
    "--config.checkpoint_every.steps=20", "--config.optim.schedule.burn_in_steps=5",
  ]  # fmt: skip
  for steps, more in ((20, []), (40, ["--allow-changes"])):
    done = subprocess.run(
      [*command, f"--config.total.steps={steps}", *more], capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
  assert "resum" in done.stderr.lower() or "goes on" in done.stderr.lower(), done.stderr[-2000:]
  rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
  assert max(row["step"] for row in rows) == 40
  environment = (tmp_path / "run" / "env.json").read_text()
  assert jax.devices()[0].device_kind in environment


def test_the_same_seed_gives_the_same_bits_with_deterministic_operations() -> None:
  """docs/numerics.md: XLA_FLAGS=--xla_gpu_deterministic_ops=true makes a GPU repeat itself."""
  program = (
    "import jax, hashlib, numpy as np; from tests.accelerator.test_accelerator import _trained; "
    "print(hashlib.sha256(np.array(_trained(jax.devices()[:1], None)).tobytes()).hexdigest())"
  )
  flags = {"XLA_FLAGS": "--xla_gpu_deterministic_ops=true"}
  found = {_run_python(program, flags) for _ in range(2)}
  assert len(found) == 1


def _run_python(program: str, extra: dict[str, str]) -> str:
  done = subprocess.run(
    [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True, env=os.environ | extra
  )
  return done.stdout.strip().splitlines()[-1]
