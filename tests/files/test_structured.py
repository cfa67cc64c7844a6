"""Structured text from anywhere: what is read, what is refused and in which words, and at what cost."""

from __future__ import annotations

import codecs
import contextlib
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prn_jax.errors import PrnError
from prn_jax.files import structured
from prn_jax.files.disk import is_file, is_folder, is_there
from prn_jax.files.places import to_path
from prn_jax.files.values import Misfit, Node
from tests.timing import least_seconds


class BadFile(PrnError):
  """What a reader of some format raises."""


def node(raw: Any) -> Node:
  return Node(raw, "f.json", "a.b", BadFile, "Save it again.")


def refused(call: Any, *arguments: Any) -> str:
  with pytest.raises(BadFile) as caught:
    call(*arguments)
  return str(caught.value)


# -- values ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("raw", [7, 7.0, "7", " 7 ", "+7", "7.0", "7."])
def test_whole_numbers_as_tools_write_them(raw: Any) -> None:
  assert node(raw).whole(0, 10) == 7


@pytest.mark.parametrize(
  ("raw", "said"),
  [
    ("two", "'two'"), (True, "True"), (7.5, "7.5"), (None, "None"), ([7], "[7]"), (float("nan"), "nan"), ("1_0", "'1_0'"),
    (float("inf"), "inf"), (11, "11"), (10**3000, f"{10**3000}"[:28] + "..." + "0" * 29), ("\u0667", "'\u0667'"), ("", "''"),
  ],
)  # fmt: skip
def test_what_is_no_whole_number(raw: Any, said: str) -> None:
  expected = f"f.json: a.b is {said}; expected a whole number from 0 to 10. Save it again."
  assert refused(node(raw).whole, 0, 10) == expected


def test_a_number_of_5000_digits_is_refused_in_a_short_message() -> None:
  for check in (node("9" * 5000).whole, node("9" * 5000).number):
    assert len(refused(check)) < 200


@pytest.mark.parametrize(("raw", "value"), [(1, 1.0), ("1.5e3", 1500.0), (" .5", 0.5), (2.5, 2.5)])
def test_numbers(raw: Any, value: float) -> None:
  assert node(raw).number() == value


@pytest.mark.parametrize("raw", ["nan", float("inf"), "1e999", 10**400, True, None, "x", {}, "1_000"])
def test_what_is_no_finite_number(raw: Any) -> None:
  assert "; expected a finite number of at least 0. Save" in refused(node(raw).number, 0)


@pytest.mark.parametrize("raw", [True, 1, 1.0, "1", "true", "True", "YES", "on", " y "])
def test_true(raw: Any) -> None:
  assert node(raw).truth() is True


@pytest.mark.parametrize("raw", [False, 0, 0.0, "0", "false", "False", "no", "off"])
def test_false(raw: Any) -> None:
  assert node(raw).truth() is False


@pytest.mark.parametrize("raw", [None, "", "Unspecified", "unknown", "N/A"])
def test_truth_that_nobody_said(raw: Any) -> None:
  assert node(raw).truth(unsaid=False) is False
  assert "; expected true or false (also 1 or 0, yes or no)." in refused(node(raw).truth)


@pytest.mark.parametrize("raw", ["maybe", 2, -1, [], {}])
def test_what_is_no_truth_value(raw: Any) -> None:
  assert refused(node(raw).truth, False).startswith("f.json: a.b is ")


def test_text() -> None:
  assert node("Zug 🚆").text() == "Zug 🚆"
  assert refused(node(3).text) == "f.json: a.b is 3; expected text. Save it again."
  said = refused(node("\ud800x").text)
  assert said == (
    "f.json: a.b is '\\ud800x', which holds half a character (an unpaired surrogate); expected text. Save it again."
  )


def test_the_way_to_a_value_is_named() -> None:
  root = Node({"splits": {"train": [{"n": 1}, {"n": "x"}]}, "naems": []}, "d.json", error=BadFile)
  assert [item["n"].raw for item in root["splits"]["train"].items()] == [1, "x"]
  wrong = root["splits"]["train"].items()[1]["n"]
  assert refused(wrong.whole) == "d.json: splits.train[1].n is 'x'; expected a whole number."
  assert refused(lambda: root["names"]) == ("d.json has no 'names' (did you mean 'naems'?); it has 'splits', 'naems'.")
  assert refused(lambda: root["naems"]["x"]) == "d.json: naems is []; expected keys with values."
  assert refused(root.items).startswith("d.json is {'naems': [], 'splits': ")
  assert root.get("step", 3).whole() == 3
  assert "step" not in root


