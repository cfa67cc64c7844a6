"""Tables, verdicts and pictures from records that are made up, and the page from those that are kept."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from prn_jax.cli.train import read_config
from prn_jax.errors import PrnError
from prn_jax.experiments import curves, figure11, figure11_report, table2
from prn_jax.experiments.blocks import Stage, line, stages, trained_stages
from prn_jax.experiments.cameras import split_by_camera
from prn_jax.experiments.figure11_report import FAMILIES, variants
from prn_jax.formats import darknet_cfg
from prn_jax.run.latency import latencies
from prn_jax.train.config import typed
from prn_jax.train.experiment import build_network
from tests.experiments.made_up import MACHINE, as_in_the_paper, cifar_record, heads_record, heads_section, section
from tests.experiments.test_summary import result
from tests.nets import tiny_detector

MOST_BYTES = 100_000

# -- figure 11 ---------------------------------------------------------------------------------------------------------


def test_tables_of_figure11() -> None:
  text = section(cifar_record(as_in_the_paper))
  assert "27 of 27 trainings are finished. Run on 2 CPU cores, jax 0.9, prn_jax 1.0, by" in text
  assert "| shrink:0.5 | 69.00 ± 0.15 | 3 | -1.00 (-1.12 to -0.88) | 0.05 |" in text
  assert "| 0.75 | the paper | 76.8 | 75.7 | 75.5 |" in text
  assert "| 0.5 | the paper | 76.4 | 72.7 | 72.7 |" in text
  assert "Widths of the blocks are not in this record." in text


def test_losses_of_figure11() -> None:
  """60, then 63, then 62: the first step gains three points, the second loses one."""
  text = section(cifar_record(lambda family, gamma: {1.0: 0.60, 0.75: 0.63, 0.5: 0.62}[gamma]))
  assert "| expand | -3.00 (-3.19 to -2.81) | +1.00 (+0.94 to +1.06) | 3.0 | +4.00 (+3.75 to +4.25) |" in text


def test_figure11_that_was_broken_off() -> None:
  text = section(cifar_record(as_in_the_paper, 1, ("shrink",)))
  assert "3 of 27 trainings" in text
  assert "| expand:0.5 | not yet run |" in text
  assert "| 0.5 | here | 68.85 | not yet run | not yet run |" in text
  assert "±" not in text.partition("| network")[2].replace("± of it", "")


def test_seeds_that_others_lack_count_for_a_mean_alone() -> None:
  made = cifar_record(as_in_the_paper, seeds=1)
  text = section(dataclasses.replace(made, runs=[*made.runs, result("residual", 1, 0.1, machine=MACHINE)]))
  assert "| residual | 39.95 ± 42.36 | 2 |" in text
  assert "| shrink:0.5 | 68.85 | 1 | -1.05 |" in text


# -- widths ------------------------------------------------------------------------------------------------------------


def trained(width: float) -> dict[str, list[Stage]]:
  graphs = {v: build_network(figure11.job(v, 0, root="d", epochs=1.0, width=width).config, 10)[0] for v in variants()}
  return {name: stages(graph) for name, graph in graphs.items()}


def test_widths_are_those_of_the_networks(tmp_path: Path) -> None:
  graph = build_network(figure11.job("fprn:0.75", 0, root="d", epochs=1.0, width=1.0).config, 10)[0]
  assert stages(graph)[0] == {"channels": [32, 32, 32], "added": [8, 8], "inner": [16, 16]}
  (tmp_path / "graph.cfg").write_text(darknet_cfg.dump(graph))
  assert trained_stages({"a": tmp_path / "graph.cfg", "b": tmp_path / "none.cfg"}) == {"a": stages(graph)}
  narrow = build_network(figure11.job("bottleneck:0.5", 0, root="d", epochs=1.0, width=1.0).config, 10)[0]
  assert [stage["channels"] for stage in stages(narrow)] == [[32, 16, 32], [64, 48, 32, 48, 64], [128, 96, 64, 96, 128]]
  assert stages(narrow)[0]["added"] == [16, 16]
  assert [stage["inner"] for stage in stages(narrow)] == [[16] * 2, [32] * 4, [64] * 4]
  assert line("shrink:0.75", 16, 2) == [16, 14, 12]
  assert line("expand:0.75", 32, 4) == [24, 26, 28, 30, 32]
  assert line("fprn:0.75", 8, 2) == line("residual", 8, 2) == [8, 8, 8]


def test_widths_off_the_line_are_bold() -> None:
  """Widths as they are when rounded up to multiples of 4."""
  whole: list[Stage] = [{"channels": [16, 16, 16], "added": [16, 16]}]
  rounded: list[Stage] = [{"channels": [16, 16, 12], "added": [16, 12]}]
  half: list[Stage] = [{"channels": [16, 16, 16], "added": [8, 8]}]
  text = section(cifar_record(as_in_the_paper, blocks={"residual": whole, "shrink:0.75": rounded, "fprn:0.5": half}))
  assert "| residual | 16 16 16 |" in text
  assert "| shrink:0.75 | 16 **16** 12 |" in text
  assert "| fprn:0.5 | 16 16 16, adds 8 |" in text


def test_widths_of_what_is_trained_are_linear() -> None:
  for width in (0.5, 1.0):
    assert "**" not in section(cifar_record(as_in_the_paper, blocks=trained(width)))


# -- table 2 -----------------------------------------------------------------------------------------------------------


def test_table2() -> None:
  text = heads_section(heads_record())
  assert "12 of 6" in text
  assert "| yolov3-tiny | 29.95 ± 0.07 | 2 | | | 10 | 0.500 | 12.3 |" in text
  assert "| yolov3-tiny | 29.95 ± 0.07 | 2 | | | 10 | 0.500 | |" in text  # traffic was timed at another input
  assert "| latency, ms |" in text
  assert "Latencies were measured on here." in text
  assert "| yolov3-tiny-prn | 34.95 ± 0.07 | 2 | +5.00 (+5.00 to +5.00) |" in text


def test_latencies_of_two_machines_have_two_columns() -> None:
  made = heads_record()
  more = {**made.latency, "there": {"vehicles yolov3-tiny 128x128": 1.5}, "unused": {"other": 3.0}}
  text = heads_section(dataclasses.replace(made, latency=more))
  assert "| latency (1), ms | latency (2), ms |" in text
  assert "| 10 | 0.500 | 12.3 | 1.5 |" in text
  assert "Latencies were measured on here (1); there (2)." in text


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_pictures_are_small_and_hold_their_curves(tmp_path: Path) -> None:
  for draw, made in ((figure11_report.picture, cifar_record(as_in_the_paper)), (table2.picture, heads_record())):
    path = draw(made, tmp_path / "one.png")
    assert path.stat().st_size < MOST_BYTES
    with Image.open(path) as picture:
      colors = {color for _, color in picture.convert("RGB").getcolors(1 << 20) or ()}
    assert {(0, 0, 0), (0, 0x72, 0xB2), (0xE6, 0x9F, 0)} <= colors  # the first three variants


def test_cost_starts_every_family_at_residual() -> None:
  results = [
    result("residual", 0, 0.6, bflops=4.0),
    result("a:0.75", 0, 0.5, bflops=3.0),
    result("a:0.5", 0, 0.4, bflops=2.0),
  ]
  _, (axes,) = curves.panels(1, 1)
  families = {"a": [curves.Point("a:0.75", "0.75"), curves.Point("a:0.5", "0.5")], "b": [curves.Point("b:0.5")]}
  curves.draw_trade(axes, results, "residual", families, "top1", (0, 2, 3))
  drawn = {(tuple(one.get_xdata()), one.get_color()) for one in axes.lines if len(one.get_xdata()) > 1}
  assert ((4.0, 3.0), curves.COLORS[2]) in drawn  # from residual on
  assert ((3.0, 2.0), curves.COLORS[2]) in drawn
  assert axes.get_legend_handles_labels()[1] == ["residual", "a"]
  assert [text.get_text() for text in axes.texts] == ["0.75", "0.5"]


def test_fprn_is_not_among_the_gammas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  drawn: list[list[str]] = []
  trade: list[Mapping[str, object]] = []
  monkeypatch.setattr(figure11_report, "draw_curves", lambda axes, runs, names, *rest: drawn.append(list(names)))
  monkeypatch.setattr(figure11_report, "draw_trade", lambda axes, runs, start, families, *rest: trade.append(families))
  monkeypatch.setattr(figure11_report, "save", lambda figure, path: path)
  figure11_report.picture(cifar_record(as_in_the_paper), tmp_path / "none.png")
  assert [["fprn" in name for name in names] for names in drawn] == [[False] * 4, [False] * 4, [False, True, True]]
  assert list(trade[0]) == list(FAMILIES)


def test_the_last_step_is_not_drawn_upon_the_last_epoch() -> None:
  assert curves._spaced([1.0, 2.0, 4.992, 4.9984]) == [0, 1, 3]
  assert curves._spaced([1.0, 2.0, 3.0]) == [0, 1, 2]
  assert curves._spaced([1.0]) == [0]


def test_means_are_of_equal_epochs() -> None:
  """One seed was evaluated every five epochs, another every epoch."""
  often = [0.9984, 1.9968, 2.9952, 3.9936, 4.992, 5.9904, 6.9888, 7.9872, 8.9856, 9.984, 10.0]
  epochs, rows = curves._shared([[4.9984, 9.9968, 10.0], often])
  assert epochs == [4.9984, 10.0]
  assert rows == [[0, 2], [4, 10]]
  assert curves._shared([[5.0, 10.0], [3.0, 6.0, 10.0]]) == ([10.0], [[1], [2]])


# -- what is trained ----------------------------------------------------------------------------------------------------


def test_trainings_of_one_experiment_differ_in_the_network_alone() -> None:
  jobs = [figure11.job(v, 0, root="data", epochs=5.0, width=0.5) for v in variants()]
  assert len({job.name for job in jobs}) == len(jobs) == 9
  assert [job.config.transforms for job in jobs[:3]] == [(), ("shrink:0.5",), ("expand:0.5",)]
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
  with pytest.raises(PrnError, match=r"none\.json cannot be read: No such file"):
    split_by_camera(tmp_path / "none.json", cameras, ("A",), tmp_path / "out")


def test_latencies() -> None:
  found = latencies({"small": tiny_detector(32), "large": tiny_detector(256)})
  assert 0 < found["small"] < found["large"]
