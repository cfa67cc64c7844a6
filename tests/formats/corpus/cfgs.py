"""Broken cfgs, each with the exact message that a user sees. The file is called `broken.cfg`."""

from __future__ import annotations

from typing import NamedTuple

from prn_jax.errors import CfgError, GraphError, OutOfScopeError

NET = "[net]\nwidth=32\nheight=32\nchannels=3\n"  # four lines: the next section stands on line 5
CONV = "[convolutional]\nfilters=8\nsize=3\npad=1\nactivation=leaky\n"  # five lines
HALF = "[maxpool]\nsize=2\nstride=2\n"  # three lines


class Broken(NamedTuple):
  """A cfg text and what must come of it."""

  text: str
  error: type[Exception]
  message: str


CFGS: dict[str, Broken] = {
  "empty": Broken(
    "",
    CfgError,
    "cfg broken.cfg has no section; expected [net] and layers. Is it a Darknet cfg?",
  ),
  "only_comments": Broken(
    "# a cfg\n; of comments\n",
    CfgError,
    "cfg broken.cfg has no section; expected [net] and layers. Is it a Darknet cfg?",
  ),
  "missing_net": Broken(
    CONV,
    CfgError,
    "cfg broken.cfg:1 [convolutional] comes first; the first section must be [net].",
  ),
  "no_layers": Broken(
    NET,
    CfgError,
    "cfg broken.cfg:1 [net] is the only section; expected layers such as [convolutional] behind it.",
  ),
  "option_before_section": Broken(
    "batch=1\n" + NET + CONV,
    CfgError,
    "cfg broken.cfg:1 'batch=1' stands before the first section; expected [net] first.",
  ),
  "second_net": Broken(
    NET + CONV + NET,
    CfgError,
    "cfg broken.cfg:10 [net] comes a second time; a cfg has one [net], and it comes first.",
  ),
  "not_a_cfg": Broken(
    "\x89PNG\x00\x01\n",
    CfgError,
    "cfg broken.cfg:1 '\\x89PNG\\x00\\x01' stands before the first section; expected [net] first.",
  ),
  "text_behind_header": Broken(
    NET + "[convolutional] # first\nfilters=8\n",
    CfgError,
    "cfg broken.cfg:5 '[convolutional]#first' is not a section header; expected [name] alone.",
  ),
  "unknown_section": Broken(
    NET + "[convolutionel]\nfilters=8\n",
    CfgError,
    "cfg broken.cfg:5 [convolutionel] is not a section that Darknet knows (did you mean 'convolutional'?).",
  ),
  "wrong_case": Broken(
    NET + "[gaussian_yolo]\nclasses=1\n",
    CfgError,
    "cfg broken.cfg:5 [gaussian_yolo] is not a section that Darknet knows (did you mean 'Gaussian_yolo'?).",
  ),
  "no_equals": Broken(
    NET + CONV.replace("filters=8", "filters 8"),
    CfgError,
    "cfg broken.cfg:6 [convolutional] 'filters8' is not of the form key=value.",
  ),
  "unknown_key": Broken(
    NET + CONV.replace("filters", "fliters"),
    CfgError,
    "cfg broken.cfg:6 [convolutional] has unknown key 'fliters' (did you mean 'filters'?). Use "
    "strict=False to keep unknown keys.",
  ),
  "unknown_net_key": Broken(
    "[net]\nlerning_rate=0.1\n" + NET[6:] + CONV,
    CfgError,
    "cfg broken.cfg:2 [net] has unknown key 'lerning_rate' (did you mean 'learning_rate'?). Use "
    "strict=False to keep unknown keys.",
  ),
  "key_of_another_section": Broken(
    NET + CONV + "[yolo]\nfilters=8\n",
    CfgError,
    "cfg broken.cfg:11 [yolo] has unknown key 'filters' (did you mean 'jitter'?). Use strict=False to "
    "keep unknown keys.",
  ),
  "bad_integer": Broken(
    NET + CONV.replace("=8", "=eight"),
    CfgError,
    "cfg broken.cfg:6 [convolutional] has filters=eight; expected a whole number.",
  ),
  "fraction": Broken(
    NET + CONV.replace("=8", "=8.5"),
    CfgError,
    "cfg broken.cfg:6 [convolutional] has filters=8.5; expected a whole number.",
  ),
  "too_large": Broken(
    NET + CONV.replace("=8", "=99999999999"),
    CfgError,
    "cfg broken.cfg:6 [convolutional] has filters=99999999999; expected a whole number between "
    "-2147483647 and 2147483647.",
  ),
  "zero_filters": Broken(
    NET + CONV.replace("=8", "=0"),
    CfgError,
    "cfg broken.cfg:6 [convolutional] has filters=0; expected at least 1.",
  ),
  "zero_stride": Broken(
    NET + CONV + "stride=0\n",
    CfgError,
    "cfg broken.cfg:10 [convolutional] has stride=0; expected at least 1.",
  ),
  "bad_float": Broken(
    NET + CONV + "[dropout]\nprobability=half\n",
    CfgError,
    "cfg broken.cfg:11 [dropout] has probability=half; expected a number.",
  ),
  "nan": Broken(
    NET + CONV + "[upsample]\nscale=nan\n",
    CfgError,
    "cfg broken.cfg:11 [upsample] has scale=nan; expected a finite number.",
  ),
  "probability": Broken(
    NET + CONV + "[dropout]\nprobability=1.5\n",
    GraphError,
    "cfg broken.cfg:10 [dropout] layer 'dropout_1' (dropout): probability=1.5; expected 0 to 1.",
  ),
  "bad_list": Broken(
    NET + CONV + "[route]\nlayers=-1;0\n",
    CfgError,
    "cfg broken.cfg:11 [route] has layers=-1;0; expected whole numbers separated by commas, found '-1;0'.",
  ),
  "gap_in_list": Broken(
    NET + CONV + "[route]\nlayers=-1,,0\n",
    CfgError,
    "cfg broken.cfg:11 [route] has layers=-1,,0; expected whole numbers separated by commas, but a value "
    "is missing beside a comma.",
  ),
  "no_size": Broken(
    "[net]\nwidth=32\nchannels=3\n" + CONV,
    CfgError,
    "cfg broken.cfg:1 [net] has width=32, height=0, channels=3; expected at least 1 each.",
  ),
  "negative_padding": Broken(
    NET + "[convolutional]\npadding=-1\n",
    GraphError,
    "cfg broken.cfg:5 [convolutional] layer 'conv_0' (conv): filters=1, size=1, stride=1x1, groups=1, "
    "dilation=1, padding=-1; expected at least 1 each, and padding at least 0.",
  ),
  "blur": Broken(
    NET + CONV + "antialiasing=3\n",
    GraphError,
    "cfg broken.cfg:5 [convolutional] layer 'conv_0' (conv): antialiasing=3; expected 0 (off), 1 (3x3 "
    "binomial) or 2 (2x2 mean).",
  ),
  "later_layer": Broken(
    NET + CONV + "[route]\nlayers=3\n" + CONV + CONV,
    CfgError,
    "cfg broken.cfg:11 [route] has layers=3, which is a later layer (this is layer 1); expected 0 to 0, or -1 to -1.",
  ),
  "itself": Broken(
    NET + CONV + "[shortcut]\nfrom=1\n",
    CfgError,
    "cfg broken.cfg:11 [shortcut] has from=1, which is the layer itself (this is layer 1); expected 0 to "
    "0, or -1 to -1.",
  ),
  "before_first": Broken(
    NET + CONV + "[shortcut]\nfrom=-3\n",
    CfgError,
    "cfg broken.cfg:11 [shortcut] has from=-3, which is before the first layer (this is layer 1); "
    "expected 0 to 0, or -1 to -1.",
  ),
  "first_layer_refers": Broken(
    NET + "[route]\nlayers=-1\n",
    CfgError,
    "cfg broken.cfg:6 [route] has layers=-1, but there is no layer before it.",
  ),
  "no_from": Broken(
    NET + CONV + "[shortcut]\nactivation=linear\n",
    CfgError,
    "cfg broken.cfg:10 [shortcut] has no key 'from'; expected the indices of the layers to add.",
  ),
  "no_layers_key": Broken(
    NET + CONV + "[route]\ngroups=2\n",
    CfgError,
    "cfg broken.cfg:10 [route] has no key 'layers'; expected the indices of the layers to concatenate.",
  ),
  "sam_without_from": Broken(
    NET + CONV + "[sam]\n",
    GraphError,
    "cfg broken.cfg:10 [sam] layer 'sam_1' (sam): needs exactly one source (cfg key 'from'), not 0.",
  ),
  "shortcut_size": Broken(
    NET + CONV + HALF + CONV + "[upsample]\nstride=3\n[shortcut]\nfrom=0\n",
    GraphError,
    "cfg broken.cfg:20 [shortcut] layer 'shortcut_4' (shortcut): 'conv_0' is 32x32x8 but the input "
    "'upsample_3' is 48x48x8. Width and height must match, or one must be the same integer multiple of "
    "the other in both. No earlier layer has that size: is an upsample or a stride missing?",
  ),
  "shortcut_size_hint": Broken(
    NET + CONV + HALF + CONV + HALF + "[convolutional]\nfilters=8\nsize=3\n[shortcut]\nfrom=-2\n",
    GraphError,
    "cfg broken.cfg:24 [shortcut] layer 'shortcut_5' (shortcut): 'maxpool_3' is 8x8x8 but the input "
    "'conv_4' is 6x6x8. Width and height must match, or one must be the same integer multiple of the "
    "other in both. No earlier layer has that size: is an upsample or a stride missing?",
  ),
  "route_size": Broken(
    NET + CONV + HALF + CONV + "[route]\nlayers=-1,0\n",
    GraphError,
    "cfg broken.cfg:18 [route] layer 'route_3' (route): 'conv_0' is 32x32x8 but 'conv_2' is 16x16x8. "
    "Width and height must match. Did you mean 'maxpool_1' (16x16x8), or is an upsample missing before "
    "it?",
  ),
  "route_groups": Broken(
    NET + CONV + "[route]\nlayers=-1\ngroups=3\n",
    GraphError,
    "cfg broken.cfg:10 [route] layer 'route_1' (route): groups=3 does not divide the 8 channels of 'conv_0'.",
  ),
  "route_group_id": Broken(
    NET + CONV + "[route]\nlayers=-1\ngroups=2\ngroup_id=2\n",
    GraphError,
    "cfg broken.cfg:10 [route] layer 'route_1' (route): group_id=2; expected 0 to groups-1 = 1.",
  ),
  "scale_channels": Broken(
    NET + CONV + "[avgpool]\n" + "[convolutional]\nfilters=4\n[scale_channels]\nfrom=0\n",
    GraphError,
    "cfg broken.cfg:13 [scale_channels] layer 'scale_channels_3' (scale_channels): the input is 1x1x4; to"
    " scale 'conv_0' (32x32x8) it must be 1x1x8.",
  ),
  "scale_wh": Broken(
    NET + CONV + CONV + "[scale_channels]\nfrom=0\nscale_wh=1\n",
    GraphError,
    "cfg broken.cfg:15 [scale_channels] layer 'scale_channels_2' (scale_channels): the input is 32x32x8; "
    "to scale 'conv_0' (32x32x8) it must be 32x32x1.",
  ),
  "depthwise_filters": Broken(
    NET + CONV + "[depthwise]\nfilters=12\nsize=3\npad=1\n",
    GraphError,
    "cfg broken.cfg:10 [depthwise] layer 'depthwise_1' (depthwise): filters=12; expected a multiple of the 8 input "
    "channels.",
  ),
  "se_filters": Broken(
    NET + CONV + "[se]\nfilters=16\n",
    GraphError,
    "cfg broken.cfg:10 [se] layer 'se_1' (se): filters=16, but the input has 8 channels. They must be equal.",
  ),
  "se_reduction": Broken(
    NET + CONV + "[se]\nreduction=16\n",
    GraphError,
    "cfg broken.cfg:10 [se] layer 'se_1' (se): reduction=16 leaves none of the 8 input channels.",
  ),
  "normalize_count": Broken(
    NET + CONV + "[normalize]\nmean=0.5,0.5,0.5\nstd=1,1,1\n",
    GraphError,
    "cfg broken.cfg:10 [normalize] layer 'normalize_1' (normalize): mean has 3 numbers; expected one for each of the 8 "
    "input channels.",
  ),
  "normalize_std": Broken(
    NET + "[normalize]\nmean=0.5,0.5,0.5\nstd=1,0,1\n",
    GraphError,
    "cfg broken.cfg:5 [normalize] layer 'normalize_0' (normalize): std holds 0; expected numbers above 0.",
  ),
  "same_and_pad": Broken(
    NET + "[convolutional]\nfilters=8\nsize=3\npad=1\nsame=1\n",
    GraphError,
    "cfg broken.cfg:5 [convolutional] layer 'conv_0' (conv): same=1 with padding=1, dilation=1, antialiasing=0; it decides "
    "the padding by itself. Leave the others out.",
  ),
  "bn_epsilon": Broken(
    NET + "[convolutional]\nfilters=8\nsize=3\nbatch_normalize=1\nbn_epsilon=-0.001\n",
    GraphError,
    "cfg broken.cfg:5 [convolutional] layer 'conv_0' (conv): bn_epsilon=-0.001; expected a number from 0 (Darknet's "
    "0.00001) to below 1.",
  ),
  "sam_shape": Broken(
    NET + CONV + "[convolutional]\nfilters=4\n[sam]\nfrom=0\n",
    GraphError,
    "cfg broken.cfg:12 [sam] layer 'sam_2' (sam): 'conv_0' is 32x32x8 but the input 'conv_1' is 32x32x4. "
    "They must be equal.",
  ),
  "yolo_channels": Broken(
    NET + CONV + "[yolo]\nmask=0,1,2\nclasses=80\nnum=3\nanchors=1,2,3,4,5,6\n",
    GraphError,
    "cfg broken.cfg:10 [yolo] layer 'yolo_1' (yolo): the input has 8 channels; 3 anchors with 85 values "
    "each (80 classes) need 255. Set filters=255 in the convolution before it.",
  ),
  "gaussian_channels": Broken(
    NET + CONV + "[Gaussian_yolo]\nmask=0\nclasses=80\nnum=3\nanchors=1,2,3,4,5,6\n",
    GraphError,
    "cfg broken.cfg:10 [Gaussian_yolo] layer 'gaussian_yolo_1' (gaussian_yolo): the input has 8 channels;"
    " 1 anchors with 89 values each (80 classes) need 89. Set filters=89 in the convolution before it.",
  ),
  "region_channels": Broken(
    NET + CONV + "[region]\nclasses=20\nnum=1\nanchors=1,2\n",
    GraphError,
    "cfg broken.cfg:10 [region] layer 'region_1' (region): the input has 8 channels; 1 anchors with 25 "
    "values each (20 classes) need 25. Set filters=25 in the convolution before it.",
  ),
  "yolo_mask": Broken(
    NET + "[convolutional]\nfilters=6\n[yolo]\nmask=3\nclasses=1\nnum=3\nanchors=1,2,3,4,5,6\n",
    GraphError,
    "cfg broken.cfg:7 [yolo] layer 'yolo_1' (yolo): mask has [3], but there are only 3 anchors (0 to 2).",
  ),
  "yolo_anchor": Broken(
    NET + "[convolutional]\nfilters=6\n[yolo]\nclasses=1\nnum=1\nanchors=-1,2\n",
    GraphError,
    "cfg broken.cfg:7 [yolo] layer 'yolo_1' (yolo): anchor 0 is (-1.0, 2.0); expected a positive width and height.",
  ),
  "yolo_num": Broken(
    NET + "[convolutional]\nfilters=6\n[yolo]\nclasses=1\nnum=100000\nanchors=1,2\n",
    CfgError,
    "cfg broken.cfg:9 [yolo] has num=100000; expected at most 1000 anchors.",
  ),
  "too_small": Broken(
    NET + (CONV + HALF) * 5 + "[convolutional]\nsize=3\n",
    GraphError,
    "cfg broken.cfg:45 [convolutional] layer 'conv_10' (conv): its output would be -1x-1x1: the input "
    "1x1x8 is too small.",
  ),
  "window_outside": Broken(
    NET + "[maxpool]\nsize=2\nstride=2\npadding=4\n",
    GraphError,
    "cfg broken.cfg:5 [maxpool] layer 'maxpool_0' (maxpool): padding=4 is too large for size=2: a window "
    "would lie outside the map 32x32x3.",
  ),
  "crop": Broken(
    NET + "[crop]\ncrop_width=40\ncrop_height=8\n",
    GraphError,
    "cfg broken.cfg:5 [crop] layer 'crop_0' (crop): cannot cut 40x8 out of 32x32x3; expected 1x1 to 32x32.",
  ),
  "groups": Broken(
    NET + CONV + "[convolutional]\nfilters=8\ngroups=3\n",
    GraphError,
    "cfg broken.cfg:10 [convolutional] layer 'conv_1' (conv): groups=3 must divide the 8 input channels "
    "and the 8 filters.",
  ),
  "dilation": Broken(
    NET + "[convolutional]\nfilters=8\nsize=3\ndilation=2\n",
    GraphError,
    "cfg broken.cfg:5 [convolutional] layer 'conv_0' (conv): dilation=2 needs an odd size with pad=1, not"
    " size=3 with padding=0: Darknet's output size is wrong otherwise.",
  ),
  "dilation_even": Broken(
    NET + "[convolutional]\nfilters=8\nsize=2\npad=1\ndilation=2\n",
    GraphError,
    "cfg broken.cfg:5 [convolutional] layer 'conv_0' (conv): dilation=2 needs an odd size with pad=1, not"
    " size=2 with padding=1: Darknet's output size is wrong otherwise.",
  ),
  "reorg": Broken(
    NET + "[reorg]\nstride=2\n",
    GraphError,
    "cfg broken.cfg:5 [reorg] layer 'reorg_0' (reorg): stride=2 needs a multiple of 4 channels, not 3.",
  ),
  "reorg_size": Broken(
    NET + "[convolutional]\nfilters=9\n[reorg]\nstride=3\n",
    GraphError,
    "cfg broken.cfg:7 [reorg] layer 'reorg_1' (reorg): stride=3 must divide the sides of the map 32x32x9.",
  ),
  "reorg3d_size": Broken(
    NET + "[reorg3d]\nstride=5\n",
    GraphError,
    "cfg broken.cfg:5 [reorg3d] layer 'reorg3d_0' (reorg3d): stride=5 must divide the sides of the map 32x32x3.",
  ),
  "upsample_zero": Broken(
    NET + "[upsample]\nstride=0\n",
    GraphError,
    "cfg broken.cfg:5 [upsample] layer 'upsample_0' (upsample): stride=0; expected a positive factor, or "
    "a negative one to shrink.",
  ),
  "shrink": Broken(
    NET + "[upsample]\nstride=-3\n",
    GraphError,
    "cfg broken.cfg:5 [upsample] layer 'upsample_0' (upsample): stride=-3 needs a map whose sides are "
    "multiples of 3, not 32x32x3.",
  ),
  "softmax_groups": Broken(
    NET + CONV + "[avgpool]\n[softmax]\ngroups=3\n",
    GraphError,
    "cfg broken.cfg:11 [softmax] layer 'softmax_2' (softmax): groups=3 must divide the 8 inputs.",
  ),
  "temperature": Broken(
    NET + CONV + "[avgpool]\n[softmax]\ntemperature=0\n",
    GraphError,
    "cfg broken.cfg:11 [softmax] layer 'softmax_2' (softmax): temperature=0.0; expected more than 0.",
  ),
  "depth": Broken(
    NET + "[maxpool]\nmaxpool_depth=1\nout_channels=4\n",
    GraphError,
    "cfg broken.cfg:5 [maxpool] layer 'maxpool_0' (maxpool): depth_out=4 (cfg key out_channels); expected"
    " 1 to 3, the input channels.",
  ),
  "weighted_without_normalization": Broken(
    NET + CONV + CONV + "[shortcut]\nfrom=-2\nweights_type=per_feature\n",
    GraphError,
    "cfg broken.cfg:15 [shortcut] layer 'shortcut_2' (shortcut): weights_type=per_feature needs "
    "weights_normalization=relu or softmax; Darknet refuses none.",
  ),
  "weights_type": Broken(
    NET + CONV + CONV + "[shortcut]\nfrom=-2\nweights_type=per_pixel\nweights_normalization=relu\n",
    CfgError,
    "cfg broken.cfg:17 [shortcut] has weights_type=per_pixel; expected one of none, per_feature, "
    "per_layer, per_channel.",
  ),
  "weights_normalization": Broken(
    NET + CONV + CONV + "[shortcut]\nfrom=-2\nweights_type=per_feature\nweights_normalization=mean\n",
    CfgError,
    "cfg broken.cfg:18 [shortcut] has weights_normalization=mean; expected one of none, relu, avg_relu, softmax.",
  ),
  "share_shape": Broken(
    NET + CONV + CONV + "share_index=0\n",
    GraphError,
    "cfg broken.cfg:10 [convolutional] layer 'conv_1' (conv): shares the weights of 'conv_0', but needs "
    "[(8,), (8, 8, 3, 3)] and finds [(8,), (8, 3, 3, 3)]; input channels and all fields that shape the "
    "weights must agree.",
  ),
  "share_kind": Broken(
    NET + CONV + HALF + CONV + "share_index=1\n",
    GraphError,
    "cfg broken.cfg:13 [convolutional] layer 'conv_2' (conv): shares the weights of 'maxpool_1', which is"
    " a maxpool; expected a conv.",
  ),
  "share_of_shared": Broken(
    NET + CONV + CONV + CONV + "share_index=-1\n" + CONV + "share_index=2\n",
    GraphError,
    "cfg broken.cfg:21 [convolutional] layer 'conv_3' (conv): shares the weights of 'conv_2', which "
    "itself has none; share 'conv_1'.",
  ),
  "share_later": Broken(
    NET + CONV + CONV + "share_index=4\n",
    CfgError,
    "cfg broken.cfg:15 [convolutional] has share_index=4, which is a later layer (this is layer 1); "
    "expected 0 to 0, or -1 to -1.",
  ),
  "cost_type": Broken(
    NET + CONV + "[cost]\ntype=sad\n",
    GraphError,
    "cfg broken.cfg:10 [cost] layer 'cost_1' (cost): type=sad; expected one of sse, masked, smooth, L1, seg, wgan.",
  ),
  "yolo_point": Broken(
    NET + "[convolutional]\nfilters=10\n[Gaussian_yolo]\nclasses=1\nnum=1\nanchors=1,2\nyolo_point=middle\n",
    GraphError,
    "cfg broken.cfg:7 [Gaussian_yolo] layer 'gaussian_yolo_1' (gaussian_yolo): yolo_point=middle; "
    "expected one of center, left_top, right_bottom.",
  ),
  "same_name": Broken(
    NET + "[avgpool]\n# name = pool\n[avgpool]\n# name = pool\n",
    GraphError,
    "cfg broken.cfg:7 [avgpool] layer 'pool' (avgpool): the name is used twice. Give every layer its own name.",
  ),
  "rnn": Broken(
    NET + "[rnn]\n",
    OutOfScopeError,
    "cfg broken.cfg:5 [rnn]: recurrent layers are out of scope of prn_jax.",
  ),
  "lstm": Broken(
    NET + "[lstm]\n",
    OutOfScopeError,
    "cfg broken.cfg:5 [lstm]: recurrent layers are out of scope of prn_jax.",
  ),
  "conv_lstm": Broken(
    NET + "[conv_lstm]\n",
    OutOfScopeError,
    "cfg broken.cfg:5 [conv_lstm]: recurrent layers are out of scope of prn_jax.",
  ),
  "crnn": Broken(
    NET + "[crnn]\n",
    OutOfScopeError,
    "cfg broken.cfg:5 [crnn]: recurrent layers are out of scope of prn_jax.",
  ),
  "detection": Broken(
    NET + "[detection]\n",
    OutOfScopeError,
    "cfg broken.cfg:5 [detection]: YOLOv1 is out of scope of prn_jax.",
  ),
  "local": Broken(
    NET + "[local]\n",
    OutOfScopeError,
    "cfg broken.cfg:5 [local]: YOLOv1 is out of scope of prn_jax.",
  ),
  "lrn": Broken(
    NET + "[normalization]\n",
    OutOfScopeError,
    "cfg broken.cfg:5 [normalization]: local response normalisation is out of scope of prn_jax.",
  ),
  "deconvolutional": Broken(
    NET + "[deconvolutional]\n",
    OutOfScopeError,
    "cfg broken.cfg:5 [deconvolutional]: pjreddie's extra layers are out of scope of prn_jax.",
  ),
  "xnor": Broken(
    NET + CONV + "xnor=1\n",
    OutOfScopeError,
    "cfg broken.cfg:10 [convolutional] has xnor=1, which is out of scope.",
  ),
  "cross_iteration": Broken(
    NET + CONV + "batch_normalize=2\n",
    OutOfScopeError,
    "cfg broken.cfg:10 [convolutional] has batch_normalize=2: cross-iteration batch norm is out of scope.",
  ),
  "tree_softmax": Broken(
    NET + CONV + "[avgpool]\n[softmax]\ntree=data/9k.tree\n",
    OutOfScopeError,
    "cfg broken.cfg:12 [softmax] has tree=data/9k.tree: hierarchical and spatial softmax are out of scope.",
  ),
  "spatial_softmax": Broken(
    NET + CONV + "[softmax]\nspatial=1\n",
    OutOfScopeError,
    "cfg broken.cfg:11 [softmax] has spatial=1: hierarchical and spatial softmax are out of scope.",
  ),
  "reorg3d_reverse": Broken(
    NET + "[reorg3d]\nstride=2\nreverse=1\n",
    OutOfScopeError,
    "cfg broken.cfg:7 [reorg3d] has reverse=1, which is broken in Darknet (it divides by zero). Use [reorg].",
  ),
}
