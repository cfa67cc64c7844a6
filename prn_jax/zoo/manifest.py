"""Published weights of registered models: where they are, what they must be, and fetching them.

Nothing here touches the network but `download`. The facts are in `prn_jax/assets/zoo.json`, each with its source beside it.
A checksum stands there only where somebody published it; without one a download is verified by its size and by fitting the model's graph, and the sha256
of what came is recorded. A size that nobody published is computed from the graph: 4 bytes for each of its values and
the header, which has 20 bytes, or 16 in files of Darknet before version 0.2.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from prn_jax.errors import PrnError, WeightsError
from prn_jax.examples import ASSETS
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
    source: the place of publication.
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
    url: the address from which `download` fetches them.
    size: bytes; with the new header where it is computed.
    size_source: the place where the exact size was published; None: computed from the graph.
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
_FACTS = json.loads((ASSETS / "zoo.json").read_text(encoding="utf-8"))


def _entry(facts: dict[str, Any]) -> Weights:
  checksum = facts.pop("checksum", None)
  return Weights(checksum=checksum and Checksum(**checksum), **facts)


ENTRIES: Mapping[str, Weights] = {facts["model"]: _entry(facts) for facts in _FACTS["weights"]}
"""Model -> its published weights."""
NOT_PUBLISHED: Mapping[str, str] = _FACTS["not_published"]
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
  if spec.weights:
    raise PrnError(f"the weights of model '{spec.name}' come with prn_jax: there is nothing to download.")
  if spec.status == "own":
    raise PrnError(f"model '{spec.name}' is prn_jax's own, and nobody has published weights of it: train it.")
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
    folder: the folder for MODEL.weights; None: `default_folder()`.
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
