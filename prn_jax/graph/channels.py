"""The channel relation of a layer: which channels of its inputs each channel of its output comes from, and how.

Every kind states it in `Layer.reads`, one `Reads` per input. The gradient analysis, live memory, warm starts, widths of
stages and coupled channels follow from it; none of them knows a kind.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

Channels = tuple[tuple[int, int], ...]  # disjoint intervals [start, end) in order, that do not touch


class How(enum.Enum):
  """How the output channels of a span come from its input channels."""

  KEEP = "channel by channel"  # the first from the first, the second from the second, ...
  WEIGH = "each from all, by weights of its own"  # a kernel: without an input channel, its weights go
  MIX = "each from all, by a fixed rule"  # softmax, ...: the rule does not hold for other channels


class Span(NamedTuple):
  """Channels [start, end) of an input, from which channels [out_start, out_end) of the output come."""

  start: int
  end: int
  out_start: int
  out_end: int
  how: How

  def inputs_of(self, start: int, end: int) -> tuple[int, int] | None:
    """Input channels of the span that output channels [start, end) come from; None if they do not come from it."""
    low, high = max(start, self.out_start), min(end, self.out_end)
    if low >= high:
      return None
    shift = self.start - self.out_start
    return (low + shift, high + shift) if self.how is How.KEEP else (self.start, self.end)

  def outputs_of(self, start: int, end: int) -> tuple[int, int] | None:
    """Output channels of the span that come from input channels [start, end); None if none does."""
    low, high = max(start, self.start), min(end, self.end)
    if low >= high:
      return None
    shift = self.out_start - self.start
    return (low + shift, high + shift) if self.how is How.KEEP else (self.out_start, self.out_end)


class Reads(NamedTuple):
  """What one layer reads of one of its inputs.

  Attributes:
    spans: output channel o depends on input channel i if a span holds both (for KEEP: at the same place in it), and on
      no others.
    blocks: the layer cuts the input into so many equal parts, so that it needs a multiple of it.
    binds_output: every channel of the output depends on what becomes of the others (a softmax behind weights), so that
      none of them may go.
  """

  spans: tuple[Span, ...]
  blocks: int = 1
  binds_output: bool = False

  @property
  def is_one_to_one(self) -> bool:
    """True if channels are taken as they are: each at most once, and at most one for each output channel."""
    if not all(span.how is How.KEEP for span in self.spans):
      return False
    inputs, outputs = ((span[:2] for span in self.spans), (span[2:4] for span in self.spans))
    return not _overlap(inputs) and not _overlap(outputs)

  @property
  def is_learned(self) -> bool:
    """True if weights make the output's channels out of the input's."""
    found = {span.how for span in self.spans}
    return How.WEIGH in found and How.KEEP not in found

  @property
  def read(self) -> Channels:
    """The channels of the input that matter at all."""
    return merged((span.start, span.end) for span in self.spans)

  def keeps(self, channels: int) -> bool:
    """True if all `channels` channels of the input come out again, each in its place; weights may scale them."""
    kept = Reads(tuple(span for span in self.spans if span.how is not How.WEIGH))
    return kept.is_one_to_one and all(s.start == s.out_start for s in kept.spans) and kept.read == ((0, channels),)

  def inputs_of(self, channels: Iterable[tuple[int, int]]) -> Channels:
    """Input channels that any of these output channels come from."""
    return merged(found for low, high in channels for span in self.spans if (found := span.inputs_of(low, high)))

  def outputs_of(self, channels: Iterable[tuple[int, int]]) -> Channels:
    """Output channels that come from any of these input channels."""
    return merged(found for low, high in channels for span in self.spans if (found := span.outputs_of(low, high)))

  def mixed(self, channels: int) -> Reads:
    """What is read if a function across all `channels` output channels comes behind."""
    spans = (span._replace(out_start=0, out_end=channels) for span in self.spans)
    fixed = (span if span.how is How.WEIGH else span._replace(how=How.MIX) for span in spans)
    return self._replace(spans=tuple(fixed), binds_output=True)


def keep(channels: int) -> Reads:
  """Output channel i comes from input channel i: activations, pools over windows, batch norm, depthwise kernels."""
  return cut(0, channels)


def cut(start: int, end: int, at: int = 0, blocks: int = 1) -> Reads:
  """Channels [start, end) of the input are those of the output from `at` on: routes, shortcuts."""
  return Reads((Span(start, end, at, at + end - start, How.KEEP),) if start < end else (), blocks)


def pick(order: Sequence[int], blocks: int = 1) -> Reads:
  """Output channel i comes from input channel order[i]: shuffles, space-to-depth.

  Example: pick([0, 2, 1, 3], blocks=2) shuffles two groups of two.
  """
  spans: list[Span] = []
  for i, channel in enumerate(order):
    if spans and spans[-1].end == channel:
      spans[-1] = spans[-1]._replace(end=channel + 1, out_end=i + 1)
    else:
      spans.append(Span(channel, channel + 1, i, i + 1, How.KEEP))
  return Reads(tuple(spans), blocks)


def fold(inputs: int, outputs: int) -> Reads:
  """Output channel i comes from input channels i, i + outputs, i + 2 outputs, ...: pools over channels."""
  parts = (cut(start, min(start + outputs, inputs)) for start in range(0, inputs, outputs))
  return Reads(tuple(span for part in parts for span in part.spans))


def weigh(inputs: int, outputs: int, groups: int = 1) -> Reads:
  """Every output channel comes from all input channels of its group by weights: convolutions, matrix products."""
  return Reads(tuple(_blocks(inputs, outputs, groups, How.WEIGH)))


def gate(channels: int) -> Reads:
  """Output channel i is input channel i times a factor that comes from all of them by weights."""
  return Reads((*keep(channels).spans, *weigh(channels, channels).spans))


def mix(inputs: int, outputs: int, groups: int = 1) -> Reads:
  """Every output channel comes from all input channels of its group in a way that we cannot take apart."""
  return Reads(tuple(_blocks(inputs, outputs, groups, How.MIX)))


def _blocks(inputs: int, outputs: int, groups: int, how: How) -> list[Span]:
  a, b = inputs // groups, outputs // groups
  return [Span(i * a, (i + 1) * a, i * b, (i + 1) * b, how) for i in range(groups)]


def joined(reads: Iterable[Reads], widths: Iterable[int]) -> Reads:
  """What is read of all inputs, with `widths` channels each, as if they were concatenated to one."""
  starts = itertools.accumulate(widths, initial=0)
  moved = ((span, first) for one, first in zip(reads, starts, strict=False) for span in one.spans)
  return Reads(tuple(span._replace(start=span.start + first, end=span.end + first) for span, first in moved))


def merged(spans: Iterable[tuple[int, int]]) -> Channels:
  """The union of intervals."""
  result: list[tuple[int, int]] = []
  for start, end in sorted(spans):
    if result and start <= result[-1][1]:
      result[-1] = (result[-1][0], max(end, result[-1][1]))
    else:
      result.append((start, end))
  return tuple(result)


def _overlap(spans: Iterable[tuple[int, ...]]) -> bool:
  return any(a[1] > b[0] for a, b in itertools.pairwise(sorted(spans)))
