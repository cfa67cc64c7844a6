"""Nested dicts and paths: each form from the other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prn_jax.errors import CheckpointError
from prn_jax.nested import flattened, nested, put

NAMES = st.text("abc", min_size=1, max_size=3)
TREES = st.recursive(st.integers(), lambda inner: st.dictionaries(NAMES, inner, min_size=1, max_size=3), max_leaves=9)


@given(st.dictionaries(NAMES, TREES, max_size=3))
def test_there_and_back(tree: dict[str, Any]) -> None:
  assert nested(flattened(tree)) == tree


def test_by_hand() -> None:
  flat = {"params/conv1/kernel": 1, "params/conv1/bias": 2, "step": 3}
  tree = {"params": {"conv1": {"kernel": 1, "bias": 2}}, "step": 3}
  assert nested(flat) == tree
  assert list(flattened(tree).items()) == list(flat.items())
  assert flattened({"a": {}, "b": 1}) == {"b": 1}
  put(tree, "params/conv2/bias", 4)
  assert tree["params"] == {"conv1": {"kernel": 1, "bias": 2}, "conv2": {"bias": 4}}


def test_an_array_is_no_folder() -> None:
  with pytest.raises(CheckpointError, match="the array 'params/a/b' lies inside another array"):
    nested({"params/a": 1, "params/a/b": 2})
