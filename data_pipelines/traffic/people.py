"""People on foot: flat figures that face the camera plane, seen from the front, behind or the side."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from prn_jax.data_pipelines.traffic.dice import Dice
from prn_jax.data_pipelines.traffic.view import Color, Pen, Point

SKINS: tuple[Color, ...] = ((240, 206, 178), (224, 178, 140), (186, 136, 98), (134, 92, 64), (92, 62, 46))
HAIRS: tuple[Color, ...] = ((36, 28, 26), (72, 48, 34), (120, 84, 50), (186, 150, 92), (150, 150, 150))
TOPS: tuple[Color, ...] = (
  (200, 44, 48), (236, 196, 60), (58, 118, 186), (242, 242, 240), (46, 50, 60), (78, 148, 96), (226, 120, 52),
  (150, 84, 160), (120, 132, 142), (238, 150, 170),
)  # fmt: skip
TROUSERS: tuple[Color, ...] = ((42, 52, 84), (36, 36, 40), (112, 98, 78), (86, 92, 100), (150, 138, 112), (70, 44, 40))


@dataclasses.dataclass(frozen=True)
class Person:
  """A figure. Lengths are shares of `height` (metres); `stride` is the reach of one foot."""

  height: float
  stride: float
  swing: float
  bulk: float
  facing: int  # -1 left, 0 front, 1 right
  is_behind: bool
  has_skirt: bool
  has_bag: bool
  skin: Color
  hair: Color
  top: Color
  trousers: Color


def make_person(dice: Dice) -> Person:
  """A grown person, or in one case of six a child."""
  height = dice.uniform(1.15, 1.45) if dice.chance(0.16) else dice.uniform(1.56, 1.88)
  facing = dice.between(-1, 1)
  reach = dice.uniform(0.03, 0.16) if facing else dice.uniform(0.02, 0.05)
  return Person(
    height=height,
    stride=reach,
    swing=dice.uniform(0.02, 0.12) if facing else dice.uniform(0.0, 0.03),
    bulk=dice.uniform(0.9, 1.15),
    facing=facing,
    is_behind=dice.chance(0.5),
    has_skirt=dice.chance(0.2),
    has_bag=dice.chance(0.25),
    skin=dice.pick(SKINS),
    hair=dice.pick(HAIRS),
    top=dice.pick(TOPS),
    trousers=dice.pick(TROUSERS),
  )


def draw_person(pen: Pen, person: Person, x: float, z: float) -> None:
  """Draws a figure that stands at (x, z); `pen.points` then holds its outline."""
  pen.begin(z)
  unit = person.height

  def at(dx: float, y: float) -> Point:
    return pen.camera.project((x + dx * unit, y * unit, z))

  def limb(color: Color, top: tuple[float, float], foot: tuple[float, float], half: float, light: float) -> None:
    (a, y), (b, w) = top, foot
    pen.flat([at(a - half, y), at(a + half, y), at(b + 0.8 * half, w), at(b - 0.8 * half, w)], color, light)

  width = (0.105 if person.facing else 0.135) * person.bulk
  leg, hip = 0.052 * person.bulk, 0.35 * width if not person.facing else 0.1 * width
  shoes: Color = (40, 36, 36)
  for sign, light in ((-1, 0.82), (1, 0.95)):
    foot = sign * (hip + person.stride)
    limb(person.trousers, (sign * hip, 0.5), (foot, 0.03), leg, light)
    toe = 0.045 * person.facing
    pen.flat([at(foot - leg, 0.0), at(foot + leg + toe, 0.0), at(foot + 0.8 * leg, 0.05), at(foot - leg, 0.05)], shoes)
  for sign in (-1, 1):  # the arms; that of a walker swings against the leg
    shoulder = sign * (0.86 * width) if not person.facing else 0.0
    hand = shoulder + sign * (0.03 + person.swing)
    limb(person.top, (shoulder, 0.79), (hand, 0.52), 0.032 * person.bulk, 0.78)
    limb(person.skin, (hand, 0.52), (hand, 0.46), 0.03, 0.95)
  lower = 0.3 if person.has_skirt else 0.47
  flare = 1.25 if person.has_skirt else 0.86
  pen.flat([at(-width, 0.81), at(width, 0.81), at(flare * width, lower), at(-flare * width, lower)], person.top, 0.95)
  if person.has_bag:
    back = -person.facing * width if person.facing else 0.0
    if person.facing or person.is_behind:
      pen.flat(
        [at(back - 0.07, 0.78), at(back + 0.07, 0.78), at(back + 0.07, 0.56), at(back - 0.07, 0.56)],
        person.trousers,
        0.8,
      )
  _draw_head(pen, person, at)


def _draw_head(pen: Pen, person: Person, at: Callable[[float, float], Point]) -> None:
  pen.flat([at(-0.03, 0.86), at(0.03, 0.86), at(0.03, 0.8), at(-0.03, 0.8)], person.skin, 0.85)
  (left, top), (right, bottom) = at(-0.056, 1.0), at(0.056, 0.85)
  if person.is_behind and not person.facing:
    pen.ellipse((left, top, right, bottom), person.hair)
    return
  pen.ellipse((left, top, right, bottom), person.skin)
  middle, chin = (left + right) // 2, bottom - (bottom - top) // 4
  if person.facing > 0:
    pen.ellipse((left, top, middle, chin), person.hair)
  elif person.facing < 0:
    pen.ellipse((middle, top, right, chin), person.hair)
  else:
    pen.ellipse((left, top, right, top + (bottom - top) // 2), person.hair)
