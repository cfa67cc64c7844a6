"""The licences of everything that an installation pulls in."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
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


def test_requirements_txt_is_the_dependencies_and_the_extra_for_tfds() -> None:
  project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
  extras = project["optional-dependencies"]
  assert sorted(map(str, core_requirements())) == sorted(
    str(Requirement(text)) for text in [*project["dependencies"], *extras["tfds"]]
  )
  assert set(extras["tfds"]) <= set(extras["dev"])
  bounds = next(Requirement(text).specifier for text in project["dependencies"] if text.startswith("jax>"))
  assert all(Requirement(text).specifier == bounds for name in ("gpu", "tpu") for text in extras[name])


@pytest.mark.slow
def test_a_source_distribution_holds_what_the_repository_shows(tmp_path: Path) -> None:
  """And the wheel built from it holds the package alone."""
  for kind, where in (("--sdist", REPO), ("--wheel", tmp_path / "unpacked")):
    done = subprocess.run(
      [sys.executable, "-m", "build", "--no-isolation", kind, "--outdir", str(tmp_path), str(where)],
      capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    if kind == "--sdist":
      with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
      next(tmp_path.glob("prn_jax-*/")).rename(tmp_path / "unpacked")
  source = {p.relative_to(tmp_path / "unpacked").as_posix() for p in (tmp_path / "unpacked").rglob("*")}
  assert {"docs/training.md", "notebooks/evaluate.ipynb", "launch/Dockerfile", "tests/conftest.py", "LICENSE"} <= source
  with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
    names = set(wheel.namelist())
  assert {"prn_jax/configs/demo.py", "prn_jax/data_pipelines/sources/coco.py", "prn_jax/assets/street.jpg"} <= names
  assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"prn_jax"}
