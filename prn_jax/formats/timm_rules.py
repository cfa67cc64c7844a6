"""Where timm keeps the arrays of our layers: one table for each family, written out.

A rule is (our layer, timm's convolution or matrix, timm's batch norm). {s} and {u} stand for the numbers in our names,
{s0} and {u0} for the same less one, as timm counts. Of several rules the first that fits a layer counts; every layer with
weights must have one.
"""

from __future__ import annotations

from typing import NamedTuple


class Rule(NamedTuple):
  """The arrays of one kind of place.

  Attributes:
    layer: our name.
    weight: timm's module of the kernel; "" for a batch norm of its own.
    norm: timm's batch norm; "" without one.
    part: "" for the whole of it; "first half", "second half": of its outputs; "inputs swapped": timm joins the halves of
      its input the other way round.
    is_biasless: timm's convolution has neither bias nor batch norm; ours has a bias, which becomes 0.
  """

  layer: str
  weight: str
  norm: str = ""
  part: str = ""
  is_biasless: bool = False


_MOBILE_UNITS = (
  Rule("stem", "conv_stem", "bn1"),
  # The first unit widens nothing: timm numbers its batch norms from the depthwise convolution on.
  Rule("stage1_unit1_depthwise", "blocks.0.0.conv_dw", "blocks.0.0.bn1"),
  Rule("stage1_unit1_project", "blocks.0.0.conv_pw", "blocks.0.0.bn2"),
  Rule("stage{s}_unit{u}_expand", "blocks.{s0}.{u0}.conv_pw", "blocks.{s0}.{u0}.bn1"),
  Rule("stage{s}_unit{u}_depthwise", "blocks.{s0}.{u0}.conv_dw", "blocks.{s0}.{u0}.bn2"),
  Rule("stage{s}_unit{u}_se", "blocks.{s0}.{u0}.se"),
  Rule("stage{s}_unit{u}_project", "blocks.{s0}.{u0}.conv_pwl", "blocks.{s0}.{u0}.bn3"),
)
MOBILENET = (
  *_MOBILE_UNITS,
  Rule("stage{s}_conv", "blocks.{s0}.0.conv", "blocks.{s0}.0.bn1"),
  Rule("head_hidden", "conv_head"),
  Rule("head_conv", "classifier"),
)
EFFICIENTNET = (
  *_MOBILE_UNITS,
  Rule("stage{s}_conv", "conv_head", "bn2"),
  Rule("head_conv", "classifier"),
)
GHOSTNET = (
  Rule("stem", "conv_stem", "bn1"),
  *(
    Rule(
      f"stage{{s}}_unit{{u}}_ghost{number}_{ours}",
      f"blocks.{{s0}}.{{u0}}.ghost{number}.{theirs}.0",
      f"blocks.{{s0}}.{{u0}}.ghost{number}.{theirs}.1",
    )
    for number in (1, 2)
    for ours, theirs in (("primary", "primary_conv"), ("cheap", "cheap_operation"))
  ),
  Rule("stage{s}_unit{u}_depthwise", "blocks.{s0}.{u0}.conv_dw", "blocks.{s0}.{u0}.bn_dw"),
  Rule("stage{s}_unit{u}_se", "blocks.{s0}.{u0}.se"),
  Rule("stage{s}_unit{u}_around_depthwise", "blocks.{s0}.{u0}.shortcut.0", "blocks.{s0}.{u0}.shortcut.1"),
  Rule("stage{s}_unit{u}_around_project", "blocks.{s0}.{u0}.shortcut.2", "blocks.{s0}.{u0}.shortcut.3"),
  Rule("stage{s}_conv", "blocks.{s0}.0.conv", "blocks.{s0}.0.bn1"),
  Rule("head_hidden", "conv_head"),
  Rule("head_conv", "classifier"),
)
_DARKNET_UNITS = (
  Rule("stem", "stem.conv1.conv", "stem.conv1.bn"),
  Rule("stage{s}_down", "stages.{s0}.conv_down.conv", "stages.{s0}.conv_down.bn"),
  Rule("stage{s}_unit{u}_conv1", "stages.{s0}.blocks.{u0}.conv1.conv", "stages.{s0}.blocks.{u0}.conv1.bn"),
  Rule("stage{s}_unit{u}_conv2", "stages.{s0}.blocks.{u0}.conv2.conv", "stages.{s0}.blocks.{u0}.conv2.bn"),
)
DARKNET = (*_DARKNET_UNITS, Rule("head_conv", "head.fc"))
CSP_DARKNET = (
  *_DARKNET_UNITS,
  # timm makes both ways by one convolution, the way around first, and joins them in that order.
  Rule("stage{s}_part1", "stages.{s0}.conv_exp.conv", "stages.{s0}.conv_exp.bn", "first half"),
  Rule("stage{s}_part2", "stages.{s0}.conv_exp.conv", "stages.{s0}.conv_exp.bn", "second half"),
  Rule("stage{s}_post", "stages.{s0}.conv_transition_b.conv", "stages.{s0}.conv_transition_b.bn"),
  Rule("stage{s}_transition", "stages.{s0}.conv_transition.conv", "stages.{s0}.conv_transition.bn", "inputs swapped"),
  Rule("head_conv", "head.fc"),
)
RESNET = (
  Rule("stem", "conv1", "bn1"),
  *(Rule(f"stage{{s}}_unit{{u}}_conv{i}", f"layer{{s}}.{{u0}}.conv{i}", f"layer{{s}}.{{u0}}.bn{i}") for i in (1, 2, 3)),
  Rule("stage{s}_unit{u}_around_project", "layer{s}.{u0}.downsample.0", "layer{s}.{u0}.downsample.1"),
  Rule("head_conv", "fc"),
)
DENSENET = (
  Rule("stem", "features.conv0", "features.norm0"),
  Rule("block{s}_unit{u}_norm", "", "features.denseblock{s}.denselayer{u}.norm1"),
  Rule(
    "block{s}_unit{u}_conv1",
    "features.denseblock{s}.denselayer{u}.conv1",
    "features.denseblock{s}.denselayer{u}.norm2",
  ),
  Rule("block{s}_unit{u}_conv2", "features.denseblock{s}.denselayer{u}.conv2", is_biasless=True),
  Rule("transition{s}_norm", "", "features.transition{s}.norm"),
  Rule("transition{s}_conv", "features.transition{s}.conv", is_biasless=True),
  Rule("last_norm", "", "features.norm5"),
  Rule("head_conv", "classifier"),
)


