"""Published weights of registered models: where they are, what they must be, and fetching them.

Nothing here touches the network but `download`. Every fact has its source beside it. A checksum stands here only where
somebody published it; without one a download is verified by its size and by fitting the model's graph, and the sha256
of what came is recorded. A size that nobody published is computed from the graph: 4 bytes for each of its values and
the header, which has 20 bytes, or 16 in files of Darknet before version 0.2.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from prn_jax.errors import PrnError, WeightsError
from prn_jax.files.disk import sha256, write_text
from prn_jax.files.structured import read_text
from prn_jax.formats import darknet_weights
from prn_jax.models import registry
from prn_jax.zoo.fetch import PATIENCE, DownloadError, MismatchError, Patience, Progress, fetch

HEADER_BYTES, OLD_HEADER_BYTES = 20, 16


@dataclasses.dataclass(frozen=True)
class Checksum:
  """A published checksum.

  Attributes:
    kind: "sha256" of the file, or "git-blob": git's name of its content, sha1 of "blob <size>\\0" and the content.
    value: lower-case hexadecimal.
    source: where it was published.
  """

  kind: Literal["sha256", "git-blob"]
  value: str
  source: str

  def __str__(self) -> str:
    return f"{self.kind}:{self.value}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
  """Published weights of one model.

  Attributes:
    model: registered name.
    url: where `download` fetches them.
    size: bytes; with the new header where it is computed.
    size_source: where the exact size was published; None: computed from the graph.
    rounded_size: the size as the authors print it, in units of 2^20 bytes; None if they do not.
    checksum: None where none is known.
    licence: what the publishers say.
    published_at: the page on which the authors offer them.
    names: the list of class names in Darknet's repository.
  """

  model: str
  url: str
  size: int
  size_source: str | None = None
  rounded_size: str | None = None
  checksum: Checksum | None = None
  licence: str
  published_at: str
  names: str = "data/coco.names"

  @property
  def sizes(self) -> tuple[int, ...]:
    """The sizes that a download may have: a computed one leaves the header open."""
    old = self.size - HEADER_BYTES + OLD_HEADER_BYTES
    return (self.size,) if self.size_source else (self.size, old)

  @property
  def file_name(self) -> str:
    return f"{self.model}.weights"

  @property
  def cfg(self) -> str:
    """The public cfg that belongs to them."""
    return registry.get_spec(self.model).reference

  @property
  def published(self) -> tuple[registry.Published, ...]:
    """The figures that were published for them."""
    return registry.get_spec(self.model).published


@dataclasses.dataclass(frozen=True)
class Downloaded:
  """A weights file that `download` found right.

  Attributes:
    path: the file.
    size: bytes.
    sha256: of the content; also in PATH.sha256, as `sha256sum -c` reads it.
    verified: its published checksum was compared; False: there is none, only size and graph were.
    is_new: it was fetched now; False: it was there already.
  """

  path: Path
  size: int
  sha256: str
  verified: bool
  is_new: bool


# -- the manifest ----------------------------------------------------------------------------------
REDMON = "https://data.pjreddie.com/files"  # pjreddie.com/media/files, where they stood until 2025, shows a web page
REDMON_LICENCE = "public domain (YOLO licence version 2 of pjreddie/darknet; nothing else is said of the weights)"
ALEXEYAB = "https://github.com/AlexeyAB/darknet/releases/download"
ALEXEYAB_LICENCE = "public domain (YOLO licence of AlexeyAB/darknet, which its maintainers extend to the weights)"
ALEXEYAB_README = "https://github.com/AlexeyAB/darknet#pre-trained-models"
NO_LICENCE = "none stated in the repository of the authors"
YOLO_PAGE = "https://pjreddie.com/darknet/yolo/"
IMAGENET_PAGE = "https://pjreddie.com/darknet/imagenet/"
IMAGENET_NAMES = "data/imagenet.shortnames.list"
OPEN_MODEL_ZOO = "openvinotoolkit/open_model_zoo models/public/{}/model.yml"
EMGU = "emgucv/emgucv Emgu.CV.Models/Yolo.cs"


def _redmon(model: str, size: int, rounded_size: str) -> Weights:
  """A classifier of Redmon's ImageNet page."""
  return Weights(
    model=model,
    url=f"{REDMON}/{model}.weights",
    size=size,
    rounded_size=rounded_size,
    licence=REDMON_LICENCE,
    published_at=IMAGENET_PAGE,
    names=IMAGENET_NAMES,
  )


