"""Readers of the original labels of other people's data sets and tools, beside those of `readers`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tests.data_pipelines.test_source_oxfordhand import HAND, mat
from tests.fuzz.mutate import mutated_text
from tests.fuzz.readers import BYTES, JSON, TEXT, Read, opener, picture, reader


def photo(path: Path) -> Path:
  """An image of 12 x 8."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(picture("jpeg"))
  return path


@reader(TEXT)
def visdrone(folder: Path) -> tuple[Read, Sequence[bytes]]:
  photo(folder / "images" / "a.jpg")
  (folder / "annotations").mkdir()
  seeds = [b"1,1,3,2,1,4,0,0\n2,2,4,4,0,0,0,0,\r\n0,0,5,5,0,6,1,2\n3,3,2,2,1,11,0,0"]
  return opener(f"visdrone:{folder}", folder / "annotations" / "a.txt"), seeds


@reader((*JSON, *JSON, mutated_text))
def bdd100k(folder: Path) -> tuple[Read, Sequence[bytes]]:
  photo(folder / "a.jpg")
  corners = {"x1": 1.5, "y1": 1, "x2": 6, "y2": 5}
  square = {"vertices": [[1, 1], [5, 1], [5, 5], [1, 5]], "types": "LCCL", "closed": True}
  labels = [
    {"category": "car", "box2d": corners, "attributes": {"crowd": False, "ignored": None}},
    {"category": "pedestrian", "poly2d": [square]},
    {"category": "trailer", "box2d": corners},
    {"category": "lane", "poly2d": [[1, 2, "L"]]},
  ]
  frames = [{"name": "a.jpg", "labels": labels}]
  one = {"name": "a", "frames": [{"objects": labels}]}
  contents = (frames, one, {"frames": frames})
  return opener(f"bdd100k:{folder / 'a.json'}:{folder}", folder / "a.json"), [json.dumps(c).encode() for c in contents]


@reader(TEXT)
def dior(folder: Path) -> tuple[Read, Sequence[bytes]]:
  photo(folder / "JPEGImages" / "a.jpg")
  (folder / "Main").mkdir()
  (folder / "Main" / "val.txt").write_text("a\n")
  (folder / "Annotations").mkdir()
  corners = [("left_top", 1, 1), ("right_top", 5, 0), ("right_bottom", 6, 5), ("left_bottom", 0, 4)]
  tags = "".join(f"<x_{name}>{x}</x_{name}><y_{name}>{y}</y_{name}>" for name, x, y in corners)
  turned = "<robndbox><cx>5</cx><cy>4</cy><w>4</w><h>2</h><angle>0.5</angle></robndbox>"
  shapes = (f"<robndbox>{tags}</robndbox>", turned)
  seeds = [f"<annotation><object><name>ship</name>{shape}</object></annotation>".encode() for shape in shapes]
  return opener(f"dior:{folder}:val", folder / "Annotations" / "a.xml"), seeds


@reader(BYTES)
def oxfordhand(folder: Path) -> tuple[Read, Sequence[bytes]]:
  place = folder / "test_dataset" / "test_data"
  photo(place / "images" / "a.jpg")
  (place / "annotations").mkdir()
  small = [(y / 5, x / 5) for y, x in HAND]
  seeds = [mat(small), mat(small, small, do_compression=True)]
  return opener(f"oxfordhand:{folder}:test", place / "annotations" / "a.mat"), seeds
