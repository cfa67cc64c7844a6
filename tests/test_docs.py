"""What the pages and docstrings refer to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import REPO
from tests.house import modules

DANGLING = re.compile(r"    [a-z_]+(?:, [a-z_]+)*: (?:of|from|as of|as for) ")
PAGES = sorted(
  [*REPO.glob("*.md"), *REPO.glob("docs/**/*.md"), *REPO.glob("launch/*.md"), *REPO.glob("benchmarks/*.md")]
)
LINK = re.compile(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"")
CITED = re.compile(r"darknet\.md (\w\d*(?:(?:, | to | and )[a-f]\d*\b)*)")
PARAGRAPH = re.compile(r"\b[a-f]\d*\b")
FILE = re.compile(r"`((?:[a-z_]+/)+\w+\.(?:py|md|sh|svg|json|txt))`")
PAGE = re.compile(r"(?<![\w/.:-])((?:docs/)?[a-z_]+\.md)\b")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_links_lead_somewhere(page: Path) -> None:
  targets = [a or b for a, b in LINK.findall(page.read_text())]
  lost = [
    t for t in targets if "://" not in t and not t.startswith("#") and not (page.parent / t.partition("#")[0]).exists()
  ]
  assert lost == []


def test_files_that_pages_name_exist() -> None:
  """From the top of the repository, or from `prn_jax`; those of a run are written by it."""
  lost = [
    (page.name, name)
    for page in PAGES
    if page.name != "CHANGELOG.md"
    for name in FILE.findall(page.read_text())
    if not name.startswith("eval/") and not (REPO / name).exists() and not (REPO / "prn_jax" / name).exists()
  ]
  assert lost == []


def test_paragraphs_that_docstrings_cite_exist() -> None:
  text = (REPO / "docs" / "darknet.md").read_text()
  there = set(re.findall(r"^\*\*([a-f]\d+)\.", text, re.MULTILINE)) | set(
    re.findall(r"^## ([a-f])\.", text, re.MULTILINE)
  )
  cited = {(name, found) for name, file in modules().items() for found in _cited(file.read_text())}
  assert len(cited) > 40
  assert sorted((name, found) for name, found in cited if found not in there) == []


def _cited(source: str) -> set[str]:
  return {each for found in CITED.findall(source) for each in PARAGRAPH.findall(found)}


def test_descriptions_are_noun_phrases() -> None:
  """`seed: the seed of dropout`, not `seed: of dropout`: a description is read alone, in an editor's pop-up."""
  found = [
    f"{name}: {line.strip()}"
    for name, file in modules().items()
    for line in file.read_text().splitlines()
    if DANGLING.match(line)
  ]
  assert found == []


def test_pages_that_docstrings_name_exist() -> None:
  written = {"analysis.md", "figure11.md", "table2.md"}  # by commands
  lost = {
    (name, page)
    for name, file in modules().items()
    for page in PAGE.findall(file.read_text())
    if page not in written and not (REPO / page).exists() and not (REPO / "docs" / page).exists()
  }
  assert lost == set()
