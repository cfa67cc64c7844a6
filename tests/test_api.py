"""`model(images)`: every form of image, what is compiled and how often, and what comes back."""

from __future__ import annotations

import dataclasses
import io
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

import prn_jax
from prn_jax import Classification, Detections, Model, PrnError, compilation_cache, loading
from prn_jax.detect import nms
from prn_jax.export import convert
from prn_jax.graph.builder import Builder
from prn_jax.model import Model as FrozenModel
from prn_jax.run.detector import DetectOptions
from prn_jax.run.images import predictor
from tests import typed_calls
from tests.conftest import REPO
from tests.nets import random_model

RNG = np.random.default_rng(5)
PICTURES = RNG.integers(0, 256, (3, 40, 56, 3), np.uint8)
CONF = 0.3


@pytest.fixture(scope="module")
def model() -> Model:
  return random_model(names=("cat", "motorbike"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
  folder = tmp_path_factory.mktemp("photos")
  for number, picture in enumerate(PICTURES):
    Image.fromarray(picture).save(folder / f"{number}.png")
  (folder / "notes.txt").write_text("no image")
  return folder


def same(a: Detections, b: Detections) -> bool:
  """To the rounding of another size of batch."""
  return np.array_equal(a.classes, b.classes) and np.allclose(a.boxes_xyxy_px, b.boxes_xyxy_px, rtol=1e-4, atol=1e-2)


def test_one_image_in_every_form(model: Model, folder: Path) -> None:
  path = folder / "0.png"
  expected = model(PICTURES[0], conf=CONF)
  assert len(expected) > 2
  with path.open("rb") as file, Image.open(path) as picture:
    data = path.read_bytes()
    forms: list[Any] = [str(path), path, data, bytearray(data), io.BytesIO(data), file, picture, PICTURES[0].tolist()]
    found = [model(form, conf=CONF) for form in forms if not isinstance(form, list)]
  assert all(isinstance(one, Detections) for one in found)
  for one in found:
    np.testing.assert_array_equal(one.boxes_xyxy_px, expected.boxes_xyxy_px)
  assert [one.path for one in found[:6]] == [str(path), str(path), None, None, None, str(path)]


def test_many_images_in_every_form(model: Model, folder: Path) -> None:
  expected = [model(picture, conf=CONF) for picture in PICTURES]
  assert not same(expected[0], expected[1])
  forms: list[Any] = [
    list(PICTURES), tuple(PICTURES), (picture for picture in PICTURES), PICTURES, folder, str(folder / "*.png"),
    [folder], [PICTURES[0], folder / "1.png", (folder / "2.png").read_bytes()],
  ]  # fmt: skip
  for form in forms:
    found = model(form, conf=CONF, batch_size=1)
    assert isinstance(found, list)
    assert [same(a, b) for a, b in zip(found, expected, strict=True)] == [True] * 3
  assert model([]) == model(iter(())) == model(np.zeros((0, 8, 8, 3), np.uint8)) == []


def test_a_stream_asks_for_few_images_ahead(model: Model) -> None:
  asked = itertools.count()

  def frames() -> Iterator[np.ndarray]:
    while True:  # a camera never ends
      next(asked)
      yield PICTURES[0]

  found = list(itertools.islice(model.stream(frames(), batch_size=1, conf=CONF), 5))
  assert len(found) == 5
  assert next(asked) <= 5 + 3


@pytest.mark.parametrize(
  ("image", "message"),
  [
    (None, r"None \(NoneType\) is no image; .* OpenCV gives None for a file that it cannot read"),
    (7, r"7 \(int\) is no image; expected a path, URL, bytes, open file, PIL image or array"),
    (io.BytesIO(), r"has no bytes left to read. Was it read before\? Then file.seek\(0\)"),
    (io.StringIO("x"), r"is open as text; open it as bytes"),
    (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\); expected \(height, width, 3\) RGB, or .* grey"),
    ([b"no image"], r"is not an image"),
    ("nowhere/*.jpg", r"pattern 'nowhere/\*.jpg' matches no file"),
    ("nowhere.jpg", r"'nowhere.jpg' does not exist"),
  ],
)
def test_what_is_no_image_is_named(model: Model, image: Any, message: str) -> None:
  with pytest.raises(PrnError, match=message):
    model(image)


@pytest.mark.parametrize("wanted", [1, [1], ["motorbike"], "Motorcycle", (np.int64(1),)])
def test_only_wanted_classes(model: Model, wanted: Any) -> None:
  everything = model(PICTURES[0], conf=CONF)
  found = model(PICTURES[0], conf=CONF, classes=wanted)
  assert 0 < len(found) < len(everything)
  np.testing.assert_array_equal(found.boxes_xyxy_px, everything[everything.classes == 1].boxes_xyxy_px)


def test_wanted_classes_are_not_crowded_out(model: Model) -> None:
  """Neither by better boxes of others among `max_detections`, nor where all classes suppress each other."""
  best = model(PICTURES[0], conf=CONF, max_detections=1)
  other = 1 - int(best.classes[0])
  assert model(PICTURES[0], conf=CONF, max_detections=1, classes=other).classes.tolist() == [other]
  agnostic = model(PICTURES[0], conf=CONF, class_agnostic=True, classes=other)
  assert len(agnostic) > 0
  assert set(agnostic.classes.tolist()) == {other}
  assert len(model(PICTURES[0], conf=CONF, classes=[])) == 0


@pytest.mark.parametrize(
  ("wanted", "message"),
  [
    (
      "cart",
      r"classes: 'cart' is no class of network 'tiny' \(did you mean 'cat'\?\); expected 0 to 1 or a name, 'cat'",
    ),
    (2, r"classes: 2 is no class"),
    ([-1], r"classes: -1 is no class"),
  ],
)
def test_unknown_classes_are_named(model: Model, wanted: Any, message: str) -> None:
  with pytest.raises(PrnError, match=message):
    model(PICTURES[0], classes=wanted)


def programs(model: Model) -> tuple[int, int]:
  """Compiled so far: of this network, and of suppression for any."""
  return model._compiled["inference"].num_programs, nms.postprocess._cache_size()  # type: ignore[attr-defined]


def check_programs(model: Model, lengths: range, sizes: int) -> None:
  """Lists of these lengths need at most so many programs; thresholds and classes none."""
  before = programs(model)
  for length in lengths:
    model(PICTURES[:1].repeat(length, 0), conf=CONF)
  after = programs(model)
  assert [new - old <= sizes for old, new in zip(before, after, strict=True)] == [True, True]
  for conf, nms_threshold, length in itertools.product((0, 0.1, 0.25, 0.7), (0.3, 0.6), lengths):
    found = model(PICTURES[:1].repeat(length, 0), conf=conf, nms=nms_threshold, classes=None if conf else [1])
    assert len(found) == length
    assert all(same(one, found[0]) for one in found)
    assert all((one.scores > conf).all() for one in found)
  assert programs(model) == after


def test_suppression_is_compiled_once_for_all_thresholds(model: Model, caplog: pytest.LogCaptureFixture) -> None:
  model(PICTURES[0], conf=CONF)
  with caplog.at_level("WARNING", logger="jax._src"), jax.log_compiles():
    model(PICTURES[0], conf=0.3, nms=0.6)
    model(PICTURES[0], conf=0.4)
  compiled = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Compiling ")]
  assert compiled == []


def test_thresholds_compile_nothing(model: Model) -> None:
  model(PICTURES[0], conf=CONF)
  check_programs(model, range(1, 3), 1)


@pytest.mark.slow
def test_lists_compile_once_per_padded_size(model: Model) -> None:
  """1, 2, 4 and 8: a list of 3 runs as 4, one of 11 as 8 and 4."""
  model.release()
  model(PICTURES[0], conf=CONF)
  check_programs(model, range(1, 12), 3)
  assert programs(model)[0] == 4


def test_padding_takes_no_part(model: Model) -> None:
  """Black rows of a padded batch would hold more candidates than there is room for: they are nobody's."""
  three = model(PICTURES, conf=CONF)
  assert [same(a, b) for a, b in zip(three, model(PICTURES, conf=CONF, batch_size=1), strict=True)] == [True] * 3


def test_release_forgets_what_is_compiled(model: Model) -> None:
  model(PICTURES[0], conf=CONF)
  model.release()
  assert not model._compiled
  assert model(PICTURES[0], conf=CONF).path is None


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
  """JAX's settings as a user finds them; put back afterwards."""
  config: Any = jax.config
  names = ("compilation_cache_dir", "persistent_cache_min_compile_time_secs", "persistent_cache_min_entry_size_bytes")
  kept = {name: getattr(config, f"jax_{name}") for name in names}
  for name, value in zip(names, (None, 1.0, 0), strict=True):
    config.update(f"jax_{name}", value)
  for variable in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
    monkeypatch.delenv(variable, raising=False)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  yield config
  for name, value in kept.items():
    config.update(f"jax_{name}", value)


def test_programs_are_kept_on_disk(settings: Any, tmp_path: Path) -> None:
  compilation_cache.use()
  assert settings.jax_compilation_cache_dir == str(tmp_path / "prn_jax" / "xla")
  assert settings.jax_persistent_cache_min_compile_time_secs < 1


def test_what_the_user_says_about_the_cache_stays(
  settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  settings.update("jax_compilation_cache_dir", "/mine")
  compilation_cache.use()
  assert settings.jax_compilation_cache_dir == "/mine"
  assert settings.jax_persistent_cache_min_compile_time_secs == 1
  settings.update("jax_compilation_cache_dir", None)
  with monkeypatch.context() as changed:
    changed.setenv("JAX_COMPILATION_CACHE_DIR", "")
    compilation_cache.use()
  settings.update("jax_enable_compilation_cache", False)
  compilation_cache.use()
  settings.update("jax_enable_compilation_cache", True)
  (tmp_path / "prn_jax").write_text("a file where the folder should be")
  compilation_cache.use()
  assert settings.jax_compilation_cache_dir is None
  (tmp_path / "prn_jax").unlink()
  settings.update("jax_persistent_cache_min_compile_time_secs", 7)
  compilation_cache.use()
  assert settings.jax_persistent_cache_min_compile_time_secs == 7


def test_short_names_of_results(model: Model) -> None:
  boxes = np.zeros((3, 4))
  found = Detections(boxes, [0.9, 0.8, 0.7], [1, 0, 1], ("cat", "dog"), 56, 40, path="a.png", image=PICTURES[0])
  assert repr(found) == "Detections('a.png' 56x40: 2 dog, 1 cat)"
  assert repr(found[:0]) == "Detections('a.png' 56x40: nothing)"
  many = Detections(np.zeros((9, 4)), np.ones(9), np.arange(9))
  assert repr(many) == "Detections(0x0: 1 class 0, 1 class 1, 1 class 2, 1 class 3, 1 class 4, ...)"
  probabilities = np.array([0.1, 0.7, 0.2], np.float32)
  assert repr(Classification(probabilities, ("a", "b", "c"))) == "Classification(b 70.0%, c 20.0%, a 10.0%; 3 classes)"
  assert repr(random_model()) == "Model('tiny', 32x32x3, 13 layers, 2 classes)"


def test_what_a_checker_knows_is_what_comes_back(model: Model, folder: Path, tmp_path: Path) -> None:
  path = folder / "0.png"
  assert all(isinstance(found, Detections) for found in typed_calls.one_detection(model, path))
  assert all(isinstance(found[0], Detections) for found in typed_calls.many_detections(model, path))
  g = Builder(8, 8, name="classes")
  g.conv(3, name="scores")
  g.avgpool(name="pool")
  classifier = random_model(g.graph())
  one, several = typed_calls.classes(classifier, path)
  assert isinstance(one, Classification)
  assert isinstance(several[0], Classification)
  classifier.save(tmp_path / "saved")
  assert isinstance(typed_calls.loaded(tmp_path / "saved"), Model)
  with pytest.raises(PrnError, match="network 'tiny' detects; call it"):
    model.classify(PICTURES[0])


def test_a_model_is_frozen_and_replaced(model: Model) -> None:
  with pytest.raises(dataclasses.FrozenInstanceError):
    model.names = ("a", "b")  # type: ignore[misc]
  model(PICTURES[0], conf=CONF)
  other = dataclasses.replace(model, names=["a", "b"])
  assert (type(other), other.names, model.names) == (Model, ("a", "b"), ("cat", "motorbike"))
  assert other.variables is model.variables
  assert not other._compiled, "programs belong to one model"


def test_models_of_either_kind_are_taken_everywhere(tmp_path: Path) -> None:
  """`prn_jax.load` gives a model that can be called, `prn_jax.loading` one that is only data."""
  random_model().save(tmp_path / "saved")
  plain, callable_one = loading.load(tmp_path / "saved"), prn_jax.load(tmp_path / "saved")
  assert (type(plain), type(callable_one)) == (FrozenModel, Model)
  assert isinstance(callable_one, FrozenModel)
  found = [predictor(one, DetectOptions(conf=CONF))([PICTURES[0]])[0] for one in (plain, callable_one)]
  assert len(found[0])
  np.testing.assert_array_equal(found[0].boxes_xyxy_px, found[1].boxes_xyxy_px)
  convert.save(plain, tmp_path / "again.safetensors")
  assert prn_jax.load(tmp_path / "again.safetensors").digest() == plain.digest() == callable_one.digest()
  assert not prn_jax.build("yolov3-tiny-prn").has_weights


def test_the_package_lists_its_names() -> None:
  assert dir(prn_jax) == sorted(prn_jax.__all__)
  assert all(hasattr(prn_jax, name) for name in dir(prn_jax))


def test_python_m_prn_jax_is_the_command() -> None:
  result = subprocess.run(
    [sys.executable, "-m", "prn_jax", "--version"], capture_output=True, text=True, check=True, cwd=REPO
  )
  assert result.stdout == f"prn_jax {prn_jax.__version__}\n"
