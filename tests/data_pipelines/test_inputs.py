"""Lists of images as sources of a prediction."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from prn_jax.data_pipelines.images import inputs
from prn_jax.data_pipelines.images.inputs import InputError
from prn_jax.errors import PrnError
from prn_jax.run.images import read
from tests.data_pipelines.pictures import write, write_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
  for name in ("a.jpg", "sub/b c.jpg"):
    write_image(tmp_path / "set" / name)
  return tmp_path / "set"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("name", ["list.txt", "test.LST"])
def test_a_list_stands_for_its_images(folder: Path, encoding: str, name: str) -> None:
  url = "https://host.test/猫.jpg"
  (folder / name).write_bytes(f"a.jpg\r\n\r\nsub/b c.jpg\r\n{url}\r\na.jpg\r\n".encode(encoding))
  assert inputs.expand([folder / name]) == [str(folder / "a.jpg"), str(folder / "sub/b c.jpg"), url]


def test_names_are_relative_to_the_list_or_to_the_working_directory(
  folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  write_image(folder.parent / "here.jpg")
  write(folder / "list.txt", f"a.jpg\nhere.jpg\n{folder / 'sub' / 'b c.jpg'}\n")
  monkeypatch.chdir(folder.parent)
  assert inputs.expand(["set/list.txt"]) == ["set/a.jpg", "here.jpg", str(folder / "sub/b c.jpg")]


def test_names_of_another_machine_are_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
  path = write(folder / "list.txt", "C:\\set\\a.jpg\nsub\\b c.jpg\n")
  with caplog.at_level(logging.WARNING):
    assert inputs.expand([path]) == [str(folder / "a.jpg"), str(folder / "sub/b c.jpg")]
  assert caplog.messages == [
    f"2 names in {path} taken for files of this machine, e.g. 'C:\\set\\a.jpg' for {folder}/a.jpg"
  ]


def test_a_missing_image_does_not_stop_the_others(folder: Path) -> None:
  found = inputs.expand([write(folder / "list.txt", "a.jpg\nsub/gone.jpg\n")])
  assert found == [str(folder / "a.jpg"), str(folder / "sub/gone.jpg")]
  with pytest.raises(PrnError, match=rf"image '{folder}/sub/gone\.jpg' does not exist\."):
    read(found[1])


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (
      b"x.jpg\ny.jpg\n",
      r"none of its 2 lines names a file that is here; the first is 'x\.jpg'\. Expected one path or URL",
    ),
    (b"\n \n", r"list '.*list\.txt': it is empty\."),
    (b"\x89PNG\xff", r"list\.txt is no text: byte 0 is no UTF-8"),
  ],
)
def test_lists_that_name_nothing(folder: Path, content: bytes, message: str) -> None:
  path = folder / "list.txt"
  path.write_bytes(content)
  with pytest.raises(InputError, match=message):
    inputs.expand([path])
  # Among other sources it is a label file that a pattern of the shell matched: reported as no image, like any other.
  assert inputs.expand([folder / "a.jpg", path]) == [str(folder / "a.jpg"), str(path)]
