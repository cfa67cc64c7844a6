"""timm's own networks as the oracle for its weights."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def import_timm() -> Any:
  """timm, which imports torchvision; beside a torch for CPU alone PyPI's build of that does not load its operators, and
  its import fails for want of two declarations."""
  torch = pytest.importorskip("torch")
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
      import torchvision  # noqa: F401
    except ImportError:
      pytest.skip("torchvision is not installed")
    except RuntimeError:
      import_timm.library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[attr-defined]
      for operator in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):
          import_timm.library.define(f"{operator}(Tensor boxes) -> Tensor")  # type: ignore[attr-defined]
    return pytest.importorskip("timm")


def random_network(name: str, seed: int = 0, **options: Any) -> Any:
  """A network of timm in inference mode, no value of which cancels: random scales, biases and statistics."""
  timm = import_timm()
  import torch

  torch.manual_seed(seed)
  network = timm.create_model(name, pretrained=False, **options).eval()
  with torch.no_grad():
    for module in network.modules():
      if hasattr(module, "running_var"):
        module.running_mean.normal_(0, 0.1)
        module.running_var.uniform_(0.5, 1.5)
        module.weight.uniform_(0.5, 1.5)
      if getattr(module, "bias", None) is not None:
        module.bias.normal_(0, 0.1)
  return network


def save(network: Any, path: Path) -> Path:
  from safetensors.torch import save_file

  save_file(network.state_dict(), path)
  return path


def outputs(network: Any, images_nhwc: np.ndarray, pixels: Any, modules: list[str]) -> list[np.ndarray]:
  """What the modules put out, (n, h, w, c), and the scores, (n, 1, 1, classes).

  Args:
    network: of timm.
    images_nhwc: RGB in [0, 1].
    pixels: mean and std, which timm's own transform takes from the images.
    modules: names.
  """
  import torch

  found: dict[str, Any] = {}
  for name in modules:
    network.get_submodule(name).register_forward_hook(lambda _, __, y, name=name: found.__setitem__(name, y))
  x = (images_nhwc - np.float32(pixels.mean)) / np.float32(pixels.std)
  with torch.no_grad():
    scores = network(torch.from_numpy(np.ascontiguousarray(x.astype(np.float32).transpose(0, 3, 1, 2))))
  maps = [found[name].numpy().transpose(0, 2, 3, 1) for name in modules]
  return [*maps, scores.numpy()[:, None, None]]
