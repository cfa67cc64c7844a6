"""Learning rates: against the real program, by hand, and inside jit and optax."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prn_jax.errors import PrnError
from prn_jax.formats import darknet_cfg
from prn_jax.formats.darknet_training import NetTraining
from prn_jax.train.schedules import Policy, cosine_schedule, darknet_rate, darknet_schedule
from tests.conftest import SHARED

GOLDEN = json.loads((SHARED / "golden/lr_policies/lr.json").read_text())["policies"] if SHARED else {}


def from_cfg(options: dict[str, Any]) -> NetTraining:
  """The options as a cfg file would give them."""
  keys = "\n".join(f"{key}={value}" for key, value in options.items())
  return darknet_cfg.parse(f"[net]\nwidth=8\nheight=8\nchannels=3\n{keys}\n[avgpool]\n").training.net


@pytest.mark.parametrize("name", GOLDEN or ["no-reference-data"])
def test_rates_equal_darknet(name: str, shared: Path) -> None:
  golden = GOLDEN[name]
  rate = jax.jit(darknet_rate(from_cfg(golden["net_options"])))
  iterations = np.array(golden["iteration"], np.int32)
  np.testing.assert_allclose(rate(iterations), golden["rate"], rtol=1e-5, atol=1e-12)
  np.testing.assert_allclose([rate(b) for b in golden["iteration"][:5]], golden["rate"][:5], rtol=1e-5, atol=1e-12)


def test_every_policy_but_random_has_a_golden(shared: Path) -> None:
  assert {golden["net_options"]["policy"] for golden in GOLDEN.values()} | {"random"} == set(Policy)


def test_the_first_update_is_iteration_1() -> None:
  net = NetTraining(learning_rate=0.1, burn_in=10, power=1)
  schedule = darknet_schedule(net)
  np.testing.assert_allclose([schedule(0), schedule(8), schedule(9)], [0.01, 0.09, 0.1], rtol=1e-6)


def test_steps_with_a_missing_scale_and_out_of_order() -> None:
  # Darknet stops at the first step that is not reached: with 30 before 20, both wait for 30. A missing scale is 1.
  net = NetTraining(learning_rate=1.0, policy="steps", steps=(10, 30, 20, 40), scales=(0.5, 0.5, 0.5))
  iterations = jnp.array([9, 10, 20, 29, 30, 39, 40])
  np.testing.assert_array_equal(darknet_rate(net)(iterations), np.float32([1, 0.5, 0.5, 0.5, 0.125, 0.125, 0.125]))
  np.testing.assert_array_equal(darknet_rate(NetTraining(policy="steps"))(iterations), np.full(7, np.float32(1e-3)))


def test_sgdr_cycles_by_hand() -> None:
  # Cycles of 4: iteration 4 ends the first one, 5 is the first of the second.
  net = NetTraining(learning_rate=1.0, learning_rate_min=0.0, policy="sgdr", sgdr_cycle=4, sgdr_mult=1)
  wave = [0.5 * (1 + math.cos(math.pi * k / 4)) for k in range(5)]
  np.testing.assert_allclose(darknet_rate(net)(jnp.arange(10)), [*wave, *wave[1:], wave[1]], atol=1e-6)
  # Cycles of 4, 12, 36: iteration 16 ends the second one.
  longer = NetTraining(learning_rate=1.0, learning_rate_min=0.0, policy="sgdr", sgdr_cycle=4, sgdr_mult=3)
  np.testing.assert_allclose(darknet_rate(longer)(jnp.array([10, 16, 34])), [0.5, 0.0, 0.5], atol=1e-6)
  assert np.isfinite(darknet_rate(longer)(2**31 - 1))


def test_poly_ends_at_zero() -> None:
  rate = darknet_rate(NetTraining(learning_rate=1.0, policy="poly", power=1.0, max_batches=10))
  np.testing.assert_allclose(rate(jnp.array([0, 5, 10, 11, 1000])), [1, 0.5, 0, 0, 0], atol=1e-7)


def test_random_depends_on_seed_and_iteration_alone() -> None:
  net = NetTraining(learning_rate=1.0, policy="random", power=2.0)
  rates = np.asarray(darknet_rate(net, seed=3)(jnp.arange(1, 2001)))
  assert rates[41] == darknet_rate(net, seed=3)(42)
  assert rates[41] != darknet_rate(net, seed=4)(42)
  assert 0 <= rates.min() < rates.max() <= 1
  np.testing.assert_allclose(rates.mean(), 1 / 3, atol=0.03)  # the mean of U^2


@pytest.mark.parametrize(
  ("net", "message"),
  [
    (NetTraining(policy="setps"), r"policy=setps \(did you mean 'steps'\?\): there is no such learning rate policy"),
    (NetTraining(policy="step", step=0), "policy=step needs step of at least 1, not 0"),
    (NetTraining(policy="poly"), "policy=poly needs max_batches of at least 1, not 0"),
    (NetTraining(policy="sgdr"), "policy=sgdr has cycles of 0 iterations"),
    (NetTraining(policy="sgdr", max_batches=9, sgdr_mult=0), "sgdr_mult=0; expected at least 1 of both"),
  ],
)
def test_keys_without_a_meaning(net: NetTraining, message: str) -> None:
  with pytest.raises(PrnError, match=message):
    darknet_rate(net)


def test_cosine_by_hand() -> None:
  # Warm-up 4 steps: 1/4, 2/4, 3/4, 4/4 of the peak; then from the peak to the end within the last 5.
  schedule = cosine_schedule(2.0, 9, warmup_steps=4, end=0.2)
  falling = [0.2 + 1.8 * 0.5 * (1 + math.cos(math.pi * k / 4)) for k in range(5)]
  rates = [float(schedule(step)) for step in range(11)]
  np.testing.assert_allclose(rates, [0.5, 1.0, 1.5, 2.0, *falling, 0.2, 0.2], rtol=1e-6)
  np.testing.assert_allclose(cosine_schedule(2.0, 5)(0), 2.0)
  with pytest.raises(PrnError) as error:
    cosine_schedule(1.0, 60, warmup_steps=100)
  assert str(error.value) == (
    "warm-up of 100 steps in a run of 60 (optim.schedule.burn_in_steps); expected fewer, and at least 0. Set it with "
    "--config.optim.schedule.burn_in_steps=6, or train for longer."
  )


def test_optax_follows_a_schedule_inside_jit() -> None:
  # Gradient 1, so each update is minus the rate; burn-in over 2 iterations with power 1, then a step at 3.
  net = NetTraining(learning_rate=1.0, burn_in=2, power=1, policy="steps", steps=(3,), scales=(0.1,))
  tx = optax.sgd(darknet_schedule(net))

  @jax.jit
  def step(state: Any) -> Any:
    return tx.update(jnp.ones(()), state)

  state, updates = tx.init(jnp.zeros(())), []
  for _ in range(4):
    update, state = step(state)
    updates.append(float(update))
  np.testing.assert_allclose(updates, [-0.5, -1.0, -0.1, -0.1], rtol=1e-6)