def test_messages_hold_nothing_that_cannot_be_printed() -> None:
  root = Node({"\ud800\x1b[2J": 1}, "a\udcff.json", error=BadFile)
  said = refused(root["\ud800\x1b[2J"].text)
  assert said.isprintable()
  said.encode()
  assert str(PrnError("a\ud800\x07\nb 猫")) == "a\\ud800\\x07\nb 猫"


# -- text ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_with_and_without_mark(tmp_path: Path, encoding: str) -> None:
  path = tmp_path / "list.txt"
  path.write_bytes("straße/1.jpg\r\n猫.jpg\n".encode(encoding))
  assert structured.read_lines(path) == ["straße/1.jpg", "猫.jpg"]


def test_utf_16_of_the_other_byte_order(tmp_path: Path) -> None:
  path = tmp_path / "list.txt"
  path.write_bytes(codecs.BOM_UTF16_BE + "a\nb".encode("utf-16-be"))
  assert structured.read_lines(path) == ["a", "b"]


def test_only_line_ends_end_a_line() -> None:
  assert structured.split_lines("a\u2028b\x0cc\rd\r\n\ne\n") == ["a\u2028b\x0cc", "d", "", "e"]
  assert structured.split_lines("") == []


def test_what_is_no_text(tmp_path: Path) -> None:
  path = tmp_path / "list.txt"
  path.write_bytes(b"abc\xff\xfe")
  assert refused(structured.read_text, path, BadFile) == (
    f"{path} is no text: byte 3 is no UTF-8; expected UTF-8, or UTF-16 with its mark."
  )
  assert refused(structured.read_lines, tmp_path, BadFile) == f"{tmp_path} cannot be read: Is a directory."


@pytest.mark.parametrize("name", ["no.json", "a\0b", "x" * 5000, "\ud800"])
def test_names_that_no_file_has(tmp_path: Path, name: str) -> None:
  assert "cannot be read: " in refused(structured.read_json, tmp_path / name, BadFile)
  assert not is_file(tmp_path / name)
  assert not is_folder(tmp_path / name)
  assert not is_there(tmp_path / name)


@pytest.mark.parametrize("name", ["~nobody_of_this_name/x", "~\0/x"])
def test_a_home_that_does_not_exist_is_a_plain_name(name: str) -> None:
  assert to_path(name) == Path(name)


def test_a_file_without_end_is_read_to_the_limit() -> None:
  assert refused(structured.read_bytes, Path("/dev/zero"), BadFile, 1000) == (
    "/dev/zero holds more than 1,000 bytes, the most that are read of such a file."
  )


def test_any_path_that_reads_bytes() -> None:
  class InABucket:
    def read_bytes(self) -> bytes:
      return b'{"a": 1}'

    def __str__(self) -> str:
      return "gs://bucket/model.json"

  assert structured.read_json(InABucket())["a"].whole() == 1
  with pytest.raises(PrnError, match=r"gs://bucket/model\.json has no 'b'"):
    structured.read_json(InABucket())["b"]


# -- JSON ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
  ("text", "said"),
  [
    ('{"a": 1,\n "b" 2}', "f:2 is no valid JSON: Expecting ':' delimiter at column 6."),
    ("", "f:1 is no valid JSON: Expecting value at column 1."),
    ("[" * 99_999, "f is nested too deeply."),
    ("[" * 101 + "]" * 101, "f is nested more than 100 levels deep."),
    ("1" * 5000, "f holds a number of thousands of digits."),
  ],
)
def test_bad_json(text: str, said: str) -> None:
  assert refused(structured.parse_json, text, "f", BadFile) == said
  assert refused(structured.parse_json, text.encode(), "f", BadFile) == said


# -- YAML ------------------------------------------------------------------------------------------
def test_yaml_scalars_stay_as_written() -> None:
  root = structured.parse_yaml("names: [no, yes, on, 007, 1.10, 2020-01-01, 'null', 1:30]\nnc: '8'\nval:\n", "d.yaml")
  assert root["names"].texts() == ["no", "yes", "on", "007", "1.10", "2020-01-01", "null", "1:30"]
  assert root["nc"].whole() == 8
  assert "val" not in root


