"""Losses on what networks say: detections of detectors, class scores of classifiers."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from prn_jax.detect.boxes import ciou_cxcywh, iou_cxcywh
from prn_jax.distill.lesson import Lesson, Needs, binary_divergence, register_distillation, softmax_divergence

MIN_SIDE = 1e-9  # of a box, relative to the input: overlaps need an area
LOCALISATION = 4.0  # weight of the boxes of BCKD beside its scores (alpha_2 and alpha_1 of the paper, 4 and 1)


@register_distillation("hinton", Needs.LOGITS, temperature=4.0)
def hinton(lesson: Lesson) -> jax.Array:
  """T^2 KL(softmax(t / T), softmax(s / T)), the mean over the images.

  It stands beside the loss of the labels, which keeps its weight. Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a
  Neural Network", NIPS workshop 2014.
  """
  assert lesson.logits is not None
  student, teacher = lesson.logits
  t = lesson.temperature
  return t**2 * jnp.mean(softmax_divergence(teacher / t, student / t))


@register_distillation("objectness", Needs.HEADS)
def objectness_scaled(lesson: Lesson) -> jax.Array:
  """Every cell learns as much as the teacher sees an object in it, so that the many empty ones do not drown the few.

  With o objectness, c classes, b boxes, sums over cells and boxes of all heads, and tau the confidence:
    sum D(o_t, o_s) + sum o_t sum_c D(c_t, c_s) + sum [o_t > tau] o_t (1 - CIoU(b_s, b_t))
  D is the binary cross entropy less the teacher's entropy. Source: Mehta and Ozturk, "Object detection at 200 Frames Per Second",
  ECCV workshops 2018 (objectness scaled distillation); differs: cross entropy and CIoU in place of squared errors, and boxes
  only where the teacher is sure, as in localization distillation (Zheng et al., CVPR 2022), which needs distributions of sides.
  """
  total = jnp.zeros((), jnp.float32)
  for head in lesson.heads:
    s, t = head.student, head.teacher
    classes = jnp.sum(binary_divergence(t.classes, s.classes), -1)
    overlap = ciou_cxcywh(_with_area(s.boxes_cxcywh_rel), _with_area(t.boxes_cxcywh_rel))
    is_sure = t.objectness > lesson.confidence
    boxes = jnp.where(is_sure, t.objectness * (1 - overlap), 0)
    total = total + jnp.sum(binary_divergence(t.objectness, s.objectness) + t.objectness * classes + boxes)
  return total / lesson.num_images


@register_distillation("bckd", Needs.HEADS)
def binary_with_quality(lesson: Lesson) -> jax.Array:
  """Every score is a binary question, weighted by how far teacher and student are apart in it.

  With p the scores (objectness times class) and w = |p_t - p_s|, without gradient:
    sum w D(p_t, p_s) + 4 sum max_c(w) (1 - IoU(b_s, b_t))
  D is the paper's binary cross entropy less the teacher's entropy, which has no gradient. Source: Yang et al., "Bridging Cross-task
  Protocol Inconsistency for Distillation in Dense Object Detection", ICCV 2023, with its weights 1 and 4; differs: p are the scores
  that detections have, as heads with an objectness give them; the paper's heads have class scores alone.
  """
  total = jnp.zeros((), jnp.float32)
  for head in lesson.heads:
    s, t = head.student, head.teacher
    weight = jax.lax.stop_gradient(jnp.abs(t.scores - s.scores))
    overlap = iou_cxcywh(_with_area(s.boxes_cxcywh_rel), _with_area(t.boxes_cxcywh_rel))
    total = total + jnp.sum(weight * binary_divergence(t.scores, s.scores))
    total = total + LOCALISATION * jnp.sum(jnp.max(weight, -1) * (1 - overlap))
  return total / lesson.num_images


def _with_area(boxes: jax.Array) -> jax.Array:
  """Boxes without sides that are 0."""
  return jnp.concatenate([boxes[..., :2], jnp.maximum(boxes[..., 2:], MIN_SIDE)], -1)
