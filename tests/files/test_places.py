"""What a user names as a path, here and in a bucket; and what is not one of these."""

from __future__ import annotations

import pickle
import re
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from prn_jax.errors import BucketError, PrnError
from prn_jax.files import buckets, places
from prn_jax.files.disk import sha256, write_text, written_beside
from prn_jax.files.listings import listed_once
from prn_jax.files.mirror import Mirror
from prn_jax.files.places import folder_beside, is_remote, local_copy, to_path
from tests.object_store import Faults, ObjectStore


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
  """gcsfs waits half a minute, in all, before it gives up."""
  import gcsfs.retry

  async def at_once(seconds: float) -> None:
    pass

  monkeypatch.setattr(gcsfs.retry, "asyncio", types.SimpleNamespace(sleep=at_once))


# -- what a user writes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ("text", "path"),
  [
    ("runs/mine", "runs/mine"),
    ("/tmp/run", "/tmp/run"),
    ("a:b", "a:b"),
    ("C:/runs", "C:/runs"),  # a drive, no scheme
    ("file:///tmp/a%20b", "/tmp/a b"),
    ("file://localhost/tmp/run", "/tmp/run"),
    ("~nobody-of-this-name/x", "~nobody-of-this-name/x"),  # as in a shell
  ],
)
def test_paths_of_this_machine(text: str, path: str) -> None:
  assert to_path(text) == Path(path)
  assert not is_remote(to_path(text))


def test_home_folders_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
  monkeypatch.setenv("HOME", str(tmp_path))
  assert to_path("~/run") == tmp_path / "run"


@pytest.mark.parametrize("given", ["gs://bucket/run", "gs://bucket/run/", "GS://bucket/run", Path("gs://bucket/run")])
def test_a_bucket_in_every_spelling(given: str | Path) -> None:
  path = to_path(given)  # pathlib makes one slash of two
  assert str(path) == "gs://bucket/run"
  assert is_remote(path)
  assert to_path(path) is path


@pytest.mark.parametrize("scheme", ["s3", "hdfs", "az", "abfs", "ftp", "gcs", "hf", "https"])
def test_other_schemes_are_refused(scheme: str) -> None:
  with pytest.raises(
    PrnError, match=rf"^'{scheme}://x/run': {scheme}:// is not supported; expected a path of this machine"
  ):
    to_path(f"{scheme}://x/run")


def test_a_bucket_needs_a_name() -> None:
  with pytest.raises(PrnError, match="'gs://' names no bucket; expected gs://BUCKET/NAME"):
    to_path("gs://")


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(buckets.importlib.util, "find_spec", lambda name: None)
  buckets.file_system.cache_clear()
  try:
    with pytest.raises(PrnError, match=re.escape("gs:// needs the package gcsfs: pip install 'prn-jax[gcs]'")):
      to_path("gs://bucket/run").exists()
  finally:
    buckets.file_system.cache_clear()


# -- a path in a bucket behaves as one of this machine -----------------------------------------------------------------


def test_the_methods_of_a_path(store: ObjectStore) -> None:
  root = to_path("gs://bucket/run")
  assert not root.exists()
  assert not root.is_dir()
  root.mkdir(parents=True)
  assert not root.exists(), "there are no folders, only objects with names"
  for name in ("a.txt", "b.jpg", "deep/c.txt", "deep/er/d.txt"):
    (root / name).write_text(name)
  assert store.names() == ["run/a.txt", "run/b.jpg", "run/deep/c.txt", "run/deep/er/d.txt"]
  assert [(path.name, path.is_dir(), path.is_file()) for path in root.iterdir()] == [
    ("a.txt", False, True), ("b.jpg", False, True), ("deep", True, False),
  ]  # fmt: skip
  assert [str(path.relative_to(root)) for path in root.rglob("*.txt")] == ["a.txt", "deep/c.txt", "deep/er/d.txt"]
  assert [path.name for path in root.glob("*.txt")] == ["a.txt"]
  assert [path.name for path in root.glob("*/*.txt")] == ["c.txt"]
  assert [path.name for path in root.glob("**/d.txt")] == ["d.txt"]
  assert (root / "a.txt").read_text() == "a.txt"
  assert (root / "a.txt").stat().st_size == 5
  assert pickle.loads(pickle.dumps(root / "a.txt")).read_bytes() == b"a.txt"
  assert [str(parent) for parent in (root / "deep/er").parents][:2] == ["gs://bucket/run/deep", "gs://bucket/run"]
  (root / "a.txt").unlink()
  with pytest.raises(FileNotFoundError, match="no such object"):
    (root / "a.txt").read_bytes()
  (root / "a.txt").unlink(missing_ok=True)
  with pytest.raises(FileNotFoundError):
    list((root / "empty").iterdir())
  places.remove_tree(root / "deep")
  assert store.names() == ["run/b.jpg"]


