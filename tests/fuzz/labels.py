"""Readers of the original labels of other people's data sets and tools, beside those of `readers`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from prn_jax.data_pipelines.sources import imagenet
from tests.data_pipelines.test_archives import pack
from tests.data_pipelines.test_source_imagenet import meta_mat
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


@reader(TEXT)
def openimages(folder: Path) -> tuple[Read, Sequence[bytes]]:
  photo(folder / "images" / "a.jpg")
  (folder / "c.csv").write_text("/m/1,Car\n/m/2,Cat\n")
  head = "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\n"
  seeds = [f"{head}a,/m/1,.1,.5,.2,.6,0\na,/m/2,0,1,0,1,1\nb,/m/1,0,1,0,1,0\n".encode()]
  return opener(f"openimages:{folder / 'b.csv'}:{folder / 'c.csv'}:{folder / 'images'}", folder / "b.csv"), seeds


@reader(TEXT)
def openimages_classes(folder: Path) -> tuple[Read, Sequence[bytes]]:
  photo(folder / "images" / "a.jpg")
  (folder / "b.csv").write_text("ImageID,LabelName,XMin,XMax,YMin,YMax\na,/m/1,.1,.5,.2,.6\n")
  spec = f"openimages:{folder / 'b.csv'}:{folder / 'c.csv'}:{folder / 'images'}"
  return opener(spec, folder / "c.csv"), [b'/m/1,Car\n/m/2,"Cat, old"\n', b"LabelName,DisplayName\n/m/1,Car\n"]


@reader((*JSON, *JSON, mutated_text))
def labelme(folder: Path) -> tuple[Read, Sequence[bytes]]:
  photo(folder / "a.jpg")
  points = [[1, 1], [6, 1], [6, 5]]
  shapes = [
    {"label": "cat", "shape_type": "polygon", "points": points, "group_id": 1},
    {"label": "cat", "shape_type": "rectangle", "points": points[::2], "group_id": 1},
    {"label": "dog", "shape_type": "circle", "points": points[:2]},
    {"label": "dog", "shape_type": "line", "points": points[:2]},
  ]
  content = {"shapes": shapes, "imagePath": "a.jpg", "imageData": None, "imageWidth": 12, "imageHeight": 8}
  return opener(f"labelme:{folder}", folder / "a.json"), [json.dumps(content).encode()]


@reader(TEXT)
def cvat(folder: Path) -> tuple[Read, Sequence[bytes]]:
  photo(folder / "images" / "a.jpg")
  shapes = (
    '<box label="cat" xtl="1" ytl="1" xbr="5" ybr="4" rotation="10"/><polygon label="dog" points="1,1;5,1;5,4"/>'
    '<ellipse label="cat" cx="5" cy="4" rx="2" ry="1"/><mask label="cat" rle="1,2" left="1" top="1" width="2" height="2"/>'
  )
  meta = "<meta><task><labels><label><name>cat</name></label></labels></task></meta>"
  seed = f'<annotations>{meta}<image name="a.jpg" width="12" height="8">{shapes}</image></annotations>'
  return opener(f"cvat:{folder / 'a.xml'}:{folder / 'images'}", folder / "a.xml"), [seed.encode()]


@reader((*JSON, *JSON, mutated_text))
def labelstudio(folder: Path) -> tuple[Read, Sequence[bytes]]:
  photo(folder / "a.jpg")
  size = {"original_width": 12, "original_height": 8}
  box = {"x": 10, "y": 10, "width": 50, "height": 40, "rotation": 5, "rectanglelabels": ["cat"]}
  ring = {"points": [[1, 1], [50, 1], [50, 60]], "polygonlabels": ["dog"]}
  ellipse = {"x": 50, "y": 50, "radiusX": 20, "radiusY": 10, "rotation": 0, "ellipselabels": ["dog"]}
  result = [{**size, "value": value} for value in (box, ring, ellipse)]
  whole = [{"id": 1, "data": {"image": "/data/upload/1/0123abcd-a.jpg"}, "annotations": [{"result": result}]}]
  flat = [{"id": 1, "image": "a.jpg", "label": [size | value for value in (box, ring)]}]
  seeds = [json.dumps(one).encode() for one in (whole, flat)]
  return opener(f"labelstudio:{folder / 'a.json'}:{folder}", folder / "a.json"), seeds


@reader(BYTES)
def imagenet_meta(folder: Path) -> tuple[Read, Sequence[bytes]]:
  pack(folder / imagenet.VAL, {"ILSVRC2012_val_00000001.JPEG": picture("jpeg")})
  read = opener(f"imagenet:{folder}:val", folder / imagenet.META)

  def packed(content: bytes) -> object:
    pack(folder / imagenet.DEVKIT, {f"data/{imagenet.GROUND_TRUTH}": b"1\n", f"data/{imagenet.META}": content})
    return read(content)

  return packed, [meta_mat()]
