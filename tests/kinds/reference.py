"""Darknet's layers as plain loops over (channels, height, width), in float64.

Written from the description of Darknet's sources alone, one line of arithmetic per statement there; shares no
code with the package. Slow on purpose: nothing here is clever enough to be wrong.
"""

from __future__ import annotations

import math

import numpy as np

EPSILON = 1e-5


def conv(
  x: np.ndarray,
  kernel: np.ndarray,
  *,
  stride: tuple[int, int] = (1, 1),
  pad: int = 0,
  dilation: int = 1,
  groups: int = 1,
) -> np.ndarray:
  """Cross-correlation; `kernel` [filters][channels/groups][size][size], stride (vertical, horizontal)."""
  channels, height, width = x.shape
  filters, per_group, size, _ = kernel.shape
  assert per_group == channels // groups
  out_h = (height + 2 * pad - size) // stride[0] + 1
  out_w = (width + 2 * pad - size) // stride[1] + 1
  out = np.zeros((filters, out_h, out_w))
  for f in range(filters):
    group = f // (filters // groups)
    for i in range(out_h):
      for j in range(out_w):
        for c in range(per_group):
          for di in range(size):
            for dj in range(size):
              y, z = i * stride[0] + (di * dilation) - pad * dilation, j * stride[1] + (dj * dilation) - pad * dilation
              if 0 <= y < height and 0 <= z < width:
                out[f, i, j] += kernel[f, c, di, dj] * x[group * per_group + c, y, z]
  return out


def batchnorm(x: np.ndarray, beta: np.ndarray, gamma: np.ndarray, mean: np.ndarray, var: np.ndarray) -> np.ndarray:
  out = np.zeros(x.shape)
  for c in range(len(x)):
    out[c] = gamma[c] * (x[c] - mean[c]) / math.sqrt(var[c] + EPSILON) + beta[c]
  return out


def add_bias(x: np.ndarray, bias: np.ndarray) -> np.ndarray:
  return x + bias[:, None, None]


def blur(x: np.ndarray, mode: int, stride: tuple[int, int]) -> np.ndarray:
  """antialiasing=1: [1 2 1] x [1 2 1] / 16, pad 1; 2: mean of 2x2, pad 0; channel by channel."""
  weights = np.outer([1, 2, 1], [1, 2, 1]) / 16 if mode == 1 else np.full((2, 2), 0.25)
  kernel = np.tile(weights, (len(x), 1, 1, 1))
  return conv(x, kernel, stride=stride, pad=1 if mode == 1 else 0, groups=len(x))


def windows(x: np.ndarray, size: int, stride: tuple[int, int], padding: int) -> list[list[list[np.ndarray]]]:
  """Per channel, row, column: the cells of the window that lie inside the map."""
  _, height, width = x.shape
  out_h = (height + padding - size) // stride[0] + 1
  out_w = (width + padding - size) // stride[1] + 1
  before = padding // 2

  def cells(c: int, i: int, j: int) -> np.ndarray:
    rows = [y for y in range(i * stride[0] - before, i * stride[0] - before + size) if 0 <= y < height]
    columns = [z for z in range(j * stride[1] - before, j * stride[1] - before + size) if 0 <= z < width]
    return np.array([x[c, y, z] for y in rows for z in columns])

  return [[[cells(c, i, j) for j in range(out_w)] for i in range(out_h)] for c in range(len(x))]


def maxpool(x: np.ndarray, size: int, stride: tuple[int, int], padding: int | None = None) -> np.ndarray:
  padding = size - 1 if padding is None else padding
  return np.array([[[w.max() for w in row] for row in plane] for plane in windows(x, size, stride, padding)])


def local_avgpool(x: np.ndarray, size: int, stride: tuple[int, int], padding: int | None = None) -> np.ndarray:
  padding = size - 1 if padding is None else padding
  return np.array([[[w.mean() for w in row] for row in plane] for plane in windows(x, size, stride, padding)])


def maxpool_depth(x: np.ndarray, out_channels: int) -> np.ndarray:
  out = np.full((out_channels, *x.shape[1:]), -np.inf)
  for g in range(out_channels):
    for c in range(g, len(x), out_channels):
      out[g] = np.maximum(out[g], x[c])
  return out


