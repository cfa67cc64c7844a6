"""What is kept of experiments: results, machines, latencies, and the page that is made of them."""

from __future__ import annotations

import dataclasses
import io
import json
import platform
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from prn_jax.errors import PrnError
from prn_jax.experiments import command, figure11, page, table2
from prn_jax.experiments import record as records
from prn_jax.experiments.blocks import stages
from prn_jax.experiments.record import Record
from prn_jax.experiments.runs import run_folder
from prn_jax.formats import darknet_cfg
from prn_jax.run import machine as machines
from prn_jax.run.machine import machine_text
from prn_jax.train.config import to_dict
from prn_jax.train.experiment import build_network
from tests.experiments.made_up import MACHINE, OTHER, as_in_the_paper, cifar_record, heads_record, section
from tests.experiments.test_summary import result

# -- records and machines ----------------------------------------------------------------------------------------------


def test_record_round_trip(tmp_path: Path) -> None:
  made = dataclasses.replace(heads_record(), blocks={"residual": [{"channels": [4, 4], "added": [4]}]})
  made.write(tmp_path / "results.json")
  assert records.read(tmp_path / "results.json") == made
  assert len((tmp_path / "results.json").read_text().splitlines()) < 60 + len(made.runs)
  with pytest.raises(
    PrnError, match=r"none\.json cannot be read: No such file.*Give a folder that an experiment has written"
  ):
    records.read(tmp_path / "none.json")
  for text, said in (
    (json.dumps({"runs": []}), r"bad\.json has no 'settings'; it has 'runs'\. Give a folder"),
    ("[]", r"bad\.json is \[\]; expected keys with values\. Give a folder"),
    (json.dumps({"runs": [{}]}), r"bad\.json: runs\[0\] has no 'group'; it has nothing\."),
    (json.dumps({"runs": [{"group": 1}]}), r"bad\.json: runs\[0\]\.group is 1; expected text\."),
    (json.dumps({"runs": [{"grope": "a"}]}), r"bad\.json: runs\[0\] has the key 'grope', which no result has\."),
  ):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(PrnError, match=said):
      records.read(tmp_path / "bad.json")


def earlier_version(made: Record, path: Path) -> None:
  """Writes the record as it was when it named one machine for all trainings, and latencies without one."""
  made.write(path)
  values = json.loads(path.read_text())
  del values["blocks"]
  values |= {"machine": MACHINE, "latency": {"vehicles yolov3-tiny": 12.34}}
  for run in values["runs"]:
    del run["machine"]
  path.write_text(json.dumps(values))


def test_records_of_an_earlier_version(tmp_path: Path) -> None:
  path = tmp_path / records.FILE
  earlier_version(cifar_record(as_in_the_paper, 1), path)
  found = records.read(path)
  assert {machine_text(run.machine) for run in found.runs} == {
    "2 CPU cores, jax 0.9, prn_jax 1.0 (as recorded with the report, not by the trainings)"
  }
  assert (found.latency, found.blocks) == ({}, {})
  assert "Run on 2 CPU cores, jax 0.9, prn_jax 1.0 (as recorded" in section(found)

  # Reporting again, anywhere, keeps it; what a new training recorded stays as well.
  stored = [dataclasses.replace(run, machine=None) for run in found.runs]
  behind = result("residual", 5, 0.5)  # finished since
  assert records.with_machines([behind], path)[0].machine == found.runs[0].machine
  new = result("residual", 1, 0.5, machine=OTHER)
  for _ in range(2):
    runs = records.with_machines([*stored, new], path)
    assert [run.machine for run in runs] == [run.machine for run in found.runs] + [OTHER]
    dataclasses.replace(found, runs=runs).write(path)
  assert section(records.read(path)).count("(9 trainings) and 1 x H1, jax 0.9, prn_jax 1.0 (1 training), by") == 1


def test_a_machine_that_nothing_names_is_unknown(tmp_path: Path) -> None:
  made = cifar_record(as_in_the_paper, 1)
  stored = [dataclasses.replace(run, machine=None) for run in made.runs]
  assert records.with_machines(stored, tmp_path / records.FILE) == stored
  assert "Run on a machine that is not recorded, by" in section(dataclasses.replace(made, runs=stored))
  (tmp_path / records.FILE).write_text("{")
  assert records.with_machines(stored, tmp_path / records.FILE) == stored
  made.write(tmp_path / records.FILE)
  assert records.with_machines([dataclasses.replace(stored[0], seed=7)], tmp_path / records.FILE)[0].machine is None


def test_a_report_elsewhere_does_not_move_trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  """The report of finished trainings, as `--max-runs 0` makes it, on another machine than that of the trainings."""
  done = cifar_record(as_in_the_paper, 1).runs
  monkeypatch.setattr(command, "finished", lambda jobs, out: list(done))
  made = command.make_record("figure11", "c", {"width": 1, "test_images": 9}, [], tmp_path)
  assert [run.machine for run in made.runs] == [MACHINE] * len(done)
  made.write(tmp_path / records.FILE)
  monkeypatch.setattr(command, "finished", lambda jobs, out: [dataclasses.replace(r, machine=None) for r in done])
  assert command.make_record("figure11", "c", {"width": 1, "test_images": 9}, [], tmp_path) == made


