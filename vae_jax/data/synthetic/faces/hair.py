"""Layers of hair and beard."""

from typing import NamedTuple

import jax.numpy as jnp

from vae_jax.data.synthetic.faces.features import from_mouth
from vae_jax.data.synthetic.faces.head import Head
from vae_jax.data.synthetic.faces.paint import Layer, inside, norm, rounded, soft, wave
from vae_jax.data.synthetic.faces.people import Colour, Field, Person, mix
from vae_jax.data.synthetic.faces.place import YAW, Place, mouth_height


class Hair(NamedTuple):
    """Hair as two coverages and one brightness.

    Attributes:
      behind: Coverage of the hair behind neck and shoulders.
      front: Coverage of the hair on the head and in front of the ears.
      brightness: Brightness, about 0 to 1.
      shadow: Shadow on the skin next to the hair.
    """

    behind: Field
    front: Field
    brightness: Field
    shadow: Field


def style_hair(at: Place, who: Person, head: Head) -> Hair:
    """The hair of a person: long or short, wavy or straight, parted or with a fringe."""
    t, has = who.traits, who.has
    long, wavy, male, old = has["Long_Hair"], has["Wavy_Hair"], has["Male"], 1 - has["Young"]
    x, y = at.head_x + 0.25 * YAW * t.yaw, at.head_y
    side = jnp.abs(x)
    curl = wave(y * 1.9 + side + t.waves + 0.15 * jnp.sign(x))

    # The outline: a cap on the skull, and below it long hair, which widens.
    volume = 0.09 + 0.03 * t.hair_volume + 0.03 * wavy
    crown = -0.79 - volume
    hang = jnp.maximum(y + 0.08, 0)
    cap = head.width + mix(long, 0.02, 0.75 * volume) + (0.035 + 0.003 * long) * wavy * curl
    width = cap + long * (0.10 + 0.05 * t.hair_volume) * jnp.minimum(hang * 1.4, 1) - (1 - long) * 0.35 * hang
    up = jnp.minimum(y + 0.08, 0) / (0.08 + crown)
    radius = rounded(x / width, up, 0.38)
    end = mix(long, 0.22, 0.95 + 0.35 * t.hair_length - 0.25 * x * x + 0.04 * wave(x * 3 + t.strands))
    outline = jnp.maximum((radius - 1) * 0.6, y - end)

    # The opening for the face: an arch whose top leans to the parting; a low arch is a fringe, flat and ragged.
    fringe = jnp.clip(2.5 * t.hairline - 1, 0, 1)
    top = -0.56 + 0.03 * t.hairline + 0.16 * fringe - 0.07 * old * (1 + male)
    height = jnp.minimum(y - 0.10, 0) / (top - 0.10)
    leaning = x - (0.14 + 0.14 * long - 0.08 * fringe) * t.parting * jnp.clip(-2 * y, 0, 1)
    opening_width = head.width * mix(
        long, 0.89 + 0.2 * jnp.clip(1 + 4 * y, 0, 1), 0.88 - 0.03 * t.hair_volume
    ) - long * 0.22 * jnp.maximum(y - 0.1, 0)
    arch = mix(long, 0.45 + 0.15 * male, 0.08 + 0.4 * fringe)
    opening = (rounded(leaning / opening_width, height, arch) - 1) * 0.5
    opening += (0.01 + 0.04 * fringe) * wave(x * 2.6 + t.strands) * jnp.clip(-2 * y, 0, 1)

    has_hair = 1 - has["Bald"]
    front = jnp.maximum(jnp.maximum(outline, -opening), y - mix(long, 0.04 + 0.04 * t.ears, 9.0))
    fan = (x - 0.2 * t.parting) / (jnp.maximum(y - crown, 0) * mix(long, 0.8, 0.35) + 0.5) + 0.06 * wavy * curl
    strands = 0.07 * wave(fan * 2.3 + t.strands) + 0.06 * wave(fan * 5.1 + t.waves)
    shine = soft(((radius - 0.80) / 0.13) ** 2) * jnp.clip(-y * 1.4, 0, 1)
    brightness = 0.50 + strands + 0.28 * shine + 0.25 * t.light_x * x - 0.18 * jnp.clip(y, 0, 1)
    return Hair(
        has_hair * inside(outline, 1.6),
        has_hair * inside(front, 1.6),
        brightness,
        has_hair * jnp.clip(1 + opening * 10, 0, 1),
    )


def beard(at: Place, who: Person, head: Head, colour: Colour) -> Layer:
    """The beard: full, a goatee or stubble."""
    t = who.traits
    stubble, goatee = (t.beard_shape < -0.35).astype(float), (t.beard_shape > 0.5).astype(float)
    share, y = from_mouth(at, who)
    x = at.head_x / head.width
    xx = jnp.minimum(x * x, 1)
    cheeks = mouth_height(who) - 0.16 + 0.45 * xx - 0.78 * xx * xx * xx - at.head_y
    outline = head.distance - (1 - stubble) * (0.03 + 0.02 * t.beard_length) * jnp.clip(2 * at.head_y, 0, 1)
    lips = 1 - norm(share / 0.95, (y - 0.02) / (0.080 + 0.02 * who.has["Smiling"]))
    area = jnp.maximum(jnp.maximum(cheeks, outline), lips * 0.09)
    area = jnp.maximum(area, goatee * (jnp.abs(at.face_x) + 0.73) - 1)
    weight = (1 - who.has["No_Beard"]) * mix(stubble, 0.93, 0.45)
    hairs = 0.25 + 0.45 * head.light + 0.08 * wave(at.head_x * 5 + 0.2 * wave(at.head_y * 4 + t.strands))
    return Layer(weight * inside(area, 3.2), hairs, colour * 0.35, colour * 0.95)