def test_yaml_aliases_and_merges() -> None:
  root = structured.parse_yaml("a: &x {k: 1, l: 2}\nb: *x\nc: {<<: *x, k: 3}\n", "d.yaml")
  assert root.raw == {"a": {"k": "1", "l": "2"}, "b": {"k": "1", "l": "2"}, "c": {"k": "3", "l": "2"}}


@pytest.mark.parametrize(
  ("read", "said"),
  [
    (lambda root: root["a"]["b"].whole(), "d.yaml:2: a.b is 'x'; expected a whole number."),
    (lambda root: root["a"]["c"][1], "d.yaml:3: a.c is ['1', 'y']; expected keys with values."),
    (lambda root: root["a"]["c"].items()[1].number(), "d.yaml:5: a.c[1] is 'y'; expected a finite number."),
    (lambda root: root["a"]["d"], "d.yaml:1: a has no 'd'; it has 'b', 'c'."),
    (
      lambda root: root["e"]["b"].whole(),
      "d.yaml:6: e.b is 'x'; expected a whole number.",
    ),  # by an alias: where that is
    (lambda root: root["f"], "d.yaml has no 'f'; it has 'a', 'e'."),
  ],
)
def test_what_is_wrong_in_yaml_has_a_line(read: Callable[[Node], object], said: str) -> None:
  text = "a: &a\n  b: x\n  c:\n    - 1\n    - y\ne: *a\n"
  with pytest.raises(BadFile) as error:
    read(structured.parse_yaml(text, "d.yaml", BadFile))
  assert str(error.value) == said


@pytest.mark.parametrize(
  ("text", "said"),
  [
    ("a: 1\nb: [", "d.yaml:2 is no valid YAML: did not find expected node content."),
    ("a: 1\na: 2", "d.yaml:2 is no valid YAML: the key 'a' occurs twice."),
    ("a: *b", "d.yaml:1 is no valid YAML: the alias 'b' stands for nothing before it."),
    ("a: &b [*b]", "d.yaml:1 is no valid YAML: the alias 'b' stands for nothing before it."),
    ("a: !!python/object:os.x {}", "d.yaml:1 is no valid YAML: the tag 'tag:yaml.org,2002:python/object:os.x' makes an "
     "object; expected plain values."),
    ("a: 1\n---\nb: 2", "d.yaml:2 is no valid YAML: more than one document."),
    ("? [a]\n: 1", "d.yaml:1 is no valid YAML: the key ['a'] is no text."),
    ("a: " + "[" * 200, "d.yaml:1 is no valid YAML: nested more than 100 levels deep."),
    ("<<: 3", "d.yaml:1 is no valid YAML: '<<' merges '3'; expected keys with values."),
    ("a: \x01", "d.yaml is no valid YAML: control characters are not allowed."),
  ],
)  # fmt: skip
def test_bad_yaml(text: str, said: str) -> None:
  assert refused(structured.parse_yaml, text, "d.yaml", BadFile) == said


# -- XML -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
  ("declared", "written"),
  [
    ("GB2312", "gb2312"), ("gbk", "gbk"), ("GB18030", "gb18030"), ("Big5", "big5"), ("windows-1251", "cp1251"),
    ("Shift_JIS", "cp932"), ("UTF-8", "utf-8"), ("utf-8", "utf-8-sig"), ("UTF-16", "utf-16"), ("UTF-16", "utf-16-le"),
    ("utf-16", "utf-8"), ("gb2312", "utf-8"), ("ISO-8859-1", "latin-1"), (None, "utf-8"), (None, "utf-16"),
  ],
)  # fmt: skip
def test_encodings_of_xml(declared: str | None, written: str) -> None:
  word = {"latin-1": "é", "cp1251": "кот"}.get(written, "中文")
  head = f'<?xml version="1.0" encoding="{declared}"?>' if declared else ""
  root = structured.load_xml(f"{head}<a><b>{word}</b></a>".encode(written))
  assert root.findtext("b") == word


