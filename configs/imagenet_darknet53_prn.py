"""Darknet53 with partial residuals on ImageNet, 224x224: the comparison of the paper's figure 11.

The argument names the network: residual (Darknet53 itself), fprn, prn-shrink (default), prn-expand or prn-bottleneck, and
after a comma the share of channels, as "fprn,0.5" (sparsity) or "prn-shrink,0.75" (gamma). Training is that of Darknet53,
so that only the network differs; the paper does not publish its own.
Expected: top-1 76.8, 75.7, 75.5 for shrink, expand, bottleneck at gamma 0.75 and 76.4, 72.7, 72.7 at 0.5 (the
paper's section 4.2). Not yet run.
Data: as for imagenet_darknet53; prepare it once (prn data prepare imagenet:data/ilsvrc2012:train,val data/imagenet448
--min-side 448), since otherwise every start reads the header of every file.
Run: prn train --config=imagenet_darknet53_prn:residual --workdir=runs/imagenet_residual
     prn train --config=imagenet_darknet53_prn:prn-shrink,0.75 --workdir=runs/imagenet_darknet53_prn_shrink
     prn train --config=imagenet_darknet53_prn --workdir=runs/imagenet_darknet53_prn
"""

from __future__ import annotations

import ml_collections

from prn_jax.configs import imagenet_darknet53

RESIDUAL = "residual"
OPTIONS = {"fprn": "sparsity", "prn-shrink": "gamma", "prn-expand": "gamma", "prn-bottleneck": "gamma"}


def get_config(variant: str = "prn-shrink") -> ml_collections.ConfigDict:
  name, _, share = variant.partition(",")
  if name not in (RESIDUAL, *OPTIONS):
    raise ValueError(f"there is no variant '{name}'; expected one of {RESIDUAL}, {', '.join(OPTIONS)}")
  if share and name == RESIDUAL:
    raise ValueError(f"'{RESIDUAL}' is the network as it is and has no share of channels, as ',{share}' would be")
  config = imagenet_darknet53.get_config()
  config.width = config.height = 224
  if name != RESIDUAL:
    config.model = f"darknet53-{name}"
  if share:
    config.model_options[OPTIONS[name]] = float(share)
  return config
