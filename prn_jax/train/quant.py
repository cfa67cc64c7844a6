"""Training in few bits: the network that is trained is the quantised one (docs/compression.md)."""

from __future__ import annotations

import dataclasses

from prn_jax.errors import PrnError
from prn_jax.graph.graph import Graph
from prn_jax.quantize.presets import PRESETS, preset_of
from prn_jax.quantize.rewrite import quantized_graph
from prn_jax.ranges import at_least, between


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantConfig:
  """Settings of a training in few bits.

  Attributes:
    preset: one of `quantize.presets` that is trained; "" trains in floats. A model that is quantised already needs none.
    bits: 8, 4 or 2; 0: the preset's.
    freeze: share of the updates after which the ranges of feature maps stay.
    fold: batch norm is folded into the kernels before they are rounded, so that the integers of a training are those of
      inference for any scales (`ops.folded_norm`). It takes a second convolution per layer.
    fold_freeze: with `fold`, share of the updates after which the statistics of batch norm stay; 1: never.
  """

  preset: str = ""
  bits: int = dataclasses.field(default=0, metadata=at_least(0, "8, 4 or 2; 0 takes the preset's"))
  freeze: float = dataclasses.field(default=0.3, metadata=between(0, 1, "the share of the run in which ranges move"))
  fold: bool = False
  fold_freeze: float = dataclasses.field(
    default=0.9, metadata=between(0, 1, "the share of the run in which the statistics of batch norm move")
  )


def quantized_for_training(config: QuantConfig, graph: Graph, total_steps: int) -> Graph:
  """The network that is trained: the graph itself, or in the bits of the preset.

  Raises:
    PrnError: there is no such preset, it is not one for a training or starts from steps that a calibration finds, or the
      graph cannot be quantised (again).
  """
  if not config.preset:
    return graph
  preset = preset_of(config.preset, config.bits or None)
  if not preset.trains:
    trained = ", ".join(name for name, one in PRESETS.items() if one.trains)
    raise PrnError(
      f"config.quant.preset is '{preset.name}', whose ranges come from a calibration (prn quantize); expected one of {trained}."
    )
  if preset.method in ("lsq", "tqt"):
    raise PrnError(
      f"config.quant.preset is '{preset.name}', which starts from steps that a calibration finds. Write that model first (prn "
      f"quantize ... OUT --preset {preset.name}), and train it: config.model and config.weights are OUT, config.quant.preset is ''."
    )
  if config.fold and preset.weights_method != "max":
    folded = ", ".join(name for name, one in PRESETS.items() if one.trains and one.weights_method == "max")
    raise PrnError(
      f"config.quant.fold is for presets whose scales follow the folded kernel ({folded}), not for '{preset.name}', whose "
      "grid knows nothing of batch norm. Leave config.quant.fold False."
    )
  if preset.weights_pow2 != "none" and not config.fold:
    raise PrnError(
      f"config.quant.preset is '{preset.name}', whose scales are powers of two: multiplied with batch norm they would be none. "
      "Set config.quant.fold=True."
    )

  def until(share: float) -> int:
    return max(1, round(share * total_steps))

  stays = (0 if config.fold_freeze == 1 else until(config.fold_freeze)) if config.fold else None
  return quantized_graph(graph, preset, freeze_after=until(config.freeze), fold_until=stays)
