"""What a quantised model cost and what it brought: figures, size, time, noise, and what a runtime left in floats."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from prn_jax.quantize.noise import LayerNoise, text
from prn_jax.quantize.runtime import Fusion

MOST_LOSS = 0.011  # of AP50 (or top-1): more is said with an exit code
LEAST_SPEED = 1.3  # times the float network, else the report says what did not become integers
WORST = 12  # rows of the table of noise that are shown
MEGABYTE = 1e6


@dataclasses.dataclass(frozen=True)
class Report:
  """The figures of one quantisation.

  Attributes:
    preset, bits: what was asked for.
    num_images: images of the calibration.
    in_float: layers that compute something and stayed as they are: name -> kind.
    bytes_float, bytes_int: size of the two .onnx files.
    milliseconds: engine -> {"float": ms, "int8": ms} for one image.
    fusion: what onnxruntime made of the file.
    noise: signal to noise by layer.
    figures: "float" and "quantized" -> metric -> value, through onnxruntime; empty without data.
    num_evaluated: images of that evaluation.
  """

  preset: str
  bits: int
  num_images: int
  in_float: Mapping[str, str]
  bytes_float: int
  bytes_int: int
  milliseconds: Mapping[str, Mapping[str, float]]
  fusion: Fusion
  noise: Sequence[LayerNoise]
  figures: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
  num_evaluated: int = 0

  @property
  def loss(self) -> float:
    """How much AP50 (or top-1) the quantised network lost; 0 without data."""
    if not self.figures:
      return 0.0
    key = "AP50" if "AP50" in self.figures["float"] else "top1"
    return self.figures["float"][key] - self.figures["quantized"][key]

  @property
  def holds(self) -> bool:
    return self.loss <= MOST_LOSS

  @property
  def speed(self) -> float:
    """Times as fast as the float network in onnxruntime."""
    times = self.milliseconds["onnxruntime"]
    return times["float"] / times["int8"]

  def to_json(self) -> dict[str, Any]:
    return dataclasses.asdict(self) | {"loss": self.loss, "holds": self.holds, "speed": self.speed}

  def text(self) -> str:
    """For people: the figures, and what is wrong where something is."""
    lines = [f"{self.preset}, {self.bits} bits, calibrated on {self.num_images} images"]
    lines.append(
      f"  size         {self.bytes_float / MEGABYTE:.2f} MB -> {self.bytes_int / MEGABYTE:.2f} MB "
      f"({self.bytes_float / self.bytes_int:.2f}x smaller)"
    )
    for engine, times in self.milliseconds.items():
      ratio = times["float"] / times["int8"]
      lines.append(f"  {engine:<13}{times['float']:.2f} ms -> {times['int8']:.2f} ms ({ratio:.2f}x as fast)")
    for key in ("AP", "AP50", "top1", "top5"):
      if self.figures and key in self.figures["float"]:
        old, new = self.figures["float"][key], self.figures["quantized"][key]
        lines.append(f"  {key:<13}{old:.4f} -> {new:.4f} ({new - old:+.4f}, {self.num_evaluated} images)")
    if self.in_float:
      kinds = sorted(set(self.in_float.values()))
      lines.append(f"  in float {len(self.in_float)} layers of kinds that are not quantised: {', '.join(kinds)}")
    if self.speed < LEAST_SPEED:
      lines += self._why_slow()
    if not self.holds:
      lines.append(f"the loss of {self.loss:.4f} is more than {MOST_LOSS}. The layers with the least signal to noise:")
      lines.append(text(self.noise, WORST))
      lines.append(
        "Try another preset (ptq-mse, ptq-percentile), --equalize, --adaptive, more images, or 8 bits; or train it: "
        "prn train --config.quant.preset=iao8."
      )
    return "\n".join(lines)

  def _why_slow(self) -> list[str]:
    """What onnxruntime computes in floats, and what it computes at all."""
    lines = [f"  not {LEAST_SPEED}x as fast in onnxruntime: {self.fusion.in_integers} nodes compute in integers"]
    left = self.fusion.in_floats
    if left:
      lines.append(f"    did not fuse: {', '.join(left[:WORST])}{', ...' if len(left) > WORST else ''}")
    else:
      lines.append(
        "    every convolution is in integers: on this processor onnxruntime's are no faster for this network "
        "(integers gain on wide convolutions and on processors with instructions for them, VNNI or dot products)"
      )
    rest = {kind: n for kind, n in self.fusion.operations.items() if kind in ("QuantizeLinear", "DequantizeLinear")}
    lines.append(f"    conversions left: {', '.join(f'{n} {kind}' for kind, n in rest.items()) or 'none'}")
    return lines
