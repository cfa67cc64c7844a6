"""A layer graph as a torch module, for side-by-side measurements: the kinds that the compared networks use.

Weights are those of our variables, so that both sides start equal. Needs torch; the package itself never does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from prn_jax.graph.graph import INPUT, Graph, Layer


class TorchGraph(nn.Module):
  """Runs a graph on NCHW tensors.

  Args:
    graph: of convolutions, pools, routes, shortcuts, upsamplings and heads.
    variables: ours.
    bn_momentum: share of the batch in the rolling statistics (ours is the share of the old).
  """

  def __init__(self, graph: Graph, variables: dict[str, Any], *, bn_momentum: float = 0.1) -> None:
    super().__init__()
    self.graph, self.bn_momentum = graph, bn_momentum
    self.convs, self.norms = nn.ModuleDict(), nn.ModuleDict()
    for layer in graph:
      if layer.kind == "conv":
        self._add_conv(layer, variables)

  def forward(self, x: torch.Tensor, layers: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Outputs of the named layers; nothing behind the last of them is computed."""
    outputs, found = {INPUT: x}, {}
    for layer in self.graph:
      outputs[layer.name] = self._run(layer, [outputs[name] for name in layer.inputs])
      if layer.name in layers:
        found[layer.name] = outputs[layer.name]
      if len(found) == len(layers):
        return found
    raise KeyError(f"no layers {set(layers) - found.keys()}")

  def variables(self) -> dict[str, Any]:
    """The weights as our variables."""
    params: dict[str, Any] = {}
    stats: dict[str, Any] = {}
    for name, conv in self.convs.items():
      params[name] = {"conv": {"kernel": _numpy(conv.weight.permute(2, 3, 1, 0))}}  # type: ignore[operator, union-attr]
      if conv.bias is not None:
        params[name]["conv"]["bias"] = _numpy(conv.bias)
    for name, norm in self.norms.items():
      params[name]["bn"] = {"scale": _numpy(norm.weight), "bias": _numpy(norm.bias)}
      stats[name] = {"bn": {"mean": _numpy(norm.running_mean), "var": _numpy(norm.running_var)}}
    return {"params": params, "batch_stats": stats}

  def _add_conv(self, layer: Any, variables: dict[str, Any]) -> None:
    params = variables["params"][layer.name]
    kernel = torch.from_numpy(np.array(params["conv"]["kernel"])).permute(3, 2, 0, 1).contiguous()
    filters, inputs = kernel.shape[0], kernel.shape[1] * layer.groups
    conv = nn.Conv2d(
      inputs, filters, layer.size, layer.stride, layer.padding, groups=layer.groups, bias="bias" in params["conv"]
    )
    conv.weight.data = kernel
    if conv.bias is not None:
      conv.bias.data = torch.from_numpy(np.array(params["conv"]["bias"]))
    self.convs[layer.name] = conv
    if "bn" in params:
      norm = nn.BatchNorm2d(filters, eps=1e-5, momentum=self.bn_momentum)
      norm.weight.data = torch.from_numpy(np.array(params["bn"]["scale"]))
      norm.bias.data = torch.from_numpy(np.array(params["bn"]["bias"]))
      stats = variables["batch_stats"][layer.name]["bn"]
      norm.running_mean.data = torch.from_numpy(np.array(stats["mean"]))  # type: ignore[union-attr]
      norm.running_var.data = torch.from_numpy(np.array(stats["var"]))  # type: ignore[union-attr]
      self.norms[layer.name] = norm

  def _run(self, layer: Any, xs: list[torch.Tensor]) -> torch.Tensor:
    x = xs[0]
    if layer.kind == "conv":
      x = self.convs[layer.name](x)
      if layer.name in self.norms:
        x = self.norms[layer.name](x)
      return _activated(x, layer)
    if layer.kind == "shortcut":
      for other in xs[1:]:
        common = min(x.shape[1], other.shape[1])
        x = x + other if x.shape == other.shape else torch.cat([x[:, :common] + other[:, :common], x[:, common:]], 1)
      return _activated(x, layer)
    if layer.kind == "maxpool":
      size, stride = layer.size, layer.stride
      if size == 2 and stride == 1:  # Darknet pads to the right and below
        x = functional.pad(x, (0, 1, 0, 1), value=float("-inf"))
      return functional.max_pool2d(x, size, stride)
    if layer.kind == "route":
      return torch.cat(xs, 1) if len(xs) > 1 else x
    if layer.kind == "upsample":
      return functional.interpolate(x, scale_factor=layer.stride, mode="nearest")
    if layer.kind == "avgpool":
      return x.mean((2, 3), keepdim=True)
    if layer.kind in ("yolo", "softmax", "cost"):
      return x
    raise NotImplementedError(f"layer '{layer.name}' ({layer.kind}) has no torch counterpart here")


def _numpy(tensor: Any) -> np.ndarray:
  return np.array(tensor.detach())


def _activated(x: torch.Tensor, layer: Layer) -> torch.Tensor:
  activation = layer.activation  # type: ignore[attr-defined]
  if activation == "linear":
    return x
  if activation == "leaky":
    return functional.leaky_relu(x, layer.leaky_slope)  # type: ignore[attr-defined]
  return {"relu": functional.relu, "mish": functional.mish, "logistic": torch.sigmoid}[activation](x)
