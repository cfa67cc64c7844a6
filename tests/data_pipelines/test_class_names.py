"""Which names mean the same class."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prn_jax.data_pipelines.class_names import are_numbers, match_names
from prn_jax.labels import COCO_NAMES, VOC_NAMES

# The six of COCO's 80 that Darknet's coco.names writes as VOC does, and four that it writes in two words or one.
OTHERWISE = {
  "motorbike": "motorcycle", "aeroplane": "airplane", "sofa": "couch", "tvmonitor": "tv", "diningtable": "dining table",
  "pottedplant": "potted plant",
}  # fmt: skip
COCO_SPELLING = tuple(OTHERWISE.get(name, name) for name in COCO_NAMES)


@pytest.mark.parametrize(
  ("names", "known", "expected"),
  [
    (("b", "a"), ("a", "b"), (1, 0)),
    (("Traffic_Light", "STOP-SIGN"), ("stop sign", "traffic light"), (1, 0)),
    (("motorcycle", "airplane", "fox"), ("aeroplane", "motorbike"), (1, 0, -1)),
    (("TV", "Couch"), ("sofa", "tvmonitor"), (1, 0)),
    (("sofa", "couch"), ("couch",), (-1, 0)),  # no name is taken twice
    (("couch", "sofa"), ("sofa", "couch"), (1, 0)),  # equal names first
    (("Tshirt",), ("T-shirt", "t_shirt"), (-1,)),  # could be either
    (("T-shirt", "tshirt"), ("T-Shirt",), (-1, -1)),
    (("car\u00a0seat", "\uff23\uff21\uff32"), ("car", "car seat"), (1, 0)),
    (("_", "-"), ("-", "a"), (-1, 0)),
    ((), ("a",), ()),
    (("cars",), ("car",), (-1,)),
  ],
)
def test_names_by_hand(names: tuple[str, ...], known: tuple[str, ...], expected: tuple[int, ...]) -> None:
  assert match_names(names, known) == expected


def test_cocos_own_spelling_is_darknets_list() -> None:
  assert len(set(COCO_SPELLING) - set(COCO_NAMES)) == 6
  assert match_names(COCO_SPELLING, COCO_NAMES) == tuple(range(80))
  assert match_names(COCO_NAMES[::-1], COCO_SPELLING) == tuple(reversed(range(80)))
  assert -1 not in match_names(VOC_NAMES, COCO_SPELLING), "VOC's classes are among COCO's"


@given(st.permutations(list(COCO_NAMES)), st.sets(st.sampled_from(COCO_NAMES)))
def test_order_and_missing_names_change_nothing(names: list[str], absent: set[str]) -> None:
  known = [name for name in COCO_SPELLING if OTHERWISE.get(name, name) not in {OTHERWISE.get(a, a) for a in absent}]
  for name, place in zip(names, match_names(names, known), strict=True):
    assert place == -1 if name in absent else known[place] == OTHERWISE.get(name, name)


def test_numbers_are_no_names() -> None:
  assert are_numbers(())
  assert are_numbers(("0", "1 "))
  assert not are_numbers(("1", "2"))
  assert not are_numbers(("0", "one"))