class Pixels(NamedTuple):
  """What timm takes from pixels in [0, 1], and divides by."""

  mean: tuple[float, ...]
  std: tuple[float, ...]


IMAGENET = Pixels((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = Pixels((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
AS_THEY_ARE = Pixels((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class Architecture(NamedTuple):
  """A network of timm.

  Attributes:
    model: our registered network.
    rules: where its arrays are.
    tags: published weights of it -> what they expect of pixels, by timm 1.0.31.
    form: option of our network, where it has several forms.
  """

  model: str
  rules: tuple[Rule, ...]
  tags: dict[str, Pixels]
  form: str = ""


def _tags(names: str, pixels: Pixels = IMAGENET) -> dict[str, Pixels]:
  return dict.fromkeys(names.split(), pixels)


_RESNET101 = "a1_in1k a1h_in1k a2_in1k a3_in1k gluon_in1k tv2_in1k tv_in1k"
_RESNET50 = (
  f"{_RESNET101} am_in1k b1k_in1k b2k_in1k bt_in1k c1_in1k c2_in1k d_in1k fb_ssl_yfcc100m_ft_in1k "
  "fb_swsl_ig1b_ft_in1k ra_in1k ram_in1k"
)
ARCHITECTURES = {
  "cspdarknet53": Architecture("csdarknet53-timm", CSP_DARKNET, _tags("ra_in1k")),
  "darknet53": Architecture("darknet53-timm", DARKNET, _tags("c2ns_in1k")),
  "densenet121": Architecture("densenet121-timm", DENSENET, _tags("ra_in1k tv_in1k")),
  "efficientnet_b0": Architecture(
    "efficientnet-b0-timm", EFFICIENTNET, _tags("ra_in1k") | _tags("ra4_e3600_r224_in1k", HALVES)
  ),
  "efficientnet_lite0": Architecture("efficientnet-lite0", EFFICIENTNET, _tags("ra_in1k"), "timm"),
  **{
    f"tf_efficientnet_lite{i}": Architecture(f"efficientnet-lite{i}", EFFICIENTNET, _tags("in1k", HALVES), "tf")
    for i in range(5)
  },
  "ghostnet_100": Architecture("ghostnet", GHOSTNET, _tags("in1k"), "timm"),
  "mobilenetv3_large_100": Architecture(
    "mobilenetv3-large",
    MOBILENET,
    _tags("ra_in1k") | _tags("ra4_e3600_r224_in1k", HALVES) | _tags("miil_in21k miil_in21k_ft_in1k", AS_THEY_ARE),
    "timm",
  ),
  "mobilenetv3_small_100": Architecture("mobilenetv3-small", MOBILENET, _tags("lamb_in1k"), "timm"),
  "tf_mobilenetv3_large_100": Architecture("mobilenetv3-large", MOBILENET, _tags("in1k", HALVES), "tf"),
  "tf_mobilenetv3_small_100": Architecture("mobilenetv3-small", MOBILENET, _tags("in1k", HALVES), "tf"),
  "resnet50": Architecture("resnet50-timm", RESNET, _tags(_RESNET50)),
  "resnet101": Architecture("resnet101-timm", RESNET, _tags(_RESNET101)),
}
