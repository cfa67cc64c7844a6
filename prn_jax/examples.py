"""A picture to try things on, which every installation carries."""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).parent / "assets"


def example_image() -> Path:
  """A drawn street by day, 640x480 pixels, that no carried network has seen in training.

  It is scene 6 of `synthetic:traffic:N@valid`, drawn at twice its usual size; its classes are those of
  `traffic-tiny-prn`.

  Returns:
    The path of a JPEG file inside the package.

  Example:
    >>> example_image().name
    'street.jpg'
  """
  return ASSETS / "street.jpg"
