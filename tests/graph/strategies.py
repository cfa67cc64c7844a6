"""Random valid graphs over all kinds, for property tests.

`DRAW` has one function per kind: it appends a layer of that kind with random fields, and before it what the
kind needs. A kind without one fails `test_property.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from prn_jax.errors import GraphError
from prn_jax.graph.builder import Builder
from prn_jax.graph.graph import INPUT, KINDS, RESERVED, Graph, Shape
from prn_jax.graph.head import NMS_KINDS
from prn_jax.kinds.activation import NAMES
from prn_jax.kinds.cost import TYPES
from prn_jax.kinds.gaussian_yolo import POINTS

Draw = Callable[[st.SearchStrategy[Any]], Any]
NAME = st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True).filter(lambda name: name not in RESERVED)
SLOPE = st.one_of(st.just(0.1), st.floats(0, 1))
SCALE = st.one_of(st.just(1.0), st.floats(0.25, 4))
EPSILON = st.sampled_from([0.0, 1e-5, 1e-3])
ANCHOR = st.tuples(st.floats(0.1, 64), st.integers(1, 64).map(float))


@dataclasses.dataclass
class Draft:
  """A builder, and what it has so far."""

  g: Builder
  draw: Draw
  names: list[str] = dataclasses.field(default_factory=list)
  convs: list[tuple[str, int, dict[str, Any]]] = dataclasses.field(default_factory=list)  # name, channels, fields

  @property
  def here(self) -> Shape:
    return self.g.shape()

  def add(self, kind: str, *args: Any, **fields: Any) -> str:
    """Appends a layer under a random name, or under the default one."""
    name = self.draw(st.one_of(st.none(), NAME.filter(lambda n: n not in self.names)))
    try:
      added = getattr(self.g, kind)(*args, name=name, **fields)
    except GraphError:
      assume(False)
    self.names.append(added)
    return added

  def source(self, fits: Callable[[Shape], bool]) -> str:
    """An earlier layer, or the last one, whose shape fits."""
    return self.draw(st.sampled_from([name for name in self.names if fits(self.g.shape(name))]))

  def sources(self, fits: Callable[[Shape], bool]) -> list[str]:
    return [self.source(fits) for _ in range(self.draw(st.integers(1, 3)))]

  def activation(self) -> dict[str, Any]:
    return {"activation": self.draw(st.sampled_from(NAMES)), "leaky_slope": self.draw(SLOPE)}

  def ready(self) -> None:
    """Makes sure that there is a layer to refer to."""
    if not self.names:
      conv(self)


def divisors(n: int) -> list[int]:
  return [d for d in range(1, n + 1) if n % d == 0]


def conv(d: Draft) -> None:
  draw, channels = d.draw, d.here.channels
  groups = draw(st.sampled_from(divisors(channels)))
  size = draw(st.integers(1, 3))
  dilation = draw(st.sampled_from([1, 2])) if size == 3 else 1
  stored = {
    "filters": groups * draw(st.integers(1, 3)),
    "size": size,
    "groups": groups,
    "batch_normalize": draw(st.booleans()),
    "bn_epsilon": draw(EPSILON),
    "flipped": draw(st.booleans()) and groups == 1,
  }
  share = ""
  if draw(st.sampled_from([False, False, True])):
    if not any(c == channels for _, c, _ in d.convs):  # none to share with: make one that keeps the channels
      stored["filters"] = channels
      d.convs.append((d.add("conv", **stored, padding=1), channels, stored))
    share, stored = draw(st.sampled_from([(name, fields) for name, c, fields in d.convs if c == channels]))
  same = dilation == 1 and draw(st.booleans())
  name = d.add(
    "conv",
    **stored,
    share=share,
    stride=draw(st.integers(1, 2)),
    padding=0 if same else (stored["size"] - 1) // 2 if dilation > 1 else draw(st.integers(0, 2)),
    dilation=dilation if stored["size"] == 3 else 1,
    stride_x=draw(st.integers(0, 2)),
    stride_y=draw(st.integers(0, 2)),
    antialiasing=0 if same else draw(st.sampled_from([0, 0, 1, 2])),
    same=same,
    **d.activation(),
  )
  if not share:
    d.convs.append((name, channels, stored))


def depthwise(d: Draft) -> None:
  draw = d.draw
  same = draw(st.booleans())
  d.add(
    "depthwise", d.here.channels * draw(st.integers(1, 2)), size=draw(st.integers(1, 3)),
    stride=draw(st.integers(1, 2)), padding=0 if same else draw(st.integers(0, 2)), same=same,
    batch_normalize=draw(st.booleans()), bn_epsilon=draw(EPSILON), **d.activation(),
  )  # fmt: skip


def quantize(d: Draft) -> None:
  draw = d.draw
  method = draw(st.sampled_from(["range", "range", "lsq", "tqt", "dorefa"]))
  d.add(
    "quantize", bits=draw(st.sampled_from([2, 4, 8])), signed=draw(st.booleans()), method=method,
    symmetric=method != "range" or draw(st.booleans()), pow2=draw(st.sampled_from(["none", "ceil", "floor", "nearest"])),
    momentum=draw(st.floats(0, 1)), freeze_after=draw(st.integers(0, 9)),
  )  # fmt: skip


def quantized_conv(d: Draft) -> None:
  draw = d.draw
  method = draw(st.sampled_from(["max", "stored", "lsq", "tqt", "dorefa", "bwn", "bnn", "ternary"]))
  d.add(
    "quantized_conv", draw(st.integers(1, 4)), size=draw(st.integers(1, 3)), batch_normalize=draw(st.booleans()),
    padding=draw(st.integers(0, 2)), bits=draw(st.sampled_from([2, 4] if method == "dorefa" else [2, 4, 8])),
    per_channel=draw(st.booleans()), weights_pow2=draw(st.sampled_from(["none", "ceil", "nearest"])), method=method,
    **d.activation(),
  )  # fmt: skip


def squeeze_excite(d: Draft) -> None:
  draw, channels = d.draw, d.here.channels
  d.add(
    "se", reduction=draw(st.integers(1, channels)), filters=draw(st.sampled_from([0, channels])),
    squeezed=draw(st.integers(0, 3)), biased=draw(st.booleans()), activation=draw(st.sampled_from(NAMES)),
    gate=draw(st.sampled_from(NAMES)),
  )  # fmt: skip


def normalize(d: Draft) -> None:
  values, count = st.floats(0.125, 4), d.here.channels
  d.add("normalize", *(tuple(d.draw(st.lists(values, min_size=count, max_size=count))) for _ in range(2)))


def plain_conv(d: Draft, filters: int) -> str:
  return d.add("conv", filters)


def pool(kind: str) -> Callable[[Draft], None]:
  def add(d: Draft) -> None:
    draw = d.draw
    fields = {
      "size": draw(st.integers(1, 3)),
      "stride": draw(st.integers(1, 2)),
      "padding": draw(st.one_of(st.none(), st.integers(0, 3))),
      "stride_x": draw(st.integers(0, 2)),
      "stride_y": draw(st.integers(0, 2)),
      "antialiasing": draw(st.sampled_from([0, 0, 1, 2])),
    }
    if kind == "maxpool" and draw(st.booleans()):
      fields["depth_out"] = draw(st.integers(1, d.here.channels))
    d.add(kind, **fields)

  return add


def bare(kind: str, **choices: st.SearchStrategy[Any]) -> Callable[[Draft], None]:
  """For kinds that fit anywhere: random fields only."""
  return lambda d: void(d.add(kind, **{key: d.draw(choice) for key, choice in choices.items()}))


def void(_: object) -> None:
  return None


def activation(d: Draft) -> None:
  d.add("activation", **d.activation())


def connected(d: Draft) -> None:
  d.add(
    "connected",
    d.draw(st.integers(1, 5)),
    batch_normalize=d.draw(st.booleans()),
    bn_epsilon=d.draw(EPSILON),
    **d.activation(),
  )


def crop(d: Draft) -> None:
  h, w, _ = d.here
  d.add("crop", d.draw(st.integers(1, h)), d.draw(st.integers(1, w)), rescale=d.draw(st.booleans()))


def softmax(d: Draft) -> None:
  groups = d.draw(st.sampled_from(divisors(d.here.size)))
  d.add("softmax", groups=groups, temperature=d.draw(st.floats(0.1, 4)))


def reorg(d: Draft) -> None:
  s = d.draw(st.sampled_from([1, 2]))
  h, w, c = d.here
  reverse = d.draw(st.booleans())
  plain_conv(d, s * s * max(c // (s * s), 1))
  assume(reverse or (h % s == 0 and w % s == 0))
  d.add("reorg", s, reverse=reverse)


def reorg3d(d: Draft) -> None:
  h, w, _ = d.here
  d.add("reorg3d", d.draw(st.sampled_from([s for s in (1, 2, 3) if h % s == 0 and w % s == 0])))


def upsample(d: Draft) -> None:
  h, w, _ = d.here
  shrinking = [-s for s in (1, 2, 3) if h % s == 0 and w % s == 0]
  d.add("upsample", d.draw(st.sampled_from([1, 2, *shrinking])), scale=d.draw(SCALE))


def shortcut(d: Draft) -> None:
  d.ready()
  halves = d.here.height % 2 == d.here.width % 2 == 0
  change = d.draw(st.sampled_from(["nothing", "upsample", *(["maxpool"] if halves else [])]))
  if change != "nothing":  # a shortcut between sizes
    d.add(change, stride=2, **({"size": 2} if change == "maxpool" else {}))
  h, w, _ = d.here
  weights = d.draw(st.sampled_from(["none", "per_feature", "per_channel"]))
  kinds = ["none", "relu", "softmax"] if weights == "none" else ["relu", "softmax"]

  def fits(s: Shape) -> bool:
    big, small = ((s.height, s.width), (h, w)) if s.height >= h else ((h, w), (s.height, s.width))
    ratios = {a / b for a, b in zip(big, small, strict=True)}
    return len(ratios) == 1 and ratios.pop().is_integer()

  d.add(
    "shortcut", *d.sources(fits), weights_type=weights, weights_normalization=d.draw(st.sampled_from(kinds)),
    **d.activation(),
  )  # fmt: skip


def route(d: Draft) -> None:
  d.ready()
  first = d.draw(st.sampled_from(d.names))
  size = d.g.shape(first)[:2]
  groups = d.draw(st.sampled_from(divisors(d.g.shape(first).channels)))
  others = d.draw(
    st.lists(
      st.sampled_from([n for n in d.names if d.g.shape(n)[:2] == size and d.g.shape(n).channels % groups == 0]),
      max_size=2,
    )
  )
  d.add("route", first, *others, groups=groups, group_id=d.draw(st.integers(0, groups - 1)))


def scale_channels(d: Draft) -> None:
  d.ready()
  source, here = d.names[-1], d.here
  scale_wh = d.draw(st.booleans())
  if scale_wh:
    plain_conv(d, 1)
  else:
    d.add("avgpool")
    plain_conv(d, here.channels)
  d.add("scale_channels", source, scale_wh=scale_wh, **d.activation())


def sam(d: Draft) -> None:
  d.ready()
  source, here = d.names[-1], d.here
  plain_conv(d, here.channels)
  d.add("sam", source, **d.activation())


def head(kind: str, entries: int) -> Callable[[Draft], None]:
  def add(d: Draft) -> None:
    draw = d.draw
    anchors = tuple(draw(st.lists(ANCHOR, min_size=1, max_size=4)))
    mask = draw(st.one_of(st.none(), st.lists(st.integers(0, len(anchors) - 1), min_size=1, max_size=3).map(tuple)))
    classes = draw(st.integers(0, 3))
    fields: dict[str, Any] = {"new_coords": draw(st.booleans())} if kind == "yolo" else {}
    if kind == "gaussian_yolo":
      fields["yolo_point"] = draw(st.sampled_from(list(POINTS)))
    plain_conv(d, len(mask or anchors) * (entries + classes))
    d.add(
      kind, classes=classes, anchors=anchors, mask=mask, scale_x_y=draw(SCALE),
      nms_kind=draw(st.sampled_from(NMS_KINDS)), beta_nms=draw(st.floats(0, 1)), **fields,
    )  # fmt: skip

  return add


def region(d: Draft) -> None:
  draw = d.draw
  anchors = tuple(draw(st.lists(ANCHOR, min_size=1, max_size=3)))
  classes, coords = draw(st.integers(0, 3)), draw(st.integers(4, 5))
  plain_conv(d, len(anchors) * (coords + 1 + classes))
  tree = draw(st.sampled_from(["", "data/9k.tree"]))
  d.add("region", classes=classes, anchors=anchors, coords=coords, softmax=draw(st.booleans()), tree=tree)


DRAW: dict[str, Callable[[Draft], None]] = {
  "activation": activation,
  "avgpool": bare("avgpool"),
  "batchnorm": bare("batchnorm", bn_epsilon=EPSILON),
  "connected": connected,
  "conv": conv,
  "cost": bare("cost", type=st.sampled_from(TYPES), scale=SCALE),
  "crop": crop,
  "depthwise": depthwise,
  "dropout": bare("dropout", probability=st.floats(0, 1)),
  "empty": bare("empty"),
  "gaussian_yolo": head("gaussian_yolo", 9),
  "implicit": bare(
    "implicit", filters=st.integers(1, 4), atoms=st.integers(1, 3), mean=st.floats(-1, 1), std=st.floats(0, 1)
  ),
  "local_avgpool": pool("local_avgpool"),
  "maxpool": pool("maxpool"),
  "normalize": normalize,
  "quantize": quantize,
  "quantized_conv": quantized_conv,
  "region": region,
  "reorg": reorg,
  "reorg3d": reorg3d,
  "route": route,
  "sam": sam,
  "scale_channels": scale_channels,
  "se": squeeze_excite,
  "shortcut": shortcut,
  "softmax": softmax,
  "upsample": upsample,
  "yolo": head("yolo", 5),
}


@st.composite
def graphs(draw: Draw, last: str | None = None, branching: bool = False, max_layers: int = 6) -> Graph:
  """A small valid graph; it ends with a layer of kind `last`. `branching`: layers may read any earlier layer."""
  g = Builder(
    draw(st.integers(2, 12)), draw(st.integers(2, 12)), draw(st.integers(1, 4)), draw(st.text("abc -_9", max_size=8))
  )
  d = Draft(g, draw)
  kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=0 if last else 1, max_size=max_layers))
  for kind in [*kinds, *([last] if last else [])]:
    if branching and d.names and draw(st.booleans()):
      d.g.last = draw(st.sampled_from(d.names))
    DRAW[kind](d)
  assert INPUT not in d.names
  return g.graph()
