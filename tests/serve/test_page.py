"""The page in a browser: a photo is dropped, boxes come back, errors are shown in words."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from prn_jax.api import Model
from prn_jax.network import init_variables
from prn_jax.run.detector import DetectOptions
from prn_jax.serve.settings import ServeSettings
from tests.browser import Page, browsing
from tests.nets import tiny_detector
from tests.serve.running import serving
from tests.serve.test_app import NAMES, photo

DROP = """
  new Promise((done) => {
    const bytes = Uint8Array.from(atob('%s'), (c) => c.charCodeAt(0));
    const files = new DataTransfer();
    files.items.add(new File([bytes], '%s', {type: '%s'}));
    document.dispatchEvent(new DragEvent('drop', {dataTransfer: files, bubbles: true, cancelable: true}));
    done(true);
  })
"""
SAID = "document.getElementById('said').textContent"


def drop(page: Page, data: bytes, name: str = "a.png", kind: str = "image/png") -> None:
  page.run(DROP % (base64.b64encode(data).decode(), name, kind))


def test_a_dropped_photo_gets_its_boxes(tmp_path: Path) -> None:
  graph = tiny_detector()
  model = Model(graph, init_variables(graph), names=NAMES)
  wanted = model(photo(1), conf=0.2)
  with (
    serving(model, ServeSettings(batch=1), DetectOptions(conf=0.2)) as server,
    browsing(tmp_path / "browser") as page,
  ):
    page.open(f"http://127.0.0.1:{server.port}/")
    drop(page, photo(1))
    page.until(f"{SAID}.includes('object')")
    assert page.run(SAID).startswith(f"{len(wanted)} object")
    assert page.run("document.querySelectorAll('#list tbody tr').length") == len(wanted)
    assert page.run("document.querySelector('#list td').textContent") == wanted.labels[0]  # a name with tags, as text
    assert page.run("[document.getElementById('picture').width, document.getElementById('picture').height]") == [48, 40]
    shown = np.asarray(Image.open(io.BytesIO(page.picture())).convert("RGB"))
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 500  # the photo is drawn, not an empty canvas
    page.run("document.getElementById('conf').value = '0.99'")
    page.run("document.getElementById('conf').dispatchEvent(new Event('change'))")
    page.until(f"{SAID}.startsWith('0 objects')")
    assert page.errors == []
    drop(page, b"hello", "a.txt", "text/plain")
    page.until(f"{SAID}.includes('is not an image')")
    assert page.run("document.getElementById('picture').hidden && document.getElementById('said').className") == "error"
