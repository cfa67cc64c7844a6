"""The readers that are fuzzed: how each takes the bytes of an input, and valid seeds."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import random
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from prn_jax.data_pipelines.prepared.record_bytes import decode_record, encode_record
from prn_jax.data_pipelines.records import Object, OnBadData, ProblemLog, make_record
from prn_jax.data_pipelines.spec import open_spec
from prn_jax.errors import PrnError
from prn_jax.nested import nested
from tests.fuzz.mutate import mutated_bytes, mutated_json, mutated_text

Read = Callable[[bytes], object]
Prepare = Callable[[Path], tuple[Read, Sequence[bytes]]]
Mutator = Callable[[bytes, Sequence[bytes], random.Random], bytes]
BYTES, TEXT, JSON = (mutated_bytes,), (mutated_text, mutated_text, mutated_bytes), (mutated_json,)


@dataclasses.dataclass(frozen=True)
class Reader:
  """One reader.

  Attributes:
    prepare: makes what it needs in a folder; returns what reads an input, and the seeds.
    mutators: make inputs of seeds.
  """

  prepare: Prepare
  mutators: Sequence[Mutator]


READERS: dict[str, Reader] = {}


def reader(mutators: Sequence[Mutator]) -> Callable[[Prepare], Prepare]:
  """Registers the function under its name."""

  def register(prepare: Prepare) -> Prepare:
    READERS[prepare.__name__] = Reader(prepare, mutators)
    return prepare

  return register


def picture(kind: str = "png", mode: str = "RGB", size: tuple[int, int] = (12, 8)) -> bytes:
  buffer = io.BytesIO()
  noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
  Image.fromarray(noise).convert(mode).save(buffer, kind)
  return buffer.getvalue()


def opener(spec: str, file: Path) -> Read:
  """Writes the input into a file of a data set, and opens the set under one policy or the other."""

  def read(content: bytes) -> object:
    file.write_bytes(content)
    return open_spec(spec, OnBadData.SKIP if len(content) % 2 else OnBadData.STOP)

  return read


# -- videos ----------------------------------------------------------------------------------------
@reader(TEXT)
def tracks(folder: Path) -> tuple[Read, Sequence[bytes]]:
  from prn_jax.track import motchallenge

  def read(content: bytes) -> object:
    (folder / "t.txt").write_bytes(content)
    table = motchallenge.read(folder / "t.txt")
    assert np.isfinite(table.boxes_xyxy_px).all()
    return table

  return read, [b"1,1,10,20,30,40,0.9,1,-1,-1\n2,1,11,20.5,30,40,1e-3,-1,-1,-1\n", b"1 -1 5 5 2 2\n\n3 2 5 5 2 2 1 1\n"]


@reader(TEXT)
def scene(folder: Path) -> tuple[Read, Sequence[bytes]]:
  from prn_jax.track import scene as format

  def read(content: bytes) -> object:
    (folder / "s.yaml").write_bytes(content)
    return format.read(folder / "s.yaml")

  lines = b"point: center\nlines:\n  - {name: a, from: [0, 0], to: [9, 1.5], forward: in, backward: out}\n"
  places = ((1, 1, 0, 0), (9, 1, 7, 0), (12, 9, 7, -9), (0, 9, 0, -9))
  ground = "".join(f"  - {{pixel: [{x}, {y}], metres: [{u}, {v}]}}\n" for x, y, u, v in places)
  calibrated = lines.replace(b"center", b"bottom") + f"calibration:\n{ground}".encode()
  return read, [lines, calibrated, lines + b"movements:\n  - name: b\n    from: a in\n    to: a out\n"]


@reader(TEXT)
def track_lines(folder: Path) -> tuple[Read, Sequence[bytes]]:
  from prn_jax.track import track_lines as format

  def read(content: bytes) -> object:
    (folder / "t.jsonl").write_bytes(content)
    found = format.read(folder / "t.jsonl")
    assert np.isfinite(found.boxes.boxes_xyxy_px).all()
    return found

  box = b'{"id": 4, "class": 2, "score": 0.5, "box_xyxy_px": [40, 1, 60, 9], "name": "van"}'
  line = b'{"frame": 1, "time_sec": 0.0, "source": null, "tracks": [' + box + b"]}\n"
  return read, [line, line + line.replace(b'"frame": 1, "time_sec": 0.0', b'"frame": 3, "time_sec": 1.5')]


# -- networks --------------------------------------------------------------------------------------
@reader(TEXT)
def cfg(folder: Path) -> tuple[Read, Sequence[bytes]]:
  from prn_jax.formats import darknet_cfg
  from tests.nets import tiny_detector

  net = b"[net]\nwidth=32\nheight=32\nchannels=3\nbatch=4\nlearning_rate=0.001\nsteps=10,20\nscales=.1,.1\n"
  rest = (
    b"[convolutional]\nfilters=8\nsize=3\nstride=2\npad=1\nactivation=leaky\nbatch_normalize=1\n[maxpool]\nsize=2\n"
  )

  def read(content: bytes) -> object:
    path = folder / "a.cfg"
    path.write_bytes(content)
    return darknet_cfg.read(path, strict=len(content) % 2 == 0)

  seeds = [darknet_cfg.dump(tiny_detector()).encode(), net + rest, net + rest + b"[avgpool]\n[softmax]\ngroups=1\n"]
  return read, seeds


@reader(BYTES)
def weights(folder: Path) -> tuple[Read, Sequence[bytes]]:
  from prn_jax.formats import darknet_weights
  from prn_jax.network import init_variables
  from tests.nets import tiny_detector

  graph = tiny_detector()
  darknet_weights.save(folder / "a.weights", graph, init_variables(graph))

  def read(content: bytes) -> object:
    (folder / "a.weights").write_bytes(content)
    return darknet_weights.load(folder / "a.weights", graph, partial=[None, True, False][len(content) % 3])

  return read, [(folder / "a.weights").read_bytes()]


@reader(JSON)
def model_json(folder: Path) -> tuple[Read, Sequence[bytes]]:
  from prn_jax.files.sealed import hashes
  from prn_jax.formats import orbax

  payload = folder / "payload-1f3a9c02"
  payload.mkdir()
  (payload / "graph.cfg").write_text("[net]\n")
  index = {"format": orbax.FORMAT, "version": 1, "payload": payload.name, "sha256": hashes(payload, ["graph.cfg"])}
  header = {"major": 0, "minor": 2, "revision": 5, "seen": 64000, "seen_bytes": 8}
  extra = {"name": "a", "names": ["cat", "dog"], "resize": "letterbox", "header": header, "missing": ["p5"]}

  def read(content: bytes) -> object:
    (folder / orbax.INDEX).write_bytes(content)
    found = orbax.load_index(folder)
    return orbax.load_graph_cfg(folder, found)

  return read, [json.dumps(index | extra).encode(), json.dumps(index | {"header": None}).encode()]


@reader(BYTES)
def safetensors(folder: Path) -> tuple[Read, Sequence[bytes]]:
  from prn_jax.formats import safetensors as format

  path = folder / "a.safetensors"
  format.save(path, "[net]\n", {"params/a/kernel": np.ones((2, 3), np.float32)}, {"name": "a"})

  def read(content: bytes) -> object:
    path.write_bytes(content)
    return format.load(path)

  return read, [path.read_bytes()]


@reader(JSON)
def safetensors_extra(folder: Path) -> tuple[Read, Sequence[bytes]]:
  """The metadata in a file that is whole otherwise."""
  from safetensors.numpy import save

  from prn_jax.formats import safetensors as format

  flat, path = {"params/a/kernel": np.ones((2, 3), np.float32)}, folder / "a.safetensors"
  facts = {"format": format.FORMAT, "graph_cfg": "[net]\n", "sha256": format.digest(flat)}

  def read(content: bytes) -> object:
    path.write_bytes(save(flat, facts | {"extra": content.decode("utf-8", "replace")}))
    return format.load(path)

  return read, [json.dumps({"name": "a", "names": ["cat"], "resize": "stretch", "header": {"seen": 1}}).encode()]


@reader(JSON)
def timm_config(folder: Path) -> tuple[Read, Sequence[bytes]]:
  """The config.json beside weights of timm."""
  from prn_jax.formats import timm

  source, config = timm.parse_name("timm/resnet50"), folder / "config.json"

  def read(content: bytes) -> object:
    config.write_bytes(content)
    return timm._pixels(folder / "model.safetensors", source)

  pixels = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
  return read, [json.dumps({"architecture": "resnet50", "pretrained_cfg": pixels}).encode()]


# -- runs ------------------------------------------------------------------------------------------
@reader(JSON)
def manifest(folder: Path) -> tuple[Read, Sequence[bytes]]:
  """Also with a checksum that holds, as after an edit by somebody who knows."""
  from prn_jax.formats import checkpoints

  rating = checkpoints.Rating(0.5, {"name": "AP50"})
  checkpoints.write_manifest(folder, 7, rating, {"meta.json": "0" * 64, "state/a/0": "1" * 64})

  def read(content: bytes) -> object:
    with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):
      tree = json.loads(content)
      tree.pop("checksum", None)
      if len(content) % 4:
        content = json.dumps(tree | {"checksum": checkpoints._checksum(tree)}).encode()
    (folder / checkpoints.MANIFEST).write_bytes(content)
    found = checkpoints.read_manifest(folder)
    checkpoints.best_of({1: checkpoints.Rating(0.1, {"name": "AP50"}), 2: checkpoints.rating_of(found)})
    checkpoints.verify(folder)
    return found

  (folder / "state" / "a").mkdir(parents=True)
  for name in ("meta.json", "state/a/0"):
    (folder / name).write_text(name)
  checkpoints.write_manifest(folder, 7, rating, checkpoints.hash_files(folder))
  return read, [(folder / checkpoints.MANIFEST).read_bytes()]


@reader(JSON)
def meta(folder: Path) -> tuple[Read, Sequence[bytes]]:
  from prn_jax.formats import checkpoints

  stored = {
    "step": 3, "data_position": 3, "versions": {"jax": "0.9"},
    "meta": {"graph_cfg": "[net]\n", "names": ["cat"], "resize": "stretch", "name": "a", "config": {"model": "x"}},
    "arrays": {"params/a/kernel": ["float32", [2, 3]], "step": ["int32", []], "params/a/bias": ["bfloat16", [3]]},
  }  # fmt: skip

  def read(content: bytes) -> object:
    (folder / checkpoints.META).write_bytes(content)
    found = checkpoints.read_meta(folder)
    nested({path: checkpoints._numpy_target(*kind) for path, kind in found["arrays"].items()})
    return checkpoints.described_model(folder, found["meta"] | {"step": found["step"]})

  return read, [json.dumps(stored).encode()]


@reader(JSON)
def run_config(folder: Path) -> tuple[Read, Sequence[bytes]]:
  from prn_jax.train.config import default_config, differences, to_dict, typed
  from prn_jax.train.rundir import _read

  now = json.loads(json.dumps(to_dict(typed(default_config(), is_complete=False))))

  def read(content: bytes) -> object:
    (folder / "config.json").write_bytes(content)
    return differences(_read(folder / "config.json"), now)

  return read, [json.dumps(now).encode()]


@reader((*TEXT, mutated_text))
def metrics(folder: Path) -> tuple[Read, Sequence[bytes]]:
  """Never refused: what is damaged is set aside."""
  from prn_jax.train.log import JSONL, MetricsLog

  def read(content: bytes) -> object:
    for file in folder.iterdir():
      file.unlink()
    (folder / JSONL).write_bytes(content)
    log = MetricsLog(folder, start_step=20)
    log.close()
    return log

  rows = [{"step": 10, "loss": 2.5, "learning_rate": 0.1}, {"step": 10, "eval/AP50": None}, {"step": 20, "loss": 1}]
  return read, ["".join(json.dumps(row) + "\n" for row in rows).encode()]


@reader(JSON)
def bad_data(folder: Path) -> tuple[Read, Sequence[bytes]]:
  from prn_jax.files.structured import parse_json
  from prn_jax.train.bad_data import BadData

  entry = {"what": "image", "path": "a.jpg", "line": None, "kind": "malformed", "reason": "is empty"}
  boxes = {"images": 1, "boxes": 2}
  whole = {
    "data": {"train": "x", "valid": None},
    "over_max_boxes": boxes,
    "train": [entry],
    "valid": [entry | {"line": 3}],
  }

  def read(content: bytes) -> object:
    found = BadData.from_json(parse_json(content, "bad_data.json"))
    return found.merged(found).text(folder, 30)

  return read, [json.dumps(whole).encode()]


@reader(JSON)
def experiment(folder: Path) -> tuple[Read, Sequence[bytes]]:
  from prn_jax.experiments import record
  from tests.experiments.made_up import heads_record

  heads_record(seeds=1).write(folder / "results.json")
  seed = (folder / "results.json").read_bytes()

  def read(content: bytes) -> object:
    (folder / "results.json").write_bytes(content)
    return record.read(folder / "results.json")

  return read, [seed]


@reader(JSON)
def download_notes(folder: Path) -> tuple[Read, Sequence[bytes]]:
  """Notes that cannot be used are forgotten; the text of a checksum file is refused."""
  from prn_jax.files.structured import read_text
  from prn_jax.zoo.fetch import PATIENCE, _Job

  job = _Job("https://example.com/a", folder / "a", (), PATIENCE, lambda here, whole: None)

  def read(content: bytes) -> object:
    job.notes.write_bytes(content)
    found = job.read_notes()
    assert not found or (isinstance(found["size"], int) and str(found.get("validator")).isascii())
    return read_text(job.notes)

  return read, [json.dumps({"url": job.url, "validator": '"5f-1"', "size": 12}).encode()]


@reader(TEXT)
def config_values(folder: Path) -> tuple[Read, Sequence[bytes]]:
  """`--config.KEY=VALUE` of the command line."""
  from prn_jax.cli.train import read_config
  from prn_jax.train.config import typed

  def read(content: bytes) -> object:
    lines = [line for line in content.decode("utf-8", "surrogateescape").split("\n") if line]
    return typed(read_config("demo", [f"--config.{line}" for line in lines]))

  return read, [
    b"batch_size=4\noptim.learning_rate=0.1",
    b"total.steps=25\nseed=1",
    b"data.train=coco:a:b\nsizes=((32,32),(64,64))",
  ]


# -- data ------------------------------------------------------------------------------------------
@reader(BYTES)
def image(folder: Path) -> tuple[Read, Sequence[bytes]]:
  from prn_jax.data_pipelines.images import read_image

  seeds = [picture(kind) for kind in ("png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm")]
  return lambda content: read_image(content), [
    *seeds,
    picture("png", "P"),
    picture("jpeg", "CMYK"),
    picture("png", "LA"),
  ]


@reader(BYTES)
def archive(folder: Path) -> tuple[Read, Sequence[bytes]]:
  zipped, tarred = io.BytesIO(), io.BytesIO()
  with zipfile.ZipFile(zipped, "w") as file, tarfile.open(fileobj=tarred, mode="w") as tar:
    for name in ("cat/1.png", "dog/2.png"):
      file.writestr(name, picture())
      info = tarfile.TarInfo(name)
      info.size = len(picture())
      tar.addfile(info, io.BytesIO(picture()))

  def read(content: bytes) -> object:
    path = folder / ("a.zip" if content[:1] == b"P" else "a.tar")
    path.write_bytes(content)
    return open_spec(f"imagefolder:{path}", OnBadData.SKIP if len(content) % 2 else OnBadData.STOP)

  return read, [zipped.getvalue(), tarred.getvalue()]


@reader(TEXT)
def names(folder: Path) -> tuple[Read, Sequence[bytes]]:
  from prn_jax.labels import read_names

  def read(content: bytes) -> object:
    (folder / "a.names").write_bytes(content)
    return read_names(folder / "a.names")

  return read, ["cat\ndog\n猫\n".encode(), b"\xef\xbb\xbfcat\r\ndog\r\n", "cat\ndog".encode("utf-16")]


def darknet_set(folder: Path) -> None:
  (folder / "a.jpg").write_bytes(picture("jpeg"))
  (folder / "a.txt").write_text("0 .5 .5 .2 .2\n1 .4 .4 .1 .1\n")
  (folder / "x.names").write_text("cat\ndog\n")
  (folder / "x.list").write_text("a.jpg\n")
  (folder / "x.data").write_text("classes = 2\nnames = x.names\ntrain = x.list\nvalid = x.list\n")


@reader(TEXT)
def data_file(folder: Path) -> tuple[Read, Sequence[bytes]]:
  darknet_set(folder)
  return opener(f"darknet:{folder / 'x.data'}:valid", folder / "x.data"), [(folder / "x.data").read_bytes()]


@reader(TEXT)
def image_list(folder: Path) -> tuple[Read, Sequence[bytes]]:
  darknet_set(folder)
  return opener(f"darknet:{folder / 'x.data'}:valid", folder / "x.list"), [b"a.jpg\n", f"{folder}/a.jpg\n".encode()]


@reader(TEXT)
def label_txt(folder: Path) -> tuple[Read, Sequence[bytes]]:
  darknet_set(folder)
  seeds = [b"0 .5 .5 .2 .2\n1 .4 .4 .1 .1\n", b"1 0.5 0.5 1 1\r\n"]
  return opener(f"darknet:{folder / 'x.data'}:valid", folder / "a.txt"), seeds


@reader((*JSON, *JSON, mutated_text))
def coco(folder: Path) -> tuple[Read, Sequence[bytes]]:
  (folder / "1.jpg").write_bytes(picture("jpeg"))
  boxes = {"area": 4.5, "iscrowd": 0, "segmentation": [[1, 1, 3, 1, 3, 3]]}
  content = {
    "images": [{"id": 1, "file_name": "1.jpg", "width": 12, "height": 8}],
    "categories": [{"id": 90, "name": "cow"}, {"id": 18, "name": "dog"}],
    "annotations": [{"id": n, "image_id": 1, "category_id": 18, "bbox": [1, 1, 3, 2], **boxes} for n in (1, 2)],
  }
  return opener(f"coco:{folder / 'a.json'}:{folder}", folder / "a.json"), [json.dumps(content).encode()]


@reader(TEXT)
def voc(folder: Path) -> tuple[Read, Sequence[bytes]]:
  for name in ("ImageSets/Main", "Annotations", "JPEGImages"):
    (folder / name).mkdir(parents=True)
  (folder / "JPEGImages" / "a.jpg").write_bytes(picture("jpeg"))
  (folder / "ImageSets" / "Main" / "val.txt").write_text("a\n")
  box = "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>6</xmax><ymax>6</ymax></bndbox>"
  item = f"<object>\n<name>dog</name>\n<difficult>0</difficult>{box}\n</object>"
  text = f"<annotation>\n<size><width>12</width><height>8</height></size>\n{item}{item}\n</annotation>\n"
  head = '<?xml version="1.0" encoding="GB2312"?>\n'
  seeds = [text.encode(), (head + text.replace("dog", "狗")).encode("gb2312")]
  return opener(f"voc:{folder}:val", folder / "Annotations" / "a.xml"), seeds


@reader(TEXT)
def voc_list(folder: Path) -> tuple[Read, Sequence[bytes]]:
  _, seeds = voc(folder)
  (folder / "Annotations" / "a.xml").write_bytes(seeds[0])
  return opener(f"voc:{folder}:val", folder / "ImageSets" / "Main" / "val.txt"), [b"a\n", b"a 1\na -1\n"[:4]]


@reader(TEXT)
def yolo_yaml(folder: Path) -> tuple[Read, Sequence[bytes]]:
  for name in ("images/val", "labels/val"):
    (folder / name).mkdir(parents=True)
  (folder / "images" / "val" / "a.jpg").write_bytes(picture("jpeg"))
  (folder / "labels" / "val" / "a.txt").write_text("0 .5 .5 .2 .2\n")
  seeds = [
    b"path: .\ntrain: images/val\nval: images/val\nnc: 2\nnames: [cat, dog]\n",
    b"# made by a tool\nval:\n  - images/val\nnames:\n  0: cat\n  1: 'yes'\n",
    b"base: &b {k: 1}\nother:\n  <<: *b\nval: ../val/images\nnames: [a, b, c]\nnc: '3'\n",
  ]
  (folder / "val" / "images").mkdir(parents=True)
  (folder / "val" / "images" / "b.jpg").write_bytes(picture("jpeg"))
  (folder / "val" / "labels").mkdir()
  (folder / "val" / "labels" / "b.txt").write_text("")
  return opener(f"yolo:{folder / 'data.yaml'}:val", folder / "data.yaml"), seeds


@reader(JSON)
def arrayrecord_index(folder: Path) -> tuple[Read, Sequence[bytes]]:
  from prn_jax.data_pipelines.sources.arrayrecord import FORMAT, open_arrayrecord

  (folder / "a.array_record").write_bytes(b"12345678")
  shard = {"file": "a.array_record", "records": 3, "bytes": 8, "sha256": "0" * 64, "problems": [["malformed", "x"]]}
  plan = {"num_shards": 1, "num_records": 3, "fingerprint": "f", "options": {"quality": 95}}
  split = {"spec": "coco:a:b", "num_records": 3, "left_out": {}, "problems": [], "plan": plan, "shards": [shard]}
  index = {"format": FORMAT, "version": 1, "names": ["cat", "dog"], "category_ids": [1, 2], "splits": {"train": split}}

  def read(content: bytes) -> object:
    (folder / "dataset.json").write_bytes(content)
    policy = OnBadData.SKIP if len(content) % 2 else OnBadData.STOP
    found = open_arrayrecord((str(folder), "train"), ProblemLog(policy))
    return found.index.to_json(), len(found)

  return read, [json.dumps(index).encode()]


def one_record() -> bytes:
  objects = [Object((1, 2, 3, 4), 1, is_crowd=True, area_px=2.0, box_xywh_px=(1, 2, 2, 2))]
  return encode_record(make_record(b"", 7, (10, 8), objects), b"image")


@reader(BYTES)
def record(folder: Path) -> tuple[Read, Sequence[bytes]]:
  return decode_record, [one_record(), encode_record(make_record(b"", "name", None, [], label=3), b"image")]


@reader(JSON)
def record_header(folder: Path) -> tuple[Read, Sequence[bytes]]:
  """Headers of the right length before arrays that are whole."""
  whole = one_record()
  end = 8 + int.from_bytes(whole[4:8], "little")

  def read(content: bytes) -> object:
    return decode_record(b"PRN1" + len(content).to_bytes(4, "little") + content + whole[end:])

  return read, [whole[8:end]]


@reader((*JSON, *JSON, mutated_text))
def results_json(folder: Path) -> tuple[Read, Sequence[bytes]]:
  from prn_jax.detect.metrics.results import read_coco_results

  row = {"image_id": 1, "category_id": 18, "bbox": [1.5, 2, 3, 4], "score": 0.5}

  def read(content: bytes) -> object:
    (folder / "r.json").write_bytes(content)
    return read_coco_results(folder / "r.json", [18, 90], [1, 2])

  return read, [json.dumps([row, row | {"image_id": 2, "category_id": 90}]).encode()]


# -- words of the command line ---------------------------------------------------------------------
@reader((mutated_text,))
def spec(folder: Path) -> tuple[Read, Sequence[bytes]]:
  (folder / "1.jpg").write_bytes(picture("jpeg"))
  darknet_set(folder)

  def read(content: bytes) -> object:
    text = content.decode("utf-8", "surrogateescape")
    if any(word in text for word in ("tfds", "synthetic", "traffic", "://")):  # these make data, or ask a network
      raise PrnError("not tried")
    return open_spec(text, OnBadData.STOP)

  (folder / "cat").mkdir()
  (folder / "cat" / "1.jpg").write_bytes(picture("jpeg"))
  seeds = [f"coco:{folder}/a.json:{folder}", f"darknet:{folder}/x.data:valid", f"imagefolder:{folder}"]

  index = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
  (folder / "a.json").write_text(json.dumps(index))
  return read, [seed.encode() for seed in seeds]


@reader((mutated_text,))
def arguments(folder: Path) -> tuple[Read, Sequence[bytes]]:
  """Whole command lines: whatever stands there ends with a documented exit code."""
  from prn_jax.cli.main import main

  path = folder / "net.cfg"
  path.write_bytes(b"[net]\nwidth=32\nheight=32\nchannels=3\n[convolutional]\nfilters=8\nsize=3\n")
  (folder / "cat").mkdir()
  (folder / "cat" / "1.jpg").write_bytes(picture("jpeg"))

  def read(content: bytes) -> object:
    words = content.decode("utf-8", "surrogateescape").split("\n")
    if any(word in content for word in (b"tfds", b"synthetic", b"traffic", b"://", b"serve")):
      return None
    if b"imagefolder:" in content and os.fsencode(folder) not in content:
      return None  # a shorter path may be that of the whole disk
    out, err = io.StringIO(), io.StringIO()
    try:
      with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code: Any = main(words)
    except SystemExit as end:
      code = end.code
    if code not in (0, 1, 2, None):
      raise AssertionError(f"exit code {code}: {err.getvalue()[-300:]}")
    if code == 2:
      raise PrnError(err.getvalue())
    return code

  seeds = [
    f"summary\n{path}",
    f"summary\n{path}\n--size\n64x64\n--json",
    f"data\ninspect\nimagefolder:{folder}\n--json",
  ]
  return read, [seed.encode() for seed in seeds]
