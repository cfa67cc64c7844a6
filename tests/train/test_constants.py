"""What a loss reads beside the batch: given to every step, changed by none, and no part of the compiled program."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from prn_jax.data_pipelines.augment import ClassificationAugment
from prn_jax.formats import darknet_cfg
from prn_jax.graph.graph import Graph
from prn_jax.network import Network, init_variables
from prn_jax.run.mesh import AXIS, make_mesh, put_batch, put_state
from prn_jax.train import loop
from prn_jax.train.agreement import check_hosts
from prn_jax.train.config import ConfigError, DataConfig, Duration, TrainConfig
from prn_jax.train.diagnose import Suspect, diagnosis
from prn_jax.train.experiment import open_experiment
from prn_jax.train.losses import FROM_CONFIG, LossConfig, Objective
from prn_jax.train.optim import OptimConfig, ScheduleConfig
from prn_jax.train.plan import make_plan
from prn_jax.train.sharding import WHOLE, compile_step, put_constants
from prn_jax.train.step import Batch, Constants, LossFn, Metrics, Recipe, init_state, mean, to_unit_range, train_step
from tests.train.test_agreement import Noted
from tests.train.test_step import assert_close, batch_of, classifier
from tests.train.test_train_cli import classifier_files

pytestmark = pytest.mark.usefixtures("blank_pictures")

SPECS = {"whole": WHOLE, "divided": PartitionSpec(AXIS)}


def distillation(graph: Graph, config: LossConfig, training: Any = None) -> tuple[tuple[str, ...], LossFn]:
  """Half the squared distance to the scores of a teacher of the same kind, and the sum of a table if there is one."""
  teacher = Network(graph)

  def loss_fn(outputs: dict[str, jax.Array], batch: Batch, constants: Constants = ()) -> tuple[jax.Array, Metrics]:
    wanted = teacher.apply(constants["teacher"], to_unit_range(batch["image"]), layers=("scores",))["scores"]
    more = jnp.sum(constants.get("table", jnp.zeros(())))
    return 0.5 * jnp.mean(jnp.square(outputs["scores"] - wanted)) + more, {}

  return ("scores",), loss_fn


def teacher_of(graph: Graph) -> dict[str, Any]:
  return {"teacher": jax.device_get(init_variables(graph, 7))}


def recipe_for(graph: Graph, **options: Any) -> Recipe:
  layers, loss_fn = distillation(graph, LossConfig())
  return Recipe(Network(graph), optax.sgd(0.1), loss_fn, layers, **options)


def run(
  recipe: Recipe, constants: Any, devices: int, scope: str = "global", specs: Any = WHOLE
) -> tuple[Any, Any, Any]:
  """State and metrics after a step, and the constants as they were given to it."""
  mesh = make_mesh(jax.devices()[:devices])
  state = put_state(jax.device_get(init_state(init_variables(recipe.network.graph, 1), recipe)), mesh)
  placed = put_constants(constants, mesh, specs)
  after, metrics = compile_step(recipe, mesh, scope)(state, put_batch(batch_of(8), mesh), placed)
  assert all(x.is_deleted() for x in jax.tree.leaves(state.params))
  return jax.device_get(after), mean(jax.device_get(metrics)), placed


def test_the_loss_gets_them() -> None:
  graph = classifier()
  recipe, teacher = recipe_for(graph), teacher_of(graph)
  closed = dataclasses.replace(
    recipe, loss_fn=lambda outputs, batch, constants=(): recipe.loss_fn(outputs, batch, teacher)
  )
  state = init_state(init_variables(graph, 1), recipe)
  expected, metrics = jax.jit(functools.partial(train_step, recipe=closed))(state, batch_of(8))
  found, found_metrics, _ = run(recipe, teacher, 1)
  assert_close(found, jax.device_get(expected), 1e-6)
  assert found_metrics["loss"] == pytest.approx(mean(jax.device_get(metrics))["loss"], rel=1e-6)
  nothing_to_learn, _, _ = run(recipe, {"teacher": init_variables(graph, 1)}, 1)
  assert (
    np.abs(found.params["scores"]["conv"]["kernel"] - nothing_to_learn.params["scores"]["conv"]["kernel"]).max() > 0
  )


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_teacher_that_is_the_student_teaches_nothing(accumulate: int) -> None:
  """Without batch norm both see the same; every micro-batch gets the constants."""
  graph = classifier(batch_normalize=False)
  recipe = recipe_for(graph, accumulate=accumulate)
  variables = jax.device_get(init_variables(graph, 1))
  state, metrics, _ = run(recipe, {"teacher": variables}, 1)
  assert metrics["loss"] == pytest.approx(0, abs=1e-9)
  assert_close(state.params, variables["params"], 1e-6)


@pytest.mark.parametrize("scope", ["global", "per_device"])
@pytest.mark.parametrize("spec", SPECS)
def test_they_are_divided_as_said_and_stay_usable(spec: str, scope: str) -> None:
  graph = classifier(batch_normalize=False)
  recipe, teacher = recipe_for(graph), teacher_of(graph)
  table = np.arange(24, dtype=np.float32).reshape(8, 3)
  specs = {"teacher": WHOLE, "table": SPECS[spec]}
  expected, expected_metrics, _ = run(recipe, teacher, 1)

  def loss_fn(outputs: dict[str, jax.Array], batch: Batch, constants: Constants = ()) -> tuple[jax.Array, Metrics]:
    value, metrics = recipe.loss_fn(outputs, batch, {"teacher": constants["teacher"]})
    shape = constants["table"].shape  # whole for the loss, however it is divided
    return value, metrics | {"sum": jnp.stack([jnp.sum(constants["table"]), jnp.float32(shape == (8, 3))])}

  summing = dataclasses.replace(recipe, loss_fn=loss_fn)
  state, metrics, placed = run(summing, teacher | {"table": table}, 4, scope, specs)
  assert metrics.pop("sum") == table.sum()
  assert_close(state, expected, 2e-6)
  assert metrics["loss"] == pytest.approx(expected_metrics["loss"], rel=1e-5)

  rows = 8 if spec == "whole" else 2
  assert [shard.data.shape for shard in placed["table"].addressable_shards] == [(rows, 3)] * 4
  kernel = placed["teacher"]["params"]["a"]["conv"]["kernel"]
  assert [shard.data.shape for shard in kernel.addressable_shards] == [kernel.shape] * 4
  assert not any(x.is_deleted() for x in jax.tree.leaves(placed))
  assert_close(jax.device_get(placed), teacher | {"table": table}, 0)


def test_an_axis_that_cannot_be_divided() -> None:
  with pytest.raises(ValueError, match=r"\(6, 3\)"):
    put_constants({"table": np.zeros((6, 3), np.float32)}, make_mesh(), PartitionSpec(AXIS))


def test_the_program_does_not_grow_with_them() -> None:
  """A million numbers more are a few digits more in the text of the program, and arguments of it; closed over they are in
  the text, and would be there twice: once for the step, once for its gradient."""
  graph = classifier(batch_normalize=False)
  teacher = teacher_of(graph)

  def lowered(numbers: int, *, is_closed_over: bool = False) -> Any:
    table = np.arange(numbers, dtype=np.float32)
    recipe = recipe_for(graph)

    def loss_fn(outputs: dict[str, jax.Array], batch: Batch, constants: Constants = ()) -> tuple[jax.Array, Metrics]:
      read = jnp.asarray(table) if is_closed_over else constants["table"]
      value, metrics = recipe.loss_fn(outputs, batch, {"teacher": constants["teacher"]})
      return value + jnp.sum(read[outputs["scores"].argmax(-1).reshape(-1)]), metrics

    mesh = make_mesh(jax.devices()[:4])
    step: Any = compile_step(dataclasses.replace(recipe, loss_fn=loss_fn), mesh)
    state = put_state(jax.device_get(init_state(init_variables(graph, 1), recipe)), mesh)
    return step.lower(state, put_batch(batch_of(8), mesh), put_constants(teacher | {"table": table}, mesh))

  small, large = (lowered(numbers) for numbers in (16, 1_000_016))
  assert len(large.as_text()) - len(small.as_text()) < 1000
  assert len(lowered(1_000_016, is_closed_over=True).as_text()) > len(large.as_text()) + 4_000_000
  before, after = (each.compile().memory_analysis() for each in (small, large))
  assert after.argument_size_in_bytes - before.argument_size_in_bytes == 4_000_000
  assert after.alias_size_in_bytes == before.alias_size_in_bytes  # no result takes their place
  assert abs(after.generated_code_size_in_bytes - before.generated_code_size_in_bytes) < 100_000


def test_none_cost_nothing() -> None:
  """The program without constants has the arguments of a state and a batch, and nothing else."""
  graph, mesh = classifier(), make_mesh(jax.devices()[:4])
  recipe = Recipe(Network(graph), optax.sgd(0.1), FROM_CONFIG.make_loss(graph, LossConfig(), None)[1], ("scores",))
  state = put_state(jax.device_get(init_state(init_variables(graph, 1), recipe)), mesh)
  step: Any = compile_step(recipe, mesh)
  batch = put_batch(batch_of(8), mesh)
  args = jax.tree.leaves(step.lower(state, batch, ()).args_info)
  assert len(args) == len(jax.tree.leaves((state, batch)))


def test_the_search_for_what_diverged_gives_them_to_the_loss() -> None:
  graph, mesh = classifier(), make_mesh(jax.devices()[:2])
  recipe, teacher = recipe_for(graph), teacher_of(graph)
  teacher["teacher"]["params"]["scores"]["conv"]["bias"][0] = np.nan
  state = init_state(init_variables(graph, 1), recipe)._replace(bad_step=jnp.int32(3))
  suspect = Suspect(
    put_state(jax.device_get(state), mesh), recipe, mesh, "per_device", 0.1, put_constants(teacher, mesh, WHOLE)
  )
  batch = batch_of(8) | {"index": np.arange(8)}
  found = diagnosis(suspect, lambda: batch, lambda index: f"image{index}")
  assert found.where == "all layers are finite, but the loss is not"


# -- a whole run -------------------------------------------------------------------------------------------------------


def config_in(folder: Path, steps: int) -> TrainConfig:
  return TrainConfig(
    task="classify",
    model=str(folder / "colours.cfg"),
    data=DataConfig(train=f"imagefolder:{folder / 'images'}", valid=""),
    augment=ClassificationAugment(),
    batch_size=8,
    optim=OptimConfig(learning_rate=0.01, schedule=ScheduleConfig(policy="constant")),
    total=Duration(steps=steps),
    checkpoint_every=Duration(steps=2),
    log_every=Duration(steps=1),
  )


def objective_for(graph: Graph, extra: int = 0) -> Objective:
  return Objective(distillation, teacher_of(graph) | {"table": np.zeros((8, extra), np.float32)}, WHOLE)


def test_a_run_learns_from_a_teacher_and_goes_on_with_it(tmp_path: Path) -> None:
  """A checkpoint does not hold the constants: the next start brings them again."""
  classifier_files(tmp_path)
  graph = darknet_cfg.read(tmp_path / "colours.cfg").graph
  objective = objective_for(graph)

  def train(name: str, steps: int) -> loop.Outcome:
    experiment = open_experiment(config_in(tmp_path, steps), objective=objective)
    return loop.train(experiment, tmp_path / name, allow_changes=True)

  whole = train("whole", 4)
  assert train("parts", 2).step == 2
  assert train("parts", 4).digest == whole.digest
  losses = [json.loads(line)["loss"] for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
  assert len(losses) == 4
  assert losses[-1] < losses[0]
  other = open_experiment(config_in(tmp_path, 4), objective=objective_for(graph, 1))
  said = r"constants of the loss, such as the weights of a teacher: arrays with the digest \w{12}, now arrays with the digest"
  with pytest.raises(ConfigError, match=said):
    loop.train(other, tmp_path / "parts")
  usual = open_experiment(config_in(tmp_path, 4))
  assert usual.objective.constants == ()
  assert loop.train(usual, tmp_path / "usual").digest != whole.digest


def test_a_plan_counts_their_memory(tmp_path: Path) -> None:
  classifier_files(tmp_path)
  graph = darknet_cfg.read(tmp_path / "colours.cfg").graph

  def memory(objective: Objective) -> int:
    (step,) = make_plan(config_in(tmp_path, 4), objective=objective).steps
    assert step.memory_bytes
    return step.memory_bytes["arguments"]

  small, large = objective_for(graph, 1), objective_for(graph, 1001)
  assert (
    memory(large) - memory(small) == 8 * 1000 * 4
  )  # XLA leaves out of a program what it does not read, if it is asked
  divided = dataclasses.replace(large, specs={"teacher": WHOLE, "table": PartitionSpec(AXIS)})
  assert memory(large) - memory(divided) == 7 * 1001 * 4  # one of eight rows on each of eight devices


def test_hosts_compare_them(tmp_path: Path) -> None:
  classifier_files(tmp_path)
  graph = darknet_cfg.read(tmp_path / "colours.cfg").graph

  def fact(objective: Objective) -> Any:
    hosts = Noted(peers=object())  # type: ignore[arg-type]
    check_hosts(open_experiment(config_in(tmp_path, 4), objective=objective), hosts)
    return hosts.seen["constants of the loss"]

  one, other = objective_for(graph), objective_for(graph)
  assert fact(one) == fact(other)
  other.constants["teacher"]["params"]["scores"]["conv"]["bias"][1] += 1e-6
  assert len({fact(one), fact(other), fact(objective_for(graph, 1)), fact(FROM_CONFIG)}) == 4
  assert fact(FROM_CONFIG) == ""
