"""The licences of everything that an installation pulls in."""

from __future__ import annotations

import re
from importlib import metadata

from packaging.requirements import Requirement

from tests.conftest import REPO

COPYLEFT = re.compile(r"(?<!L)(?<!Lesser )(A?GPL|General Public License|Affero)", re.IGNORECASE)
LESSER = re.compile(r"LGPL|Lesser General Public|GCC Runtime Library Exception|GCC-exception", re.IGNORECASE)


def core_requirements() -> list[Requirement]:
  lines = (REPO / "requirements.txt").read_text().splitlines()
  return [Requirement(line) for line in lines if line and not line.startswith("#")]


def closure() -> dict[str, metadata.Distribution]:
  """Installed packages that the core requirements need, directly or not, without their extras."""
  found: dict[str, metadata.Distribution] = {}
  todo = core_requirements()
  while todo:
    requirement = todo.pop()
    name = requirement.name.lower().replace("_", "-")
    extras = requirement.extras or {""}
    if name in found or not any(
      requirement.marker is None or requirement.marker.evaluate({"extra": e}) for e in extras
    ):
      continue
    found[name] = metadata.distribution(name)
    needed = [Requirement(text) for text in found[name].requires or []]
    todo += [r for r in needed if r.marker is None or any(r.marker.evaluate({"extra": e}) for e in extras)]
  return found


def stated_licences(package: metadata.Distribution) -> list[str]:
  """Short statements of the metadata; whole licence texts, which may quote others, are left out."""
  fields = [package.metadata.get("License-Expression"), package.metadata.get("License")]
  classifiers = [c for c in package.metadata.get_all("Classifier") or [] if c.startswith("License")]
  return [text for text in (*fields, *classifiers) if text and len(text) < 200]


def test_no_gpl_or_agpl_in_the_closure() -> None:
  packages = closure()
  assert len(packages) > 40
  assert {"jax", "flax", "numpy", "tensorstore"} <= packages.keys()
  stated = {name: stated_licences(package) for name, package in packages.items()}
  bad = {
    name: licences
    for name, licences in stated.items()
    if any(COPYLEFT.search(text) and not LESSER.search(text) for text in licences)
  }
  assert bad == {}


def test_heavy_or_unfree_packages_are_not_needed() -> None:
  refused = {
    "tensorflow",
    "torch",
    "albumentations",
    "ultralytics",
    "opencv-python",
    "opencv-python-headless",
    "jax2onnx",
  }
  assert refused.isdisjoint(closure())
