"""Graphs, costs and cfgs must not wait for JAX."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import REPO

USE = """
import prn_jax.graph.builder, prn_jax.graph.cost, prn_jax.graph.receptive, prn_jax.kinds
from prn_jax.formats import darknet_cfg
text = "[net]\\nwidth=32\\nheight=32\\nchannels=3\\n[conv]\\nfilters=6\\n[yolo]\\nclasses=1\\nnum=1\\nanchors=1,2\\n"
cfg = darknet_cfg.parse(text)
assert darknet_cfg.parse(darknet_cfg.dump(cfg.graph, cfg.training)).graph == cfg.graph
assert prn_jax.graph.cost.cost(cfg.graph).params == 24
assert prn_jax.graph.receptive.receptive_fields(cfg.graph)
"""


def test_pictures_of_a_disk_need_no_urllib() -> None:
  check = "import sys, prn_jax.run.images\nprint('urllib.request' in sys.modules)"
  done = subprocess.run([sys.executable, "-c", check], cwd=REPO, capture_output=True, text=True, check=False)
  assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.parametrize(
  "code", ["import prn_jax", "import prn_jax.graph, prn_jax.kinds, prn_jax.formats.darknet_cfg", USE]
)
def test_jax_is_not_imported(code: str) -> None:
  check = f"{code}\nimport sys\nprint([m for m in ('jax', 'jaxlib', 'flax', 'optax', 'orbax') if m in sys.modules])"
  done = subprocess.run([sys.executable, "-c", check], cwd=REPO, capture_output=True, text=True, check=False)
  assert done.stderr == ""
  assert done.stdout == "[]\n"
