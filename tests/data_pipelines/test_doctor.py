"""Faults that the doctor finds: each is made in a clean little set, found by its id at its place, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prn_jax.data_pipelines.doctor.checkup import Diagnosis, Exam, Network, examine
from prn_jax.data_pipelines.doctor.split import open_split
from tests.data_pipelines.doctor_faults import FAULTS, SPEC, Fault, Places
from tests.data_pipelines.little_sets import make_set

NETWORK = Network((416, 416), "stretch", (16.0, 16.0), np.array([(90.0, 90), (120, 130), (160, 150)]))


def diagnose(spec: str, against: tuple[str, ...] = (), network: Network = NETWORK, decode: bool = True) -> Diagnosis:
  splits = tuple(open_split(one, decode=decode) for one in (spec, *against))
  return examine(Exam(splits, network, has_pixels=decode))


def places(diagnosis: Diagnosis) -> Places:
  return {one.check.id: list(one.places) for one in diagnosis.found}


def check_places(diagnosis: Diagnosis, expected: Places) -> None:
  found = places(diagnosis)
  assert found.keys() == expected.keys(), diagnosis.to_json()["findings"]
  for check, ends in expected.items():
    assert len(found[check]) == len(ends), found[check]
    for place, end in zip(found[check], ends, strict=True):
      assert place == diagnosis.exam.split.spec if end == SPEC else place.endswith(end), (check, place, end)


@pytest.mark.parametrize("kind", ["coco", "voc", "yolo"])
def test_nothing_is_found_in_clean_sets(tmp_path: Path, kind: str) -> None:
  one, other = make_set(kind, tmp_path / "a"), make_set(kind, tmp_path / "b", seed=100)
  diagnosis = diagnose(one.spec, (other.spec,))
  check_places(diagnosis, {})
  assert diagnosis.not_run == {}
  assert not diagnosis.is_serious


@pytest.mark.parametrize("one", FAULTS, ids=lambda one: one.name)
def test_a_fault_is_found_and_nothing_else(tmp_path: Path, one: Fault) -> None:
  sick = make_set(one.kind, tmp_path)
  expected = one.make(sick)
  check_places(diagnose(sick.spec), expected)


def test_there_are_enough_faults() -> None:
  assert len(FAULTS) >= 40