_ENTRIES = (
  _redmon("darknet19", 83_427_124, "80"),
  _redmon("darknet53", 166_582_580, "159"),
  _redmon("densenet201", 68_825_780, "66"),
  _redmon("resnet50", 91_303_604, "87"),
  _redmon("resnet101", 167_481_012, "160"),
  _redmon("resnet152", 230_239_924, "220"),
  Weights(
    model="tiny-darknet",
    url=f"{REDMON}/tiny.weights",
    size=4_185_968,
    size_source="measured on the copy in Rapternmn/pytorch-Tiny-Darknet at ba3208b1, whose header is of version 0.1",
    rounded_size="4.0",
    licence=REDMON_LICENCE,
    published_at="https://pjreddie.com/darknet/tiny-darknet/",
    names=IMAGENET_NAMES,
  ),
  Weights(
    model="efficientnet-b0",
    url="https://github.com/WongKinYiu/CrossStagePartialNetworks/raw/master/weight/enetb0_final.weights",
    size=19_560_180,  # cfg/enetb0.cfg beside it has the layers of the reference; only training keys differ
    licence=NO_LICENCE,
    published_at="https://github.com/WongKinYiu/CrossStagePartialNetworks#small-models",
    names=IMAGENET_NAMES,
  ),
  Weights(
    model="yolov2",
    url=f"{REDMON}/yolov2.weights",
    size=203_934_260,
    size_source="Content-Length of pjreddie.com in public download logs",
    rounded_size="194",
    checksum=Checksum(
      "sha256",
      "d9945162ed6f54ce1a901e3ec537bdba4d572ecae7873087bd730e5a7942df3f",
      "README of clibdev/pytorch-yolo2",
    ),
    licence=REDMON_LICENCE,
    published_at=YOLO_PAGE,
  ),
  Weights(
    model="yolov2-tiny",
    url=f"{REDMON}/yolov2-tiny.weights",
    size=44_948_600,
    size_source=OPEN_MODEL_ZOO.format("yolo-v2-tiny-tf"),
    rounded_size="43",
    checksum=Checksum(
      "sha256",
      "16f4e870f1aed83f0089cb69bfda6b53cb7b2a4a01721be56eaf5c899dfac45f",
      OPEN_MODEL_ZOO.format("yolo-v2-tiny-tf"),
    ),
    licence=REDMON_LICENCE,
    published_at=YOLO_PAGE,
  ),
  Weights(
    model="yolov3",
    url=f"{REDMON}/yolov3.weights",
    size=248_007_048,
    size_source="public download scripts that check it",
    rounded_size="236",
    checksum=Checksum("sha256", "523e4e69e1d015393a1b0a441cef1d9c7659e3eb2d7e15f793f060a21b32f297", EMGU),
    licence=REDMON_LICENCE,
    published_at=YOLO_PAGE,
  ),
  Weights(
    model="yolov3-spp",
    url=f"{REDMON}/yolov3-spp.weights",
    size=252_209_544,
    rounded_size="240",
    checksum=Checksum("sha256", "87a1e8c85c763316f34e428f2295e1db9ed4abcec59dd9544f8052f50de327b4", EMGU),
    licence=REDMON_LICENCE,
    published_at=YOLO_PAGE,
  ),
  Weights(
    model="yolov3-tiny",
    url=f"{REDMON}/yolov3-tiny.weights",
    size=35_434_956,
    size_source="public download scripts that check it",
    rounded_size="33.7",
    checksum=Checksum("sha256", "dccea06f59b781ec1234ddf8d1e94b9519a97f4245748a7d4db75d5b7080a42c", EMGU),
    licence=REDMON_LICENCE,
    published_at=YOLO_PAGE,
  ),
  Weights(
    model="yolov3-tiny-prn",
    url="https://github.com/WongKinYiu/PartialResidualNetworks/raw/master/model/yolov3-tiny-prn.weights",
    size=19_759_052,
    size_source="the git tree of WongKinYiu/PartialResidualNetworks",
    rounded_size="18.8",
    checksum=Checksum(
      "git-blob",
      "7d6a2b50c72fd56f4c4c35e042db7842a52eb963",
      "the git tree of WongKinYiu/PartialResidualNetworks",
    ),
    licence=NO_LICENCE,
    published_at="https://github.com/WongKinYiu/PartialResidualNetworks",
  ),
  Weights(
    model="enet-b0-prn",
    url="https://drive.google.com/uc?export=download&id=1FlHeQjWEQVJt0ay1PVsiuuMzmtNyv36m",
    size=19_233_100,
    rounded_size="18.3",
    licence=NO_LICENCE,
    published_at="https://github.com/WongKinYiu/PartialResidualNetworks",
  ),
  Weights(
    model="yolov4",
    url=f"{ALEXEYAB}/darknet_yolo_v3_optimal/yolov4.weights",
    size=257_717_640,
    size_source=OPEN_MODEL_ZOO.format("yolo-v4-tf"),
    rounded_size="245",
    checksum=Checksum(
      "sha256",
      "e8a4f6c62188738d86dc6898d82724ec0964d0eb9d2ae0f0a9d53d65d108d562",
      OPEN_MODEL_ZOO.format("yolo-v4-tf"),
    ),
    licence=ALEXEYAB_LICENCE,
    published_at=ALEXEYAB_README,
  ),
  Weights(
    model="yolov4-csp",
    url=f"{ALEXEYAB}/darknet_yolo_v4_pre/yolov4-csp.weights",
    size=211_944_840,
    rounded_size="202",
    licence=ALEXEYAB_LICENCE,
    published_at=ALEXEYAB_README,
  ),
  Weights(
    model="yolov4-tiny",
    url=f"{ALEXEYAB}/darknet_yolo_v4_pre/yolov4-tiny.weights",
    size=24_251_276,
    size_source=OPEN_MODEL_ZOO.format("yolo-v4-tiny-tf"),
    rounded_size="23.1",
    checksum=Checksum(
      "sha256",
      "cf9fbfd0f6d4869b35762f56100f50ed05268084078805f0e7989efe5bb8ca87",
      OPEN_MODEL_ZOO.format("yolo-v4-tiny-tf"),
    ),
    licence=ALEXEYAB_LICENCE,
    published_at=ALEXEYAB_README,
  ),
  Weights(
    model="yolov7-tiny",
    url=f"{ALEXEYAB}/yolov4/yolov7-tiny.weights",
    size=24_967_560,
    licence=f"{ALEXEYAB_LICENCE}; the program that trained them, WongKinYiu/yolov7, is under GPL-3.0",
    published_at="https://github.com/AlexeyAB/darknet/releases/tag/yolov4",
  ),
)
ENTRIES: Mapping[str, Weights] = {entry.model: entry for entry in _ENTRIES}
"""Model -> its published weights."""

