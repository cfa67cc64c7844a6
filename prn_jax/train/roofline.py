"""How long a training takes on named hardware: an estimate by roofline, without the hardware.

Every layer of a step takes the longer of two times: its operations at the peak of the arithmetic units, and its bytes at
the peak of the memory. The sum is what the step cannot beat; `EFFICIENCY` of it is assumed to be reached. Not in it:
communication between devices, reading of data, evaluations and checkpoints.
"""

from __future__ import annotations

import dataclasses
import os

from prn_jax.errors import PrnError, did_you_mean
from prn_jax.graph.cost import cost
from prn_jax.graph.graph import Graph

EFFICIENCY = 0.4  # of the roofline; what convolutional networks usually reach lies between 0.2 and 0.6
TRAIN_FORWARD_RATIO = 3  # a backward pass costs two forward passes
# Passes over the output of a layer in a step: written and read forward, read for batch norm's statistics; backward it is
# read, and its gradient written and read.
ACTIVATION_PASSES = 6
# Passes over a float32 parameter: read forward and backward, gradient written and read, momentum and itself read and written.
PARAMETER_PASSES = 8


@dataclasses.dataclass(frozen=True)
class Device:
  """Peaks of one chip or card as its maker publishes them, dense, without sparsity.

  Attributes:
    tflops_bf16, tflops_float32: trillions of operations per second; where float32 convolutions run on matrix units at
      lower precision by default (TPU: bfloat16, NVIDIA: TF32), that rate.
    gb_per_sec: what the memory moves, in 10^9 bytes per second.
    memory_gb: its size.
    source: who says so.
  """

  tflops_bf16: float
  tflops_float32: float
  gb_per_sec: float
  memory_gb: float
  source: str


_TPU, _NVIDIA = "cloud.google.com/tpu/docs/{}", "NVIDIA's data sheet of the {}"
CPU = "cpu"
CORE_TFLOPS, CPU_GB_PER_SEC, CPU_MEMORY_GB = 0.08, 20.0, 8.0  # a core with AVX2 at 2.5 GHz; two channels of DDR4
DEVICES: dict[str, Device] = {
  "v4": Device(275, 275, 1228, 32, _TPU.format("v4")),
  "v5e": Device(197, 197, 819, 16, _TPU.format("v5e")),
  "v5p": Device(459, 459, 2765, 95, _TPU.format("v5p")),
  "v6e": Device(918, 918, 1640, 32, _TPU.format("v6e")),
  "t4": Device(65, 8.1, 320, 16, _NVIDIA.format("T4 (float16 in place of bfloat16)")),
  "v100": Device(125, 15.7, 900, 32, _NVIDIA.format("V100 SXM2 (float16 in place of bfloat16)")),
  "l4": Device(121, 60, 300, 24, _NVIDIA.format("L4")),
  "a100": Device(312, 156, 2039, 80, _NVIDIA.format("A100 80GB SXM")),
  "h100": Device(989, 494, 3350, 80, _NVIDIA.format("H100 SXM")),
  "h200": Device(989, 494, 4800, 141, _NVIDIA.format("H200 SXM")),
}


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A step on some hardware.

  Attributes:
    device, count: the kind of device, and how many of it.
    step_seconds: duration of one update in seconds, at `efficiency`.
    images_per_sec: over all devices.
    days: duration of the whole run in days, steps alone.
    memory_share: share of a step's time that the memory, not the arithmetic, decides.
    efficiency: assumed.
    source: the origin of the peaks.
  """

  device: str
  count: int
  step_seconds: float
  images_per_sec: float
  days: float
  memory_share: float
  efficiency: float
  source: str

  def text(self) -> str:
    """For people; says that it is an estimate."""
    bound = "memory" if self.memory_share > 0.5 else "arithmetic"
    return (
      f"estimate for {self.count} x {self.device}: {_seconds(self.step_seconds)} a step, {self.images_per_sec:,.0f} images/s, "
      f"{_days(self.days)} in all. By roofline ({bound} decides) at an assumed efficiency of {self.efficiency:.0%}, without "
      f"communication, data and evaluations; peaks: {self.source}"
    )


def parse_hardware(text: str) -> tuple[str, int]:
  """ "v5e:8" -> ("v5e", 8); without a number one.

  Raises:
    PrnError: no such device, or no such number of them.
  """
  name, colon, number = text.lower().partition(":")
  if name not in (*DEVICES, CPU):
    raise PrnError(
      f"--hardware {text}: no device is called '{name}'{did_you_mean(name, (*DEVICES, CPU))}. Known are {known()}."
    )
  if colon and not (number.isdecimal() and 0 < int(number) <= 1_000_000):
    raise PrnError(f"--hardware {text}: expected NAME or NAME:COUNT, for example v5e:8.")
  return name, int(number or 1)


def known() -> str:
  """Names of devices, for messages."""
  return f"{', '.join(DEVICES)} and {CPU}"


def device_of_kind(kind: str) -> str | None:
  """The name here of what JAX calls a device ("TPU v5 lite", "NVIDIA H100 80GB HBM3"); None if it is not known."""
  text = kind.lower().replace("tpu v5 lite", "v5e").replace("tpu v5litepod", "v5e").replace("v6 lite", "v6e")
  text = text.replace("tpu v5p", "v5p").replace("tpu v5", "v5p")
  if "cpu" in text:
    return CPU
  return next((name for name in DEVICES if name in text), None)


def estimate(graphs: list[Graph], name: str, count: int, *, batch_size: int, total_steps: int, dtype: str) -> Estimate:
  """What a training takes at the roofline.

  Args:
    graphs: the network at each of its sizes, which take turns.
    name, count: see `parse_hardware`.
    batch_size: images per step, over all devices.
    total_steps: number of updates of the run.
    dtype: "bfloat16" or "float32", of the computation.
  """
  device = _device(name)
  peak = 1e12 * (device.tflops_bf16 if dtype == "bfloat16" else device.tflops_float32)
  bandwidth, value_bytes = 1e9 * device.gb_per_sec, 2 if dtype == "bfloat16" else 4
  images = batch_size / count
  seconds = memory = 0.0
  for graph in graphs:
    for row in cost(graph).layers:
      compute = TRAIN_FORWARD_RATIO * row.flops * images / peak
      moved = (
        ACTIVATION_PASSES * row.output.size * images * value_bytes + 4 * PARAMETER_PASSES * row.params
      ) / bandwidth
      seconds += max(compute, moved) / len(graphs)
      memory += (moved if moved > compute else 0.0) / len(graphs)
  step = seconds / EFFICIENCY
  return Estimate(
    device=name, count=count, step_seconds=step, images_per_sec=batch_size / step, days=total_steps * step / 86_400,
    memory_share=memory / seconds, efficiency=EFFICIENCY, source=device.source,
  )  # fmt: skip


def _device(name: str) -> Device:
  if name != CPU:
    return DEVICES[name]
  cores = os.cpu_count() or 1
  tflops = CORE_TFLOPS * cores
  source = f"{cores} cores of this machine at {1000 * CORE_TFLOPS:g} GFLOPs each and {CPU_GB_PER_SEC:g} GB/s, assumed"
  return Device(tflops, tflops, CPU_GB_PER_SEC, CPU_MEMORY_GB, source)


def _seconds(value: float) -> str:
  return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.3g} ms"


def _days(value: float) -> str:
  hours = 24 * value
  if hours < 1:
    return f"{60 * hours:.2g} minutes"
  return f"{hours:.2g} hours" if hours < 48 else f"{value:.1f} days"
