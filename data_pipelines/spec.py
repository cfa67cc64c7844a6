"""Data by one word: `KIND:PATHS`, as in `coco:instances_val2017.json:val2017`. Kinds register themselves."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from prn_jax.data_pipelines.records import DataError, Dataset, OnBadData, ProblemLog, with_names
from prn_jax.errors import did_you_mean
from prn_jax.files.listings import listed_once
from prn_jax.files.structured import no_collections

Opener = Callable[[tuple[str, ...], ProblemLog], Dataset]


@dataclass(frozen=True)
class Source:
  """One kind of data: how it is written, what opens it, and what it reads, in a line for the help and the docs."""

  kind: str
  form: str
  open: Opener
  says: str = ""

  @property
  def num_parts(self) -> int:
    """Number of parts after the kind."""
    return self.form.count(":")


_FORM_WIDTH = 34
_SOURCES: dict[str, Source] = {}


def register_source(form: str, says: str = "") -> Callable[[Opener], Opener]:
  """Registers the function that opens one kind of data.

  Args:
    form: the kind and its parts in capitals, as "coco:ANNOTATIONS.json:IMAGES_DIR"; also the help text.
    says: what it reads, in a few words.

  Returns:
    A decorator for a function of the parts and the log of problems.

  Raises:
    ValueError: the kind is registered already.
  """
  kind = form.split(":", 1)[0]

  def register(opener: Opener) -> Opener:
    if kind in _SOURCES:
      raise ValueError(f"the data kind '{kind}' is registered twice, by {_SOURCES[kind].open} and {opener}")
    _SOURCES[kind] = Source(kind, form, opener, says)
    return opener

  return register


def sources() -> tuple[Source, ...]:
  """Every registered kind of data, by name."""
  import prn_jax.data_pipelines.sources  # noqa: F401  (registers the kinds that come with the package)

  return tuple(_SOURCES[kind] for kind in sorted(_SOURCES))


def listing() -> str:
  """Every kind of data with what it reads, as the help of commands shows it."""
  lines = []
  for source in sources():
    text = textwrap.wrap(source.says, 116 - _FORM_WIDTH)
    if len(source.form) >= _FORM_WIDTH:
      text.insert(0, "")
    rows = zip_longest([source.form], text, fillvalue="")
    lines += [f"  {form:<{_FORM_WIDTH}} {line}".rstrip() for form, line in rows]
  return "\n".join(["SPEC is KIND:PATHS, one of", *lines])


def table() -> str:
  """The same as a table in Markdown, as docs/data.md has it."""
  rows = [f"| `{source.form}` | {source.says} |".replace("train|valid", "train\\|valid") for source in sources()]
  return "\n".join(["| SPEC | what it reads |", "|---|---|", *rows]) + "\n"


def parse_spec(spec: str) -> tuple[Source, tuple[str, ...]]:
  """The kind and the parts of a SPEC. Colons before "//" and in brackets belong to a part: gs://bucket, train[:10%],
  and what is a list in brackets is one part.

  Raises:
    DataError: the kind is not registered, or it takes another number of parts.
  """
  kind, _, rest = spec.partition(":")
  parts = [rest] if rest.lstrip().startswith("[") else re.split(r":(?!//)(?![^\[\]]*\])", rest) if rest else []
  known = {source.kind: source for source in sources()}
  if kind not in known:
    forms = "\n  ".join(source.form for source in known.values())
    raise DataError(f"data '{spec}': unknown kind '{kind}'{did_you_mean(kind, known)}. Expected one of\n  {forms}")
  source = known[kind]
  if len(parts) != source.num_parts or not all(parts):
    num_given = len([part for part in parts if part])
    raise DataError(f"data '{spec}' has {num_given} parts after '{kind}', expected {source.num_parts}: {source.form}")
  return source, tuple(parts)


def open_spec(
  spec: str,
  on_bad_data: OnBadData | str = "stop",
  names: Sequence[str] | None = None,
  *,
  keep_polygons: bool = False,
  keep_places: bool = False,
) -> Dataset:
  """Opens annotated images.

  Args:
    spec: `KIND:PATHS`; `sources()` lists the kinds.
    on_bad_data: "stop" raises at the first bad entry; "skip" leaves bad entries out and lists them in `problems`.
    names: class names in the order of the network that will use the data; classes are numbered by it. None keeps
      the data set's own order.
    keep_polygons: whether records hold the outlines of objects (`Record.polygons_px`), where the source has any.
    keep_places: whether they say where each box stands (`Record.places`).

  Returns:
    The data set; its annotations have been read and checked, no image has been decoded.

  Raises:
    DataError: the spec is wrong, a file is missing, an entry is bad (policy stop), no image is left, or the data set
      uses a class that is not among `names`.
  """
  source, parts = parse_spec(spec)
  with listed_once(), no_collections():
    dataset = source.open(parts, ProblemLog(on_bad_data, keep_polygons=keep_polygons, keep_places=keep_places))
  return dataset if names is None or tuple(names) == dataset.names else with_names(dataset, names)