def reorg(x: np.ndarray, s: int, reverse: bool) -> np.ndarray:
  """YOLOv2's passthrough: the loop runs over the input's dimensions, whichever side they index."""
  channels, height, width = x.shape
  q = channels // (s * s)
  flat, out = x.ravel(), np.zeros(x.size)
  for k in range(channels):
    for y in range(height):
      for z in range(width):
        o = k // q
        one = z + width * (y + height * k)
        other = (z * s + o % s) + width * s * ((y * s + o // s) + height * s * (k % q))
        if reverse:
          out[other] = flat[one]
        else:
          out[one] = flat[other]
  shape = (q, height * s, width * s) if reverse else (channels * s * s, height // s, width // s)
  return out.reshape(shape)


def reorg3d(x: np.ndarray, s: int) -> np.ndarray:
  channels, height, width = x.shape
  out = np.zeros((channels * s * s, height // s, width // s))
  for o in range(s * s):
    for c in range(channels):
      for y in range(height // s):
        for z in range(width // s):
          out[o * channels + c, y, z] = x[c, y * s + o // s, z * s + o % s]
  return out


def upsample(x: np.ndarray, stride: int, scale: float = 1.0) -> np.ndarray:
  channels, height, width = x.shape
  k = abs(stride)
  if stride > 0:
    out = np.zeros((channels, height * k, width * k))
    for y in range(height * k):
      for z in range(width * k):
        out[:, y, z] = scale * x[:, y // k, z // k]
    return out
  out = np.zeros((channels, height // k, width // k))
  for y in range(height):
    for z in range(width):
      out[:, y // k, z // k] += scale * x[:, y, z]
  return out


def softmax(values: np.ndarray) -> np.ndarray:
  e = np.exp(values - values.max())
  return e / e.sum()


def softmax_layer(x: np.ndarray, groups: int, temperature: float) -> np.ndarray:
  """Over contiguous blocks of the flattened (channels first) input."""
  blocks = x.ravel().reshape(groups, -1)
  return np.array([softmax(block / temperature) for block in blocks]).reshape(x.shape)


def connected(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
  """`kernel` [outputs][inputs], inputs channels first."""
  return np.array([sum(w * v for w, v in zip(row, x.ravel(), strict=True)) for row in kernel])[:, None, None]


def normalized(weights: np.ndarray, how: str) -> np.ndarray:
  """Fusion weights [n + 1][c], column by column."""
  out = np.zeros(weights.shape)
  for c in range(weights.shape[1]):
    column = weights[:, c]
    part = np.maximum(column, 0) if how == "relu" else np.exp(column - column.max())
    out[:, c] = part / (1e-4 + part.sum())
  return out


def shortcut(previous: np.ndarray, sources: list[np.ndarray], weights: np.ndarray | None = None) -> np.ndarray:
  """`weights` [n + 1][c], already normalised; sources of another size by pjreddie's rule."""
  channels, height, width = previous.shape
  weights = np.ones((len(sources) + 1, channels)) if weights is None else weights
  out = previous * weights[0][:, None, None]
  for row, source in zip(weights[1:], sources, strict=True):
    stride, sample = max(source.shape[2] // width, 1), max(width // source.shape[2], 1)
    for c in range(min(channels, len(source))):
      for y in range(min(height, source.shape[1])):
        for z in range(min(width, source.shape[2])):
          out[c, y * sample, z * sample] += row[c] * source[c, y * stride, z * stride]
  return out


def sigmoid(x: np.ndarray) -> np.ndarray:
  return 1 / (1 + np.exp(-x))


def yolo(x: np.ndarray, classes: int, scale_x_y: float = 1.0, new_coords: bool = False) -> np.ndarray:
  out = x.copy()
  entries = 5 + classes
  for channel in range(len(x)):
    entry = channel % entries
    if entry not in (2, 3) and not new_coords:
      out[channel] = sigmoid(x[channel])
    if entry in (0, 1):
      out[channel] = scale_x_y * out[channel] - (scale_x_y - 1) / 2
  return out


def gaussian_yolo(x: np.ndarray, classes: int, scale_x_y: float = 1.0) -> np.ndarray:
  out = x.copy()
  entries = 9 + classes
  for channel in range(len(x)):
    entry = channel % entries
    if entry not in (4, 6):
      out[channel] = sigmoid(x[channel])
    if entry in (0, 2):
      out[channel] = scale_x_y * out[channel] - (scale_x_y - 1) / 2
  return out


def region(x: np.ndarray, classes: int, coords: int, with_softmax: bool) -> np.ndarray:
  out = x.copy()
  entries = coords + 1 + classes
  for anchor in range(len(x) // entries):
    at = anchor * entries
    out[at + coords] = sigmoid(x[at + coords])
    for y in range(x.shape[1]):
      for z in range(x.shape[2]):
        if with_softmax:
          out[at + coords + 1 : at + entries, y, z] = softmax(x[at + coords + 1 : at + entries, y, z])
  return out


def crop(x: np.ndarray, height: int, width: int, noadjust: bool) -> np.ndarray:
  top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
  out = np.zeros((len(x), height, width))
  for y in range(height):
    for z in range(width):
      out[:, y, z] = x[:, y + top, z + left] * (1 if noadjust else 2) - (0 if noadjust else 1)
  return out


def stair(x: float) -> float:
  n = math.floor(x)
  return math.floor(x / 2) if n % 2 == 0 else (x - n) + math.floor(x / 2)


def mish(x: float) -> float:
  softplus = x if x > 20 else math.exp(x) if x < -20 else math.log(math.exp(x) + 1)
  return x * math.tanh(softplus)


SCALAR = {
  "linear": lambda x: x,
  "leaky": lambda x: x if x > 0 else 0.1 * x,
  "revleaky": lambda x: x if x > 0 else 0.1 * x,
  "relu": lambda x: x * (x > 0),
  "relu6": lambda x: min(max(x, 0), 6),
  "logistic": lambda x: 1 / (1 + math.exp(-x)),
  "tanh": lambda x: 2 / (1 + math.exp(-2 * x)) - 1,
  "swish": lambda x: x / (1 + math.exp(-x)),
  "mish": mish,
  "hard_sigmoid": lambda x: min(max(x + 3, 0), 6) / 6,
  "h_swish": lambda x: x * min(max(x + 3, 0), 6) / 6,
  "hard_mish": lambda x: x if x > 0 else (x * x / 2 + x if x > -2 else 0),
  "elu": lambda x: x if x >= 0 else math.exp(x) - 1,
  "selu": lambda x: 1.0507 * x if x >= 0 else 1.0507 * 1.6732 * (math.exp(x) - 1),
  "gelu": lambda x: 0.5 * x * (1 + math.tanh(0.797885 * x + 0.035677 * x**3)),
  "ramp": lambda x: x * (x > 0) + 0.1 * x,
  "relie": lambda x: x if x > 0 else 0.01 * x,
  "hardtan": lambda x: min(max(x, -1), 1),
  "lhtan": lambda x: 0.001 * x if x < 0 else (0.001 * (x - 1) + 1 if x > 1 else x),
  "loggy": lambda x: 2 / (1 + math.exp(-x)) - 1,
  "plse": lambda x: 0.01 * (x + 4) if x < -4 else (0.01 * (x - 4) + 1 if x > 4 else 0.125 * x + 0.5),
  "stair": stair,
}


def activate(x: np.ndarray, name: str) -> np.ndarray:
  """Elementwise, or over the channels of each cell for the normalising ones."""
  if name in SCALAR:
    return np.vectorize(SCALAR[name], otypes=[float])(x)
  out = np.zeros(x.shape)
  for y in range(x.shape[1]):
    for z in range(x.shape[2]):
      cell = x[:, y, z]
      if name == "normalize_channels":
        part = np.maximum(cell, 0)
      else:
        part = np.exp(cell - (cell.max() if name.endswith("maxval") else 0))
      out[:, y, z] = part / (1e-4 + part.sum())
  return out
