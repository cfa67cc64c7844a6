"""Vehicles that follow each other along lanes: where each of them is at every frame, exactly.

A simple safe-distance model (after Gipps, "A behavioural car-following model for computer simulation", Transportation
Research B, 1981): a vehicle speeds up to the speed that it likes, but no more than lets it reach the one in front, or a red
light, in `REACTION_SEC`. Only + - * / are used, so that every platform gets the same positions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from prn_jax.data_pipelines.traffic.dice import Dice
from prn_jax.data_pipelines.traffic.scene import roll_vehicle_kind
from prn_jax.data_pipelines.traffic.vehicles import Vehicle
from prn_jax.data_pipelines.traffic.view import Light

ACCELERATION = 2.0  # metres per second per second
REACTION_SEC = 1.4
GAP = 2.0  # metres between vehicles that stand
SPEEDS = (7.0, 14.0)  # metres per second that drivers like
STEP_SEC = 0.04
GREEN_SEC, RED_SEC = 9.0, 8.0


@dataclasses.dataclass
class Driver:
  """One vehicle on its lane.

  Attributes:
    number: counted from 1, in the order of arrival.
    label, vehicle: see `scene.roll_vehicle_kind`.
    x, heading: the lane's middle in metres, and its direction along z: 1 away from the camera, -1 towards it.
    likes: metres per second where nothing is in the way.
    along: metres from the lane's beginning to the vehicle's middle.
    speed: metres per second.
  """

  number: int
  label: int
  vehicle: Vehicle
  x: float
  heading: int
  likes: float
  along: float
  speed: float


class Lane:
  """The vehicles of one lane, the first one in front.

  Args:
    x, heading: see `Driver`.
    length: metres; who has driven further is gone.
    stop: metres along it where drivers wait for a red light, or None.
  """

  def __init__(self, x: float, heading: int, length: float, stop: float | None) -> None:
    self.x, self.heading, self.length, self.stop = x, heading, length, stop
    self.drivers: list[Driver] = []

  def has_room(self, length: float) -> bool:
    """Whether a vehicle of this length can come to the lane's beginning."""
    return not self.drivers or _rear(self.drivers[-1]) > length + 2 * GAP

  def step(self, *, is_red: bool) -> None:
    """All move for `STEP_SEC`."""
    ahead: Driver | None = None
    for driver in self.drivers:
      front = driver.along + 0.5 * driver.vehicle.length
      room = _rear(ahead) - GAP - front if ahead else float("inf")
      if is_red and self.stop is not None and front <= self.stop:
        room = min(room, self.stop - front)
      wanted = min(driver.speed + ACCELERATION * STEP_SEC, driver.likes, max(0.0, room / REACTION_SEC))
      driver.along += 0.5 * (driver.speed + wanted) * STEP_SEC
      driver.speed = wanted
      ahead = driver
    self.drivers = [driver for driver in self.drivers if _rear(driver) < self.length]


def _rear(driver: Driver) -> float:
  return driver.along - 0.5 * driver.vehicle.length


class Traffic:
  """All lanes of a road.

  Args:
    dice: when vehicles come, what they are, how fast.
    lanes: x and heading of each lane.
    light: for the looks of the vehicles.
    length: metres of the lanes.
    flow_per_sec: vehicles per second that come to each lane.
    stop: see `Lane`; None without a traffic light.
  """

  def __init__(
    self,
    dice: Dice,
    lanes: Sequence[tuple[float, int]],
    light: Light,
    length: float,
    flow_per_sec: float,
    stop: float | None,
  ) -> None:
    self.lanes = [Lane(x, heading, length, stop) for x, heading in lanes]
    self._dice, self._light, self._flow = dice, light, flow_per_sec
    self._steps = self._count = 0

  @property
  def seconds(self) -> float:
    """Since the beginning."""
    return self._steps * STEP_SEC

  @property
  def drivers(self) -> list[Driver]:
    """All that are on the road."""
    return [driver for lane in self.lanes for driver in lane.drivers]

  def step(self) -> None:
    """`STEP_SEC` pass."""
    is_red = self.seconds % (GREEN_SEC + RED_SEC) >= GREEN_SEC
    for lane in self.lanes:
      lane.step(is_red=is_red)
      if self._dice.chance(self._flow * STEP_SEC):
        self._arrive(lane)
    self._steps += 1

  def _arrive(self, lane: Lane) -> None:
    label, vehicle = roll_vehicle_kind(self._dice, self._light)
    likes = self._dice.uniform(*SPEEDS)
    if not lane.has_room(vehicle.length):
      return
    self._count += 1
    speed = min(likes, lane.drivers[-1].speed) if lane.drivers else likes
    begin = -0.5 * vehicle.length
    lane.drivers.append(Driver(self._count, label, vehicle, lane.x, lane.heading, likes, begin, speed))
