"""Arithmetic of partial residual networks (Wang et al., ICCVW 2019): which channels, and how wide.

Builders and transforms share it. The sparsity is the paper's rho (section 2), gamma that of its section 4.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from prn_jax.errors import GraphError

Schedule = Literal["shrink", "expand", "bottleneck"]
WIDTH_STEP = 2  # widths are multiples of it, so that a route can halve them; at gamma 1/2 and 3/4 Darknet-53 needs none
MOST_CUTS = 4  # routes that one partial shortcut may need
# Width of a block as a share of its stage's channels, where t runs from 0 before the first block to 1 behind the last.
SHARES: dict[Schedule, Callable[[float, float], float]] = {
  "shrink": lambda t, gamma: 1 - (1 - gamma) * t,
  "expand": lambda t, gamma: gamma + (1 - gamma) * t,
  "bottleneck": lambda t, gamma: 1 - (1 - gamma) * (1 - abs(2 * t - 1)),
}


def stage_widths(schedule: Schedule, channels: int, num_blocks: int, gamma: float, groups: int = 1) -> tuple[int, ...]:
  """Channels in front of a stage, then behind each of its blocks: they change linearly (section 4.2).

  Args:
    schedule: "shrink" goes from `channels` to gamma * `channels`, "expand" the other way, "bottleneck" to
      gamma * `channels` in the middle and back.
    channels: number of channels of the residual stage.
    num_blocks: number of residual blocks in the stage.
    gamma: share of the channels at the thin end, in (0, 1]; 1 changes nothing.
    groups: every width is a multiple of it too, so that layers with groups can read and make it.

  Returns:
    `num_blocks` + 1 multiples of `WIDTH_STEP` and `groups`, the nearest to the line; `channels` stays as it is.

  Raises:
    GraphError: gamma is not in (0, 1].

  Example: stage_widths("shrink", 128, 2, 0.5) is (128, 96, 64).
  """
  check_gamma(gamma)
  share, step = SHARES[schedule], math.lcm(WIDTH_STEP, groups)
  return tuple(_nearest(channels, share(i / num_blocks, gamma), step) for i in range(num_blocks + 1))


def _nearest(channels: int, share: float, step: int) -> int:
  if share == 1 or channels < step:
    return channels
  return min(max(1, int(channels * share / step + 0.5)), channels // step) * step


def kept_channels(common: int, sparsity: float) -> int:
  """How many of the `common` channels a partial shortcut of this sparsity still adds."""
  check_sparsity(sparsity)
  return int(common * (1 - sparsity) + 0.5)


def leading_cuts(channels: int, keep: int) -> tuple[tuple[int, int], ...]:
  """(groups, group_id) of the fewest routes that together hold the first `keep` of `channels` channels in order.

  Darknet's route takes one of several equal parts, so a half is one route, three quarters are a half and a quarter.

  Raises:
    GraphError: more than `MOST_CUTS` routes would be needed.

  Example: leading_cuts(256, 192) is ((2, 0), (4, 2)).
  """
  cuts: list[tuple[int, int]] = []
  start = 0
  while start < keep:
    size = max(d for d in range(1, keep - start + 1) if channels % d == 0 and start % d == 0)
    cuts.append((channels // size, start // size))
    start += size
  if len(cuts) > MOST_CUTS:
    raise GraphError(
      f"the first {keep} of {channels} channels would need {len(cuts)} routes, since a route takes one of several "
      f"equal parts; at most {MOST_CUTS} are written. Choose a sparsity that is a multiple of 1/8."
    )
  return tuple(cuts)


def check_gamma(gamma: float) -> None:
  """GraphError unless gamma is in (0, 1]."""
  if not 0 < gamma <= 1:
    raise GraphError(f"gamma={gamma:g}; expected more than 0, and at most 1, which changes nothing.")


def check_sparsity(sparsity: float) -> None:
  """GraphError unless the sparsity is in [0, 1]."""
  if not 0 <= sparsity <= 1:
    raise GraphError(f"sparsity={sparsity:g}; expected 0 (all channels are added) to 1 (none is).")
