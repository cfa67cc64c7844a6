"""An archive as a folder of classified images: what is read, nothing is unpacked, and what cannot be used."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from prn_jax.data_pipelines.reading import archives
from prn_jax.data_pipelines.records import DataError
from prn_jax.data_pipelines.spec import open_spec
from tests.data_pipelines.pictures import write_image

ENDINGS = ("zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz")


def jpeg(number: int = 0) -> bytes:
  buffer = io.BytesIO()
  Image.new("RGB", (40 + number, 30), "grey").save(buffer, "JPEG")
  return buffer.getvalue()


def pack(path: Path, files: dict[str, bytes] | list[tuple[str, bytes]]) -> str:
  """Writes an archive of the kind that its name says."""
  items = list(files.items()) if isinstance(files, dict) else files
  if path.name.endswith(".zip"):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
      for name, data in items:
        file.writestr(name, data)
  else:
    kind = {"tar": "w", "tgz": "w:gz"}.get(path.name.split(".")[-1], f"w:{path.name.split('.')[-1]}")
    with tarfile.open(path, kind) as tar:
      for name, data in items:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
  return f"imagefolder:{path}"


FILES = {
  "set/train/dog/1.jpg": jpeg(1),
  "set/train/cat/1.jpg": jpeg(2),
  "set/train/cat/deep/2.JPG": jpeg(3),
  "set/train/cat/.hidden.jpg": b"",
  "set/train/cat/readme.txt": b"text",
  "set/labels.csv": b"a,b",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_archive_is_read_as_its_folder(tmp_path: Path, ending: str) -> None:
  dataset = open_spec(pack(tmp_path / f"a.{ending}", FILES))
  folder = tmp_path / "plain"
  for name, data in FILES.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
  plain = open_spec(f"imagefolder:{folder / 'set' / 'train'}")
  assert (dataset.names, dataset.category_ids, len(dataset)) == (plain.names, plain.category_ids, len(plain))
  for index in range(3):
    one, other = dataset[index], plain[index]
    assert isinstance(other.image, Path)
    assert one.image == other.image.read_bytes()
    assert (one.image_id, one.label, one.width) == (other.image_id, other.label, other.width)
  assert sorted(path.name for path in tmp_path.iterdir()) == [f"a.{ending}", "plain"]  # nothing was unpacked


@pytest.mark.parametrize("ending", ENDINGS)
def test_copies_and_threads_read_the_same(tmp_path: Path, ending: str) -> None:
  dataset = open_spec(pack(tmp_path / f"a.{ending}", {f"c{n % 3}/{n:02d}.jpg": jpeg(n) for n in range(30)}))
  copied = pickle.dumps(dataset)
  assert len(copied) < 6000  # without the images
  copy = pickle.loads(copied)
  with ThreadPoolExecutor(4) as pool:
    found = list(pool.map(lambda n: copy[n].image, [*range(30), *range(29, -1, -1)]))
  assert found == [dataset[n].image for n in [*range(30), *range(29, -1, -1)]]


@pytest.mark.parametrize(
  ("names", "classes", "first_id"),
  [
    (["cat/1.jpg", "dog/1.jpg"], ("cat", "dog"), "cat/1.jpg"),
    (["cat/1.jpg"], ("cat",), "cat/1.jpg"),
    (["x/cat/1.jpg"], ("cat",), "cat/1.jpg"),
    (["x/y/cat/1.jpg", "x/y/dog/1.jpg"], ("cat", "dog"), "cat/1.jpg"),
    (["cat/deep/1.jpg", "dog/1.jpg"], ("cat", "dog"), "cat/deep/1.jpg"),
    (["cover.jpg", "cat/1.jpg"], ("cat",), "cat/1.jpg"),  # beside the class folders
  ],
)
def test_where_the_class_folders_are(tmp_path: Path, names: list[str], classes: tuple[str, ...], first_id: str) -> None:
  dataset = open_spec(pack(tmp_path / "a.zip", dict.fromkeys(names, jpeg())))
  assert (dataset.names, dataset[0].image_id) == (classes, first_id)


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize(
  ("bad", "message", "kind"),
  [
    ("../cat/9.jpg", r"member '\.\./cat/9\.jpg' has a name that leads out of the archive", "malformed"),
    ("/cat/9.jpg", r"member '/cat/9\.jpg' has a name that leads out", "malformed"),
    ("cat/../../9.jpg", r"leads out of the archive", "malformed"),
    ("cat/1.jpg", r"member 'cat/1\.jpg' occurs twice", "duplicate"),
    ("cat/empty.jpg", r"member 'cat/empty\.jpg': the file is empty", "unreadable image"),
    (
      "cat/text.jpg",
      r"member 'cat/text\.jpg': the file is not an image: it starts with b'no image'",
      "unreadable image",
    ),
  ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_bad_members(tmp_path: Path, ending: str, bad: str, message: str, kind: str) -> None:
  data = {"empty": b"", "text": b"no image"}.get(Path(bad).stem, jpeg())
  spec = pack(tmp_path / f"a.{ending}", [("cat/1.jpg", jpeg()), ("dog/1.jpg", jpeg()), (bad, data)])
  with pytest.raises(DataError, match=rf"a\.{ending}: {message}|{message}"):
    open_spec(spec)
  dataset = open_spec(spec, "skip")
  assert [problem.kind for problem in dataset.problems] == [kind]
  assert [dataset[n].image_id for n in range(len(dataset))] == ["cat/1.jpg", "dog/1.jpg"]


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_links_are_not_followed(tmp_path: Path, ending: str) -> None:
  path = tmp_path / f"a.{ending}"
  with tarfile.open(path, "w" if ending == "tar" else "w:gz") as tar:
    info = tarfile.TarInfo("cat/1.jpg")
    info.size = len(jpeg())
    tar.addfile(info, io.BytesIO(jpeg()))
    link = tarfile.TarInfo("cat/2.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    tar.addfile(link)
  with pytest.raises(DataError, match=r"member 'cat/2\.jpg' is a link or device"):
    open_spec(f"imagefolder:{path}")
  assert len(open_spec(f"imagefolder:{path}", "skip")) == 1


def test_encrypted_members(tmp_path: Path) -> None:
  spec = pack(tmp_path / "a.zip", {"cat/1.jpg": jpeg()})
  data = bytearray((tmp_path / "a.zip").read_bytes())
  data[data.index(b"PK\1\2") + 8] |= 1
  (tmp_path / "a.zip").write_bytes(data)
  with pytest.raises(DataError, match=r"member 'cat/1\.jpg' is encrypted; unpack the archive"):
    open_spec(spec)


@pytest.mark.parametrize("ending", ENDINGS)
def test_truncated_archives(tmp_path: Path, ending: str) -> None:
  spec = pack(tmp_path / f"a.{ending}", {f"cat/{n}.jpg": jpeg(n) for n in range(9)})
  path = tmp_path / f"a.{ending}"
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
  with pytest.raises(DataError, match=rf"a\.{ending} is truncated, damaged or no such archive \(.*Copy or download"):
    open_spec(spec)
  path.write_bytes(b"no archive")
  with pytest.raises(DataError, match=r"is truncated, damaged or no such archive"):
    open_spec(spec)


@pytest.mark.parametrize("ending", ["zip", "tar"])
def test_an_archive_that_changes_behind_our_back(tmp_path: Path, ending: str) -> None:
  path = tmp_path / f"a.{ending}"
  dataset = open_spec(pack(path, {"cat/1.jpg": jpeg()}))
  copy = pickle.loads(pickle.dumps(dataset))
  path.write_bytes(path.read_bytes()[:100])
  with pytest.raises(DataError, match=r"member 'cat/1\.jpg' .*Copy the archive again"):
    copy[0]


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  spec = pack(tmp_path / "a.tar.gz", {f"cat/{n}.jpg": jpeg(n) for n in range(9)})
  monkeypatch.setattr(archives, "MAX_MEMORY_BYTES", 3000)
  with pytest.raises(DataError, match=r"holds more than .* GiB; a compressed tar is read into memory\. Unpack it"):
    open_spec(spec)
  monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 10)
  with pytest.raises(DataError, match=r"member 'cat/0\.jpg' has \d+ bytes; at most 10 are read"):
    open_spec(pack(tmp_path / "a.zip", {"cat/0.jpg": jpeg()}))


def test_missing_and_wrong(tmp_path: Path) -> None:
  with pytest.raises(DataError, match=r"there is no archive .*none\.tar"):
    open_spec(f"imagefolder:{tmp_path / 'none.tar'}")
  with pytest.raises(DataError, match=r"has no class folders with images; expected CLASS/\*\.jpg inside"):
    open_spec(pack(tmp_path / "flat.zip", {"1.jpg": jpeg(), "cat/1.txt": b""}))
  with pytest.raises(DataError, match=r"\(it is a file\); expected a folder, or an archive \(\.zip, \.tar,"):
    open_spec(f"imagefolder:{write_image(tmp_path / '1.jpg')}")
  with pytest.raises(
    DataError, match=r"holds no images that can be read; the first .* member 'cat/1\.jpg': the file is"
  ):
    open_spec(pack(tmp_path / "bad.zip", {"cat/1.jpg": b""}), "skip")


def test_real_cifar(shared: Path) -> None:
  dataset = open_spec(f"imagefolder:{shared / 'data' / 'cifar10_sample' / 'cifar10_test.tar.gz'}")
  assert (len(dataset), len(dataset.names), dataset.names[0]) == (5000, 10, "airplane")
  labels = [dataset[n].label for n in range(5000)]
  assert [labels.count(n) for n in range(10)] == [500] * 10
  assert dataset[0].image_id == "airplane/0000.jpg"
  assert (dataset[0].width, dataset[0].height) == (32, 32)
