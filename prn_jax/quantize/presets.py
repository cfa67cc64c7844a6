"""Named ways to quantise, each with its source."""

from __future__ import annotations

import dataclasses

from prn_jax.errors import PrnError, did_you_mean
from prn_jax.ops.quantizers import QSpec

UNSIGNED = QSpec(signed=False, symmetric=False)
SIGNED = QSpec()
POW2 = QSpec(pow2="nearest")
POW2_UP = QSpec(pow2="ceil")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
  """One way.

  Attributes:
    name: its name.
    says: what it is and where it is from, in a line.
    activations: the grid of feature maps.
    method: how their ends come about, see `kinds.quantize`.
    observer: how a range is chosen from what the calibration saw, see `observers.OBSERVERS`.
    per_channel, weights_pow2, weights_method: see `kinds.quantized_conv`.
    weights_observer: how stored scales of kernels are chosen: "minmax" or "mse".
    splits: feature maps are rounded before the activation as well, as runtimes on CPU need it; without, the activation is
      part of the convolution's arithmetic, as on an FPGA.
    common: one scale for what a shortcut adds ("adders"), and for what a route joins as well ("all"); "none": each its own.
    folds: batch norm is folded first. Without, kernels are rounded in front of batch norm, and folding later multiplies
      the scales of the filters: exact, if there is one per filter.
    spares: neighbouring weights of 8 bits are small enough together for processors that add two products in 16 bits, see
      `quantize.kernels`.
    floats: names of convolutions that stay float.
    rounds_results: what the last convolutions give is rounded as well. Without, it stays float, at full resolution.
    trains: the ranges move in a training, and stay from a part of it on; else they come from a calibration.
    bits: the bits of kernels and feature maps, where nothing else is asked for.
  """

  name: str
  says: str
  activations: QSpec = UNSIGNED
  method: str = "range"
  observer: str = "minmax"
  per_channel: bool = True
  weights_pow2: str = "none"
  weights_method: str = "stored"
  weights_observer: str = "minmax"
  splits: bool = True
  common: str = "none"
  folds: bool = True
  spares: bool = False
  floats: tuple[str, ...] = ()
  rounds_results: bool = False
  trains: bool = False
  bits: int = 8


def _ptq(name: str, says: str, **fields: object) -> Preset:
  return Preset(name=name, says=says, spares=True, **fields)  # type: ignore[arg-type]


def _trained(name: str, says: str, **fields: object) -> Preset:
  usual = {"weights_method": "max", "splits": False, "folds": False, "trains": True, "observer": "ema"}
  return Preset(name=name, says=says, **usual | fields)  # type: ignore[arg-type]


_ALL = (
  _ptq("ptq-minmax", says="the whole range of the calibration (Krishnamoorthi 2018, section 3.1)"),
  _ptq("ptq-percentile", says="all but the outermost 0.01% of the values", observer="percentile"),
  _ptq(
    "ptq-mse",
    says="the range with the least squared error, of kernels too (Nagel et al. 2021, section 3.1)",
    observer="mse",
    weights_observer="mse",
  ),
  _ptq("ptq-kl", says="the range that loses least information (Migacz 2017)", observer="kl"),
  _ptq("ptq-cosine", says="the range whose values point most in the same direction", observer="cosine"),
  Preset(
    name="ptq-pow2",
    says="scales are powers of two, per tensor, one for all that is added or joined: shifts only",
    activations=POW2,
    observer="cosine",
    per_channel=False,
    weights_pow2="nearest",
    weights_observer="mse",
    splits=False,
    common="all",
  ),
  _trained("iao8", "kernels per filter, feature maps by a running range (Jacob et al. 2018; Krishnamoorthi 2018)"),
  _trained("iao4", "the same in 4 bits", bits=4),
  _trained(
    "iao8-pow2", "the same with powers of two, one kernel scale, one for what is added or joined; needs quant.fold",
    activations=POW2_UP, per_channel=False, weights_pow2="ceil", common="all",
  ),
  _trained("lsq4", "learned steps (Esser et al. 2020)", bits=4, activations=SIGNED, method="lsq", weights_method="lsq"),
  _trained(
    "tqt8", "learned powers of two (Jain et al. 2020)", activations=SIGNED, method="tqt", weights_method="tqt",
    per_channel=False,
  ),
  _trained("dorefa4", "DoReFa's kernels, feature maps by a running range (Zhou et al. 2016)", bits=4, weights_method="dorefa"),
  _trained("bwn", "binary kernels with a factor per filter (Rastegari et al. 2016)", weights_method="bwn"),
  _trained("bnn", "kernels of signs (Hubara et al. 2016)", weights_method="bnn"),
  _trained("ternary", "kernels of -a, 0 and a per filter (Li et al. 2016)", weights_method="ternary"),
)  # fmt: skip
PRESETS = {preset.name: preset for preset in _ALL}
DEFAULT = "ptq-mse"


def preset_of(name: str, bits: int | None = None) -> Preset:
  """The preset of a name, in so many bits.

  Raises:
    PrnError: there is none, or not in so many bits.
  """
  if name not in PRESETS:
    raise PrnError(f"there is no preset '{name}'{did_you_mean(name, PRESETS)}. Expected one of {', '.join(PRESETS)}.")
  preset = PRESETS[name]
  bits = preset.bits if bits is None else bits
  if bits not in (8, 4, 2):
    advice = " Weights of one bit are a preset of their own: bwn or bnn." if bits == 1 else ""
    raise PrnError(f"{bits} bits; expected 8, 4 or 2.{advice}")
  activations = dataclasses.replace(preset.activations, bits=bits)
  return dataclasses.replace(preset, bits=bits, activations=activations)
