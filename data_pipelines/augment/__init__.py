"""Random changes to training images, with their boxes: Darknet's for detection, the usual ones for classification."""

from prn_jax.data_pipelines.augment.classification import NO_CLASSIFICATION_AUGMENT, ClassificationAugment
from prn_jax.data_pipelines.augment.detection import NO_DETECTION_AUGMENT, DetectionAugment
from prn_jax.data_pipelines.augment.sample import AugmentError, Sample

__all__ = [
  "NO_CLASSIFICATION_AUGMENT",
  "NO_DETECTION_AUGMENT",
  "AugmentError",
  "ClassificationAugment",
  "DetectionAugment",
  "Sample",
]
