"""Tables, verdicts and pictures from records that are made up, and the page from those that are kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from prn_jax.cli.train import read_config
from prn_jax.errors import PrnError
from prn_jax.experiments import figure11, page, table2
from prn_jax.experiments import record as records
from prn_jax.experiments.cameras import split_by_camera
from prn_jax.experiments.latency import latencies
from prn_jax.experiments.record import Record
from prn_jax.train.config import typed
from prn_jax.train.experiment import build_network
from tests.experiments.test_summary import result
from tests.nets import tiny_detector

MACHINE = {"cores": 2, "device": "CPU", "jax": "0.9", "prn_jax": "1.0"}
SCATTER = (-0.001, 0.0, 0.001)  # of the seeds
MOST_BYTES = 100_000


def cifar_record(
  top1: Callable[[str, float], float], seeds: int = 3, families: tuple[str, ...] = figure11.FAMILIES
) -> Record:
  """Every variant with the top-1 that `top1` gives for (family, gamma), scattered alike."""
  runs = []
  for seed in range(seeds):
    runs.append(result("residual", seed, top1("residual", 1.0) + SCATTER[seed]))
    for gamma in figure11.GAMMAS:
      runs += [result(figure11.variant(f, gamma), seed, top1(f, gamma) + SCATTER[seed] * (1 + gamma)) for f in families]
  return Record("figure11", "python -m x", MACHINE, {"width": 0.5, "epochs": 2.0, "test_images": 9}, 27, runs)


def as_in_the_paper(family: str, gamma: float) -> float:
  """Shrink loses linearly, the others ever faster."""
  lost = 1 - gamma
  return 0.7 - (0.02 * lost if family in ("shrink", "residual") else 0.4 * lost**2 + 0.1 * lost)


def test_figure11_tells_when_shrink_is_best() -> None:
  text = "\n".join(figure11.section(cifar_record(as_in_the_paper), "p.png"))
  assert "27 of 27 trainings are finished. Run on 2 CPU cores, jax 0.9, prn_jax 1.0, by" in text
  assert "| shrink:0.5 | 69.00 ± 0.15 | 3 | -1.00 (-1.12 to -0.88) |" in text
  assert "Order at gamma 0.5, by mean top-1: residual 70.0 ± 0.1 > shrink 69.0 ± 0.1 > fprn" in text
  assert text.count("Yes, ahead of all others.") == 2
  assert "It shows for expand and bottleneck." in text
  assert "![Top-1 over epochs, and over cost](p.png)" in text


def test_figure11_tells_when_it_is_not() -> None:
  worse = "\n".join(figure11.section(cifar_record(lambda f, _: {"shrink": 0.5, "fprn": 0.6}.get(f, 0.5)), "p.png"))
  assert "No: behind fprn, not told apart from expand and bottleneck." in worse
  assert "It does not show beyond the scatter." in worse


def test_figure11_of_one_seed_decides_nothing() -> None:
  text = "\n".join(figure11.section(cifar_record(as_in_the_paper, seeds=1), "p.png"))
  assert "9 of 27 trainings" in text
  assert text.count("One seed cannot tell; with it shrink is ahead of 3 of 3.") == 2
  assert "One seed cannot tell. By how many points" in text
  assert "±" not in text.partition("What it shows")[2]


def test_figure11_that_was_broken_off() -> None:
  text = "\n".join(figure11.section(cifar_record(as_in_the_paper, 1, ("shrink",)), "p.png"))
  assert "| fprn:0.5 | not yet run |" in text
  assert "Not all of its rivals are trained yet." in text


def heads_record(seeds: int = 2) -> Record:
  runs = [
    result(
      variant, seed, 0.0, group=group, values={"AP50": 0.3 + lead + SCATTER[seed]}, curve=[{"epoch": 1.0, "AP50": 0.3}]
    )
    for group in table2.GROUPS
    for variant, lead in zip(table2.VARIANTS, (0.0, 0.05, -0.05), strict=True)
    for seed in range(seeds)
  ]
  settings = {"steps": 100, "sizes": {"vehicles": "128x128", "traffic": "192x128"}}
  return Record("table2", "python -m y", MACHINE, settings, 6, runs, {"vehicles yolov3-tiny": 12.34})


def test_table2() -> None:
  text = "\n".join(table2.section(heads_record(), "t.png"))
  assert "12 of 6" in text
  assert "| yolov3-tiny | 29.95 ± 0.07 | 2 | | 10 | 0.500 | 12.3 |" in text
  assert "- traffic, yolov3-tiny-prn minus yolov3-tiny: +5.00 (+5.00 to +5.00) points: better at this scale." in text
  assert "- vehicles, multi-source minus yolov3-tiny: -5.00 (-5.00 to -5.00) points: worse at this scale." in text
  assert "one seed cannot tell" in "\n".join(table2.section(heads_record(1), "t.png"))


def test_pictures_are_small_and_hold_their_curves(tmp_path: Path) -> None:
  for draw, made in ((figure11.picture, cifar_record(as_in_the_paper)), (table2.picture, heads_record())):
    path = draw(made, tmp_path / "one.png")
    assert path.stat().st_size < MOST_BYTES
    with Image.open(path) as picture:
      colors = {color for _, color in picture.convert("RGB").getcolors(1 << 20) or ()}
    assert {(0, 0, 0), (0, 0x72, 0xB2), (0xE6, 0x9F, 0)} <= colors  # the first three variants


def test_record_round_trip(tmp_path: Path) -> None:
  made = heads_record()
  made.write(tmp_path / "results.json")
  assert records.read(tmp_path / "results.json") == made
  assert len((tmp_path / "results.json").read_text().splitlines()) < 40 + len(made.runs)
  with pytest.raises(PrnError, match=r"cannot read '.*none\.json'.*Give a folder that an experiment has written"):
    records.read(tmp_path / "none.json")
  (tmp_path / "bad.json").write_text(json.dumps({"runs": []}))
  with pytest.raises(PrnError, match=r"bad\.json' is not the results\.json of an experiment"):
    records.read(tmp_path / "bad.json")


def test_page_takes_over_results(tmp_path: Path) -> None:
  out, docs = tmp_path / "out", tmp_path / "docs"
  cifar_record(as_in_the_paper).write(out / records.FILE)
  page.main([str(out), "--docs", str(docs)])
  text = (docs / "experiments.md").read_text()
  assert "## Figure 11 in small" in text
  assert "(experiments/figure11.png)" in text
  assert "## Table 2 in small: YOLOv3-tiny's head\n\nNot yet run:" in text
  assert (docs / "experiments" / "figure11.png").is_file()
  page.main(["--docs", str(docs)])
  assert (docs / "experiments.md").read_text() == text


def test_the_committed_page_is_current() -> None:
  assert (page.DOCS / "experiments.md").read_text(encoding="utf-8") == page.page()


# -- what is trained ----------------------------------------------------------------------------------------------------


def test_trainings_of_one_experiment_differ_in_the_network_alone() -> None:
  jobs = [figure11.job(v, 0, root="data", epochs=5.0, width=0.5) for v in figure11.variants()]
  assert len({job.name for job in jobs}) == len(jobs) == 9
  assert [job.config.transforms for job in jobs[:3]] == [(), ("shrink:0.5",), ("fprn:0.5",)]
  plain = jobs[0].config
  graphs = [build_network(job.config, 10)[0] for job in jobs]
  for job in jobs:
    assert job.config.optim == plain.optim
    assert (job.config.total, job.config.augment, job.config.data) == (plain.total, plain.augment, plain.data)
  shapes = {(graph.width, graph["stage1_down"].filters, len(graph.heads)) for graph in graphs[:2]}  # type: ignore[attr-defined]
  assert shapes == {(32, 16, 1)}


def test_heads_of_table2() -> None:
  jobs = [table2.job("traffic", v, 1, spec=("a", "b"), steps=200, scale=0.5) for v in table2.VARIANTS]
  assert {(job.config.width, job.config.height, job.config.seed) for job in jobs} == {(192, 128, 1)}
  assert {job.config.total.steps for job in jobs} == {200}
  assert {job.config.optim.schedule.burn_in_steps for job in jobs} == {20}
  kinds = [[layer.kind for layer in build_network(job.config, 4)[0]] for job in jobs]
  assert ["shortcut" in found for found in kinds] == [False, True, True]


@pytest.mark.parametrize(
  ("config", "model", "transforms"),
  [
    ("cifar10_prn:residual,elsewhere", "darknet-cifar", ()),
    ("cifar10_prn:shrink:0.75", "darknet-cifar", ("shrink:0.75",)),
    ("small_head_vehicles:multi-source,elsewhere", "yolov3-tiny", ("multi-source",)),
    ("small_head_traffic:yolov3-tiny", "yolov3-tiny", ()),
  ],
)
def test_arguments_of_configurations(config: str, model: str, transforms: tuple[str, ...]) -> None:
  made = typed(read_config(config, []))
  assert (made.model, made.transforms) == (model, transforms)
  assert ("elsewhere" in made.data.train) == ("elsewhere" in config)


def test_unknown_head() -> None:
  with pytest.raises(
    PrnError, match=r"there is no variant 'fpn'; expected one of yolov3-tiny, yolov3-tiny-prn, multi-source"
  ):
    read_config("small_head_vehicles:fpn", [])


# -- cameras and latency ------------------------------------------------------------------------------------------------


def test_split_by_camera(tmp_path: Path) -> None:
  images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(3)]
  annotations = [{"id": 10 + i, "image_id": i % 3} for i in range(4)]
  (tmp_path / "all.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": []}))
  cameras = tmp_path / "cameras.csv"
  cameras.write_text("stem,scene_group\n0,A\n1,B\n2,A\n")
  train, valid = split_by_camera(tmp_path / "all.json", cameras, ("A",), tmp_path / "out")
  parts = [json.loads(path.read_text()) for path in (train, valid)]
  assert [[image["id"] for image in part["images"]] for part in parts] == [[1], [0, 2]]
  assert [[one["id"] for one in part["annotations"]] for part in parts] == [[11], [10, 12, 13]]
  with pytest.raises(PrnError, match=r"cameras C leave one part without images; '.*' has A, B"):
    split_by_camera(tmp_path / "all.json", cameras, ("C",), tmp_path / "out")
  cameras.write_text("stem,scene_group\n0,A\n")
  with pytest.raises(PrnError, match=r"image '1\.jpg' of .* has no row"):
    split_by_camera(tmp_path / "all.json", cameras, ("A",), tmp_path / "out")
  with pytest.raises(PrnError, match=r"cannot read '.*none\.json'"):
    split_by_camera(tmp_path / "none.json", cameras, ("A",), tmp_path / "out")


def test_latencies() -> None:
  found = latencies({"small": tiny_detector(32), "large": tiny_detector(256)})
  assert 0 < found["small"] < found["large"]