def test_machine_names_its_processor(tmp_path: Path) -> None:
  (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Fast  One\nmodel name\t: Fast  One\n")
  assert machines._cpu(tmp_path / "cpuinfo") == "Fast One"
  assert machines._cpu(tmp_path / "none") == (platform.processor() or platform.machine())
  assert machine_text({**MACHINE, "cpu": "Fast One"}) == "2 CPU cores (Fast One), jax 0.9, prn_jax 1.0"
  assert machine_text(machines.machine()).endswith(f"prn_jax {machines.machine()['prn_jax']}")


# -- page --------------------------------------------------------------------------------------------------------------


def test_page_takes_over_results_of_an_earlier_version(tmp_path: Path) -> None:
  (tmp_path / "out").mkdir()
  earlier_version(cifar_record(as_in_the_paper), tmp_path / "out" / records.FILE)
  (tmp_path / "docs").mkdir()
  (tmp_path / "docs" / "experiments.md").write_text(
    "<!-- figure11: run -->\n<!-- end -->\n<!-- figure11: widths -->\n<!-- end -->\n"
  )
  page.main([str(tmp_path / "out"), "--docs", str(tmp_path / "docs")])
  text = (tmp_path / "docs" / "experiments.md").read_text()
  assert "(as recorded with the report, not by the trainings), by" in text
  assert "Widths of the blocks are not in this record." in text


# -- latency -----------------------------------------------------------------------------------------------------------


def test_what_latency_lacks_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  measured: list[str] = []

  def measure(configs: Mapping[str, object]) -> dict[str, float]:
    measured.extend(configs)
    return dict.fromkeys(configs, float(len(measured)))

  jobs = {
    g: [table2.job(g, v, 0, spec=("a", "b"), steps=10, scale=1.0) for v in table2.VARIANTS] for g in table2.GROUPS
  }
  monkeypatch.setattr(table2, "_measured", measure)
  monkeypatch.setattr(table2, "machine", lambda: MACHINE)
  here = "2 CPU cores, jax 0.9, prn_jax 1.0"
  (tmp_path / "latency.json").write_text(json.dumps({"vehicles yolov3-tiny": 1.0}))  # of an unknown machine
  first = table2._latency(jobs["vehicles"], tmp_path)
  assert list(first) == [here]
  assert list(first[here]) == measured == [f"vehicles {v} 256x256" for v in table2.VARIANTS]
  both = table2._latency([*jobs["vehicles"], *jobs["traffic"]], tmp_path)
  assert len(measured) == 6  # vehicles are not timed again
  assert both[here].keys() == set(measured)
  assert table2._latency(jobs["traffic"], tmp_path) == both
  assert len(measured) == 6

  monkeypatch.setattr(table2, "machine", lambda: OTHER)
  mixed = table2._latency(jobs["traffic"], tmp_path)
  assert mixed[here] == both[here]
  assert mixed["1 x H1, jax 0.9, prn_jax 1.0"].keys() == {f"traffic {v} 416x256" for v in table2.VARIANTS}
  (tmp_path / "latency.json").write_text("{")
  with pytest.raises(PrnError, match=r"latency\.json:1 is no valid JSON: .* Delete it"):
    table2._latency(jobs["traffic"], tmp_path)


# -- the command -------------------------------------------------------------------------------------------------------


def test_report_of_stored_trainings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  """Trainings of an earlier version, without a machine: machine and widths come from what they left."""
  pixels = io.BytesIO()
  Image.new("RGB", (4, 4)).save(pixels, format="png")
  with tarfile.open(tmp_path / "cifar10_test.tar.gz", "w:gz") as archive:
    for name in ("cat/1.png", "dog/2.png"):
      entry = tarfile.TarInfo(name)
      entry.size = len(pixels.getvalue())
      archive.addfile(entry, io.BytesIO(pixels.getvalue()))
  out = tmp_path / "out"
  for name in ("residual", "shrink:0.75"):
    job = figure11.job(name, 0, root=str(tmp_path), epochs=1.0, width=0.5)
    graph = build_network(job.config, 10)[0]
    values = dataclasses.asdict(result(name, 0, 0.5))
    del values["machine"]
    folder = run_folder(job, out)
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(values))
    (folder / "config.json").write_text(json.dumps(to_dict(job.config)))
    (folder / "graph.cfg").write_text(darknet_cfg.dump(graph))
  earlier_version(cifar_record(as_in_the_paper, 1), out / records.FILE)
  options = ["--data", str(tmp_path), "--out", str(out), "--seeds", "1", "--epochs", "1", "--width", "0.5"]
  assert figure11.main([*options, "--max-runs", "0"]) == 0
  assert "2 of 9 trainings are finished" in capsys.readouterr().out
  text = (out / "figure11.md").read_text()
  assert json.loads((out / records.FILE).read_text())["settings"]["test_images"] == 2
  assert "Run on 2 CPU cores, jax 0.9, prn_jax 1.0 (as recorded with the report, not by the trainings), by" in text
  assert "| residual | 16 16 16 | 32 32 32 32 32 | 64 64 64 64 64 |" in text
  assert f"| shrink:0.75 | {stages(graph)[0]['channels'][0]} " in text
  assert records.read(out / records.FILE).blocks["shrink:0.75"] == stages(graph)
