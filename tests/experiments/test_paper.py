"""The paper's tables: every published row within its tolerance, and docs/paper.md current."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from prn_jax.experiments import paper
from prn_jax.graph.cost import cost
from prn_jax.models import build_graph, get_spec, list_models
from tests.conftest import REPO, SHARED

SOURCES = {"P2": paper.PAPER, "P3": paper.PAPER, "R": paper.README, "RR": paper.RESULTS}
COMPARE_ONLY = "compare"  # another author's training and count; only its AP is quoted


def rows_of(folder: Path) -> list[dict[str, str]]:
  with (folder / "reference" / "published.csv").open() as file:
    return list(csv.DictReader(line for line in file if not line.startswith("#")))


def to_reproduce() -> list[object]:
  if SHARED is None:
    return [pytest.param({}, id="no-reference-data")]
  rows = [row for row in rows_of(SHARED) if row["status"] != COMPARE_ONLY]
  return [pytest.param(row, id=f"{row['model']}-{row['size']}") for row in rows]


@pytest.mark.parametrize("row", to_reproduce())
def test_every_published_row(shared, row):
  """Operations as Darknet counts them today; parameters as the sources count them, values of a weights file. A
  printed figure outside its tolerance must be an erratum whose correction is within."""
  size, tolerance = int(row["size"]), float(row["tolerance"])
  found = cost(build_graph(row["model"], width=size, height=size))
  right = {(e.model, e.printed.split()[0]): e.right for e in paper.ERRATA if e.size == size}
  if row["bflops"]:
    expected = right.get((row["model"], row["bflops"]), row["bflops"])
    assert found.bflops == pytest.approx(float(expected), rel=tolerance)
  if row["params_m"]:
    expected = right.get((row["model"], f"{row['params_m']}M"), row["params_m"])
    assert found.weight_file_floats / 1e6 == pytest.approx(float(expected.rstrip("M")), rel=tolerance)
  assert get_spec(row["model"]).status == row["status"]


def test_the_page_quotes_every_row_of_the_paper_and_its_repository(shared):
  quoted = {(figure.model, figure.size): figure for figure in paper.FIGURES}
  rows = [row for row in rows_of(shared) if SOURCES.keys() & set(row["source"].split())]
  assert quoted.keys() == {(row["model"], int(row["size"])) for row in rows}
  for row in rows:
    figure = quoted[row["model"], int(row["size"])]
    assert figure.sources == tuple(dict.fromkeys(SOURCES[source] for source in row["source"].split()))
    for key in ("bflops", "params_m", "ap", "ap50"):
      if row[key]:
        assert getattr(figure, key) == float(row[key]), (row, key)


def test_the_page_is_current():
  text = paper.PAGE.read_text(encoding="utf-8")
  assert text == paper.page(), (
    "docs/paper.md is not current: run python -m prn_jax.experiments.paper and review the difference"
  )


def test_figures_agree_with_the_registered_ones():
  for figure in paper.FIGURES:
    of_size = [p for p in get_spec(figure.model).published if p.size == figure.size]
    for key in ("params_m", "ap", "ap50"):
      value = getattr(figure, key)
      assert value is None or value in [getattr(p, key) for p in of_size], (figure, key)
    printed = [p.bflops for p in of_size if p.bflops is not None]
    assert figure.bflops in printed or paper.corrected(figure) != figure, figure


def test_errata():
  """Each by arithmetic on other published figures."""
  assert [(e.model, e.right) for e in paper.ERRATA] == [
    ("pelee-prn-3l", "2.98"),
    ("yolov3-tiny-prn", "4.94M"),
    ("yolov3-tiny-prn", "44%"),
    ("yolov3-prn", "45%"),
  ]
  assert f"{5.03 / (416 / 320) ** 2:.2f}" == "2.98"
  assert round(cost(build_graph("yolov3-tiny-prn")).weight_file_floats / 1e6, 2) == 4.94
  assert (f"{1 - 4.94 / 8.86:.0%}", f"{1 - 3.467 / 5.571:.0%}") == ("44%", "38%")


def test_convolutions_alone_are_the_count_of_table_2():
  found = cost(build_graph("yolov3"))
  assert f"{paper.conv_bflops(found):.3f}" == "65.864"
  assert f"{found.bflops:.3f}" == "65.879"


def test_every_reconstruction_is_explained():
  """Those of the paper and its authors on its page, others on that of the backbones."""
  page, others = paper.page(), (REPO / "docs" / "backbones.md").read_text()
  marked = [name for name in list_models() if get_spec(name).status == "reconstructed"]
  assert marked
  for name in marked:
    module = get_spec(name).builder.__module__.rpartition(".")[2]
    if module not in paper.EXPLAINED:
      assert f"| {name} (r) |" in others, name
      continue
    assert f"| {name} (r) |" in page, name
    prose = paper.reasoning(module).lower()
    words = (name, name.removeprefix("darknet53-").removeprefix("prn-"), name.replace("densenet", "densenet-"))
    assert any(word in prose for word in words), name
