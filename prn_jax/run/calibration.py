"""Images by which a network is set: ranges of its feature maps, statistics of its batch norm."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from prn_jax.data_pipelines.feed.evaluation_batches import eval_batches
from prn_jax.data_pipelines.images import Resize
from prn_jax.data_pipelines.records import DataError, Dataset, OnBadData, RecordList
from prn_jax.model import Model


def spread(dataset: Dataset, count: int) -> RecordList:
  """`count` records, evenly spread over the data set; all, if it has fewer."""
  if len(dataset) < 1:
    raise DataError("the data for the calibration is empty; expected at least one image.")
  chosen = np.unique(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int))
  records = tuple(dataset[int(i)] for i in chosen)
  return RecordList(dataset.names, dataset.category_ids, records, task=dataset.task)


def images_of(model: Model, dataset: Dataset, batch_size: int = 4, on_bad_data: str = "stop") -> Iterator[np.ndarray]:
  """The images of a data set as the network sees them: (n, h, w, c) float32, in batches."""
  graph = model.graph
  resize = model.resize if graph.detects else Resize.CENTER_CROP
  with eval_batches(
    dataset,
    (graph.width, graph.height),
    resize=resize,
    channels=graph.channels,
    batch_size=min(batch_size, len(dataset)),
    on_bad_data=OnBadData(on_bad_data),
  ) as batches:
    for batch in batches:
      if batch["mask"].any():
        yield np.asarray(batch["image"][batch["mask"]])
