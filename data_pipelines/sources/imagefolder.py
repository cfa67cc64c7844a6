"""Classified images: `imagefolder:DIR` with one folder per class, DIR/CLASS/*.jpg.

Classes are the folder names in alphabetical order; give `names` to `open_spec` where a network numbers them otherwise.
Hidden files and files without an image's ending are no images.
"""

from __future__ import annotations

from pathlib import Path

from data_pipelines.records import (
  IMAGE_SUFFIXES,
  DataError,
  ProblemKind,
  ProblemLog,
  RecordList,
  checked_image_size,
  finish,
  make_record,
)
from data_pipelines.spec import register_source


@register_source("imagefolder:DIR")
def open_imagefolder(parts: tuple[str, ...], log: ProblemLog) -> RecordList:
  """Lists the images of every class folder; the image id is CLASS/FILE.

  Raises:
    DataError: the folder or its class folders are missing, no image is left, or an entry is bad (policy stop).
  """
  root = Path(parts[0]).expanduser()
  if not root.is_dir():
    raise DataError(f"data 'imagefolder:{parts[0]}': there is no folder {root}")
  folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
  if not folders:
    raise DataError(f"{root} has no class folders; expected {root}/CLASS/*.jpg")
  records = []
  for label, folder in enumerate(folders):
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != ".")
    if not files:
      reason = f"the class folder '{folder.name}' holds no images"
      log.report(folder, None, reason, ProblemKind.MISSING_IMAGE, "the class has no images")
    for file in files:
      size = checked_image_size(file, log)
      if size is not None:
        records.append(make_record(file, file.relative_to(root).as_posix(), size, label=label))
  return finish([folder.name for folder in folders], range(len(folders)), records, log, str(root))