@pytest.mark.parametrize(
  ("data", "said"),
  [
    (b"<a><b></a>", "a.xml:1 is no valid XML: mismatched tag: line 1, column 8."),
    (b"<a>\xff</a>", "a.xml is no text: it declares no encoding, and it is no UTF-8."),
    (b'<?xml version="1.0" encoding="klingon"?><a/>',
     "a.xml declares the encoding 'klingon', which is not known; save it as UTF-8."),
    (b'<?xml version="1.0" encoding="zip"?><a/>',
     "a.xml declares the encoding 'zip', which is not known; save it as UTF-8."),
    (b'<?xml version="1.0" encoding="idna"?><a/>',
     "a.xml declares the encoding 'idna', which is not known; save it as UTF-8."),
    (b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "a.xml declares entities of its own; expected plain XML."),
    (b"<a>" * 200 + b"</a>" * 200, "a.xml is nested more than 100 levels deep."),
    (b"", "a.xml:1 is no valid XML: no element found: line 1, column 0."),
    (b"<a>\0</a>", "a.xml:1 is no valid XML: not well-formed (invalid token): line 1, column 3."),
  ],
)  # fmt: skip
def test_bad_xml(tmp_path: Path, data: bytes, said: str) -> None:
  (tmp_path / "a.xml").write_bytes(data)
  assert refused(structured.read_xml, tmp_path / "a.xml", BadFile) == f"{tmp_path}/{said}"


# -- what a refusal costs --------------------------------------------------------------------------
ALIASES = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
  f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(20)
)
BOMBS = {
  "yaml aliases": ALIASES,
  "yaml depth": "[" * 2_000_000,
  "yaml braces": "{" * 2_000_000,
  "yaml question marks": "? " * 1_000_000,
  "yaml dashes": "- " * 1_000_000,
  "yaml keys": "".join(f"k{i}: 1\n" for i in range(150_000)),
  "yaml flow": "[" + "a," * 900_000,
  "yaml sexagesimal": "a: " + ":".join(["59"] * 600_000),
  "yaml digits": "a: " + "9" * 2_000_000,
  "yaml long": "a: 1\n" * 1_000_000,
  "yaml anchors": "".join(f"&a{i} " for i in range(200_000)),
  "yaml quotes": "a: '" + "''" * 900_000,
  "yaml blanks": "a:" + " " * 2_000_000 + "[",
  "yaml plain": "a: " + "b " * 900_000,
  "yaml plain lines": "a: b\n" + "  b\n" * 400_000,
  "yaml tabs": "a: b\n" + "\t\n" * 900_000,
}


JSON_BOMBS = {
  "lists": b"[" + b"[]," * (structured.MAX_BYTES // 3 - 2) + b"[]]",
  "cut short": b"[" + b"{}," * (structured.MAX_BYTES // 3 - 2),
  "keys": b"{" + b",".join(b'"%d":[]' % number for number in range(300_000)) + b"}",
}
XML_BOMBS = {
  "open": b"<a>" * (structured.MAX_XML_BYTES // 3),
  "siblings": b"<a>" + b"<b/>" * (structured.MAX_XML_BYTES // 4 - 3) + b"</a>",
  "attributes": b"<a " + b" ".join(b'a%d="1"' % number for number in range(150_000)) + b"/>",
}


@pytest.mark.parametrize("content", [*JSON_BOMBS.values(), *XML_BOMBS.values()], ids=[*JSON_BOMBS, *XML_BOMBS])
def test_the_largest_files_cost_little(content: bytes) -> None:
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

  def read() -> None:
    with contextlib.suppress(Misfit):
      (structured.load_xml if content[:1] == b"<" else structured.load_json)(content)

  assert least_seconds(read, 4) < 4  # 1.1 s at most on an idle machine
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


@pytest.mark.parametrize("name", BOMBS)
def test_no_bomb_takes_long(name: str) -> None:
  before = resource.getrusage(resource.RUSAGE_SELF)

  def read() -> None:
    with contextlib.suppress(BadFile):
      structured.parse_yaml(BOMBS[name][: 1 << 20], "bomb", BadFile)

  assert least_seconds(read, 4) < 4  # under 1 s on an idle machine
  grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before.ru_maxrss
  assert grown < 1 << 20  # KiB


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", ["a.jpg\r\nb.jpg\r\n", "交通信号灯\n猫\n", "straße\tx"])
def test_utf_16_without_a_mark_where_it_can_be_nothing_else(text: str, encoding: str, tmp_path: Path) -> None:
  path = tmp_path / "list.txt"
  path.write_bytes(text.encode(encoding))
  assert structured.read_text(path) == text


@pytest.mark.parametrize("data", [b"a\0b", b"a\0\0b", b"\0\x01\0\x02", b"\0", b"ab\0\0"])
def test_zeros_alone_make_no_utf_16(data: bytes) -> None:
  assert structured.decode_utf16(data) is None
