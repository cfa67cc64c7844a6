"""Words of Darknet and of other tools: the command line that does the same here, with the user's own arguments in it."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from prn_jax.errors import did_you_mean


@dataclasses.dataclass(frozen=True)
class Option:
  """What becomes of an option that we do not have.

  Attributes:
    new: options in its place; a value of the old one follows the first. () leaves it out.
    takes_value: whether a value follows the old one.
    why: said where it is left out, or means something else here.
  """

  new: tuple[str, ...] = ()
  takes_value: bool = True
  why: str = ""


_CONF, _NMS, _OUT = Option(("--conf",)), Option(("--nms",)), Option(("--out",))
_DEVICE = Option(why="the environment chooses devices: CUDA_VISIBLE_DEVICES=N before the command, or JAX_PLATFORMS=cpu")
_SHOWN = Option((), False, "nothing is shown on a screen; pictures are saved")
_SIZE = Option(
  why="the size is the network's: width= and height= of its cfg (of a training: --config.width=N --config.height=N)"
)
_SOURCE = Option(("",))  # an argument without a name
OPTIONS: dict[str, Option] = {
  **dict.fromkeys(("-thresh", "--thresh", "--threshold", "--score-threshold", "--conf-thresh", "--conf-thres"), _CONF),
  **dict.fromkeys(("--conf_thres", "--conf-threshold", "--confidence", "--min-confidence", "-conf"), _CONF),
  **dict.fromkeys(("-nms", "--iou", "--iou-thres", "--iou_thres", "--nms-thres", "--nms_thres", "--nms-thresh"), _NMS),
  **dict.fromkeys(("--output", "--output-dir", "--outdir", "--project", "-o", "-prefix"), _OUT),
  **dict.fromkeys(("-i", "-gpus", "--device", "--gpu", "--gpus"), _DEVICE),
  **dict.fromkeys(("-dont_show", "-show", "--show", "--view-img", "--nosave"), _SHOWN),
  **dict.fromkeys(("--img", "--imgsz", "--img-size", "--img_size", "--image-size", "-width", "-height"), _SIZE),
  **dict.fromkeys(("--source", "--input", "--image", "--images"), _SOURCE),
  **dict.fromkeys(("--cfg", "--model", "--model-def"), Option(("--model",))),  # in a training
  **dict.fromkeys(("--batch-size", "--batch_size", "--bs"), Option(("--batch",))),
  **dict.fromkeys(("--max-det", "--max_det"), Option(("--max-detections",))),
  **dict.fromkeys(("--agnostic-nms", "--agnostic"), Option(("--class-agnostic",), False)),
  **dict.fromkeys(("--pretrained", "--pretrained-weights", "--pretrained_weights"), Option(("--weights",))),
  **dict.fromkeys(("--save-dir", "--run-dir", "--logdir", "--log-dir", "--name"), Option(("--workdir",))),
  **dict.fromkeys(("--val", "--val-data"), Option(("--valid",))),
  **dict.fromkeys(("--lr", "--lr0", "--learning-rate"), Option(("--config.optim.learning_rate",))),
  **dict.fromkeys(("--format", "--export-format"), Option(why="the ending of DST says it: x.onnx, x.weights, x.safetensors, folder/")),
  "--seed": Option(("--config.seed",)),
  "--class-names": Option(("--names",)),
  "-letter_box": Option(("--resize", "letterbox"), False),
  "-save_labels": Option(("--save", "txt"), False),
  "--save-txt": Option(("--save", "txt"), False),
  "--save-json": Option(("--save", "json"), False),
  "--save-csv": Option(("--save", "csv"), False),
  "-ext_output": Option(("--save", "csv,images"), False, "coordinates are in predictions.csv, and in the line of --json"),
  "-out": Option(why="results are files of the folder that --out names: predictions.json with --save json"),
  "-out_filename": Option(why="pictures and videos are files of the folder that --out names"),
  "-clear": Option((), False, "a training starts at step 0, unless its --workdir has a run to go on with"),
  "--resume": Option((), False, "the same command with the same --workdir goes on where the run ended"),
  "-map": Option((), False, "the images of --valid are evaluated during the training"),
  "-iou_thresh": Option(why="the protocol decides: coco averages 0.50 to 0.95, voc and darknet take 0.50"),
  "-points": Option(why="--protocol voc07 takes 11 points, voc and darknet take all"),
}  # fmt: skip
"""Option of Darknet (one dash) or of another tool -> what becomes of it."""

COMMANDS: dict[str, str] = {
  **dict.fromkeys(("test", "infer", "inference", "classify", "detection", "run"), "predict"),
  **dict.fromkeys(("val", "valid", "validate", "evaluate", "evaluation", "map", "score"), "eval"),
  **dict.fromkeys(("export", "save", "to-onnx"), "convert"),
  **dict.fromkeys(("info", "show", "layers", "describe"), "summary"),
  **dict.fromkeys(("compare", "check", "diff"), "verify"),
  **dict.fromkeys(("fit", "finetune"), "train"),
  **dict.fromkeys(("tracking", "follow", "mot"), "track"),
  **dict.fromkeys(("counting", "traffic", "counts"), "count"),
  **dict.fromkeys(("benchmark", "speed", "fps", "latency"), "bench"),
  **dict.fromkeys(("list", "zoo"), "models"),
  **dict.fromkeys(("anchors", "kmeans"), "data anchors"),
  "calc_anchors": "data anchors",
  "configs": "train --list",
  "download": "models --download",
  "inspect": "data inspect",
  "prepare": "data prepare",
  "version": "--version",
}
"""Word for a command in other tools -> ours."""


def command_instead(argv: Sequence[str], known: Collection[str]) -> str:
  """What to say about a command that does not exist: the line that was probably meant.

  Args:
    argv: the command line, beginning with the unknown command.
    known: our commands.
  """
  word, rest = argv[0], list(argv[1:])
  if word in DARKNET:
    lines, notes = DARKNET[word](rest)
    shown = f"{word} {rest[0]}" if word in ("detector", "classifier") and rest else word
    what = f"prn has no command '{word}'. Darknet's '{shown}' is here:" if lines else f"prn has no command '{word}'."
    return _text(what, lines, notes)
  if word == "help":
    line = ["prn", *rest[:1], "--help"] if rest and rest[0] in known else ["prn", "--help"]
    return _text("prn has no command 'help'. It is:", [line], [])
  near = COMMANDS.get(word) or _nearest(word, [*known, *DARKNET, *COMMANDS])
  if near in DARKNET:
    return command_instead([near, *rest], known).replace(f"'{near}'", f"'{word}'", 1)
  near = COMMANDS.get(near, near)
  if not near:
    return f"prn has no command '{word}'. It has {', '.join(known)}; 'prn COMMAND --help' shows what each takes."
  line, notes = _renamed(rest, set())
  return _text(f"prn has no command '{word}'. Did you mean '{near}'?", [["prn", *near.split(), *line]], notes)


def options_instead(command: str, argv: Sequence[str], known: Collection[str]) -> str:
  """What to say about options that a command does not have, if they are words of other tools; else "".

  Args:
    command: one of ours.
    argv: its arguments.
    known: its options.
  """
  line, notes = _renamed(argv, set(known), weights_by_name="--weights" in known and command in ("predict", "eval"))
  if line == list(argv) and not notes:
    return ""
  foreign = [word for word in map(_name, argv) if word in OPTIONS and word not in known]
  what = f"has no {', '.join(foreign)}" if foreign else "takes weights by --weights"
  return _text(f"prn {command} {what}. The same is here:", [["prn", command, *line]], notes)


def _renamed(argv: Sequence[str], known: set[str], *, weights_by_name: bool = False) -> tuple[list[str], list[str]]:
  """The arguments with the words of other tools replaced, and what to say about those that are left out."""
  line: list[str] = []
  notes: list[str] = []
  rest = list(argv)
  while rest:
    word = rest.pop(0)
    name, equals, value = word.partition("=")
    option = OPTIONS.get(name) if name not in known else None
    if weights_by_name and _is_weights(word) and line[-1:] != ["--weights"] and "--weights" not in argv:
      line += ["--weights", word]
      continue
    if option is None:
      line.append(word)
      continue
    values = [value] if equals else [rest.pop(0)] if option.takes_value and rest else []
    new = option.new
    if new == ("--model",) and known and "--model" not in known:
      new = ("",)  # MODEL is an argument without a name in most commands
    if new[:1] == ("",):
      line = [*values, *line] if option.new == ("--model",) else [*line, *values]
    elif new:
      line += [new[0], *values, *new[1:]]
    if option.why:
      notes.append(f"{name}: {option.why.replace('=N', f'={values[0]}') if values else option.why}")
  return line, notes


def _is_weights(word: str) -> bool:
  return not word.startswith("-") and (word.endswith(".weights") or bool(re.search(r"\.conv\.\d+$", word)))


def _name(word: str) -> str:
  return word.partition("=")[0]


def _nearest(word: str, known: Sequence[str]) -> str:
  match = re.search(r"'(.*)'", did_you_mean(word, known))
  return match[1] if match else ""


def _text(what: str, lines: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
  return "\n".join([what, *(f"  {shlex.join(line)}" for line in lines), *(f"  ({note})" for note in notes)])


# -- Darknet ---------------------------------------------------------------------------------------

Answer = tuple[list[list[str]], list[str]]
"""Command lines, and notes."""


@dataclasses.dataclass(frozen=True)
class _Given:
  """Arguments of Darknet: `words` by position, `options` with their values."""

  words: tuple[str, ...]
  options: dict[str, str]

  def word(self, index: int, default: str) -> str:
    return self.words[index] if index < len(self.words) else default

  def rest(self, *taken: str) -> Answer:
    """Our options for the given ones, except those that are `taken` already."""
    left = [x for key, value in self.options.items() if key not in taken for x in (key, value) if x]
    line, notes = _renamed(left, set())
    return [line], notes


def _given(argv: Sequence[str]) -> _Given:
  words: list[str] = []
  options: dict[str, str] = {}
  rest = list(argv)
  while rest:
    word = rest.pop(0)
    if not word.startswith("-"):
      words.append(word)
      continue
    option = OPTIONS.get(word, Option(takes_value=word in ("-num_of_clusters", "-c", "-hier")))
    options[word] = rest.pop(0) if option.takes_value and rest else ""
  return _Given(tuple(words), options)


def _names(data: str) -> list[str]:
  """--names FILE, as the .data file says."""
  try:
    text = Path(data).read_text(encoding="utf-8", errors="replace")
  except OSError:
    return ["--names", "FILE.names"]
  match = re.search(r"^\s*names\s*=\s*(\S+)", text, re.MULTILINE)
  return ["--names", match[1]] if match else []


def _detector(argv: Sequence[str]) -> Answer:
  action, given = (argv[0] if argv else "test"), _given(argv[1:])
  data, cfg, weights = given.word(0, "FILE.data"), given.word(1, "NET.cfg"), given.word(2, "NET.weights")
  (options,), notes = given.rest("-num_of_clusters", "-width", "-height", "-c")
  model = [cfg, "--weights", weights]
  if action == "train":
    start = ["--weights", weights] if len(given.words) > 2 else []
    sources = ["--data", f"darknet:{data}:train", "--valid", f"darknet:{data}:valid"]
    return [["prn", "train", "--model", cfg, *sources, *start, "--workdir", f"runs/{Path(cfg).stem}", *options]], notes
  if action in ("map", "recall"):
    return [["prn", "eval", *model, "--data", f"darknet:{data}:valid", "--protocol", "darknet", *options]], notes
  if action == "valid":
    return [["prn", "eval", *model, "--data", f"darknet:{data}:valid", "--out", "results", *options]], notes
  if action == "calc_anchors":
    size = f"{given.options.get('-width', '416')}x{given.options.get('-height', '416')}"
    count = given.options.get("-num_of_clusters", "9")
    return [["prn", "data", "anchors", f"darknet:{data}:train", "--num", count, "--size", size]], []
  sources = list(given.words[3:]) or ["PHOTO.jpg"]
  if action == "demo":
    videos = list(given.words[3:]) or [given.options.get("-c") or "0"]  # the first camera
    return [["prn", "predict", *model[:1], *videos, *model[1:], *_names(data), *options]], notes
  return [["prn", "predict", cfg, *sources, "--weights", weights, *_names(data), *options]], notes


def _detect(argv: Sequence[str]) -> Answer:
  given = _given(argv)
  (options,), notes = given.rest()
  if Path(given.word(0, "")).suffix.lower() in ("", ".cfg"):
    cfg, weights, sources = given.word(0, "NET.cfg"), given.word(1, "NET.weights"), list(given.words[2:])
    if not _is_weights(weights):  # another tool's "detect"
      sources, weights = [weights, *sources] if len(given.words) > 1 else sources, given.options.get("--weights", "")
    model = [*(["--weights", weights] if weights else [])]
    return [["prn", "predict", cfg, *(sources or ["PHOTO.jpg"]), *model, *options]], notes
  return [["prn", "predict", "MODEL", *given.words, *options]], notes


def _classifier(argv: Sequence[str]) -> Answer:
  action, given = (argv[0] if argv else "predict"), _given(argv[1:])
  data, cfg, weights = given.word(0, "FILE.data"), given.word(1, "NET.cfg"), given.word(2, "NET.weights")
  (options,), notes = given.rest()
  folders = "a classifier's data is a folder with one folder of images for each class: imagefolder:DIR"
  if action == "train":
    start = ["--weights", weights] if len(given.words) > 2 else []
    line = ["--data", "imagefolder:TRAIN_DIR", "--valid", "imagefolder:VALID_DIR", *start]
    return [["prn", "train", "--model", cfg, *line, "--workdir", f"runs/{Path(cfg).stem}", *options]], [folders, *notes]
  if action in ("valid", "validate"):
    return [["prn", "eval", cfg, "--weights", weights, "--data", "imagefolder:VALID_DIR", *options]], [folders, *notes]
  sources = list(given.words[3:]) or ["PHOTO.jpg"]
  return [["prn", "predict", cfg, *sources, "--weights", weights, *_names(data), *options]], notes


def _partial(argv: Sequence[str]) -> Answer:
  given = _given(argv)
  cfg, weights, out = given.word(0, "NET.cfg"), given.word(1, "NET.weights"), given.word(2, "NET")
  count = given.word(3, "N")
  dst = out if out.endswith(f".conv.{count}") else f"{out}.conv.{count}"
  return [["prn", "convert", cfg, dst, "--weights", weights]], []


def _not_here(argv: Sequence[str]) -> Answer:
  return [], ["it is a part of Darknet that prn does not have"]


DARKNET: dict[str, Callable[[Sequence[str]], Answer]] = {
  "detector": _detector,
  "detect": _detect,
  "classifier": _classifier,
  "partial": _partial,
  **dict.fromkeys(("yolo", "rnn", "nightmare", "average", "denormalize", "segmenter", "art", "super", "go"), _not_here),
}
"""Command of Darknet -> the lines that do the same, with its arguments filled in."""