def test_large_objects_are_read_in_parts(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(buckets, "_CHUNK_BYTES", 1000)
  content = bytes(range(256)) * 20
  store.put("big", content)
  (tmp_path / "big").write_bytes(content)
  path = to_path("gs://bucket/big")
  assert sha256(path) == sha256(tmp_path / "big")
  with path.open("rb") as file:
    file.seek(-300, 2)
    assert file.read(5) == content[-300:-295]
    file.seek(17)
    assert file.read() == content[17:]
  with local_copy(path) as copy:
    assert copy.name == "big"
    assert copy.read_bytes() == content
  assert not copy.exists()


def test_a_data_set_asks_for_its_names_with_one_request(store: ObjectStore) -> None:
  for number in range(30):
    store.put(f"images/{number}.jpg", b"x")
  paths = [to_path(f"gs://bucket/images/{number}.jpg") for number in range(40)]
  store.num_requests = 0
  with listed_once():
    assert [path.is_file() for path in paths] == [True] * 30 + [False] * 10
    assert to_path("gs://bucket/images").is_dir()
  assert store.num_requests == 2, "the folder, and the one above it"
  store.put("images/39.jpg", b"x")
  assert paths[39].is_file(), "only in the block"


def test_lists_of_many_pages(store: ObjectStore) -> None:
  for number in range(2500):
    store.put(f"many/{number:04}", b"")
  assert len(list(to_path("gs://bucket/many").iterdir())) == 2500


# -- writing -----------------------------------------------------------------------------------------------------------


def test_an_object_appears_whole_or_not_at_all(store: ObjectStore) -> None:
  file = to_path("gs://bucket/run/config.json")
  write_text(file, "old")

  def fail() -> None:
    with written_beside(file) as out:
      out.write(b"half")
      raise RuntimeError

  with pytest.raises(RuntimeError):
    fail()
  assert store.names() == ["run/config.json"]
  assert file.read_text() == "old"


@pytest.mark.parametrize("where", ["here", "bucket"])
def test_a_folder_takes_the_place_of_another(store: ObjectStore, tmp_path: Path, where: str) -> None:
  folder = tmp_path / "eval" if where == "here" else to_path("gs://bucket/run/eval")
  for names in (("old.png", "both.txt", "step.txt"), ("new.png", "both.txt", "step.txt")):
    with folder_beside(folder, "step.txt") as part:
      for name in names:
        write_text(part / name, str(names))
    assert places.files_below(folder) == sorted(names)
    assert (folder / "both.txt").read_text() == str(names)


def test_the_mark_of_a_folder_goes_first_and_comes_last(store: ObjectStore) -> None:
  folder = to_path("gs://bucket/eval")
  for _ in range(2):
    store.writes.clear()
    with folder_beside(folder, "step.txt") as part:
      for name in ("step.txt", "z.png", "a.png"):
        write_text(part / name, "x")
    changed = [what.split(" ")[-1] for _, what in store.writes if what.startswith("DELETE")]
  assert changed == ["eval/step.txt"]
  assert store.objects["eval/step.txt"].generation > max(
    store.objects[f"eval/{name}"].generation for name in ("a.png", "z.png")
  )
  assert store.writes[0][1] == "DELETE eval/step.txt"


def test_a_mirror_uploads_what_has_changed(store: ObjectStore) -> None:
  mirror = Mirror(to_path("gs://bucket/run"), every_sec=3600)
  with (mirror.local / "a.csv").open("w") as growing:
    growing.write("1\n")
    growing.flush()
    (mirror.local / "b.txt").write_text("once")
    mirror.push()
    assert (store.read("run/a.csv"), store.read("run/b.txt")) == (b"1\n", b"once")
    before = store.objects["run/b.txt"].generation
    growing.write("2\n")
    growing.flush()
    mirror.push()
  assert store.read("run/a.csv") == b"1\n2\n"
  assert store.objects["run/b.txt"].generation == before
  local = mirror.local
  mirror.close()
  assert not local.exists()


def test_a_mirror_uploads_by_itself(store: ObjectStore) -> None:
  import time

  mirror = Mirror(to_path("gs://bucket/run"), every_sec=0.05)
  (mirror.local / "a.csv").write_text("1")
  deadline = time.monotonic() + 30
  while not store.names() and time.monotonic() < deadline:
    time.sleep(0.02)
  assert store.names() == ["run/a.csv"]
  mirror.close()


def test_a_mirror_of_this_machine_is_the_folder(tmp_path: Path) -> None:
  assert Mirror(tmp_path).local == tmp_path


# -- a store that fails ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
def test_single_failures_are_not_noticed(store: ObjectStore) -> None:
  store.faults = Faults(refused=0.1, done_but_refused=0.1, dropped=0.1)
  for number in range(20):
    path = to_path(f"gs://bucket/run/{number}")
    path.write_text(str(number))
    assert path.is_file()
    assert path.read_text() == str(number)
  assert len(list(to_path("gs://bucket/run").iterdir())) == 20
  for path in to_path("gs://bucket/run").iterdir():
    path.unlink(missing_ok=True)  # done, but said to have failed: the second try finds nothing
  assert store.names() == []
  assert store.num_faults > 5


QUESTIONS: dict[str, Callable[[Path], object]] = {
  "exists": lambda path: path.exists(),
  "is_file": lambda path: path.is_file(),
  "is_dir": lambda path: path.is_dir(),
  "read_bytes": lambda path: path.read_bytes(),
  "stat": lambda path: path.stat(),
  "unlink": lambda path: path.unlink(missing_ok=True),
  "iterdir": lambda path: list(path.iterdir()),
  "glob": lambda path: list(path.glob("*.txt")),
  "rglob": lambda path: list(path.rglob("*")),
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("question", QUESTIONS)
def test_no_answer_is_not_no(store: ObjectStore, question: str) -> None:
  store.put("run/config.json", b"{}")
  store.faults = Faults(refused=1)
  with pytest.raises(
    BucketError, match=r"'gs://bucket/run' could not be reached.*Run the same command again"
  ) as caught:
    QUESTIONS[question](to_path("gs://bucket/run"))
  assert caught.value.is_transient
  assert caught.value.exit_code == 76
  assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("question", QUESTIONS)
def test_no_right_is_told_at_once(store: ObjectStore, question: str) -> None:
  store.put("run/config.json", b"{}")
  store.forbids = True
  with pytest.raises(
    BucketError, match=r"'gs://bucket/run' cannot be used: Forbidden.*account may read and write"
  ) as caught:
    QUESTIONS[question](to_path("gs://bucket/run"))
  assert not caught.value.is_transient
  assert caught.value.exit_code == 2
  assert pickle.loads(pickle.dumps(caught.value)).exit_code == 2


def test_a_bucket_that_does_not_exist(store: ObjectStore) -> None:
  assert not to_path("gs://no-such-bucket/run").exists()
  with pytest.raises(BucketError, match="'gs://no-such-bucket/run' cannot be written: there is no bucket of this name"):
    to_path("gs://no-such-bucket/run").write_bytes(b"x")
