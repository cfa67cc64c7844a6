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
from prn_jax.experiments.blocks import Stage, line, off_the_line, stages, trained_stages
from prn_jax.experiments.cameras import split_by_camera
from prn_jax.experiments.figure11_findings import FAMILIES, variants
from prn_jax.experiments.latency import latencies
from prn_jax.formats import darknet_cfg
from prn_jax.train.config import typed
from prn_jax.train.experiment import build_network
from tests.experiments.made_up import MACHINE, as_in_the_paper, cifar_record, heads_record, section
from tests.experiments.test_summary import result
from tests.nets import tiny_detector

MOST_BYTES = 100_000

# -- figure 11 ---------------------------------------------------------------------------------------------------------


def test_figure11_tells_when_the_paper_is_right() -> None:
  text = section(cifar_record(as_in_the_paper))
  assert "27 of 27 trainings are finished. Run on 2 CPU cores, jax 0.9, prn_jax 1.0, by" in text
  assert "| shrink:0.5 | 69.00 ± 0.15 | 3 | -1.00 (-1.12 to -0.88) | 0.05 |" in text
  assert "residual 70.0 ± 0.1 > shrink 69.0 ± 0.1 > expand" in text
  assert text.count("Yes: the intervals set it ahead of expand and bottleneck.") == 2
  assert (
    "Shrink best of the three: at gamma 0.75 and 0.5 it shows. Exponential loss of expand and bottleneck: it shows"
    in text
  )
  assert "Expand's loss: grows faster than linearly; Bottleneck's loss: grows faster than linearly." in text
  assert "![Top-1 over epochs, and over cost](p.png)" in text


def test_fprn_is_no_rival_of_shrink() -> None:
  """It is ahead of shrink here, and shrink is ahead of the paper's two."""
  text = section(cifar_record(lambda family, _: {"residual": 0.64, "fprn": 0.63, "shrink": 0.61}.get(family, 0.57)))
  assert text.count("Yes: the intervals set it ahead of expand and bottleneck.") == 2
  assert "at gamma 0.75 and 0.5 it shows." in text
  assert "shrink 61.0 ± 0.1 > expand" in text  # fprn is not in the order
  assert "> fprn" not in text
  assert "minus fprn" not in text
  assert "It keeps residual's parameters (1.0 times those of shrink:0.5 and 1.0 times those of shrink:0.75)." in text
  assert "fprn:0.75, which drops 75% and adds 25%, -1.00 (-1.19 to -0.81): worse." in text


def test_the_verdict_does_not_wait_for_fprn() -> None:
  text = section(cifar_record(as_in_the_paper, families=FAMILIES))
  assert text.count("Yes: the intervals set it ahead of expand and bottleneck.") == 2
  assert "| fprn:0.5 | not yet run |" in text
  assert "not in the verdict" not in text


def test_figure11_tells_when_the_paper_is_not_right() -> None:
  text = section(cifar_record(lambda family, _: {"shrink": 0.5, "expand": 0.6}.get(family, 0.5)))
  assert text.count("No: behind expand, not told apart from bottleneck. In the means, it is ahead of ") == 2
  assert "at gamma 0.75 and 0.5 it does not show, and an interval contradicts it." in text
  assert "Exponential loss of expand and bottleneck: it does not show." in text


def test_figure11_tells_when_intervals_hold_nothing() -> None:
  """The means have the paper's order, by less than the scatter of the seeds."""
  made = cifar_record(lambda family, gamma: as_in_the_paper(family, gamma) if gamma == 0.75 else 0.5)
  runs = [
    dataclasses.replace(r, values={"top1": r.values["top1"] + (0.02 * r.seed if r.variant == "shrink:0.5" else 0)})
    for r in made.runs
  ]
  text = section(dataclasses.replace(made, runs=runs))
  assert "Not shown: not told apart from expand and bottleneck. In the means, it is ahead of both." in text
  assert "at gamma 0.5 it shows in the means, but the intervals do not separate it from chance" in text


def test_figure11_tells_when_the_means_are_not_the_papers_and_nothing_is_told_apart() -> None:
  text = section(cifar_record(lambda *_: 0.5))
  assert "at gamma 0.75 and 0.5 it does not show, even in the means, and no interval separates the three." in text


def test_a_gain_is_no_exponential_loss() -> None:
  """60, then 63, then 62: the second step loses more than the first, which gains."""
  text = section(cifar_record(lambda family, gamma: {1.0: 0.60, 0.75: 0.63, 0.5: 0.62}[gamma]))
  assert "Exponential loss of expand and bottleneck: it does not show." in text
  assert (
    "| expand | -3.00 (-3.19 to -2.81) | +1.00 (+0.94 to +1.06) | 3.0 | +4.00 (+3.75 to +4.25) | not shown: in the mean"
    in text
  )
  assert "Expand's loss: not shown: in the mean nothing is lost from gamma 1 to 0.75" in text


def test_figure11_of_one_seed_decides_nothing() -> None:
  text = section(cifar_record(as_in_the_paper, seeds=1))
  assert "9 of 27 trainings" in text
  assert text.count("One seed cannot tell; with it, it is ahead of both.") == 2
  assert (
    "at gamma 0.75 and 0.5 it cannot be judged from one seed. Exponential loss of expand and bottleneck: it cannot"
    in text
  )
  assert "±" not in text.partition("What it shows")[2]


def test_figure11_that_was_broken_off() -> None:
  text = section(cifar_record(as_in_the_paper, 1, ("shrink",)))
  assert "| expand:0.5 | not yet run |" in text
  assert text.count("Not all of its rivals are trained yet.") == 2
  assert "it cannot be judged yet. Exponential loss of expand and bottleneck: it cannot be judged yet." in text
  assert "| 0.5 | here | 68.85 | not yet run | not yet run |" in text


