"""TensorFlow Datasets without TensorFlow: `tfds:NAME:SPLIT`.

NAME is a data set of the catalogue that has been prepared on this machine (cifar10, voc/2007, coco/2017, imagenet2012), or
a folder with a dataset_info.json, or one above it. SPLIT may be a slice: train[:10%]. Files are TFRecord, which tfds
writes by default, ArrayRecord or Parquet. The images come through as they are stored; they are decoded by the pipeline.

A top-level ClassLabel becomes the label of the image; a sequence with a BBoxFeature becomes objects. Boxes there are
ymin, xmin, ymax, xmax relative to the image. What is wrong with a box shows when its record is read: the policy stop
raises then, skip leaves the box out and adds it to `problems`.

Some data sets of the catalogue (coco, imagenet2012) can be prepared only where TensorFlow is; prepared once, they are
read here. Without TensorFlow the original files do: `coco:ANNOTATIONS.json:IMAGES_DIR` and `imagenet:ROOT:SPLIT`.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.image_sizes import image_size
from prn_jax.data_pipelines.reading.tfrecord import FilePart, TfRecords
from prn_jax.data_pipelines.records import (
  DataError,
  ImageId,
  Object,
  OnBadData,
  Place,
  Problem,
  ProblemLog,
  Record,
  Task,
  checked_box,
  make_record,
)
from prn_jax.data_pipelines.spec import register_source
from prn_jax.errors import did_you_mean
from prn_jax.files.disk import is_folder
from prn_jax.files.places import is_remote, to_path

_ID_KEYS = ("image/id", "image_id", "id", "image/filename", "file_name", "filename")
_CLASS_KEYS = ("label", "category", "type", "class")
FORMATS = ("tfrecord", "array_record", "parquet")
# Data sets that tfds prepares with TensorFlow alone -> the SPEC that reads their original files.
ORIGINALS = {"coco": "coco:ANNOTATIONS.json:IMAGES_DIR", "imagenet2012": "imagenet:ROOT:SPLIT"}
_PREPARE = "python -c \"import tensorflow_datasets as tfds; tfds.builder('{}', file_format='array_record').download_and_prepare()\""


@dataclass(frozen=True)
class _Layout:
  """Which feature holds what; None where the data set has none."""

  image: str
  image_id: str | None
  label: str | None
  objects: str | None
  box: str
  object_class: str | None
  crowd: str | None
  difficult: str | None
  area: str | None
  names: tuple[str, ...]


class TfdsDataset:
  """Records of a prepared TensorFlow Datasets split; picklable.

  Args:
    source: tfds' random access source, images as bytes.
    layout: which feature holds what.
    where: what messages call it.
    folder: the folder of the prepared data.
    policy: what happens to bad boxes.
  """

  def __init__(self, source: Any, layout: _Layout, where: str, folder: Path, policy: OnBadData) -> None:
    self._source, self._layout, self._where, self._folder, self._policy = source, layout, where, folder, policy
    self._problems: dict[int, tuple[Problem, ...]] = {}

  @property
  def names(self) -> tuple[str, ...]:
    return self._layout.names

  @property
  def category_ids(self) -> tuple[int, ...]:
    return tuple(range(len(self.names)))

  @property
  def task(self) -> Task:
    return Task.DETECT if self._layout.label is None else Task.CLASSIFY

  @property
  def problems(self) -> Sequence[Problem]:
    """Those of the records that have been read so far."""
    return tuple(problem for index in sorted(self._problems) for problem in self._problems[index])

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> Record:
    """The record, its image as bytes.

    Raises:
      DataError: the files are damaged, the image has no label, or a box is bad (policy stop).
      IndexError: there is no such record.
    """
    if not -len(self) <= index < len(self):
      raise IndexError(f"record {index} of {len(self)} in {self._where}")
    index %= len(self)
    try:
      example = self._source[index]
    except Exception as error:  # what the readers raise on damaged files is not a closed list
      raise DataError(f"{self._where}: record {index} in {self._folder} cannot be read ({error})") from error
    layout = self._layout
    image_id = _image_id(example[layout.image_id]) if layout.image_id else index
    image = bytes(example[layout.image])
    try:
      size = image_size(image)
    except DataError:  # whoever decodes it words the message and follows the policy
      return make_record(image, image_id, None, (), self._label(example, index))
    log = ProblemLog(self._policy)
    objects = self._objects(example, index, size, log)
    if log.problems:
      self._problems[index] = tuple(log.problems)
    return make_record(image, image_id, size, objects, self._label(example, index))

  def _label(self, example: dict[str, Any], index: int) -> int | None:
    if self._layout.label is None:
      return None
    label = int(example[self._layout.label])
    if not 0 <= label < len(self.names):
      raise DataError(
        f"{self._where}: record {index} has label {label}; expected 0..{len(self.names) - 1}. "
        "Splits without labels (-1) are for submissions to a benchmark; choose another."
      )
    return label

  def _objects(self, example: dict[str, Any], index: int, size: tuple[int, int], log: ProblemLog) -> list[Object]:
    layout, found = self._layout, []
    if layout.objects is None:
      return []
    values = example[layout.objects]
    width, height = size
    for number, box in enumerate(values[layout.box]):
      get = lambda key, number=number: None if key is None else values[key][number]  # noqa: E731
      prefix = f"record {index}, object {number + 1}: "
      class_index = int(get(layout.object_class) or 0)
      if not 0 <= class_index < len(self.names):
        reason = f"{prefix}class {class_index} is not among the {len(self.names)} classes"
        log.report(self._folder, None, reason, Check.LABEL_UNKNOWN_CLASS, "the object is left out")
        continue
      y1, x1, y2, x2 = (float(value) for value in box)
      corners = (x1 * width, y1 * height, x2 * width, y2 * height)
      usable = checked_box(corners, size, log, Place(self._folder, None, prefix))
      if usable is not None:
        area = get(layout.area)
        found.append(
          Object(
            usable,
            class_index,
            is_crowd=bool(get(layout.crowd)),
            is_difficult=bool(get(layout.difficult)),
            area_px=None if area is None else float(area),
          )
        )
    return found


def _image_id(value: Any) -> ImageId:
  if isinstance(value, bytes):
    return value.decode("utf-8", "replace")
  return value if isinstance(value, str) else int(value)


@register_source(
  "tfds:NAME:SPLIT",
  "what TensorFlow Datasets has prepared, without TensorFlow; NAME may be a folder, SPLIT a slice (train[:10%])",
)
def open_tfds(parts: tuple[str, ...], log: ProblemLog) -> TfdsDataset:
  """Opens one split of a prepared data set; no record is read yet.

  Raises:
    DataError: the data set or split is unknown, not prepared, needs TensorFlow, or has no images with labels.
  """
  import tensorflow_datasets as tfds

  name, split = parts
  where = f"tfds:{name}:{split}"
  builder = _builder(name, where)
  folder = Path(str(builder.data_path))
  layout = _layout(builder.info.features, where)
  _check_files(builder, name, folder, where)
  known = list(builder.info.splits)
  base = split.split("[")[0].split("+")[0]
  if base not in [*known, "all"]:
    raise DataError(f"data '{where}': there is no split '{base}'{did_you_mean(base, known)}; found {', '.join(known)}")
  decoders = {layout.image: tfds.decode.SkipDecoding()}
  try:
    if builder.info.file_format.value == "tfrecord":
      source: Any = _TfRecordSource(builder.info, split, decoders)
    else:
      source = builder.as_data_source(split=split, decoders=decoders)
  except Exception as error:  # what a wrong slice or a missing shard raises is not a closed list
    raise DataError(f"data '{where}' in {folder} cannot be opened: {error}") from error
  if not len(source):
    raise DataError(f"data '{where}' in {folder} holds no images")
  return TfdsDataset(source, layout, where, folder, log.policy)


class _TfRecordSource:
  """What tfds' data sources are, for the format that they do not read.

  Args:
    info: tfds' description of the data set.
    split: a split of it, or a slice.
    decoders: what tfds takes as `decoders`.
  """

  def __init__(self, info: Any, split: str, decoders: Mapping[str, Any]) -> None:
    from tensorflow_datasets.core.data_sources.base import file_instructions

    files = file_instructions(info, split)
    self._records = TfRecords([FilePart(Path(f.filename), f.skip, f.take, f.examples_in_shard) for f in files])
    self._features, self._decoders = info.features, decoders

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> Any:
    return self._features.deserialize_example_np(self._records[index], decoders=self._decoders)


def _builder(name: str, where: str) -> Any:
  import tensorflow_datasets as tfds

  path = to_path(name)
  if is_remote(path):
    raise DataError(
      f"data '{where}': what tfds has prepared is read on this machine only, because its readers do not know gs://. Copy it "
      f"here (gcloud storage cp -r {name} FOLDER), or mount the bucket (gcsfuse)."
    )
  if is_folder(path):
    return _builder_of_folder(path, where)
  if path.is_absolute() or name.startswith(("~", ".")):
    raise DataError(f"data '{where}': there is no folder {path}")
  with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # a banner on TensorFlow
    try:
      return tfds.builder(name, try_gcs=False)
    except tfds.core.DatasetNotFoundError:
      near = did_you_mean(name.split("/")[0], tfds.list_builders(with_community_datasets=False))
      raise DataError(
        f"data '{where}': tfds knows no data set '{name}'{near}. Expected a name of its catalogue, or a folder with "
        "prepared data."
      ) from None
    except ImportError:
      try:  # what is prepared describes itself
        return tfds.core.read_only_builder.builder_from_files(name)
      except Exception:
        raise DataError(_needs_tensorflow(name, where)) from None
    except Exception as error:  # an unknown config or version, a damaged folder, ...
      raise DataError(f"data '{where}' cannot be opened: {error}") from error


def _needs_tensorflow(name: str, where: str) -> str:
  own = ORIGINALS.get(name.split("/")[0])
  instead = f"give the original files, {own}; or prepare" if own else "prepare"
  return (
    f"data '{where}' is not prepared (TFDS_DATA_DIR says where to look), and tfds needs TensorFlow to prepare it, which "
    f"prn_jax does without: {instead} it where TensorFlow is installed, and give the folder."
  )


def _builder_of_folder(path: Path, where: str) -> Any:
  import tensorflow_datasets as tfds

  found = [
    file.parent for depth in ("", "*/", "*/*/", "*/*/*/") for file in sorted(path.glob(f"{depth}dataset_info.json"))
  ]
  if not found:
    raise DataError(f"data '{where}': {path} holds no dataset_info.json; expected a folder that tfds prepared")
  if len(found) > 1:
    listed = "\n  ".join(str(folder) for folder in found)
    raise DataError(f"data '{where}': {path} holds several data sets; give one of\n  {listed}")
  try:
    return tfds.builder_from_directory(str(found[0]))
  except Exception as error:  # a damaged dataset_info.json or features.json
    raise DataError(f"data '{where}': {found[0]} cannot be opened: {error}") from error


def _check_files(builder: Any, name: str, folder: Path, where: str) -> None:
  """Raises DataError where the data is not there, or stored so that only TensorFlow can read it."""
  if not (folder / "dataset_info.json").is_file():
    if name.split("/")[0] in ORIGINALS:
      raise DataError(_needs_tensorflow(name, where))
    command = _PREPARE.format(name)
    raise DataError(
      f"data '{where}' is not prepared: there is no {folder}. Prepare it with\n  {command}\n"
      "set TFDS_DATA_DIR, or give the folder of the prepared data."
    )
  stored = builder.info.file_format.value
  if stored not in FORMATS:
    raise DataError(
      f"data '{where}': {folder} is stored as {stored}; expected one of {', '.join(FORMATS)}. Prepare it in another folder "
      "with file_format='array_record'."
    )


def _layout(features: Any, where: str) -> _Layout:
  """Finds the features by their types, and by their usual names where there are several."""
  import tensorflow_datasets as tfds

  kinds = tfds.features
  listed = ", ".join(f"{key} ({type(feature).__name__})" for key, feature in features.items())
  images = [key for key, feature in features.items() if isinstance(feature, kinds.Image)]
  labels = [key for key, feature in features.items() if isinstance(feature, kinds.ClassLabel)]
  if not images:
    raise DataError(f"data '{where}' has no images; its features are {listed}")
  objects, inner = None, {}
  for key, feature in features.items():
    content = getattr(feature, "feature", None)
    if isinstance(content, kinds.FeaturesDict) and any(isinstance(f, kinds.BBoxFeature) for f in content.values()):
      objects, inner = key, dict(content.items())
      break
  label = _first(labels, _CLASS_KEYS) if objects is None else None
  if objects is None and label is None:
    raise DataError(
      f"data '{where}' has neither a ClassLabel nor objects with a BBoxFeature; its features are {listed}"
    )
  boxes = [key for key, feature in inner.items() if isinstance(feature, kinds.BBoxFeature)]
  object_class = _first([key for key, feature in inner.items() if isinstance(feature, kinds.ClassLabel)], _CLASS_KEYS)
  class_feature = features[label] if label else inner.get(object_class)
  return _Layout(
    image="image" if "image" in images else images[0],
    image_id=next((key for key in _ID_KEYS if key in features), None),
    label=label,
    objects=objects,
    box=_first(boxes, ("bbox",)) or "",
    object_class=object_class,
    crowd="is_crowd" if "is_crowd" in inner else None,
    difficult="is_difficult" if "is_difficult" in inner else None,
    area="area" if "area" in inner else None,
    names=tuple(class_feature.names) if class_feature is not None else ("object",),
  )


def _first(found: list[str], preferred: Sequence[str]) -> str | None:
  return next((key for key in preferred if key in found), found[0] if found else None)
