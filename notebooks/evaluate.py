# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Detect, evaluate, and understand the figures
#
# Loads a detector, finds objects in pictures, scores it on annotated images, and says where the figures come from.
# Runs from top to bottom without questions. `TINY=True` uses the small detector that the package carries, and drawn
# road scenes; otherwise YOLOv3-tiny-PRN with its published weights, on a subset of COCO val2017.

# %%
import os

TINY = os.environ.get("TINY", "False") == "True"
NUM_IMAGES = 16 if TINY else 100

# %% [markdown]
# ## Set-up
# Installs prn_jax if it is missing: from the checkout that holds this notebook, from a wheel that lies beside it
# (`pip wheel --no-deps .` in a checkout makes one; upload it to Colab's files), or else from the package index. What Colab
# has preinstalled (jax, numpy, OpenCV) is held at its version.

# %%
import importlib.util
import subprocess
import sys
from pathlib import Path


def prn_jax_source() -> str:
  """What to install: the checkout around this notebook, the newest wheel beside it, or the name in the index."""
  here = Path.cwd()
  for folder in (here, *here.parents):
    if (folder / "pyproject.toml").is_file() and 'name = "prn-jax"' in (folder / "pyproject.toml").read_text():
      return str(folder)
  wheels = sorted(here.glob("prn_jax-*.whl"), key=lambda wheel: wheel.stat().st_mtime)
  return str(wheels[-1]) if wheels else "prn-jax"


if importlib.util.find_spec("prn_jax") is None:
  frozen = subprocess.run([sys.executable, "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout
  held = [
    line for line in frozen.splitlines() if line.lower().startswith(("jax", "numpy", "opencv", "flax")) and "==" in line
  ]
  with open("held.txt", "w") as file:
    file.write("\n".join(held))
  source = prn_jax_source()
  done = subprocess.run(
    [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", "held.txt", source], check=False
  )
  if done.returncode:
    raise SystemExit(
      f"pip could not install {source}. If the index has no prn-jax: run `pip wheel --no-deps .` in a checkout, upload "
      "the file prn_jax-*.whl beside this notebook, and run this cell again."
    )
  importlib.invalidate_caches()

# %%
import jax

import prn_jax

print(f"prn_jax {prn_jax.__version__} on jax {jax.__version__}, {jax.devices()[0].platform}")

# %% [markdown]
# ## A model and its weights
# Downloads are asked for by name, resumed if they break, and refused if their checksum is wrong.

# %%
from prn_jax.zoo import manifest as zoo

if TINY:
  model = prn_jax.load("traffic-tiny-prn")
else:
  weights = zoo.download(zoo.get_entry("yolov3-tiny-prn")).path
  model = prn_jax.load("yolov3-tiny-prn", weights=weights)
model

# %% [markdown]
# ## Annotated images
# A data set is one line of text, the SPEC. For COCO the annotations (241 MB) and the first images are fetched from
# COCO's own servers.

# %%
import json
import urllib.request
import zipfile

from prn_jax.run.evaluate import open_data


def coco_subset(count: int) -> str:
  """Fetches the first `count` images of val2017 with their annotations; returns their SPEC."""
  folder = Path("coco")
  folder.mkdir(exist_ok=True)
  annotations = folder / f"val2017_{count}.json"
  if not annotations.exists():
    archive = folder / "annotations.zip"
    if not archive.exists():
      urllib.request.urlretrieve("http://images.cocodataset.org/annotations/annotations_trainval2017.zip", archive)
    with zipfile.ZipFile(archive) as opened:
      content = json.loads(opened.read("annotations/instances_val2017.json"))
    content["images"] = sorted(content["images"], key=lambda image: image["id"])[:count]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
    annotations.write_text(json.dumps(content))
  for image in json.loads(annotations.read_text())["images"]:
    target = folder / image["file_name"]
    if not target.exists():
      urllib.request.urlretrieve(image["coco_url"], target)
  return f"coco:{annotations}:{folder}"


spec = f"synthetic:traffic:{NUM_IMAGES}@valid" if TINY else coco_subset(NUM_IMAGES)
data = open_data(spec, model)
print(f"{len(data)} images, {len(data.names)} classes")

# %% [markdown]
# ## Detect
# `model(image)` takes a path, a URL, bytes, a PIL image or an array. The last value of a cell is shown inline.

# %%
model(data[0].image)

# %%
model(data[1].image, conf=0.1)

# %% [markdown]
# ## Evaluate
# COCO's twelve figures, and the table of classes.

# %%
from prn_jax.detect import metrics
from prn_jax.run.detector import DetectOptions
from prn_jax.run.evaluate import detection_data, image_reader, run_model

run = run_model(model, data, DetectOptions(conf=0.001, nms_kind="default"), batch_size=4)
scored = detection_data(data, run)
result = metrics.evaluate(scored, "coco")
print(result.text())

# %% [markdown]
# ## Where the figures come from
# The same detections under COCO's, Pascal VOC's and Darknet's rules, and what each single rule changes.

# %%
print(metrics.explain(scored).text())

# %%
from IPython.display import Image as ShowImage
from IPython.display import display

report = metrics.write_report(Path("evaluation"), scored, result, read_image=image_reader(data))
for name in ("pr_curves.png", "f1_curve.png", "mistakes.png"):
  display(ShowImage(str(report.files[name])))
