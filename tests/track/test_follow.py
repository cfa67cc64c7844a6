"""Videos followed: the order of frames, and files that a Follower writes."""

from __future__ import annotations

import numpy as np

from prn_jax.track import motchallenge
from prn_jax.track.follow import Follower, found_of_frames, in_order
from prn_jax.track.trackers.named import TRACKERS, TrackerSettings
from prn_jax.track.trackers.tracker import Found


def test_numbers_in_names_count() -> None:
  names = ["f10.jpg", "f2.jpg", "a/f1.jpg", "f002b.jpg", "f.jpg", "10.jpg", "9.jpg"]
  assert sorted(names, key=in_order) == ["9.jpg", "10.jpg", "a/f1.jpg", "f2.jpg", "f002b.jpg", "f10.jpg", "f.jpg"]


def test_margins_become_probabilities_and_probabilities_stay() -> None:
  text = "1,-1,0,0,5,5,{}\n3,-1,0,0,5,5,{}\n"
  frames, are_margins = found_of_frames(motchallenge.parse(text.format(0.25, 1)))
  assert not are_margins
  assert [frame.scores.tolist() for frame in frames] == [[0.25], [], [1.0]]
  frames, are_margins = found_of_frames(motchallenge.parse(text.format(-800, np.log(3))))
  assert are_margins
  np.testing.assert_allclose([frames[0].scores[0], frames[2].scores[0]], [0, 0.75], atol=1e-15)


def test_lost_for_longer_than_asked_at_any_rate_of_frames() -> None:
  """Half a second: 5 frames of 10 a second, 15 of 30. Frames that could not be read count, too."""
  for name in TRACKERS:
    for fps, missing in ((10, 4), (30, 14), (10, 6), (30, 16)):
      follower = Follower(TrackerSettings(tracker=name, max_lost_sec=0.5), fps)
      here = Found(np.array([[0.0, 0, 20, 20]]), np.array([0.9]), np.array([1]))
      for frame in [here] * 8 + [None] * missing + [here] * 6:
        follower.add(frame)
      assert sorted(follower.ids) == ([1] if missing / fps < 0.5 else [1, 2]), (name, fps, missing)
