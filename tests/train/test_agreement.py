"""What hosts compare before they start, and what makes two figures comparable."""

from __future__ import annotations

import dataclasses
from typing import Any

from prn_jax.data_pipelines.records import RecordList, make_record, with_names
from prn_jax.data_pipelines.spec import open_spec
from prn_jax.hosts.group import Hosts
from prn_jax.train.agreement import NUM_READ, check_hosts, ids_digest, metric_of
from prn_jax.train.config import DataConfig, Duration, EvalConfig, TrainConfig
from prn_jax.train.experiment import Experiment, open_experiment
from tests.timing import least_seconds


def listed(*ids: int | str) -> RecordList:
  return RecordList(("a", "b"), (0, 1), tuple(make_record(b"", one, (8, 8)) for one in ids))


def test_ids_in_their_order_make_the_digest() -> None:
  digest = ids_digest(listed(1, 2, 3))
  assert len(digest) == 12
  assert ids_digest(listed(1, 2, 3)) == ids_digest(with_names(listed(1, 2, 3), ("b", "c", "a"))) == digest
  others = [listed(1, 2), listed(1, 3, 2), listed(1, 2, "3"), listed(1, 2, 3, 3), listed("x\udcff")]
  assert len({digest, *map(ids_digest, others)}) == len(others) + 1


def test_a_million_ids_take_no_time() -> None:
  record = make_record(b"", 12345, (8, 8))
  data = RecordList(("a",), (0,), (record,) * 1_000_000)
  assert least_seconds(lambda: ids_digest(data), 10) < 10  # half a second measured


class Counted:
  """A data set that is not in memory, and counts what is read of it."""

  names, category_ids, problems = ("a",), (0,), ()

  def __init__(self, count: int) -> None:
    self.count, self.num_read = count, 0

  def __len__(self) -> int:
    return self.count

  def __getitem__(self, index: int) -> Any:
    assert 0 <= index < self.count
    self.num_read += 1
    return make_record(b"", index, (8, 8))


def test_of_data_that_must_be_read_a_few_ids_count() -> None:
  large = Counted(1_000_000)
  assert ids_digest(large) == ids_digest(Counted(1_000_000)) != ids_digest(Counted(1_000_001))
  assert large.num_read == NUM_READ
  small = Counted(3)
  ids_digest(small)
  assert small.num_read == 3


def experiment(valid: str = "synthetic:traffic:3@valid", **settings: Any) -> Experiment:
  return open_experiment(
    TrainConfig(
      model="traffic-nano-prn", width=64, height=64, batch_size=8, total=Duration(steps=1),
      data=DataConfig(train="synthetic:traffic:8", valid=valid), eval=EvalConfig(**settings),
    )
  )  # fmt: skip


def test_what_a_figure_means() -> None:
  usual = metric_of(experiment())
  ids = ids_digest(open_spec("synthetic:traffic:3@valid"))
  assert usual == {"name": "AP50", "protocol": "coco", "conf": 0.005, "nms": 0.45, "images": 3, "ids": ids}
  assert metric_of(experiment(num_pictures=0, batch_size=16, every=Duration(steps=1))) == usual
  assert metric_of(experiment(metric="AP75", conf=0.1)) == usual | {"name": "AP75", "conf": 0.1}
  assert metric_of(experiment(protocol="voc", nms=0.5)) == usual | {"name": "mAP", "protocol": "voc", "nms": 0.5}
  assert metric_of(experiment("synthetic:traffic:3@train"))["ids"] != ids
  assert metric_of(experiment("")) == {}


@dataclasses.dataclass(frozen=True)
class Noted(Hosts):
  """A process that notes what it is asked to compare."""

  seen: dict[str, Any] = dataclasses.field(default_factory=dict)

  def check_same(self, facts: Any, name: str = "") -> None:
    self.seen.update(facts)


def test_hosts_compare_the_data_of_both_kinds() -> None:
  def facts(valid: str) -> dict[str, Any]:
    hosts = Noted(peers=object())  # type: ignore[arg-type]
    check_hosts(experiment(valid), hosts)
    return hosts.seen

  one, none = facts("synthetic:traffic:3@valid"), facts("")
  assert (one["training images"], one["validation images"], none["validation images"]) == (8, 3, 0)
  other = facts("synthetic:traffic:3@train")
  differing = {key for key, value in one.items() if other[key] != value}
  assert differing == {"config", "ids of the validation images"}
  assert len(one["ids of the training images"]) == 12
  longer = facts("synthetic:traffic:4@valid")
  assert {key for key, value in one.items() if longer[key] != value} > {"validation images"}
