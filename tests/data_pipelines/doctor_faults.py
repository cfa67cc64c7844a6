"""Ways to make a clean little set sick; each returns what the doctor must find, and where."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.data_pipelines.little_sets import (
  HEIGHT,
  NUM_IMAGES,
  WIDTH,
  LittleSet,
  boxes_of,
  encoded,
  pixels,
  yolo_line,
)

Places = dict[str, list[str]]
"""Id of a check -> the ends of the places where it must find something, in the order of the data; SPEC is the data."""
SPEC = "SPEC"


@dataclasses.dataclass(frozen=True)
class Fault:
  """One way to make a set sick; `make` returns what must be found."""

  name: str
  kind: str
  make: Callable[[LittleSet], Places]


FAULTS: list[Fault] = []


def fault(kind: str) -> Callable[[Callable[[LittleSet], Places]], Callable[[LittleSet], Places]]:
  def register(make: Callable[[LittleSet], Places]) -> Callable[[LittleSet], Places]:
    FAULTS.append(Fault(make.__name__, kind, make))
    return make

  return register


def add(content: dict[str, Any], image: int, box: list[float], category: int = 1, **more: Any) -> None:
  number = len(content["annotations"])
  entry = {"id": 900 + number, "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0}
  content["annotations"].append(entry | {"area": box[2] * box[3]} | more)


def turn(path: Path, orientation: int, picture: Image.Image) -> None:
  exif = Image.Exif()
  exif[0x0112] = orientation
  picture.save(path, "JPEG", quality=92, exif=exif)


# -- boxes -------------------------------------------------------------------------------------------------------------


@fault("coco")
def box_partly_outside(one: LittleSet) -> Places:
  with one.coco() as content:
    content["annotations"][4]["bbox"] = [100, 20, 40, 30]
  return {"labels.outside_image": ["a.json"]}


@fault("voc")
def box_wholly_outside(one: LittleSet) -> Places:
  one.change(one.label(3), lambda text: text.replace("<xmin>14<", "<xmin>214<").replace("<xmax>40<", "<xmax>240<"))
  return {"labels.outside_image": ["3.xml:3"]}


@fault("yolo")
def box_without_size(one: LittleSet) -> Places:
  one.change(one.label(2), lambda text: text + "1 0.5 0.5 0.1 0\n")
  return {"labels.no_size": ["2.txt:3"]}


@fault("coco")
def box_not_finite(one: LittleSet) -> Places:
  with one.coco() as content:
    add(content, 3, [10, 10, float("nan"), 20])
  return {"labels.not_finite": ["a.json"]}


@fault("yolo")
def box_in_pixels(one: LittleSet) -> Places:
  one.change(one.label(5), lambda text: text + "1 60 45 20 30\n")
  return {"labels.wrong_unit": ["5.txt:3"]}


@fault("yolo")
def box_twice(one: LittleSet) -> Places:
  one.change(one.label(7), lambda text: text + text.splitlines()[0] + "\n")
  return {"boxes.repeated": ["7.txt:3"]}


@fault("coco")
def box_nearly_twice(one: LittleSet) -> Places:
  with one.coco() as content:
    x, y, w, h = boxes_of(6)[0]
    add(content, 6, [x + 0.3, y, w, h])
  return {"boxes.near_duplicate": ["a.json: annotation 924"]}


@fault("voc")
def box_of_two_classes(one: LittleSet) -> Places:
  def second(text: str) -> str:
    cat = text.splitlines()[2]
    return text.replace("</annotation>", cat.replace("cat", "dog") + "\n</annotation>")

  one.change(one.label(8), second)
  return {"boxes.two_classes": ["8.xml:5"]}


@fault("coco")
def box_in_a_box(one: LittleSet) -> Places:
  with one.coco() as content:
    x, y, w, h = boxes_of(11)[0]
    add(content, 11, [x + 1, y + 1, w - 3, h - 3])
  return {"boxes.nested": ["annotation 924"]}


@fault("yolo")
def box_of_three_pixels(one: LittleSet) -> Places:
  one.change(one.label(1), lambda text: text + yolo_line(0, (80, 70, 3, 18)))
  return {"boxes.tiny": ["1.txt:3"]}


@fault("coco")
def box_below_two_pixels_of_the_network(one: LittleSet) -> Places:
  with one.coco() as content:
    add(content, 4, [90, 60, 0.5, 12])
  return {"boxes.tiny": ["annotation 924"], "boxes.below_2_px": ["annotation 924"]}


@fault("coco")
def box_below_a_cell(one: LittleSet) -> Places:
  with one.coco() as content:
    add(content, 4, [90, 70, 4, 3.2])  # 13.9 x 14.8 at 416x416
  return {"boxes.tiny": ["annotation 924"], "boxes.below_cell": ["annotation 924"]}


@fault("yolo")
def box_over_everything(one: LittleSet) -> Places:
  one.change(one.label(9), lambda text: text + "0 0.5 0.5 1 1\n")
  return {"boxes.whole_image": ["9.txt:3"]}


@fault("coco")
def box_like_a_line(one: LittleSet) -> Places:
  with one.coco() as content:
    add(content, 2, [3, 80, 114, 4.2])
  return {"boxes.thin": ["annotation 924"]}


@fault("coco")
def box_outside_a_picture_of_unknown_size(one: LittleSet) -> Places:
  with one.coco() as content:
    del content["images"][4]["width"]
    content["annotations"][8]["bbox"] = [100, 20, 40, 30]
  return {"boxes.outside_file": ["annotation 8"]}


@fault("coco")
def many_crowds(one: LittleSet) -> Places:
  with one.coco() as content:
    for annotation in content["annotations"][:6]:
      annotation["iscrowd"] = 1
  return {"boxes.mostly_ignored": [SPEC]}


@fault("coco")
def more_objects_than_a_training_takes(one: LittleSet) -> Places:
  with one.coco() as content:
    for k in range(99):
      add(content, 5, [1 + k % 10 * 7, 1 + k // 10 * 4, 26.5, 24.5], 1 + k % 2)
  return {"images.too_many_objects": ["5.jpg"]}


# -- classes and numbers -----------------------------------------------------------------------------------------------


@fault("yolo")
def classes_counted_from_1(one: LittleSet) -> Places:
  one.lines(lambda n, line: f"{int(line[0]) + 1}{line[1:]}")
  refused = [f"{n}.txt:2" for n in sorted(range(NUM_IMAGES), key=str)]
  return {"classes.off_by_one": [SPEC], "labels.unknown_class": refused, "classes.unused": [SPEC]}


@fault("coco")
def one_unknown_class(one: LittleSet) -> Places:
  with one.coco() as content:
    add(content, 5, [2, 2, 20, 9], 7)
  return {"labels.unknown_class": ["a.json"]}


@fault("coco")
def class_names_of_two_spellings(one: LittleSet) -> Places:
  with one.coco() as content:
    content["categories"].append({"id": 3, "name": "Dog"})
    for k in range(10):
      add(content, k, [2, 60, 20 + k, 15 + k], 3)
  return {"classes.similar_names": [SPEC]}


@fault("coco")
def class_name_with_a_blank(one: LittleSet) -> Places:
  with one.coco() as content:
    content["categories"][0]["name"] = "cat "
  return {"classes.untidy_name": [SPEC]}


@fault("yolo")
def class_without_objects(one: LittleSet) -> Places:
  one.change(one.root / "data.yaml", lambda text: text.replace("dog]", "dog, cow]"))
  return {"classes.unused": [SPEC]}


@fault("yolo")
def class_of_two_objects(one: LittleSet) -> Places:
  one.change(one.root / "data.yaml", lambda text: text.replace("dog]", "dog, cow]"))
  for number in (3, 4):
    one.change(one.label(number), lambda text: text + yolo_line(2, (2, 60, 20, 20)))
  return {"classes.few_examples": [SPEC]}


@fault("coco")
def class_of_a_hundredth(one: LittleSet) -> Places:
  with one.coco() as content:
    content["annotations"] = [item for item in content["annotations"] if item["category_id"] == 2 and item["id"] < 20]
    for k in range(1008):
      column, row = k // NUM_IMAGES % 10, k // NUM_IMAGES // 10
      add(content, k % NUM_IMAGES, [8.5 * column + 0.3, 6.5 * row + 0.3, 30.5, 24.5])
  return {"classes.imbalance": [SPEC]}


@fault("coco")
def corners_for_sizes(one: LittleSet) -> Places:
  with one.coco() as content:
    for annotation in content["annotations"]:
      x, y, w, h = annotation["bbox"]
      annotation["bbox"] = [x, y, x + w, y + h]
  clipped = sum(
    2 * x + w > WIDTH + 1 or 2 * y + h > HEIGHT + 1 for n in range(NUM_IMAGES) for x, y, w, h in boxes_of(n)
  )
  return {"labels.other_layout": [SPEC], "labels.outside_image": ["a.json"] * clipped}


@fault("voc")
def sizes_for_corners(one: LittleSet) -> Places:
  refused = []
  for number in sorted(range(NUM_IMAGES), key=str):
    text = one.label(number).read_text()
    for k, (x, y, w, h) in enumerate(boxes_of(number)):
      text = text.replace(f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax>", f"<xmax>{w}</xmax><ymax>{h}</ymax>")
      if w <= x + 1 or h <= y + 1:
        refused.append((number, f"{number}.xml:{3 + k}"))
    one.label(number).write_text(text)
  dogs = {"classes.unused": [SPEC]}
  return {"labels.other_layout": [SPEC], "labels.no_size": [place for _, place in sorted(refused)]} | dogs


@fault("yolo")
def corner_for_centre(one: LittleSet) -> Places:
  def shifted(n: int, line: str) -> str:
    k = int(line[0])
    x, y, w, h = (2 + 40 * k, 5, 20 + n, 30 + n)
    return f"{k} {x / WIDTH:.6f} {y / HEIGHT:.6f} {w / WIDTH:.6f} {h / HEIGHT:.6f}"

  one.lines(shifted)
  refused = [f"{n}.txt:{k + 1}" for n in sorted(range(NUM_IMAGES), key=str) for k in range(2)]
  return {"labels.other_layout": [SPEC], "labels.outside_image": refused}


@fault("coco")
def pixels_counted_from_1(one: LittleSet) -> Places:
  with one.coco() as content:
    for annotation in content["annotations"][::2]:
      x, y, w, h = annotation["bbox"]
      annotation["bbox"] = [1, y, w, h] if annotation["image_id"] % 2 else [x, 1, w, h]
  return {"labels.counted_from_1": [SPEC]}


@fault("voc")
def pixels_counted_from_0(one: LittleSet) -> Places:
  for number in range(6):
    x = boxes_of(number)[0][0]
    one.change(one.label(number), lambda text, x=x: text.replace(f"<xmin>{x + 1}<", "<xmin>0<"))
  return {"labels.counted_from_0": [SPEC]}


@fault("coco")
def two_tools(one: LittleSet) -> Places:
  with one.coco() as content:
    for image in range(NUM_IMAGES):
      add(content, image, [2, 70, 20 + image, 9], 2)
    for annotation in content["annotations"]:
      if annotation["image_id"] >= 6:
        annotation["bbox"] = [value + 0.37 for value in annotation["bbox"]]
  return {"labels.two_tools": [SPEC]}


# -- files -------------------------------------------------------------------------------------------------------------


@fault("coco")
def other_size(one: LittleSet) -> Places:
  with one.coco() as content:
    content["images"][7] |= {"width": 240, "height": 180}
  return {"images.other_size": ["7.jpg"]}


@fault("voc")
def other_size_in_xml(one: LittleSet) -> Places:
  one.change(one.label(7), lambda text: text.replace("<width>120<", "<width>640<"))
  return {"images.other_size": ["7.xml:2"]}


@fault("yolo")
def turned_by_exif(one: LittleSet) -> Places:
  turn(one.image(3), 3, pixels(3))
  return {"images.exif_rotated": ["3.jpg"]}


@fault("coco")
def labelled_before_the_turn(one: LittleSet) -> Places:
  turn(one.image(11), 6, pixels(11))  # the dog reaches x = 112, which is outside of 90x120
  return {"boxes.unrotated_frame": ["11.jpg"], "images.exif_rotated": ["11.jpg"]}


@fault("coco")
def empty_image_file(one: LittleSet) -> Places:
  one.image(2).write_bytes(b"")
  return {"images.unreadable": ["2.jpg"]}


@fault("voc")
def truncated_image(one: LittleSet) -> Places:
  one.image(4).write_bytes(one.image(4).read_bytes()[:-300])
  return {"images.unreadable": ["4.jpg"]}


@fault("yolo")
def text_for_an_image(one: LittleSet) -> Places:
  one.image(4).write_text("404 not found")
  return {"images.unreadable": ["4.jpg"]}


@fault("coco")
def missing_image(one: LittleSet) -> Places:
  one.image(5).unlink()
  return {"images.missing": ["5.jpg"]}


@fault("coco")
def cmyk(one: LittleSet) -> Places:
  one.image(6).write_bytes(encoded(pixels(6).convert("CMYK"), quality=92))
  return {"images.cmyk": ["6.jpg"]}


@fault("coco")
def sixteen_bits(one: LittleSet) -> Places:
  values = np.asarray(pixels(6).convert("L"), np.uint16) * 257
  one.image(6).unlink()
  Image.fromarray(values).save(one.images / "6.png")
  with one.coco() as content:
    content["images"][6]["file_name"] = "6.png"
  return {"images.16_bit": ["6.png"], "images.grey_among_colour": ["6.png"]}


@fault("coco")
def animated(one: LittleSet) -> Places:
  one.image(6).unlink()
  (one.images / "6.gif").write_bytes(encoded(pixels(6), "GIF", save_all=True, append_images=[pixels(50), pixels(51)]))
  with one.coco() as content:
    content["images"][6]["file_name"] = "6.gif"
  return {"images.animated": ["6.gif"]}


@fault("yolo")
def png_named_jpg(one: LittleSet) -> Places:
  one.image(8).write_bytes(encoded(pixels(8), "PNG"))
  return {"images.wrong_ending": ["8.jpg"]}


@fault("coco")
def names_that_differ_in_case(one: LittleSet) -> Places:
  one.image(1).rename(one.images / "photo.jpg")
  one.image(2).rename(one.images / "Photo.JPG")
  with one.coco() as content:
    content["images"][1]["file_name"], content["images"][2]["file_name"] = "photo.jpg", "Photo.JPG"
  return {"images.case_differs": ["Photo.JPG"]}


@fault("coco")
def very_large(one: LittleSet) -> Places:
  one.image(0).write_bytes(encoded(pixels(0, 6000, 4500), quality=60))
  with one.coco() as content:
    content["images"][0] |= {"width": 6000, "height": 4500}
    for annotation in content["annotations"][:2]:
      annotation["bbox"] = [50 * value for value in annotation["bbox"]]
  return {"images.very_large": ["0.jpg"]}


@fault("coco")
def a_strip(one: LittleSet) -> Places:
  one.image(0).write_bytes(encoded(pixels(0, 300, 90), quality=92))
  with one.coco() as content:
    content["images"][0] |= {"width": 300}
  return {"images.stretched": ["0.jpg"]}


@fault("yolo")
def image_listed_twice(one: LittleSet) -> Places:
  listed = [*range(NUM_IMAGES), 3]
  (one.root / "val.txt").write_text("".join(f"images/val/{n}.jpg\n" for n in listed))
  one.change(one.root / "data.yaml", lambda text: text.replace("val: images/val", "val: val.txt"))
  return {"images.duplicate": ["val.txt:13"]}


@fault("coco")
def two_images_of_one_id(one: LittleSet) -> Places:
  with one.coco() as content:
    content["images"].append(content["images"][3])
  return {"images.duplicate": ["a.json"]}


@fault("coco")
def an_image_outside_the_folder(one: LittleSet) -> Places:
  one.image(3).rename(one.root / "3.jpg")
  with one.coco() as content:
    content["images"][3]["file_name"] = "../3.jpg"
  return {"paths.outside_folder": ["3.jpg"]}


# -- labels and pictures -----------------------------------------------------------------------------------------------


@fault("yolo")
def missing_label_file(one: LittleSet) -> Places:
  one.label(3).unlink()
  return {"labels.no_file": ["3.jpg"]}


@fault("yolo")
def empty_label_file(one: LittleSet) -> Places:
  one.label(3).write_text("\n")
  return {"labels.empty_file": ["3.txt"]}


@fault("yolo")
def label_file_without_image(one: LittleSet) -> Places:
  shutil.copy(one.label(3), one.label(99))
  return {"labels.left_over": ["labels/val"]}


@fault("voc")
def missing_annotation_file(one: LittleSet) -> Places:
  one.label(3).unlink()
  return {"labels.missing": ["3.xml"]}


@fault("coco")
def image_without_objects(one: LittleSet) -> Places:
  with one.coco() as content:
    content["annotations"] = [item for item in content["annotations"] if item["image_id"] != 3]
  return {"images.without_objects": ["3.jpg"]}


@fault("coco")
def hardly_any_objects(one: LittleSet) -> Places:
  with one.coco() as content:
    content["annotations"] = [dict(item, image_id=3) for item in content["annotations"]]
  return {"images.mostly_empty": [SPEC], "images.without_objects": [f"{n}.jpg" for n in range(NUM_IMAGES) if n != 3]}


@fault("coco")
def equal_files(one: LittleSet) -> Places:
  shutil.copy(one.image(4), one.image(9))
  with one.coco() as content:  # with equal labels too: else that would be a fault of its own
    content["annotations"][18:20] = [
      dict(item, image_id=9, id=900 + k) for k, item in enumerate(content["annotations"][8:10])
    ]
  return {"images.copies": ["9.jpg"]}


@fault("yolo")
def a_picture_stored_anew(one: LittleSet) -> Places:
  picture = pixels(4, 150, 100).point(lambda value: min(255, int(value * 1.1)))
  one.image(9).write_bytes(encoded(picture, quality=40))
  shutil.copy(one.label(4), one.label(9))
  return {"images.near_copies": ["9.jpg"]}


@fault("yolo")
def copies_with_other_objects(one: LittleSet) -> Places:
  shutil.copy(one.image(4), one.image(9))
  one.label(9).write_text(one.label(4).read_text().splitlines()[0] + "\n" + yolo_line(1, (4, 60, 30, 20)))
  return {"images.copies": ["9.jpg"], "labels.copies_differ": ["9.jpg"]}


@fault("coco")
def a_scene_that_was_left_unlabelled(one: LittleSet) -> Places:
  one.image(5).write_bytes(encoded(pixels(4), quality=70))
  with one.coco() as content:
    content["annotations"] = [item for item in content["annotations"] if item["image_id"] != 5]
    for k in range(4):
      add(content, 4, [2 + 25 * k, 70, 20, 15 + k], 1 + k % 2)
  return {
    "images.near_copies": ["5.jpg"],
    "labels.scene_without_labels": ["5.jpg"],
    "images.without_objects": ["5.jpg"],
  }


@fault("coco")
def one_annotator_tight_one_loose(one: LittleSet) -> Places:
  one.image(5).write_bytes(encoded(pixels(4), quality=70))
  with one.coco() as content:
    content["annotations"] = [item for item in content["annotations"] if item["image_id"] not in (4, 5)]
    for k in range(4):
      add(content, 4, [4 + 28 * k, 30, 22, 35 + k], 1 + k % 2)
      add(content, 5, [2 + 28 * k, 27, 26, 41 + k], 1 + k % 2)
  return {"images.near_copies": ["5.jpg"], "labels.tight_and_loose": ["5.jpg"]}


@fault("coco")
def grey_among_colour(one: LittleSet) -> Places:
  one.image(4).write_bytes(encoded(pixels(4).convert("L"), quality=92))
  return {"images.grey_among_colour": ["4.jpg"]}


@fault("coco")
def one_colour(one: LittleSet) -> Places:
  one.image(4).write_bytes(encoded(Image.new("RGB", (WIDTH, HEIGHT), (20, 90, 200)), quality=92))
  return {"images.one_colour": ["4.jpg"]}


@fault("coco")
def shares_among_pixels(one: LittleSet) -> Places:
  with one.coco() as content:
    add(content, 5, [0.1, 0.2, 0.3, 0.25])
  return {"labels.wrong_unit": ["a.json"]}


@fault("voc")
def many_difficult(one: LittleSet) -> Places:
  for number in range(6):
    one.change(
      one.label(number), lambda text: text.replace("<name>cat</name>", "<name>cat</name><difficult>1</difficult>")
    )
  return {"boxes.mostly_ignored": [SPEC]}


@fault("coco")
def ignored_regions_everywhere(one: LittleSet) -> Places:
  with one.coco() as content:
    for image in content["images"]:
      image["ignored_regions"] = [[0, 0, WIDTH, HEIGHT / 4]]
  return {"boxes.mostly_ignored": [SPEC]}


@fault("coco")
def two_annotations_of_one_id(one: LittleSet) -> Places:
  with one.coco() as content:
    content["annotations"].append(content["annotations"][0] | {"bbox": [80, 2, 30, 20]})
  return {"labels.duplicate": ["a.json"]}


@fault("coco")
def annotation_of_no_image(one: LittleSet) -> Places:
  with one.coco() as content:
    add(content, 99, [2, 2, 20, 9])
  return {"labels.unknown_image": ["a.json"]}


@fault("coco")
def two_categories_of_one_name(one: LittleSet) -> Places:
  with one.coco() as content:
    content["categories"].append({"id": 3, "name": "dog"})
  return {"classes.duplicate": ["a.json"]}


@fault("coco")
def categories_counted_from_0(one: LittleSet) -> Places:
  with one.coco() as content:
    for annotation in content["annotations"]:
      annotation["category_id"] -= 1
  return {
    "classes.off_by_one": [SPEC],
    "labels.unknown_class": ["a.json"] * NUM_IMAGES,
    "classes.unused": [SPEC],
  }


@fault("yolo")
def words_in_a_label_file(one: LittleSet) -> Places:
  one.change(one.label(5), lambda text: text + "cat 0.5 0.5 0.1 0.1\n")
  return {"labels.malformed": ["5.txt:3"]}


@fault("yolo")
def names_of_another_machine(one: LittleSet) -> Places:
  (one.root / "val.txt").write_text("".join(f"C:\\set\\images\\val\\{n}.jpg\n" for n in range(NUM_IMAGES)))
  one.change(one.root / "data.yaml", lambda text: text.replace("val: images/val", "val: val.txt"))
  return {"paths.forgiven": ["val.txt"]}


@fault("yolo")
def polygons_for_boxes(one: LittleSet) -> Places:
  one.change(one.label(5), lambda text: text + "1 0.05 0.8 0.3 0.8 0.3 0.95\n")
  return {"labels.polygons": ["images/val"]}
