"""Small images and label files for the tests of the sources."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def write_image(path: Path, width: int = 100, height: int = 50, **options: object) -> Path:
  """A grey image."""
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new("RGB", (width, height), "grey").save(path, **options)
  return path


def write(path: Path, text: str) -> Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text, encoding="utf-8")
  return path
