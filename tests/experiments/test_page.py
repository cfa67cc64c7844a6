"""The tables of docs/experiments.md come from the results, and so do the numbers between them."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from prn_jax.errors import PrnError
from prn_jax.experiments import page
from prn_jax.experiments import record as records
from prn_jax.experiments.figure11_report import RESIDUAL, TOP1, variants
from prn_jax.experiments.record import Record
from prn_jax.experiments.summary import difference, estimate, figures, t95, with_interval
from prn_jax.files.marked import filled
from tests.experiments.made_up import as_in_the_paper, cifar_record

TEXT = (page.DOCS / "experiments.md").read_text(encoding="utf-8")
PROSE = " ".join(re.sub(r"<!-- \w+: \w+ -->.*?<!-- end -->", "", TEXT, flags=re.DOTALL).split())
FIGURE11 = records.read(page.DOCS / "experiments" / "figure11.json")
TABLE2 = records.read(page.DOCS / "experiments" / "table2.json")
COMPRESSION = records.read(page.DOCS / "experiments" / "compression.json")


def apart(first: str, second: str) -> str:
  return with_interval(difference(FIGURE11.runs, first, second, TOP1))


def head(group: str, variant: str) -> str:
  runs = [run for run in TABLE2.runs if run.group == group]
  return with_interval(difference(runs, variant, "yolov3-tiny", "AP50"))


def cells(variant: str) -> float:
  """AP50 on blood cells in percent, as the table prints it."""
  return round(estimate(list(figures(COMPRESSION.runs, variant, "AP50").values())).mean, 2)


def left(variant: str) -> tuple[float, float]:
  """Percent of the dense network's parameters and operations."""
  one, dense = (next(run for run in COMPRESSION.runs if run.variant == name) for name in (variant, "dense"))
  return 100 * one.params / dense.params, 100 * one.bflops / dense.bflops


def seeds(made: Record) -> int:
  return len({run.seed for run in made.runs})


def sharper() -> int:
  """In how many variants the difference from residual scatters less than the figure."""
  found = 0
  for name in variants()[1:]:
    less = difference(FIGURE11.runs, name, RESIDUAL, TOP1)
    own = estimate(list(figures(FIGURE11.runs, name, TOP1).values()))
    assert less is not None
    assert less.deviation is not None
    assert own.deviation is not None
    found += less.deviation < own.deviation
  return found


def times_shrink() -> float:
  params = {run.variant: run.params for run in FIGURE11.runs}
  return params["fprn:0.5"] / params["shrink:0.5"]


def sampling() -> tuple[float, float]:
  """Mean top-1 in percent, and the standard deviation in points that the choice of test images gives it (binomial)."""
  share = statistics.fmean(run.values[TOP1] for run in FIGURE11.runs)
  return 100 * share, 100 * (share * (1 - share) / FIGURE11.settings["test_images"]) ** 0.5


