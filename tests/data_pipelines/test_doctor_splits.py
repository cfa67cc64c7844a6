"""What the doctor says of two splits together, of a network, of other kinds of data, and of real data."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prn_jax.data_pipelines.doctor.checks.boxes import iou_of, pairs_above
from prn_jax.data_pipelines.doctor.checkup import Exam, Network, examine
from prn_jax.data_pipelines.doctor.split import Split, open_split
from prn_jax.data_pipelines.prepared.prepare import prepare
from prn_jax.errors import PrnError
from prn_jax.loading import load
from prn_jax.run.data_facts import network_facts
from tests.data_pipelines.little_sets import HEIGHT, WIDTH, LittleSet, encoded, make_set, pixels
from tests.data_pipelines.test_doctor import check_places, diagnose, places

NONE = Network()


def two_sets(root: Path, kind: str = "coco") -> tuple[LittleSet, LittleSet]:
  return make_set(kind, root / "a"), make_set(kind, root / "b", seed=100)


# -- splits ------------------------------------------------------------------------------------------------------------


def test_an_image_of_both_splits(tmp_path: Path) -> None:
  one, other = two_sets(tmp_path)
  shutil.copy(other.image(7), one.image(3))
  diagnosis = diagnose(one.spec, (other.spec,))
  check_places(diagnosis, {"splits.copies": ["3.jpg"]})
  assert diagnosis.is_serious
  assert diagnosis.found[0].spots[0].text == f"is equal to {other.image(7)} of {other.spec}"


def test_a_validation_that_is_a_part_of_the_training(tmp_path: Path) -> None:
  one, _ = two_sets(tmp_path)
  found = places(diagnose(one.spec, (one.spec,)))
  assert {key: len(value) for key, value in found.items()} == {"splits.copies": 12}


@pytest.mark.parametrize(
  ("size", "factor", "quality"),
  [((120, 90), 1.0, 30), ((60, 45), 1.0, 90), ((240, 180), 1.0, 80), ((100, 100), 1.2, 90)],
)
def test_a_picture_of_both_splits_stored_anew(
  tmp_path: Path, size: tuple[int, int], factor: float, quality: int
) -> None:
  one, other = two_sets(tmp_path, "yolo")
  picture = pixels(103, *size).point(lambda value: min(255, int(value * factor)))
  one.image(5).write_bytes(encoded(picture, quality=quality))
  check_places(diagnose(one.spec, (other.spec,), NONE), {"splits.near_copies": ["5.jpg"]})


def test_neighbours_of_a_film_in_two_splits(tmp_path: Path) -> None:
  one, other = two_sets(tmp_path)
  for made, number, x in ((one, 7, 10), (other, 8, 85)):
    frame = np.array(pixels(7), np.int64)
    frame[55:71, x : x + 16] += 60  # something that moved
    made.image(number).unlink()
    (made.images / f"film_{number:03d}.jpg").write_bytes(
      encoded(Image.fromarray(frame.clip(0, 255).astype(np.uint8)), quality=92)
    )
    with made.coco() as content:
      content["images"][number]["file_name"] = f"film_{number:03d}.jpg"
  check_places(diagnose(one.spec, (other.spec,)), {"splits.same_scene": ["film_007.jpg"]})


def test_a_class_of_one_split(tmp_path: Path) -> None:
  one, other = two_sets(tmp_path)
  for made in (one, other):
    with made.coco() as content:
      content["categories"].append({"id": 3, "name": "cow"})
  with one.coco() as content:
    for image in range(10):
      box = [4, 60 + image % 3, 26, 25]
      content["annotations"].append({"id": 800 + image, "image_id": image, "category_id": 3, "bbox": box, "area": 650})
  check_places(diagnose(one.spec, (other.spec,)), {"classes.one_split": ["/a/images"]})
  check_places(diagnose(other.spec, (one.spec,)), {"classes.one_split": ["/a/images"], "classes.unused": ["SPEC"]})


def test_lists_of_classes_that_differ(tmp_path: Path) -> None:
  one, other = two_sets(tmp_path, "yolo")
  one.change(one.root / "data.yaml", lambda text: text.replace("[cat, dog]", "[dog, cat]"))
  diagnosis = diagnose(one.spec, (other.spec,))
  check_places(diagnosis, {"classes.other_list": ["SPEC"]})
  assert diagnosis.found[0].spots[0].text.endswith("the same names in another order")


def test_frames_of_a_fixed_camera_are_no_copies(tmp_path: Path, shared: Path) -> None:
  """The cars have moved on between two of them; the third is the first, stored anew, whose labels should be the same."""
  source = shared / "data" / "traffic_atl"
  frames = [source / "images" / f"102600700{number}.jpg" for number in (16, 23)]
  for folder in ("images", "labels"):
    (tmp_path / "train" / folder).mkdir(parents=True)
  for frame in frames:
    shutil.copy(frame, tmp_path / "train" / "images")
    shutil.copy(source / "labels" / f"{frame.stem}.txt", tmp_path / "train" / "labels")
  with Image.open(frames[0]) as image:
    image.save(tmp_path / "train" / "images" / "stored_anew.jpg", quality=40)
  labels = (source / "labels" / f"{frames[0].stem}.txt").read_text().splitlines()
  (tmp_path / "train" / "labels" / "stored_anew.txt").write_text("\n".join(labels[:-1]))
  (tmp_path / "data.yaml").write_text((source / "data.yaml").read_text())
  found = places(diagnose(f"yolo:{tmp_path / 'data.yaml'}:train"))
  assert [Path(place).name for place in found["labels.copies_differ"]] == ["stored_anew.jpg"]
  assert len(found["images.near_copies"]) == 2


# -- other kinds of data -----------------------------------------------------------------------------------------------


def test_images_in_memory(tmp_path: Path) -> None:
  one = make_set("coco", tmp_path / "a")
  shutil.copy(one.image(4), one.image(9))
  done = prepare(one.spec, tmp_path / "prepared")
  found = diagnose(done.spec)
  check_places(found, {"images.copies": ["9"], "labels.copies_differ": ["9"]})


def test_classes_of_images(tmp_path: Path) -> None:
  for number in range(20):
    path = tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(pixels(number % 19), quality=90))  # 19 is 0 once more, as a dog
  diagnosis = diagnose(f"imagefolder:{tmp_path / 'photos'}")
  check_places(diagnosis, {"images.copies": ["dog/19.jpg"], "labels.copies_differ": ["dog/19.jpg"]})
  assert diagnosis.not_run["boxes.thin"] == "the data are for classification"


def test_drawn_scenes_are_clean() -> None:
  assert set(places(diagnose("synthetic:traffic:6", network=NONE))) <= {
    "boxes.nested", "boxes.tiny", "classes.few_examples", "classes.unused"
  }  # fmt: skip


# -- the network -------------------------------------------------------------------------------------------------------


def test_facts_of_a_network_with_masks() -> None:
  facts = network_facts(load("yolov3-tiny-prn").graph, "letterbox", 90)
  assert (facts.size_wh, facts.cell_px, facts.resize, facts.max_boxes) == ((416, 416), (16, 16), "letterbox", 90)
  assert facts.anchors_wh_px is not None
  anchors = sorted(map(tuple, facts.anchors_wh_px.tolist()))
  assert len(anchors) == 6
  assert anchors[-1] == (344, 319)


def test_anchors_of_region_heads_are_cells() -> None:
  graph = load("yolov2-tiny").graph
  facts = network_facts(graph, "stretch")
  assert facts.cell_px == (32, 32)
  assert facts.anchors_wh_px is not None
  np.testing.assert_allclose(facts.anchors_wh_px[0], np.array(graph.heads[-1].anchors[0]) * 32)  # type: ignore[attr-defined]


def test_a_classifier_has_no_boxes() -> None:
  with pytest.raises(
    PrnError, match=r"network 'darknet53' has no detection head, so boxes cannot suit it\. Give --size"
  ):
    network_facts(load("darknet53").graph, "stretch")


def test_anchors_that_fit_no_box(tmp_path: Path) -> None:
  anchors = Network((416, 416), "stretch", (16.0, 16.0), np.array([(10.0, 13)]))
  diagnosis = diagnose(make_set("coco", tmp_path).spec, network=anchors)
  check_places(diagnosis, {"anchors.poor_fit": ["SPEC"]})
  assert "reaches IoU 0.25 for 0.0% of 24 boxes" in diagnosis.found[0].spots[0].text


def test_letterbox_stretches_nothing(tmp_path: Path) -> None:
  one = make_set("coco", tmp_path)
  one.image(0).write_bytes(encoded(pixels(0, 300, 90), quality=92))
  with one.coco() as content:
    content["images"][0] |= {"width": 300}
  check_places(diagnose(one.spec, network=Network((416, 416))), {"images.stretched": ["0.jpg"]})
  check_places(diagnose(one.spec, network=Network((416, 416), "letterbox")), {})


# -- real data ---------------------------------------------------------------------------------------------------------


def test_blood_cells(shared: Path) -> None:
  """Two boxes without size (its NOTICE names them), a cell that was boxed twice, and one photo in both splits."""
  root = shared / "data" / "bccd" / "BCCD"
  train, val = (open_split(f"voc:{root}:{name}", decode=True) for name in ("train", "val"))
  check_places(examine(Exam((train,))), {
    "boxes.nested": ["BloodImage_00013.xml:182"], "labels.no_size": ["BloodImage_00343.xml:50"]
  })  # fmt: skip
  check_places(examine(Exam((val, train))), {
    "labels.no_size": ["BloodImage_00338.xml:158"], "splits.near_copies": ["BloodImage_00037.jpg"]
  })  # fmt: skip


def test_coco(shared: Path) -> None:
  """Nothing serious; what is found was looked at by eye."""
  root = shared / "data" / "coco_subset"
  diagnosis = diagnose(f"coco:{root}/annotations/instances_val2017.json:{root}/val2017", network=NONE)
  assert {key: len(value) for key, value in places(diagnosis).items()} == {
    "boxes.tiny": 8, "boxes.whole_image": 8, "classes.few_examples": 45, "classes.unused": 1,
    "images.grey_among_colour": 4, "images.without_objects": 1,
  }  # fmt: skip
  grey = ["000000205401.jpg", "000000456496.jpg", "000000566282.jpg", "000000570448.jpg"]
  assert [Path(place).name for place in places(diagnosis)["images.grey_among_colour"]] == grey
  assert [Path(place).name for place in places(diagnosis)["images.without_objects"]] == ["000000058636.jpg"]


# -- properties --------------------------------------------------------------------------------------------------------


@given(
  st.lists(st.tuples(st.integers(0, 2), *[st.integers(0, 30)] * 2, *[st.integers(1, 30)] * 2), min_size=0, max_size=25),
  st.sampled_from([0.5, 0.7, 0.95]),
)
@settings(max_examples=60, deadline=None)
def test_pairs_are_those_of_all_with_all(rows: list[tuple[int, int, int, int, int]], limit: float) -> None:
  rows.sort(key=lambda row: row[0])
  table = np.array(rows, np.float64).reshape(-1, 5)
  boxes = np.concatenate([table[:, 1:3], table[:, 1:3] + table[:, 3:]], 1)
  split = object.__new__(Split)
  object.__setattr__(split, "boxes_xyxy_px", boxes)
  object.__setattr__(split, "image_of", table[:, 0].astype(np.int64))
  first, second, _ = pairs_above(split, limit)
  expected = [
    (i, j)
    for i in range(len(rows))
    for j in range(i + 1, len(rows))
    if rows[i][0] == rows[j][0] and iou_of(boxes[i : i + 1], boxes[j : j + 1])[0] > limit
  ]
  assert list(zip(first.tolist(), second.tolist(), strict=True)) == expected


@given(st.data())
@settings(max_examples=15, deadline=None)
def test_no_convention_is_invented(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
  """Whole boxes anywhere within their images fit as they are read, in every format."""
  kind = data.draw(st.sampled_from(["coco", "yolo", "voc"]))
  one = make_set(kind, tmp_path_factory.mktemp("set"))
  seed = data.draw(st.integers(0, 2**32 - 1))
  rng = np.random.default_rng(seed)
  for number in range(12):
    corners = np.sort(rng.integers(0, [WIDTH, HEIGHT], (6, 2, 2)), axis=1)
    boxes = [(int(x), int(y), int(u - x + 1), int(v - y + 1)) for (x, y), (u, v) in corners]
    if kind == "yolo":
      lines = [f"0 {(x + w / 2) / WIDTH} {(y + h / 2) / HEIGHT} {w / WIDTH} {h / HEIGHT}\n" for x, y, w, h in boxes]
      one.label(number).write_text("".join(lines))
    elif kind == "voc":
      objects = "".join(
        f"<object><name>cat</name><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax>"
        f"<ymax>{y + h}</ymax></bndbox></object>"
        for x, y, w, h in boxes
      )
      one.label(number).write_text(f"<annotation>{objects}</annotation>")
    else:
      with one.coco() as content:
        for k, box in enumerate(boxes):
          entry = {"id": 1000 + 10 * number + k, "image_id": number, "category_id": 1, "bbox": list(box)}
          content["annotations"].append(entry)
  found = places(diagnose(one.spec, decode=False))
  assert (
    not {"labels.other_layout", "labels.counted_from_0", "labels.counted_from_1", "labels.two_tools"} & found.keys()
  )
  split = open_split(one.spec, decode=False)
  assert all(":" in split.place_of_box(box) for box in range(len(split.classes)))
