"""Makes the golden: python -m tests.golden.timm.make, with timm, torch and torchvision installed (no weights are fetched).

names.json.gz has timm's names and shapes, pixels.json what its weights expect of pixels, and outputs.npz, for the weights
of `weights.py`, 64 values of every stage's map and the scores, with shape and largest value of each.
"""

from __future__ import annotations

import gzip
import json
import warnings
from typing import Any

import numpy as np

from prn_jax.formats import timm as ours
from prn_jax.formats.timm_rules import ARCHITECTURES
from tests.formats.test_timm import first_pixels, stages_of
from tests.golden.timm.weights import CLASSES, FOLDER, IMAGES, arrays, places


def outputs(network: Any, images_nhwc: np.ndarray, modules: list[str]) -> list[np.ndarray]:
  """What the modules put out, (n, h, w, c), and the scores, (n, 1, 1, classes), of normalised images."""
  import torch

  found: dict[str, Any] = {}
  for name in modules:
    network.get_submodule(name).register_forward_hook(lambda _, __, y, name=name: found.__setitem__(name, y))
  with torch.no_grad():
    scores = network(torch.from_numpy(np.ascontiguousarray(images_nhwc.transpose(0, 3, 1, 2))))
  maps = [found[name].numpy().transpose(0, 2, 3, 1) for name in modules]
  return [*maps, scores.numpy()[:, None, None]]


def import_timm() -> Any:
  """timm, which imports torchvision; a build of that for CUDA beside a torch for CPU lacks two declarations."""
  import torch

  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
      import torchvision  # noqa: F401
    except RuntimeError:
      import_timm.library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[attr-defined]
      for operator in ("nms", "qnms"):
        import_timm.library.define(f"{operator}(Tensor boxes) -> Tensor")  # type: ignore[attr-defined]
    import timm
  return timm


def main() -> None:
  import torch

  timm = import_timm()
  names, pixels, found = {}, {}, {}
  for name, architecture in ARCHITECTURES.items():
    network = timm.create_model(name, pretrained=False, num_classes=CLASSES).eval()
    state = {key: value for key, value in network.state_dict().items() if not key.endswith(ours.COUNTER)}
    names[name] = {key: list(value.shape) for key, value in state.items()}
    cfgs = {tag: timm.models.get_pretrained_cfg(f"{name}.{tag}") for tag in architecture.tags}
    pixels[name] = {tag: [list(cfg.mean), list(cfg.std)] for tag, cfg in cfgs.items()}
    values = arrays({key: tuple(shape) for key, shape in names[name].items()})
    network.load_state_dict({key: torch.from_numpy(value) for key, value in values.items()}, strict=False)
    mean, std = first_pixels(name)
    images = ((IMAGES - np.float32(mean)) / np.float32(std)).astype(np.float32)
    modules = [module for module, _ in stages_of(name).values()]
    for module, value in zip([*modules, "scores"], outputs(network, images, modules), strict=True):
      key = f"{name}/{module}"
      found[key] = value.reshape(-1)[places(value.shape, key)]
      found[f"{key}/shape"] = np.array(value.shape)
      found[f"{key}/largest"] = np.abs(value).max()
    print(name, float(found[f"{name}/scores/largest"]))
  with gzip.GzipFile(FOLDER / "names.json.gz", "wb", mtime=0) as file:
    file.write(json.dumps(names, separators=(",", ":")).encode())
  (FOLDER / "pixels.json").write_text(json.dumps(pixels, indent=1) + "\n")
  np.savez_compressed(FOLDER / "outputs.npz", **found)


if __name__ == "__main__":
  main()