STATED: tuple[Callable[[], str], ...] = (
  lambda: (
    f"shrink minus expand is {apart('shrink:0.75', 'expand:0.75')}, shrink minus bottleneck {apart('shrink:0.75', 'bottleneck:0.75')}."
  ),
  lambda: (
    f"shrink minus expand {apart('shrink:0.5', 'expand:0.5')}, minus bottleneck {apart('shrink:0.5', 'bottleneck:0.5')}."
  ),
  lambda: f"{times_shrink():.1f} times those of shrink:0.5",
  lambda: (
    f"not told apart from residual, {apart('fprn:0.5', RESIDUAL)}; where they drop three quarters it is worse, {apart('fprn:0.75', RESIDUAL)}"
  ),
  lambda: f"two thirds of residual's parameters and is not told apart from it: {apart('shrink:0.5', RESIDUAL)}",
  lambda: f"From {seeds(FIGURE11)} seeds, Student's t is {t95(seeds(FIGURE11) - 1):.1f}",
  lambda: f"the same {FIGURE11.settings['test_images']:,} images",
  lambda: "a top-1 of {:.0f}% with a standard deviation of {:.1f} points (binomial)".format(*sampling()),
  lambda: f"than the figure itself in {sharper()} of {len(variants()) - 1} cases",
  lambda: f"{head('vehicles', 'yolov3-tiny-prn')} points on vehicles, {head('traffic', 'yolov3-tiny-prn')} on traffic",
  lambda: f"from concatenation: {head('vehicles', 'multi-source')} and {head('traffic', 'multi-source')}.",
  lambda: f"From {seeds(TABLE2)} seeds, Student's t is {t95(seeds(TABLE2) - 1):.1f}",
  lambda: f"for {TABLE2.settings['steps']} steps of 16 images",
  lambda: f"{FIGURE11.runs[0].train_images:,} training and",
  lambda: (
    "leaves {:.0f}% of the parameters and {:.0f}% of the operations at an AP50 of ".format(*left("variance:0.5"))
    + f"{cells('variance:0.5')}, {cells('dense') - cells('variance:0.5'):.2f} points below the dense network ({cells('dense')})"
  ),
  lambda: (
    f"20 more epochs, too ({cells('dense, fine-tuned')}), so that at equal ends of the training "
    f"{cells('dense, fine-tuned') - cells('variance:0.5'):.2f} points are the price"
  ),
  lambda: f"costs {cells('dense') - cells('sparse'):.2f} points itself",
  lambda: f"for {FIGURE11.runs[0].epochs:.0f} epochs, which is short of convergence",
)


@pytest.mark.parametrize("stated", STATED)
def test_the_numbers_in_the_text(stated: Callable[[], str]) -> None:
  assert stated() in PROSE


def test_what_the_text_concludes() -> None:
  """Which intervals hold 0, which means lead."""

  def sign(first: str, second: str) -> int:
    found = difference(FIGURE11.runs, first, second, TOP1)
    assert found is not None
    return found.sign

  rivals = [(gamma, rival) for gamma in ("0.75", "0.5") for rival in ("expand", "bottleneck")]
  assert [sign(f"shrink:{gamma}", f"{rival}:{gamma}") for gamma, rival in rivals] == [0, 0, 0, 0]
  assert (sign("fprn:0.5", RESIDUAL), sign("fprn:0.75", RESIDUAL)) == (0, -1)
  for group in ("vehicles", "traffic"):
    runs = [run for run in TABLE2.runs if run.group == group]
    found = [difference(runs, name, "yolov3-tiny", "AP50") for name in ("yolov3-tiny-prn", "multi-source")]
    assert [one.sign for one in found if one] == [1, 0]


def test_the_committed_tables_are_current() -> None:
  tables = page.tables()
  assert filled(TEXT, tables) == TEXT
  assert [name for name in tables if f"<!-- {name} -->" not in TEXT] == []
  assert len(tables) == 10


def test_page_takes_over_results(tmp_path: Path) -> None:
  out, docs = tmp_path / "out", tmp_path / "docs"
  docs.mkdir()
  (docs / "experiments.md").write_text("By hand.\n\n<!-- figure11: results -->\nold\n<!-- end -->\n\nMore by hand.\n")
  cifar_record(as_in_the_paper).write(out / records.FILE)
  page.main([str(out), "--docs", str(docs)])
  text = (docs / "experiments.md").read_text()
  assert text.startswith("By hand.\n\n<!-- figure11: results -->\n\n| network | top-1, % |")
  assert text.endswith("\n\n<!-- end -->\n\nMore by hand.\n")
  assert "old" not in text
  assert (docs / "experiments" / "figure11.png").is_file()
  page.main(["--docs", str(docs)])
  assert (docs / "experiments.md").read_text() == text


def test_a_table_that_no_experiment_has(tmp_path: Path) -> None:
  with pytest.raises(PrnError, match=r"the page asks for table 'figure12: results'; the results have none\."):
    filled("<!-- figure12: results -->\n<!-- end -->", page.tables(tmp_path))
