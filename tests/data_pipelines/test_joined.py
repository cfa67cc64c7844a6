"""Several sets as one: classes by name, how often each is seen, what each annotates, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prn_jax.data_pipelines.augment import NO_DETECTION_AUGMENT
from prn_jax.data_pipelines.feed.batching import EpochOrder
from prn_jax.data_pipelines.feed.pipeline import PipelineConfig, batch_at
from prn_jax.data_pipelines.joined import Draws, images_per_epoch, joined
from prn_jax.data_pipelines.records import DataError, Dataset, notes_of, with_names
from prn_jax.data_pipelines.sources.sets import several
from prn_jax.data_pipelines.spec import open_spec


def yolo_set(folder: Path, names: list[str], classes: list[int], *, grey: int = 0) -> str:
  """A set with one image for every entry of `classes`, that shows one object of the class."""
  for part in ("images", "labels"):
    (folder / part).mkdir(parents=True)
  (folder / "data.yaml").write_text(json.dumps({"names": names, "train": "images"}))
  for number, one in enumerate(classes):
    Image.new("RGB", (40, 30), (grey, number, 0)).save(folder / "images" / f"{number}.png")
    (folder / "labels" / f"{number}.txt").write_text(f"{one} 0.5 0.5 0.4 0.4\n")
  return f"yolo:{folder}/data.yaml:train"


@pytest.fixture
def two(tmp_path: Path) -> tuple[str, str]:
  """Six images of cars and bicycles, three of persons and bikes of another spelling."""
  first = yolo_set(tmp_path / "first", ["car", "motorbike"], [0, 1, 0, 1, 0, 1])
  return first, yolo_set(tmp_path / "second", ["person", "Motorcycle", "dog"], [0, 1, 2], grey=200)


def shown(dataset: Dataset) -> list[str]:
  return [dataset.names[c] for index in range(len(dataset)) for c in dataset[index].classes]


def test_classes_that_mean_the_same_are_one(two: tuple[str, str]) -> None:
  dataset = open_spec(several(*two))
  assert dataset.names == ("car", "motorbike", "person", "dog")
  assert shown(dataset) == ["car", "motorbike"] * 3 + ["person", "motorbike", "dog"]
  assert notes_of(dataset) == ("set 2: classes are matched by name, 'Motorcycle' as 'motorbike'",)
  ids = [dataset[index].image_id for index in range(len(dataset))]
  assert ids == [f"1/{n}" for n in range(6)] + [f"2/{n}" for n in range(3)]
  first, last = dataset[0].annotated, dataset[8].annotated
  assert first is not None
  assert last is not None
  assert first.tolist() == [True, True, False, False]
  assert last.tolist() == [False, True, True, True]
  with pytest.raises(IndexError):
    dataset[9]


def test_the_file_gives_labels_weights_and_the_order(two: tuple[str, str], tmp_path: Path) -> None:
  (tmp_path / "sets.yaml").write_text(
    f"sets:\n- spec: '{two[0]}'\n  weight: 0.5\n- spec: '{two[1]}'\n  weight: 3\n"
    "  labels: {motorcycle: motorbike, dog: null}\n  annotated: [person, car, motorbike]\nnames: [person, motorbike, car]\n"
  )
  dataset = open_spec(f"sets:{tmp_path}/sets.yaml")
  assert dataset.names == ("person", "motorbike", "car")
  assert shown(dataset) == ["car", "motorbike"] * 3 + ["person", "motorbike"]  # the dog is background
  assert all(dataset[8].annotated)  # as was said
  assert images_per_epoch(dataset) == 3 + 9
  renamed = with_names(dataset, ["truck", "car", "motorbike", "person"])
  annotated = renamed[0].annotated
  assert annotated is not None
  assert annotated.tolist() == [False, True, True, False]
  assert joined(renamed) is dataset


def test_batches_say_what_is_annotated(two: tuple[str, str]) -> None:
  dataset = open_spec(several(*two))
  config = PipelineConfig(seed=0, batch_size=9, sizes=((40, 30),), max_boxes=2, threads=1)
  batch = batch_at(dataset, NO_DETECTION_AUGMENT, config, 0)
  expected = [[1, 1, 0, 0] if index < 6 else [0, 1, 1, 1] for index in batch["index"]]
  assert batch["annotated"].tolist() == expected
  assert "annotated" not in batch_at(open_spec(two[0]), NO_DETECTION_AUGMENT, config, 0)


@pytest.mark.parametrize("kind", ["mosaic", "mixup"])
def test_a_picture_of_several_images_is_annotated_for_what_all_of_them_are(two: tuple[str, str], kind: str) -> None:
  dataset = open_spec(several(*two))
  augment = dataclasses.replace(NO_DETECTION_AUGMENT, **{kind: True})
  config = PipelineConfig(seed=1, batch_size=8, sizes=((40, 30),), max_boxes=8, threads=1)
  seen = set()
  for step in range(6):
    batch = batch_at(dataset, augment, config, step)
    for image, annotated, truth in zip(batch["image"], batch["annotated"], batch["truth"], strict=True):
      classes = set(truth[truth[:, 2] > 0, 4].astype(int).tolist())
      reds = image[..., 0]
      own = [[1, 1, 0, 0]] * bool((reds < 90).any()) + [[0, 1, 1, 1]] * bool((reds > 110).any())
      mixed = kind == "mixup" and ((reds > 90) & (reds < 110)).all()
      expected = np.minimum.reduce([[1, 1, 0, 0], [0, 1, 1, 1]] if mixed else own)
      assert annotated.tolist() == expected.tolist(), (reds.min(), reds.max(), classes)
      seen.add(tuple(annotated.tolist()))
  assert (0, 1, 0, 0) in seen
  assert len(seen) == 3


@settings(max_examples=40, deadline=None)
@given(
  st.lists(st.tuples(st.integers(1, 12), st.sampled_from([0.25, 0.5, 1, 1.5, 2, 3.75])), min_size=1, max_size=4),
  st.integers(0, 99),
)
def test_an_epoch_draws_each_set_by_its_weight(sets: list[tuple[int, float]], seed: int) -> None:
  draws = [Draws(count, weight) for count, weight in sets]
  order = EpochOrder(draws, seed)
  if not order.per_epoch:
    return
  first = 0
  epochs = [[order.record_at(epoch * order.per_epoch + at) for at in range(order.per_epoch)] for epoch in (0, 1)]
  for count, weight in sets:
    for epoch in epochs:
      drawn = Counter(index for index in epoch if first <= index < first + count)
      assert sum(drawn.values()) == int(weight) * count + round(weight % 1 * count)
      assert set(drawn.values()) <= {int(weight), int(weight) + 1}
    first += count


def test_only_the_classes_that_are_kept(two: tuple[str, str]) -> None:
  dataset = open_spec(several({"spec": two[1], "keep": ["motorbike", "dog"], "labels": {"dog": "pet"}}))
  assert dataset.names == ("Motorcycle", "pet")
  assert shown(dataset) == ["Motorcycle", "pet"]
  assert len(dataset) == 3  # an image that shows no kept class is background


FAULTS = {
  "a class to keep that is none": ({"keep": ["bus"]}, r"keep has 'bus', which is no class of this set; it has car, m"),
  "an unknown key": ({"wieght": 2}, r"has the key 'wieght' \(did you mean 'weight'\?\); expected some of spec, weight"),
  "a class that is none": (
    {"labels": {"carr": "van"}},
    r"labels has 'carr' \(did you mean 'car'\?\), which is no class of",
  ),
  "annotated that is none": ({"annotated": ["lorry"]}, r"annotated has 'lorry', which is no class of the sets"),
  "a weight of nothing": ({"weight": 0.01}, r"weight is 0\.01, so that none of the 6 images would be drawn"),
  "a negative weight": ({"weight": -1}, r"weight is -1; expected"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults_are_named(two: tuple[str, str], case: str) -> None:
  keys, message = FAULTS[case]
  with pytest.raises(DataError, match=message):
    open_spec(several({"spec": two[0], **keys}, two[1]))


def test_other_lists_are_refused(two: tuple[str, str], tmp_path: Path) -> None:
  with pytest.raises(DataError, match=r"the list of sets is empty; expected at least one set"):
    open_spec(several())
  with pytest.raises(DataError, match=r"is a list of sets itself; list all sets in one place"):
    open_spec(several(several(*two)))
  with pytest.raises(DataError, match=r"has objects of class 'dog', not among the given names\. Add them there, or"):
    open_spec(several(*two, names=["car", "motorbike", "person"]))
  with pytest.raises(DataError, match=r"names holds a name twice; names must differ"):
    open_spec(several(*two, names=["car", "car"]))
  for name in ("cat", "dog"):
    (tmp_path / "folder" / name).mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "folder" / name / "a.png")
  folder = f"imagefolder:{tmp_path}/folder"
  with pytest.raises(DataError, match="some of the sets have boxes, others labels of whole images"):
    open_spec(several(two[0], folder))
  with pytest.raises(DataError, match="leaves out classes of whole images; only boxes can be left out"):
    open_spec(several({"spec": folder, "labels": {"cat": None}}))
  twice = open_spec(several(folder, {"spec": folder, "labels": {"cat": "lion"}}))
  assert [twice.names[twice[index].label or 0] for index in range(4)] == ["cat", "dog", "lion", "dog"]
