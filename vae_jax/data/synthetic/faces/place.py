"""Coordinates of the pixels relative to the head and to the face, and positions of the features."""

from typing import NamedTuple

import jax.numpy as jnp

from vae_jax.data.synthetic.faces.people import SIZE, Field, Person, Scalar

YAW = 0.10  # greatest shift of the face to a side
EYES, NOSE, MOUTH = -0.10, 0.20, 0.46  # heights


class Place(NamedTuple):
    """Coordinates of the pixels; the unit is half the width of the image, x points right, y down.

    Attributes:
      x: Coordinate in the image.
      y: Coordinate in the image.
      head_x: Coordinate relative to the head, before shift, tilt and zoom.
      head_y: Coordinate relative to the head, before shift, tilt and zoom.
      face_x: Distance from the middle of the face, which yaw shifts.
      face_y: Coordinate relative to the face, before pitch.
    """

    x: Field
    y: Field
    head_x: Field
    head_y: Field
    face_x: Field
    face_y: Field


def place(who: Person) -> Place:
    """The coordinates of a person."""
    t = who.traits
    centres = (jnp.arange(SIZE) + 0.5) * (2 / SIZE) - 1
    y, x = jnp.meshgrid(centres, centres, indexing="ij")
    pivot, zoom, tilt = 0.6, 0.98 + 0.06 * t.zoom, 0.15 * t.tilt
    right, down = (x - 0.05 * t.shift_x) * zoom, (y + 0.01 - 0.03 * t.shift_y - pivot) * zoom
    head_x = jnp.cos(tilt) * right + jnp.sin(tilt) * down
    head_y = jnp.cos(tilt) * down - jnp.sin(tilt) * right + pivot
    turned = head_x - YAW * t.yaw
    face_x = turned * (1 + 1.6 * YAW * t.yaw * turned)  # the far half is foreshortened
    return Place(x, y, head_x, head_y, face_x, head_y - 0.035 * t.pitch)


def eye_x_of(at: Place, who: Person) -> Field:
    """Horizontal distance from the centre of the nearer eye, outwards."""
    return jnp.abs(at.face_x) - (0.245 + 0.018 * who.traits.eye_distance)


def mouth_height(who: Person) -> Scalar:
    """Height of the line between the lips."""
    return MOUTH + 0.02 * who.traits.mouth_height + 0.012 * who.has["Smiling"]
