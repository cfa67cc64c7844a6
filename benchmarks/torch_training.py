"""Trains a configuration's network in torch, to compare what it reaches with `prn train` of the same configuration.

    python benchmarks/torch_training.py --config=cifar10_darknet:ROOT

Both have the same initial weights, the same batches in the same order, the same learning rates and the same evaluation.
Torch has the network forward and backward (channels_last), batch norm, the update rule (SGD or AdamW), gradient clipping
and the averages of the weights. At the heads it gets the gradients of our loss, which has its own proof against Darknet.
Torch keeps the unbiased variance in the rolling statistics (factor n / (n - 1)).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch_graph import TorchGraph

from prn_jax.cli.train import read_config
from prn_jax.data_pipelines.feed.pipeline import train_batches
from prn_jax.train.config import typed
from prn_jax.train.experiment import Experiment, open_experiment
from prn_jax.train.optim import OptimConfig, OptimizerName


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--config", required=True, help="as for 'prn train', which takes overrides as well")
  args, overrides = parser.parse_known_args()
  experiment = open_experiment(typed(read_config(args.config, overrides)))
  check(experiment)
  trainer, began = Trainer(experiment), time.perf_counter()
  for done, loss in trainer.steps():
    is_last = done == experiment.total_steps
    if is_last or (experiment.log_steps and done % experiment.log_steps == 0):
      print(json.dumps({"step": done, "loss": loss, "seconds": round(time.perf_counter() - began, 1)}), flush=True)
    if experiment.evaluator and (is_last or (experiment.eval_steps and done % experiment.eval_steps == 0)):
      values = experiment.evaluator(trainer.eval_variables()).values
      print(json.dumps({"step": done} | values | {"torch": torch.__version__}), flush=True)


def check(experiment: Experiment) -> None:
  """Refuses what this comparison does not do."""
  config = experiment.config
  optim = config.optim
  refused = {
    "optim.accumulate": optim.accumulate != 1,
    "optim.freeze_until": bool(experiment.recipe.frozen),
    "sizes": bool(config.sizes),
    "dtype": config.dtype != "float32",
    "optim.name": optim.name not in (OptimizerName.SGD, OptimizerName.ADAMW),
  }
  for key, is_refused in refused.items():
    if is_refused:
      raise SystemExit(f"config.{key} has a value that the torch side of this comparison does not know.")


class Trainer:
  """The torch side of an experiment."""

  def __init__(self, experiment: Experiment) -> None:
    self.experiment, self.optim_config = experiment, experiment.config.optim
    momentum = 1 - experiment.config.bn_momentum
    self.net = TorchGraph(experiment.graph, jax.device_get(experiment.variables), bn_momentum=momentum)
    self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    self.optimizer = make_optimizer(self.optim_config, self.net)
    self.averages = [tensor.detach().clone() for tensor in self._averaged()]
    loss_fn = experiment.recipe.loss_fn
    self.gradients = jax.jit(jax.value_and_grad(lambda outputs, batch: loss_fn(outputs, batch)[0]))

  def steps(self) -> Iterator[tuple[int, float]]:
    """Does all updates; gives how many are done and the loss of the last."""
    experiment = self.experiment
    batches = train_batches(
      experiment.dataset, experiment.config.augment, experiment.pipeline, num_steps=experiment.total_steps
    )
    with contextlib.closing(batches):
      for step, batch in batches:
        yield step + 1, self._step(step, batch)

  def _step(self, step: int, batch: dict[str, np.ndarray]) -> float:
    for group in self.optimizer.param_groups:
      group["lr"] = float(self.experiment.schedule(step))
    image = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2).float() / 255  # in channels_last order
    outputs = self.net(image, self.experiment.recipe.layers)
    seen = {name: jnp.asarray(x.detach().permute(0, 2, 3, 1).numpy()) for name, x in outputs.items()}
    loss, grads = self.gradients(seen, batch)
    self.optimizer.zero_grad()
    back = [torch.from_numpy(np.array(grads[name])).permute(0, 3, 1, 2) for name in outputs]
    torch.autograd.backward(list(outputs.values()), back)
    if self.optim_config.clip_norm:
      torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.optim_config.clip_norm)
    self.optimizer.step()
    decay = min(self.optim_config.ema_decay, (1 + step) / (10 + step))
    for average, tensor in zip(self.averages, self._averaged(), strict=True):
      average.lerp_(tensor.detach(), 1 - decay)
    return float(loss)

  def eval_variables(self) -> dict[str, Any]:
    """What is evaluated: the averages, which are the weights themselves if the configuration wants none."""
    current = [tensor.detach().clone() for tensor in self._averaged()]
    self._set(self.averages)
    variables = self.net.variables()
    self._set(current)
    return variables

  def _averaged(self) -> list[torch.Tensor]:
    return [tensor for tensor in (*self.net.parameters(), *self.net.buffers()) if tensor.is_floating_point()]

  def _set(self, values: list[torch.Tensor]) -> None:
    with torch.no_grad():
      for tensor, value in zip(self._averaged(), values, strict=True):
        tensor.copy_(value)


def make_optimizer(config: OptimConfig, net: TorchGraph) -> torch.optim.Optimizer:
  """Torch's own rule; kernels are decayed, biases and batch norm are not."""
  kernels = [conv.weight for conv in net.convs.values()]
  known = {id(kernel) for kernel in kernels}
  groups: Any = [
    {"params": kernels, "weight_decay": config.weight_decay},
    {"params": [p for p in net.parameters() if id(p) not in known], "weight_decay": 0.0},
  ]
  if config.name == OptimizerName.SGD:
    return torch.optim.SGD(groups, lr=0.0, momentum=config.momentum, nesterov=config.nesterov)
  return torch.optim.AdamW(groups, lr=0.0, betas=(config.b1, config.b2), eps=config.eps)


if __name__ == "__main__":
  main()
