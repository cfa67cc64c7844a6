"""Every kind against plain loops written from Darknet's definition, weights included.

Each case gives cfg sections, the arrays in the order of Darknet's weights file, and the expected outputs; cfg and
weights codecs, shapes and lowering are thus tested together. Sizes are unequal on purpose: height 6, width 4.
"""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prn_jax.errors import GraphError
from prn_jax.formats import darknet_cfg, darknet_weights
from prn_jax.kinds.activation import NAMES, activate
from prn_jax.network import Network
from tests.kinds import reference as ref

BATCH, HEIGHT, WIDTH = 2, 6, 4


class Case:
  """A cfg under test, its weights file, and a batch of images."""

  def __init__(self, folder: Path, channels: int, height: int = HEIGHT, width: int = WIDTH) -> None:
    self.folder = folder
    self.text = f"[net]\nwidth={width}\nheight={height}\nchannels={channels}\n"
    self.file = [np.array([0, 2, 5, 0, 0], "<i4").tobytes()]
    self.random = np.random.default_rng(channels)
    self.x = self.random.normal(size=(BATCH, channels, height, width)).astype(np.float32)

  def section(self, text: str) -> None:
    """Adds "[type] key=value key=value"."""
    self.text += "\n".join(text.split()) + "\n"

  def array(self, *shape: int, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    """Appends random values to the weights file."""
    values = self.random.uniform(low, high, shape).astype(np.float32)
    self.file.append(values.astype("<f4").tobytes())
    return values.astype(np.float64)

  def batch_norm(self, channels: int) -> dict[str, np.ndarray]:
    """Appends beta, gamma, mean, variance, as they stand in a convolution."""
    beta, gamma, mean = (self.array(channels) for _ in range(3))
    return {"beta": beta, "gamma": gamma, "mean": mean, "var": self.array(channels, low=0.25, high=2.0)}

  def outputs(self) -> list[np.ndarray]:
    """Outputs of all layers, (n, c, h, w)."""
    graph = darknet_cfg.parse(self.text).graph
    (self.folder / "net.weights").write_bytes(b"".join(self.file))
    has_weights = len(self.file) > 1
    variables = darknet_weights.load(self.folder / "net.weights", graph).variables if has_weights else {}
    apply = jax.jit(lambda v, x: Network(graph, precision="highest").apply(v, x, layers="all"))
    found = apply(variables, self.x.transpose(0, 2, 3, 1))
    return [np.asarray(found[layer.name]).transpose(0, 3, 1, 2) for layer in graph]

  def check(self, *expected: list[np.ndarray] | None, atol: float = 1e-5) -> None:
    """Compares the outputs of the layers, each image on its own; None skips a layer."""
    outputs = self.outputs()
    assert len(outputs) == len(expected)
    for i, (found, wanted) in enumerate(zip(outputs, expected, strict=True)):
      if wanted is not None:
        np.testing.assert_allclose(found, np.array(wanted), rtol=1e-5, atol=atol, err_msg=f"layer {i}")

  @property
  def images(self) -> list[np.ndarray]:
    return list(self.x.astype(np.float64))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
  return tmp_path


# -- activations ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_activation(name: str, folder: Path) -> None:
  """On a layer of its own, at the kinks and far from them."""
  case = Case(folder, 3)
  case.section(f"[activation] activation={name}")
  kinks = [-7, -4.5, -4, -3, -2.5, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 6, 7]
  case.x.reshape(-1)[: len(kinks)] = kinks
  case.check([ref.activate(x, name) for x in case.images])


def test_mish_and_normalising_activations_do_not_overflow(folder: Path) -> None:
  for name in ("mish", "swish", "normalize_channels_softmax_maxval", "logistic", "tanh"):
    case = Case(folder, 2)
    case.section(f"[activation] activation={name}")
    case.x *= 60
    case.check([ref.activate(x, name) for x in case.images], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_activation_has_finite_gradients(name: str) -> None:
  """Also at the kinks and far out, where a branch that is not taken may overflow."""
  reach = 80 if name == "normalize_channels_softmax" else 200  # which overflows by itself, as Darknet's does
  x = jnp.concatenate([jnp.linspace(-reach, reach, 81), jnp.asarray([-4.0, -2, -1, -0.0, 1, 2, 4])])
  gradient = jax.vmap(jax.grad(lambda v: activate(v[None], name).sum()))(x)
  assert np.isfinite(gradient).all()


def test_leaky_slope_is_a_field(folder: Path) -> None:
  case = Case(folder, 3)
  case.section("[activation] activation=leaky leaky_slope=0.01")
  case.check([np.where(x > 0, x, 0.01 * x) for x in case.images])


# -- convolution ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
  ("keys", "options"),
  [
    ("size=3 pad=1", {"pad": 1}),
    ("size=3 pad=1 padding=5", {"pad": 1}),  # pad=1 wins over padding
    ("size=3 padding=2", {"pad": 2}),
    ("size=2 pad=1", {"pad": 1}),  # even: the map grows by one
    ("size=3 pad=1 dilation=2", {"pad": 1, "dilation": 2}),
    ("size=3 pad=1 dilation=3 stride=2", {"pad": 1, "dilation": 3, "stride": (2, 2)}),
    ("size=1 dilation=4", {}),  # a single tap has no dilation
    ("size=3 pad=1 stride_x=2", {"pad": 1, "stride": (1, 2)}),
    ("size=3 pad=1 stride=3 stride_y=1", {"pad": 1, "stride": (1, 3)}),
    ("size=3 pad=1 groups=2", {"pad": 1, "groups": 2}),
    ("size=3 pad=1 groups=4", {"pad": 1, "groups": 4}),
    ("size=2 pad=1 groups=4 stride_x=2", {"pad": 1, "groups": 4, "stride": (1, 2)}),
    ("size=3 groups=4 dilation=2 pad=1", {"pad": 1, "groups": 4, "dilation": 2}),
    ("size=3 pad=1 groups=4 stride=2", {"pad": 1, "groups": 4, "stride": (2, 2)}),
    ("size=3 pad=1 groups=2 dilation=2", {"pad": 1, "groups": 2, "dilation": 2}),
  ],
)
def test_conv(keys: str, options: dict, folder: Path) -> None:
  case = Case(folder, 4)
  case.section(f"[convolutional] filters=4 batch_normalize=1 activation=leaky {keys}")
  size, groups = int(keys.split("size=")[1][0]), options.get("groups", 1)
  bn = case.batch_norm(4)
  kernel = case.array(4, 4 // groups, size, size)
  case.check(
    [ref.activate(ref.batchnorm(ref.conv(x, kernel, **options), **bn), "leaky") for x in case.images],
  )


@pytest.mark.parametrize("mode", [1, 2])
@pytest.mark.parametrize(("keys", "strides"), [("stride=2", (2, 2)), ("stride=1 stride_x=2", (1, 2))])
def test_conv_antialiasing(mode: int, keys: str, strides: tuple[int, int], folder: Path) -> None:
  """The convolution and its activation run with stride 1, then the blur strides."""
  case = Case(folder, 2)
  case.section(f"[convolutional] filters=3 size=3 pad=1 activation=relu antialiasing={mode} {keys}")
  bias, kernel = case.array(3), case.array(3, 2, 3, 3)

  def expected(x: np.ndarray) -> np.ndarray:
    return ref.blur(ref.activate(ref.add_bias(ref.conv(x, kernel, pad=1), bias), "relu"), mode, strides)

  case.check([expected(x) for x in case.images])


def test_conv_defaults_are_one_by_one_and_logistic(folder: Path) -> None:
  case = Case(folder, 2)
  case.section("[convolutional] filters=2")
  bias, kernel = case.array(2), case.array(2, 2, 1, 1)
  case.check([ref.activate(ref.add_bias(ref.conv(x, kernel), bias), "logistic") for x in case.images])


@pytest.mark.parametrize("name", ["relu6", "hard_mish", "normalize_channels_softmax_maxval", "stair", "lhtan"])
def test_conv_activation(name: str, folder: Path) -> None:
  case = Case(folder, 2)
  case.section(f"[convolutional] filters=3 activation={name}")
  bias, kernel = case.array(3, low=-5, high=8), case.array(3, 2, 1, 1, low=-4, high=4)
  case.check([ref.activate(ref.add_bias(ref.conv(x, kernel), bias), name) for x in case.images])


@pytest.mark.parametrize("reference", ["0", "-2"])
def test_share_index(reference: str, folder: Path) -> None:
  """Kernel, bias and batch norm of layer 0, with another stride, dilation and activation; nothing in the file."""
  case = Case(folder, 3)
  case.section("[convolutional] filters=3 size=3 pad=1 batch_normalize=1 activation=leaky")
  bn, kernel = case.batch_norm(3), case.array(3, 3, 3, 3)
  case.section("[maxpool] size=2 stride=1")
  case.section(
    f"[convolutional] filters=3 size=3 pad=1 batch_normalize=1 activation=mish dilation=2 stride=2 share_index={reference}"
  )
  case.section("[convolutional] filters=1 activation=linear")
  bias_3, kernel_3 = case.array(1), case.array(1, 3, 1, 1)
  zero = [ref.activate(ref.batchnorm(ref.conv(x, kernel, pad=1), **bn), "leaky") for x in case.images]
  one = [ref.maxpool(x, 2, (1, 1)) for x in zero]
  two = [ref.activate(ref.batchnorm(ref.conv(x, kernel, pad=1, dilation=2, stride=(2, 2)), **bn), "mish") for x in one]
  case.check(zero, one, two, [ref.add_bias(ref.conv(x, kernel_3), bias_3) for x in two], atol=5e-5)


def test_flipped_kernel(folder: Path) -> None:
  """flipped=1: the file holds the transpose of the [filters][channels*size*size] matrix."""
  case = Case(folder, 2)
  case.section("[convolutional] filters=3 size=3 pad=1 activation=linear flipped=1")
  bias, transposed = case.array(3), case.array(2 * 3 * 3, 3)
  kernel = transposed.T.reshape(3, 2, 3, 3)
  case.check([ref.add_bias(ref.conv(x, kernel, pad=1), bias) for x in case.images])


# -- pools ---------------------------------------------------------------------------------------------------------------
POOLS = [
  ("size=2 stride=2", 2, (2, 2), None),
  ("size=2 stride=1", 2, (1, 1), None),
  ("stride=2", 2, (2, 2), None),  # size defaults to stride
  ("size=3 stride=2", 3, (2, 2), None),
  ("size=3 stride=2 padding=0", 3, (2, 2), 0),
  ("size=2 stride=2 padding=2", 2, (2, 2), 2),
  ("size=3 stride=1 stride_x=2", 3, (1, 2), None),
  ("size=2 stride=2 stride_y=1 padding=2", 2, (1, 2), 2),
  ("size=5 stride=1", 5, (1, 1), None),
]


@pytest.mark.parametrize(("keys", "size", "stride", "padding"), POOLS)
@pytest.mark.parametrize("kind", ["maxpool", "local_avgpool"])
@pytest.mark.parametrize(("height", "width"), [(6, 4), (7, 5)])
def test_pool(
  kind: str, keys: str, size: int, stride: tuple[int, int], padding: int | None, height: int, width: int, folder: Path
) -> None:
  case = Case(folder, 2, height, width)
  case.section(f"[{kind}] {keys}")
  case.check([getattr(ref, kind)(x, size, stride, padding) for x in case.images])


def test_padding_may_exceed_the_window_as_long_as_every_window_sees_the_map(folder: Path) -> None:
  case = Case(folder, 2, 6, 4)
  case.section("[maxpool] size=2 stride=2 padding=3")
  case.check([ref.maxpool(x, 2, (2, 2), 3) for x in case.images])
  with pytest.raises(GraphError, match="padding=3 is too large for size=2: a window would lie outside the map 5x7x2"):
    darknet_cfg.parse(Case(folder, 2, 7, 5).text + "[maxpool]\nsize=2\nstride=2\npadding=3\n")


@pytest.mark.parametrize("mode", [1, 2])
@pytest.mark.parametrize("kind", ["maxpool", "local_avgpool"])
def test_pool_antialiasing(kind: str, mode: int, folder: Path) -> None:
  case = Case(folder, 2)
  case.section(f"[{kind}] size=2 stride=2 antialiasing={mode}")
  case.check([ref.blur(getattr(ref, kind)(x, 2, (1, 1)), mode, (2, 2)) for x in case.images])


@pytest.mark.parametrize("out_channels", [1, 2, 3, 4, 7])
def test_maxpool_depth(out_channels: int, folder: Path) -> None:
  """Seven channels: 2, 3 and 4 do not divide them, so the last group is short."""
  case = Case(folder, 7)
  case.section(f"[maxpool] maxpool_depth=1 out_channels={out_channels} size=1 stride=1")
  case.check([ref.maxpool_depth(x, out_channels) for x in case.images])


def test_avgpool(folder: Path) -> None:
  case = Case(folder, 3)
  case.section("[avgpool]")
  case.check([x.mean((1, 2))[:, None, None] for x in case.images])


# -- rearranging -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("s", [1, 2])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("channels", [4, 8])
def test_reorg(s: int, reverse: bool, channels: int, folder: Path) -> None:
  case = Case(folder, channels)
  case.section(f"[reorg] stride={s} reverse={int(reverse)}")
  case.check([ref.reorg(x, s, reverse) for x in case.images])


@pytest.mark.parametrize("s", [1, 2])
def test_reorg3d(s: int, folder: Path) -> None:
  case = Case(folder, 3)
  case.section(f"[reorg3d] stride={s}")
  case.check([ref.reorg3d(x, s) for x in case.images])


@pytest.mark.parametrize(
  ("keys", "stride", "scale"), [("", 2, 1), ("stride=3 scale=.5", 3, 0.5), ("stride=-2 scale=2", -2, 2)]
)
def test_upsample(keys: str, stride: int, scale: float, folder: Path) -> None:
  case = Case(folder, 3)
  case.section(f"[upsample] {keys}")
  case.check([ref.upsample(x, stride, scale) for x in case.images])


@pytest.mark.parametrize("noadjust", [0, 1])
def test_crop(noadjust: int, folder: Path) -> None:
  case = Case(folder, 3)
  case.section(f"[crop] crop_height=3 crop_width=3 noadjust={noadjust} flip=1 angle=7")
  case.check([ref.crop(x, 3, 3, bool(noadjust)) for x in case.images])


def test_route_groups(folder: Path) -> None:
  """Each source gives its own block; they are not blocks of the concatenation."""
  case = Case(folder, 4)
  case.section("[empty]")
  case.section("[activation] activation=relu")
  case.section("[route] layers=-1,0 groups=2 group_id=1")
  case.check(None, None, [np.concatenate([np.maximum(x, 0)[2:], x[2:]]) for x in case.images])


# -- sums and products -----------------------------------------------------------------------------------------------------
def narrow_and_wide(case: Case) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
  """Layers 0, 1 and 2: the image (4 channels), its first 2 by a route, and 6 of route and image."""
  case.section("[empty]")
  case.section("[route] layers=0 groups=2")
  case.section("[route] layers=1,0")
  images = case.images
  return images, [x[:2] for x in images], [np.concatenate([x[:2], x]) for x in images]


@pytest.mark.parametrize("activation", ["linear", "leaky", "relu", "mish", "swish"])
def test_shortcut_adds_the_common_channels(activation: str, folder: Path) -> None:
  """Previous layer: 4 channels; sources with 2, 6 and 4."""
  case = Case(folder, 4)
  image, narrow, wide = narrow_and_wide(case)
  case.section("[route] layers=0")
  case.section(f"[shortcut] from=1,2,-1 activation={activation}")
  expected = [ref.activate(ref.shortcut(x, [n, w, x]), activation) for x, n, w in zip(image, narrow, wide, strict=True)]
  case.check(None, None, None, None, expected)


@pytest.mark.parametrize("how", ["relu", "softmax", "avg_relu"])
@pytest.mark.parametrize("kind", ["per_feature", "per_layer", "per_channel"])
def test_weighted_shortcut(kind: str, how: str, folder: Path) -> None:
  """Rows of the weights: the previous layer, then the sources in their order; a row has the output's channels."""
  case = Case(folder, 4)
  image, narrow, wide = narrow_and_wide(case)
  case.section("[route] layers=0")
  case.section(f"[shortcut] from=1,2 weights_type={kind} weights_normalization={how} activation=leaky")
  weights = case.array(3, 4) if kind == "per_channel" else np.tile(case.array(3, 1), (1, 4))
  weights = ref.normalized(weights, how.removeprefix("avg_"))
  expected = [
    ref.activate(ref.shortcut(x, [n, w], weights), "leaky") for x, n, w in zip(image, narrow, wide, strict=True)
  ]
  case.check(None, None, None, None, expected)


@pytest.mark.parametrize(("change", "channels"), [("[maxpool] size=2 stride=2", 4), ("[upsample] stride=2", 4)])
@pytest.mark.parametrize("filters", [3, 4, 6])
def test_shortcut_between_sizes(change: str, channels: int, filters: int, folder: Path) -> None:
  """pjreddie: a larger source gives every k-th cell; a smaller one lands on every k-th cell."""
  case = Case(folder, channels)
  case.section(f"[convolutional] filters={filters} activation=linear")
  bias, kernel = case.array(filters), case.array(filters, channels, 1, 1)
  case.section("[route] layers=0")
  case.section(change)
  case.section("[convolutional] filters=4 activation=linear")
  bias_3, kernel_3 = case.array(4), case.array(4, filters, 1, 1)
  case.section("[shortcut] from=0 activation=linear")

  def expected(x: np.ndarray) -> np.ndarray:
    source = ref.add_bias(ref.conv(x, kernel), bias)
    changed = ref.maxpool(source, 2, (2, 2)) if "maxpool" in change else ref.upsample(source, 2)
    return ref.shortcut(ref.add_bias(ref.conv(changed, kernel_3), bias_3), [source])

  case.check(None, None, None, None, [expected(x) for x in case.images])


def test_scale_channels(folder: Path) -> None:
  case = Case(folder, 3)
  case.section("[empty]")
  case.section("[avgpool]")
  case.section("[scale_channels] from=0 activation=logistic")
  expected = [ref.activate(x * x.mean((1, 2))[:, None, None], "logistic") for x in case.images]
  case.check(None, None, expected)


def test_scale_channels_by_cells(folder: Path) -> None:
  case = Case(folder, 3)
  case.section("[empty]")
  case.section("[maxpool] maxpool_depth=1 out_channels=1")
  case.section("[scale_channels] from=0 scale_wh=1")
  case.check(None, None, [x * x.max(0, keepdims=True) for x in case.images])


def test_sam(folder: Path) -> None:
  case = Case(folder, 3)
  case.section("[empty]")
  case.section("[activation] activation=relu")
  case.section("[sam] from=0 activation=leaky")
  case.check(None, None, [ref.activate(x * np.maximum(x, 0), "leaky") for x in case.images])


# -- vectors -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("batch_normalize", [0, 1])
def test_connected_behind_a_map(batch_normalize: int, folder: Path) -> None:
  """The kernel's inputs run channels first; in the file: bias, kernel, then gamma, mean, variance."""
  case = Case(folder, 3)
  case.section("[maxpool] size=2 stride=2")
  case.section(f"[connected] output=5 activation=leaky batch_normalize={batch_normalize}")
  bias, kernel = case.array(5), case.array(5, 3 * 3 * 2)
  pooled = [ref.maxpool(x, 2, (2, 2)) for x in case.images]
  sums = [ref.connected(x, kernel) for x in pooled]
  if batch_normalize:
    gamma, mean, var = case.array(5), case.array(5), case.array(5, low=0.25, high=2)
    sums = [ref.batchnorm(y, bias, gamma, mean, var) for y in sums]
  else:
    sums = [ref.add_bias(y, bias) for y in sums]
  case.check(pooled, [ref.activate(y, "leaky") for y in sums])


@pytest.mark.parametrize(("groups", "temperature"), [(1, 1.0), (2, 0.5), (3, 2.0), (8, 1.0)])
def test_softmax_of_a_map(groups: int, temperature: float, folder: Path) -> None:
  """72 values, channels first: blocks may span or split channels (8 groups of 9 split channels of 24)."""
  case = Case(folder, 3)
  case.section(f"[softmax] groups={groups} temperature={temperature}")
  case.check([ref.softmax_layer(x, groups, temperature) for x in case.images])


def test_batchnorm_layer(folder: Path) -> None:
  case = Case(folder, 3)
  case.section("[batchnorm]")
  bn = case.batch_norm(3)
  case.check([ref.batchnorm(x, **bn) for x in case.images])


def test_implicit(folder: Path) -> None:
  case = Case(folder, 1)
  case.section("[implicit] filters=5 atoms=2")
  vector = case.array(5, 2)
  case.check([vector[:, :, None]] * BATCH)


def test_layers_that_pass_on(folder: Path) -> None:
  case = Case(folder, 2)
  for section in ("[dropout] probability=.9", "[cost] type=smooth scale=3", "[silence]", "[empty]"):
    case.section(section)
  case.check(*[case.images] * 4)


# -- heads ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("scale_x_y", [1.0, 1.05, 2.0])
@pytest.mark.parametrize("new_coords", [0, 1])
def test_yolo(scale_x_y: float, new_coords: int, folder: Path) -> None:
  case = Case(folder, 2 * 8)
  case.section(f"[yolo] classes=3 num=3 mask=0,2 anchors=1,2,3,4,5,6 scale_x_y={scale_x_y} new_coords={new_coords}")
  case.check([ref.yolo(x, 3, scale_x_y, bool(new_coords)) for x in case.images])


@pytest.mark.parametrize("point", ["center", "left_top", "right_bottom"])
def test_gaussian_yolo(point: str, folder: Path) -> None:
  """The stored output does not depend on the point; only the decoded box does."""
  case = Case(folder, 2 * 11)
  case.section(f"[Gaussian_yolo] classes=2 num=2 anchors=1,2,3,4 scale_x_y=1.2 yolo_point={point}")
  case.check([ref.gaussian_yolo(x, 2, 1.2) for x in case.images])


@pytest.mark.parametrize("with_softmax", [0, 1])
def test_region(with_softmax: int, folder: Path) -> None:
  case = Case(folder, 2 * 8)
  case.section(f"[region] classes=3 num=2 anchors=1,2,3,4 softmax={with_softmax}")
  case.check([ref.region(x, 3, 4, bool(with_softmax)) for x in case.images])