_PAPER = (
  "the authors of the paper published its figures (https://github.com/WongKinYiu/PartialResidualNetworks), no Darknet "
  "weights of this graph that we know of"
)
NOT_PUBLISHED: Mapping[str, str] = {
  **dict.fromkeys(
    (
      "darknet53-fprn",
      "darknet53-prn-bottleneck",
      "darknet53-prn-expand",
      "darknet53-prn-shrink",
      "mpelee-prn",
      "pelee-fpn",
      "pelee-prn",
      "pelee-prn-3l",
      "pelee-ssd",
      "pelee-yolov3",
      "yolov3-fprn",
      "yolov3-prn",
      "yolov3-tiny-prn-3l",
    ),
    _PAPER,
  ),
  "densenet121": "its authors published weights for Torch (https://github.com/liuzhuang13/DenseNet), none for Darknet",
  "resnext50": (
    "the author of Darknet lists weights on https://pjreddie.com/darknet/imagenet/; we have not tried their address"
  ),
  **dict.fromkeys(
    ("sparsenet-40-24", "sparsenet-bc-100-24"),
    "its authors published code for Torch (https://github.com/Lyken17/SparseNet), no weights for Darknet",
  ),
  "peleenet": "its authors published weights for Caffe (https://github.com/Robert-JunWang/Pelee), none for Darknet",
  "csdarknet53-omega": (
    "its authors linked a file on Google Drive (https://drive.google.com/open?id=18jCwaL4SJ-jOvXrZNGHJ5yz44g9zi8Hm) "
    "from the wiki of https://github.com/AlexeyAB/darknet; since 2022 the link is reported dead"
  ),
  "yolov3-tiny-3l": (
    "its authors published the cfg alone (https://github.com/AlexeyAB/darknet, cfg/yolov3-tiny_3l.cfg), no weights"
  ),
}
"""Model without an address to download from -> why, and where its authors speak of it."""


# -- fetching --------------------------------------------------------------------------------------
def get_entry(model: str) -> Weights:
  """The published weights of a registered model, where "_" stands for "-" as well.

  Raises:
    ModelNotFoundError: nothing has this name.
    PrnError: no public weights are known; says why and where the authors publish.
  """
  spec = registry.get_spec(model)
  if spec.name in ENTRIES:
    return ENTRIES[spec.name]
  if spec.status == "own":
    raise PrnError(f"the weights of model '{spec.name}' come with prn_jax: there is nothing to download.")
  why = NOT_PUBLISHED.get(spec.name, f"none are known for its reference, {spec.reference}")
  raise PrnError(
    f"model '{spec.name}' has no weights that can be downloaded: {why}. "
    f"These have: {', '.join(sorted(ENTRIES))}. Weights that you have already: prn predict {spec.name} --weights FILE."
  )


