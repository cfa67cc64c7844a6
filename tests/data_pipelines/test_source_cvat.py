"""CVAT's XML of images: what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prn_jax.data_pipelines.records import DataError, notes_of
from prn_jax.data_pipelines.spec import open_spec
from tests.data_pipelines.pictures import write, write_image

META = """<meta><task><id>1</id><labels>
<label><name>dog</name><color>#fff</color><type>any</type><attributes></attributes></label>
<label><name>cat</name></label><label><name>paw</name><type>points</type><parent>cat</parent></label>
</labels></task></meta>"""
BOX = '<box label="cat" source="manual" occluded="0" xtl="10.5" ytl="5" xbr="30.25" ybr="35" z_order="0"></box>'


def cvat(root: Path, *shapes: str, meta: str = META, more: str = "", size: str = 'width="100" height="50"') -> str:
  write_image(root / "images" / "sub" / "a.jpg")
  image = f'<image id="0" name="sub/a.jpg" {size}>{"".join(shapes)}</image>'
  path = write(root / "annotations.xml", f'<?xml version="1.0"?>\n<annotations>{meta}{image}{more}</annotations>')
  return f"cvat:{path}:{root / 'images'}"


def test_shapes(tmp_path: Path) -> None:
  shapes = [
    BOX,
    '<box label="dog" xtl="40" ytl="20" xbr="60" ybr="30" rotation="90.00"/>',
    '<box label="dog" xtl="0" ytl="20" xbr="8" ybr="30" rotation="90"/>',  # reaches out by 1 when it is turned
    '<polygon label="dog" points="10,5;40,8;20,30"/>',
    '<ellipse label="dog" cx="50" cy="25" rx="20" ry="10"/>',
    '<ellipse label="dog" cx="50" cy="25" rx="20" ry="10" rotation="90"/>',
    '<mask label="dog" rle="3, 2" left="5" top="6" width="7" height="8"/>',
    '<polyline label="dog" points="1,1;2,2"/><points label="dog" points="1,1"/>',
    '<tag label="dog"><attribute name="x">y</attribute></tag>',
  ]
  dataset = open_spec(cvat(tmp_path, *shapes), keep_polygons=True)
  assert dataset.names == ("dog", "cat")
  record = dataset[0]
  assert (record.image_id, record.classes.tolist()) == ("a", [1, 0, 0, 0, 0, 0, 0])
  expected = [
    [10.5, 5, 30.25, 35], [45, 15, 55, 35], [0, 21, 9, 29], [10, 5, 40, 30],
    [30, 15, 70, 35], [40, 5, 60, 45], [5, 6, 12, 14],
  ]  # fmt: skip
  np.testing.assert_allclose(record.boxes_xyxy_px, expected, atol=1e-5)
  rings = record.polygons_px or ()
  assert [len(of_one) for of_one in rings] == [0, 1, 1, 1, 0, 0, 0]
  np.testing.assert_allclose(rings[1][0], [[55, 15], [55, 35], [45, 35], [45, 15]], atol=1e-9)  # clockwise
  assert notes_of(dataset)[0].endswith("are not used: 1 polyline, 1 points, 1 tag")


def test_names_and_images_without_shapes(tmp_path: Path) -> None:
  write_image(tmp_path / "images" / "b.jpg")
  dataset = open_spec(cvat(tmp_path, BOX, BOX.replace("cat", "ant"), meta="", more='<image name="b.jpg"/>'))
  assert dataset.names == ("ant", "cat")
  assert [len(dataset[i].classes) for i in range(2)] == [2, 0]
  assert open_spec(cvat(tmp_path, BOX.replace("cat", "ant"))).names == ("dog", "cat", "ant")


@pytest.mark.parametrize(
  ("bad", "message"),
  [
    (BOX.replace('label="cat"', ""), r"image 'sub/a\.jpg', shape 2: <box> has no label"),
    (BOX.replace("10.5", "x"), r"shape 2: <box> has xtl that is 'x'; expected a finite number"),
    (BOX.replace('ybr="35"', ""), r"shape 2: <box> has ybr that is None; expected"),
    (BOX.replace("z_order", 'rotation="nan" z'), r"shape 2: <box> has rotation that is 'nan'"),
    (BOX.replace("30.25", "10.5"), r"shape 2: box .* has size 0x30"),
    (BOX.replace("30.25", "130"), r"shape 2: box .* reaches 30 px outside its 100x50 image"),
    ('<polygon label="dog" points="1,2;3,4"/>', r"shape 2: <polygon> has points '1,2;3,4'; expected at least three"),
    ('<polygon label="dog" points="1,2;3,4;5,x"/>', r"shape 2: <polygon> has a coordinate that is 'x'"),
    ('<polygon label="dog" points="1,2,3;3,4;5,6"/>', r"shape 2: <polygon> has points"),
    ('<ellipse label="dog" cx="1" cy="2" rx="0" ry="3"/>', r"shape 2: box .* has size 0x"),
  ],
)
def test_bad_shapes_stop_or_are_left_out(tmp_path: Path, bad: str, message: str) -> None:
  spec = cvat(tmp_path, BOX, bad)
  with pytest.raises(DataError, match=rf"annotations\.xml: .*{message}"):
    open_spec(spec)
  dataset = open_spec(spec, "skip")
  assert len(dataset.problems) == 1
  assert dataset[0].classes[0] == 1


def test_bad_images(tmp_path: Path) -> None:
  more = '<image name="sub/a.jpg"/><image/><image name="c.jpg"/>'
  spec = cvat(tmp_path, BOX, more=more)
  with pytest.raises(DataError, match=r"<image> 2: the image 'sub/a\.jpg' occurs again"):
    open_spec(spec)
  kinds = [problem.kind for problem in open_spec(spec, "skip").problems]
  assert kinds == ["duplicate", "malformed", "missing image"]
  with pytest.raises(DataError, match=r"it says 50x100 of .*a\.jpg, which is 100x50"):
    open_spec(cvat(tmp_path, BOX, size='width="50" height="100"'))


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (
      "<annotations><track id='0'/></annotations>",
      r"holds tracks of a video. Export the task as 'CVAT for images 1\.1'",
    ),
    ("<annotation/>", r"begins with <annotation>; expected <annotations>, CVAT's XML of images"),
    ("<annotations>", r"annotations\.xml:1 is no valid XML"),
    ("<annotations/>", r"holds no images"),
  ],
)
def test_files_of_something_else(tmp_path: Path, text: str, message: str) -> None:
  spec = cvat(tmp_path)
  write(tmp_path / "annotations.xml", text)
  with pytest.raises(DataError, match=message):
    open_spec(spec)


def test_a_file_of_more_than_two_megabytes(tmp_path: Path) -> None:
  """An export is one file, whatever its size; the boxes are counted by search for text."""
  spec = cvat(tmp_path, *[BOX] * 25_000)
  text = (tmp_path / "annotations.xml").read_text()
  assert len(text) > 2 << 20
  assert len(open_spec(spec)[0].classes) == text.count("<box ")
