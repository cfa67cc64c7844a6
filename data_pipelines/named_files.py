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

Test = Callable[[str], bool]


class NamedFiles:
  """Finds files by the names that one list or annotation file gives.

  Args:
    folders: where relative names are sought, in this order.
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
    cut: dict[Path, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
      if name and exists(os.path.join(first, name)):  # nearly always
        found[name] = self.folders[0] / name
        continue
      found[name], is_cut = self._search(name, exists)
      if is_cut and (place := found[name]):
        cut[place].append(name)
    whole = {path for name, path in found.items() if path is not None and name not in cut.get(path, ())}
    for path, sharers in cut.items():
      if len(sharers) > 1 or path in whole:
        found |= dict.fromkeys(sharers)
    self._forgiven |= {name: path for name, path in found.items() if path and not self._is_named_by(path, name)}
    return [found[name] for name in names]

  def missing(self, name: str) -> Path:
    """The path that a message gives for a name that is not found."""
    return self.folders[0] / _home(_spellings(name)[-1])

  def note(self, where: str) -> str | None:
    """What was forgiven, for people; None where every name was right."""
    if not self._forgiven:
      return None
    name, path = next(iter(self._forgiven.items()))
    many = f"{len(self._forgiven):,} names" if len(self._forgiven) > 1 else "a name"
    return f"{many} in {where} taken for files of this machine, e.g. '{name}' for {path}"

  def _is_named_by(self, path: Path, name: str) -> bool:
    """Whether the name, as it stands, is one of this file."""
    places = [folder / _home(name) for folder in self.folders]
    return path in places or any(os.path.exists(place) and os.path.samefile(place, path) for place in places)

  def _search(self, name: str, exists: Test) -> tuple[Path | None, bool]:
    """The file, and whether folders in front of its name were left out."""
    spellings = [str(_home(spelling)) for spelling in _spellings(name)]
    for folder in self.folders:
      places = [folder / spelling for spelling in spellings]  # an absolute name replaces the folder
      place = next((place for place in places if exists(str(place))), None)
      place = place or next((alike for place in places if (alike := self._alike(place)) and exists(str(alike))), None)
      if place:
        return place, False
      if place := self._shortened(folder, spellings[-2:], exists):
        return place, True
    return None, False

  def _alike(self, path: Path) -> Path | None:
    """The path with the case and accents that its parts have on disk; None where a part is not there, or not clear."""
    parts = path.parts
    start = len(path.parts)
    while start > 1 and not os.path.isdir(Path(*parts[: start - 1])):
      start -= 1
    current = Path(*parts[: start - 1]) if start > 1 else Path()
    for part in parts[start - 1 :]:
      names = self._listing(str(current)).get(_key(part), [])
      if len(names) != 1:
        return None
      current /= names[0]
    return current

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

  def _shortened(self, folder: Path, spellings: Sequence[str], exists: Test) -> Path | None:
    """The longest end of the name that exists in the folder; see the head of the file."""
    for spelling in spellings:
      if os.path.isabs(spelling) and os.path.isdir(os.path.dirname(spelling)):
        return None  # the very folder is here
      parts = [part for part in spelling.split("/") if part not in ("", ".", "..")]
      for start in range(len(parts)):
        end = folder.joinpath(*parts[start:])
        place = end if exists(str(end)) else self._alike(end)
        if place and exists(str(place)):
          return place
        if start < len(parts) - 1 and os.path.isdir(end.parent):
          break
    return None


def _key(name: str) -> str:
  return unicodedata.normalize("NFC", name).casefold()


def _home(name: str) -> Path:
  """The name as a path, `~` being the user's folder."""
  try:
    return Path(name).expanduser()
  except RuntimeError:  # ~somebody who is not known here
    return Path(name)


def _spellings(name: str) -> list[str]:
  """The name as written and, last, as a plain path; each once."""
  bare = name.strip().strip("\"'").strip()
  address = re.match(r"([a-z][a-z0-9+.-]+)://([^/]*)", bare, re.IGNORECASE)
  plain = bare
  if address:
    url = urllib.parse.urlsplit(bare)
    plain = url.path if address[1].lower() != "file" else bare[address.end() :]
  if "?d=" in plain or (address and "?d=" in bare):  # Label Studio's address of a file on its own machine
    plain = bare.partition("?d=")[2]
  return list(dict.fromkeys((name, bare, _of_unix(plain), _of_unix(urllib.parse.unquote(plain)))))


def _of_unix(path: str) -> str:
  return re.sub(r"^/?[A-Za-z]:(?=[\\/])", "", path).replace("\\", "/")
