"""A clean little data set in three formats, for tests that make it sick: twelve coloured pictures, a cat and a dog on each."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.data_pipelines.pictures import write

NUM_IMAGES, WIDTH, HEIGHT = 12, 120, 90
NAMES = ("cat", "dog")


def pixels(seed: int, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
  """A coloured picture of soft spots, unlike that of any other seed."""
  coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
  return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(picture: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
  buffer = io.BytesIO()
  picture.save(buffer, kind, **options)
  return buffer.getvalue()


def boxes_of(image: int) -> list[tuple[int, int, int, int]]:
  """x, y, width, height of the cat and the dog of a picture; no two pictures agree."""
  return [(10 + image, 12 + image % 5, 24 + image, 18 + 2 * image), (60 + image, 30, 30 + image, 26 + image % 7)]


@dataclass(frozen=True)
class LittleSet:
  """A data set on disk.

  Attributes:
    root: its folder.
    spec: how it is opened.
    images: the folder of its pictures, "0.jpg" to "11.jpg".
  """

  root: Path
  spec: str
  images: Path

  def image(self, number: int) -> Path:
    return self.images / f"{number}.jpg"

  def label(self, number: int) -> Path:
    """The label file of an image, of YOLO and VOC."""
    folder, ending = ("labels/val", "txt") if self.spec.startswith("yolo") else ("Annotations", "xml")
    return self.root / folder / f"{number}.{ending}"

  @contextmanager
  def coco(self) -> Iterator[dict[str, Any]]:
    """The content of the JSON, written back at the end."""
    path = self.root / "a.json"
    content = json.loads(path.read_text())
    yield content
    path.write_text(json.dumps(content))

  def change(self, path: Path, edit: Callable[[str], str]) -> None:
    old = path.read_text()
    new = edit(old)
    assert new != old
    path.write_text(new)

  def lines(self, edit: Callable[[int, str], str]) -> None:
    """Changes all label lines of YOLO."""
    for number in range(NUM_IMAGES):
      self.change(
        self.label(number), lambda text, n=number: "".join(edit(n, line) + "\n" for line in text.splitlines())
      )


def make_set(kind: str, root: Path, seed: int = 0) -> LittleSet:
  """Writes the clean set; other seeds have other pictures."""
  folder = {"coco": "images", "voc": "JPEGImages", "yolo": "images/val"}[kind]
  made = LittleSet(root, "", root / folder)
  made.images.mkdir(parents=True)
  content: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
  content["categories"] = [{"id": k + 1, "name": name} for k, name in enumerate(NAMES)]
  for number in range(NUM_IMAGES):
    made.image(number).write_bytes(encoded(pixels(seed + number), quality=92))
    boxes = boxes_of(number)
    if kind == "yolo":
      write(root / "labels" / "val" / f"{number}.txt", "".join(map(yolo_line, range(2), boxes)))
    if kind == "voc":
      write(root / "Annotations" / f"{number}.xml", voc_text(number, boxes))
    content["images"].append({"id": number, "file_name": f"{number}.jpg", "width": WIDTH, "height": HEIGHT})
    for k, box in enumerate(boxes):
      entry = {"id": 2 * number + k, "image_id": number, "category_id": k + 1, "bbox": list(box), "iscrowd": 0}
      content["annotations"].append(entry | {"area": box[2] * box[3]})
  if kind == "coco":
    write(root / "a.json", json.dumps(content))
    return LittleSet(root, f"coco:{root / 'a.json'}:{root / 'images'}", root / folder)
  if kind == "voc":
    write(root / "ImageSets" / "Main" / "val.txt", "".join(f"{number}\n" for number in range(NUM_IMAGES)))
    return LittleSet(root, f"voc:{root}:val", root / folder)
  write(root / "data.yaml", "names: [cat, dog]\nval: images/val\n")
  return LittleSet(root, f"yolo:{root / 'data.yaml'}:val", root / folder)


def yolo_line(class_id: int, box_xywh_px: tuple[int, int, int, int]) -> str:
  x, y, w, h = box_xywh_px
  return f"{class_id} {(x + w / 2) / WIDTH:.6f} {(y + h / 2) / HEIGHT:.6f} {w / WIDTH:.6f} {h / HEIGHT:.6f}\n"


def voc_text(number: int, boxes: list[tuple[int, int, int, int]]) -> str:
  """The size in line 2, the objects in lines 3 and 4."""
  objects = "".join(
    f"<object><name>{name}</name><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax>"
    f"<ymax>{y + h}</ymax></bndbox></object>\n"
    for name, (x, y, w, h) in zip(NAMES, boxes, strict=True)
  )
  size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
  return f"<annotation><filename>{number}.jpg</filename>\n{size}\n{objects}</annotation>\n"