def default_folder() -> Path:
  """Where downloads go: $PRN_CACHE, else prn_jax/weights in $XDG_CACHE_HOME or ~/.cache."""
  if folder := os.environ.get("PRN_CACHE"):
    return Path(folder)
  return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prn_jax" / "weights"


def download(
  entry: Weights,
  folder: Path | None = None,
  url: str | None = None,
  *,
  patience: Patience = PATIENCE,
  progress: Progress | None = None,
) -> Downloaded:
  """Fetches and verifies published weights; a file that is there already is verified without the network.

  Args:
    entry: what to fetch, e.g. `get_entry("yolov3-tiny-prn")`.
    folder: where MODEL.weights goes; None: `default_folder()`.
    url: another address of the same file (a mirror, file:///...); verified as the entry's own.
    patience, progress: see `prn_jax.zoo.fetch.fetch`.

  Returns:
    The file, its sha256, and whether a published checksum stands behind it.

  Raises:
    MismatchError: what came, or what is there already, is not the file. DownloadError: it cannot be fetched.
  """
  path = (default_folder() if folder is None else folder) / entry.file_name
  if path.exists():
    return _verified_present(entry, path)
  digest = fetch(
    url or entry.url,
    path,
    sizes=entry.sizes,
    verify=lambda part: verify(entry, part),
    patience=patience,
    progress=progress,
  )
  write_text(_record(path), f"{digest}  {path.name}\n")
  return Downloaded(path, path.stat().st_size, digest, entry.checksum is not None, is_new=True)


def _record(path: Path) -> Path:
  return path.with_name(f"{path.name}.sha256")


def _verified_present(entry: Weights, path: Path) -> Downloaded:
  """Verifies a file from an earlier download, also against the sha256 that was recorded then."""
  try:
    digest = verify(entry, path)
    record = _record(path)
    recorded = read_text(record, DownloadError).split(maxsplit=1)[:1] if record.exists() else [digest]
    if recorded != [digest]:
      raise MismatchError(f"its sha256 is {digest}; '{record}' says {' '.join(recorded) or 'nothing'}.")
  except MismatchError as error:
    raise MismatchError(
      f"'{path}' is there already, but it is damaged or another file: {error} Remove it and run the command again."
    ) from None
  except OSError as error:
    raise DownloadError(f"cannot read '{path}', which is there already: {error.strerror}.") from None
  return Downloaded(path, path.stat().st_size, digest, entry.checksum is not None, is_new=False)


def verify(entry: Weights, path: Path) -> str:
  """The sha256 of a file that is right: of the right size, with the published checksum, or fitting the graph.

  Raises:
    MismatchError: it is not the file; says what was expected and what was found. OSError: it cannot be read.
  """
  size = path.stat().st_size
  if size not in entry.sizes:
    expected = " or ".join(f"{size:,}" for size in entry.sizes)
    raise MismatchError(f"{entry.file_name} must have {expected} bytes; found {size:,}.")
  digest = sha256(path)
  if entry.checksum is None:
    _check_fits(entry, path)
    return digest
  found = digest if entry.checksum.kind == "sha256" else git_blob_id(path)
  if found != entry.checksum.value:
    raise MismatchError(
      f"{entry.file_name}: expected {entry.checksum.kind} {entry.checksum.value} ({entry.checksum.source}); "
      f"found {found}."
    )
  return digest


def git_blob_id(path: Path) -> str:
  """Git's name of the content of a file, as `git hash-object` prints it."""
  digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
  with path.open("rb") as file:
    while chunk := file.read(1 << 20):
      digest.update(chunk)
  return digest.hexdigest()


def _check_fits(entry: Weights, path: Path) -> None:
  """All that can be said of a file without a checksum: the graph accounts for every value, and each is possible."""
  graph = registry.build_graph(entry.model)
  try:
    loaded = darknet_weights.load(path, graph, partial=False)
  except WeightsError as error:
    raise MismatchError(str(error)) from None
  header = loaded.header
  if not (0 <= header.major <= 2000 and 0 <= header.minor <= 2000):  # no Darknet ever wrote another version
    raise MismatchError(f"{entry.file_name} begins with {header.pack()[:12]!r}: this is not a Darknet weights file.")
  for layer, array in darknet_weights.stored_arrays(graph):
    values = darknet_weights.lookup(loaded.variables, layer, array)
    negative = array.path == "bn/var" and bool((values < 0).any())
    if negative or not np.isfinite(values).all():
      wrong = "a negative variance" if negative else "values that are not finite"
      raise MismatchError(
        f"{entry.file_name}: {array.path} of layer '{layer.name}' has {wrong}; it is damaged, or of another network."
      )
