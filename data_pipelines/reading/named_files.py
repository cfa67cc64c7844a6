"""Files that a list or an annotation names, found also where another machine wrote the name.

Each given folder in turn is searched for the name as it stands, and then with these differences forgiven (`note` says
which were):

1. quotes and blanks around it, `file://` and other addresses, `%20`, backslashes, a drive letter;
2. upper and lower case, and accents as one character or as two (Windows and macOS do not tell them apart), where only
   one file fits;
3. folders in front of it that do not exist here: of `C:\\work\\obj\\1.jpg`, or of CVAT's `data/obj/1.jpg`, the longest
   end that exists in the folder is meant. A subfolder that is there and lacks the file ends the search: the file is
   missing, not elsewhere. So does an end that two different names share.
"""

from __future__ import annotations

import os
import re
import unicodedata
import urllib.parse
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from prn_jax.files.disk import is_file, is_folder, is_there
from prn_jax.files.places import expanded, is_remote, to_path

Test = Callable[[str], bool]

_MOST_SHOWN = 300
_MAX_CHARS = 4096  # of a name; longer ones are no files


class NamedFiles:
  """Finds files by the names that one list or annotation file gives.

  Args:
    folders: the folders in which relative names are sought, in this order.
  """

  def __init__(self, folders: Sequence[Path]) -> None:
    self.folders = tuple(dict.fromkeys(folders))
    self._listings: dict[str, dict[str, list[str]]] = {}
    self._forgiven: dict[str, Path] = {}

  def find(self, name: str, exists: Test = os.path.isfile) -> Path | None:
    """The file that `name` means, or None; give `os.path.isdir` or `os.path.exists` for other things than files."""
    return self.find_all([name], exists)[0]

  def find_all(self, names: Sequence[str], exists: Test = os.path.isfile) -> list[Path | None]:
    """`find` for every name of a file; an end that several different names share is nobody's."""
    first = str(self.folders[0])
    found: dict[str, Path | None] = {}
    direct: set[str] = set()
    cut: dict[Path, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
      if is_remote(self.folders[0]) or name.startswith("gs://"):
        found[name] = self._in_bucket(name, exists)
        continue
      if name and exists(os.path.join(first, name)):  # nearly always
        found[name] = self.folders[0] / name
        direct.add(name)
        continue
      found[name], is_cut = self._search(name, exists)
      if is_cut and (place := found[name]):
        cut[place].append(name)
    whole = {path for name, path in found.items() if path is not None and name not in cut.get(path, ())}
    for path, sharers in cut.items():
      if len(sharers) > 1 or path in whole:
        found |= dict.fromkeys(sharers)
    others = {name: path for name, path in found.items() if path and name not in direct and not is_remote(path)}
    self._forgiven |= {name: path for name, path in others.items() if not self._is_named_by(path, name)}
    return [found[name] for name in names]

  def missing(self, name: str) -> Path:
    """The path that a message gives for a name that is not found, shortened to what can be read."""
    return self.folders[0] / _readable(_spellings(name)[-1])

  def options(self, name: str) -> str:
    """The places where a name was looked for, for a message."""
    return " or ".join(dict.fromkeys(str(folder / _readable(name)) for folder in self.folders))

  def note(self, where: str) -> str | None:
    """What was forgiven, for people; None where every name was right."""
    if not self._forgiven:
      return None
    name, path = next(iter(self._forgiven.items()))
    many = f"{len(self._forgiven):,} names" if len(self._forgiven) > 1 else "a name"
    return f"{many} in {where} taken for files of this machine, e.g. '{name}' for {path}"

  def _is_named_by(self, path: Path, name: str) -> bool:
    """Whether the name, as it stands, is one of this file."""
    places = [folder / expanded(name) for folder in self.folders]
    return path in places or any(os.path.exists(place) and os.path.samefile(place, path) for place in places)

  def _in_bucket(self, name: str, exists: Test) -> Path | None:
    """As `_search` does for another spelling; folders in front of a name are not left out, nor case forgiven."""
    asks = is_file if exists is os.path.isfile else is_folder if exists is os.path.isdir else is_there
    for spelling in _spellings(name):
      places = [to_path(spelling)] if spelling.startswith("gs://") else [folder / spelling for folder in self.folders]
      if place := next((place for place in places if asks(place)), None):
        return place
    return None

  def _search(self, name: str, exists: Test) -> tuple[Path | None, bool]:
    """The file, and whether folders in front of its name were left out."""
    if len(name) > _MAX_CHARS:
      return None, False
    spellings = [str(expanded(spelling)) for spelling in _spellings(name)]
    for folder in self.folders:
      for spelling in spellings:  # an absolute name replaces the folder
        if exists(os.path.join(folder, spelling)):
          return folder / spelling, False
      for spelling in spellings:
        base, parts = ("/", spelling.split("/")) if os.path.isabs(spelling) else (str(folder), spelling.split("/"))
        place = self._alike(base, parts)
        if place and exists(place):
          return Path(place), False
      if place := self._shortened(str(folder), spellings[-2:], exists):
        return Path(place), True
    return None, False

  def _alike(self, base: str, parts: Sequence[str]) -> str | None:
    """The path below `base` with the case and accents that its parts have on disk; None where one is not there, or not
    clear."""
    for part in parts:
      if part in ("", "."):
        continue
      names = [".."] if part == ".." else self._listing(base).get(_key(part), [])
      if len(names) != 1 and part not in names:
        return None
      base = os.path.join(base, part if part in names else names[0])
    return base

  def _listing(self, folder: str) -> dict[str, list[str]]:
    if folder not in self._listings:
      listing: dict[str, list[str]] = defaultdict(list)
      try:
        for entry in os.listdir(folder):
          listing[_key(entry)].append(entry)
      except (OSError, ValueError):
        pass
      self._listings[folder] = listing
    return self._listings[folder]

  def _shortened(self, folder: str, spellings: Sequence[str], exists: Test) -> str | None:
    """The longest end of the name that exists in the folder; see the head of the file."""
    for spelling in spellings:
      if os.path.isabs(spelling) and os.path.isdir(os.path.dirname(spelling)):
        return None  # the very folder is here
      parts = [part for part in spelling.split("/") if part not in ("", ".", "..")]
      for start, first in enumerate(parts):
        if _key(first) not in self._listing(folder):
          continue
        place = self._alike(folder, parts[start:])
        if place and exists(place):
          return place
        parent = self._alike(folder, parts[start:-1])
        if start < len(parts) - 1 and parent and os.path.isdir(parent):
          break  # the folder is here, and lacks the file
    return None


def _key(name: str) -> str:
  return unicodedata.normalize("NFC", name).casefold()


def _readable(name: str) -> Path:
  return expanded(name if len(name) <= _MOST_SHOWN else f"{name[:_MOST_SHOWN]}...")


def _spellings(name: str) -> list[str]:
  """The name as written and, last, as a plain path; each once."""
  bare = name.strip().strip("\"'").strip()
  address = re.match(r"([a-z][a-z0-9+.-]+)://([^/]*)", bare, re.IGNORECASE)
  plain = bare
  if address:
    plain = bare[address.end() :]
    plain = plain if address[1].lower() == "file" else re.split(r"[?#]", plain, maxsplit=1)[0]
  if "?d=" in plain or (address and "?d=" in bare):  # Label Studio's address of a file on its own machine
    plain = bare.partition("?d=")[2]
  return list(dict.fromkeys((name, bare, _of_unix(plain), _of_unix(urllib.parse.unquote(plain)))))


def _of_unix(path: str) -> str:
  return re.sub(r"^/?[A-Za-z]:(?=[\\/])", "", path).replace("\\", "/")
