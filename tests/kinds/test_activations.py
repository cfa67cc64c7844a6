"""What the table of activations says of each, against its values."""

from __future__ import annotations

import numpy as np
import pytest

from prn_jax.kinds.activation import ACTIVATIONS, NAMES, activate

PER_ELEMENT = [name for name, function in ACTIVATIONS.items() if not function.mixes_channels]


@pytest.mark.parametrize("name", PER_ELEMENT)
def test_monotonic_functions_never_fall(name: str) -> None:
  """On a fine grid; what is not monotonic falls by more than rounding."""
  x = np.linspace(-8, 8, 32_001, dtype=np.float32)
  falls = -np.diff(np.asarray(activate(x, name), np.float64)).min()
  assert (falls <= 1e-6) == ACTIVATIONS[name].is_monotonic
  assert ACTIVATIONS[name].is_monotonic or falls > 1e-5


def test_what_gives_0_for_0() -> None:
  """Where one does not, a channel without weights and bias is not silent, and pruning must know."""
  alone = np.zeros((1, 1), np.float32)
  keeping = {name for name in NAMES if not np.asarray(activate(alone, name)).any()}
  assert keeping == {name for name in NAMES if ACTIVATIONS[name].keeps_zero}


def test_functions_across_channels_are_not_called_monotonic() -> None:
  across = [name for name in NAMES if name not in PER_ELEMENT]
  assert across == [
    "normalize_channels",
    "normalize_channels_softmax",
    "normalize_channels_softmax_maxval",
  ]
  assert not any(ACTIVATIONS[name].is_monotonic for name in across)


def test_a_leaky_slope_below_zero_falls() -> None:
  """So `is_monotonic` of the leaky ones holds from slope 0 on, and who asks looks at the slope."""
  assert np.diff(np.asarray(activate(np.linspace(-1, 0, 9, dtype=np.float32), "leaky", -0.1))).max() < 0