def test_the_order_is_of_seeds_that_all_have() -> None:
  made = cifar_record(as_in_the_paper, seeds=1)
  more = result("residual", 1, 0.1, machine=MACHINE)
  text = section(dataclasses.replace(made, runs=[*made.runs, more]))
  assert "| residual | 39.95 ± 42.36 | 2 |" in text
  assert "By mean top-1: residual 69.9 > shrink 68.8" in text


def test_the_papers_figures_stand_beside_ours() -> None:
  text = section(cifar_record(as_in_the_paper))
  assert "| 0.75 | the paper | 76.8 | 75.7 | 75.5 |" in text
  assert "| 0.5 | the paper | 76.4 | 72.7 | 72.7 |" in text
  assert "on ImageNet (its section 4.2 prints the numbers):" in text


def test_limits_of_figure11() -> None:
  text = section(cifar_record(lambda *_: 0.5))
  assert "Intervals are from 3 seeds: Student's t is 4.3" in text
  assert (
    "2,500 images. Another test set of this size would move a top-1 of 50% with a standard deviation of 1.0 points"
    in text
  )
  assert (
    "Deviation over seeds of the difference from residual, and in brackets of the figure itself: shrink:0.5 0.05 (0.15)"
    in text
  )
  assert "scatters less in 8 of 8" in text


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


def test_the_report_says_where_widths_are_not_linear() -> None:
  """Widths as they are when rounded up to multiples of 4."""
  whole: list[Stage] = [{"channels": [16, 16, 16], "added": [16, 16]}]
  rounded: list[Stage] = [{"channels": [16, 16, 12], "added": [16, 12]}]
  half: list[Stage] = [{"channels": [16, 16, 16], "added": [8, 8]}]
  text = section(cifar_record(as_in_the_paper, blocks={"residual": whole, "shrink:0.75": rounded, "fprn:0.5": half}))
  assert "| residual | 16 16 16 |" in text
  assert "| shrink:0.75 | 16 **16** 12 |" in text
  assert "| fprn:0.5 | 16 16 16, adds 8 |" in text
  assert "**Not linear**, since widths are rounded: shrink:0.75 in stage 1, where the line is 16 14 12." in text
  assert "All are rounded up, and only for shrink:0.75:" in text
  straight = section(cifar_record(as_in_the_paper, blocks={"residual": whole}))
  assert "Here, too, all are linear." in straight
  assert "rounded" not in straight
  assert "Widths of the blocks are not in this record." in section(cifar_record(as_in_the_paper))


def test_the_report_says_whether_the_1x1_convolutions_keep_their_width() -> None:
  """Figure 7's rule, another rule, and records that do not say it: those of before the rule was known."""
  whole: Stage = {"channels": [16, 16, 16], "added": [16, 16], "inner": [8, 8]}
  kept: Stage = {"channels": [16, 12, 8], "added": [12, 8], "inner": [8, 8]}
  narrowed: Stage = {**kept, "inner": [6, 4]}
  for stage, said in (
    (kept, "The 1x1 convolutions inside the blocks keep their channels in all of them, as in the paper's figure 7."),
    (
      narrowed,
      "The 1x1 convolutions inside the blocks are narrowed in shrink:0.5, which the paper's figure 7 does not do.",
    ),
  ):
    assert said in section(cifar_record(as_in_the_paper, blocks={"residual": [whole], "shrink:0.5": [stage]}))
  bare = {name: value for name, value in whole.items() if name != "inner"}
  old = section(cifar_record(as_in_the_paper, blocks={"residual": [bare]}))
  assert (
    "**Trained before figure 7's rule was known:** the 1x1 convolutions inside the blocks of shrink, expand and " in old
  )


def test_widths_of_what_is_trained_are_linear() -> None:
  for width in (0.5, 1.0):
    assert off_the_line(trained(width)) == []


# -- table 2 -----------------------------------------------------------------------------------------------------------


def test_table2() -> None:
  text = "\n".join(table2.section(heads_record(), "t.png"))
  assert "12 of 6" in text
  assert "| yolov3-tiny | 29.95 ± 0.07 | 2 | | | 10 | 0.500 | 12.3 |" in text
  assert "| yolov3-tiny | 29.95 ± 0.07 | 2 | | | 10 | 0.500 | |" in text  # traffic was timed at another input
  assert "| latency, ms |" in text
  assert "Measured on here." in text
  assert "- traffic, yolov3-tiny-prn minus yolov3-tiny: +5.00 (+5.00 to +5.00) points: better at this scale." in text
  assert "- vehicles, multi-source minus yolov3-tiny: -5.00 (-5.00 to -5.00) points: worse at this scale." in text
  assert "Student's t is 12.7" in text
  assert "- traffic: deviation over seeds of the difference from yolov3-tiny" in text
  assert "one seed cannot tell" in "\n".join(table2.section(heads_record(1), "t.png"))


def test_latencies_of_two_machines_have_two_columns() -> None:
  made = heads_record()
  more = {**made.latency, "there": {"vehicles yolov3-tiny 128x128": 1.5}, "unused": {"other": 3.0}}
  text = "\n".join(table2.section(dataclasses.replace(made, latency=more), "t.png"))
  assert "| latency (1), ms | latency (2), ms |" in text
  assert "| 10 | 0.500 | 12.3 | 1.5 |" in text
  assert "Measured on here (1); there (2)." in text


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
