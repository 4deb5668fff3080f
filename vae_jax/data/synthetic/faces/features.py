"""Layers of brows, eyes, nose, mouth and glasses."""

import jax.numpy as jnp

from vae_jax.data.synthetic.faces import people
from vae_jax.data.synthetic.faces.head import Head
from vae_jax.data.synthetic.faces.paint import Layer, inside, norm, plain, rounded, soft, wave
from vae_jax.data.synthetic.faces.people import Colour, Field, Person, mix
from vae_jax.data.synthetic.faces.place import EYES, NOSE, YAW, Place, eye_x_of, mouth_height

_WHITE = (0.55, 0.48, 0.47), (0.97, 0.96, 0.95)  # white of the eye, in shadow and in light
_TEETH = (0.45, 0.35, 0.33), (0.98, 0.97, 0.94)


def brows(at: Place, who: Person, colour: Colour) -> Layer:
    """Layer of the brows, which are heavier for men."""
    t, male = who.traits, who.has["Male"]
    share = (eye_x_of(at, who) + 0.005) / 0.155
    arch = 0.030 + 0.018 * t.brow_arch - 0.010 * male
    line = EYES - 0.165 - 0.02 * t.brow_height + 0.022 * male - 0.004 * share - arch * (1 - (share - 0.15) ** 2)
    thick = (0.019 + 0.006 * t.brow_weight + 0.010 * male) * (1.15 - 0.5 * jnp.clip(share, -1, 1))
    shape = jnp.maximum(jnp.abs(at.face_y - line) - thick, (jnp.abs(share) - 1) * 0.16)
    return plain(0.85 * inside(shape, 1.8), colour)


def eyes(at: Place, who: Person, skin_shadow: Colour) -> list[Layer]:
    """Layers of creases, white, iris, pupil, lashes and highlight."""
    t, male = who.traits, who.has["Male"]
    x = eye_x_of(at, who)
    width = 0.126 + 0.010 * t.eye_size - 0.006 * male
    share = x / width
    y = at.face_y - EYES + (0.010 + 0.016 * t.eye_slant) * share
    bulge = jnp.maximum(1 - share * share, 0)
    upper = -(0.070 + 0.009 * t.eye_size + 0.008 * t.eye_opening - 0.010 * male) * bulge
    lower = (0.048 - 0.012 * who.has["Smiling"]) * bulge
    open_ = inside(jnp.maximum(upper - y, y - lower), 1.4) * inside(jnp.abs(x) - width, 2.0)
    outside = jnp.abs(x) - width
    ball_x = x - 0.02 * t.gaze * jnp.sign(at.face_x)
    radius = norm(ball_x, y + 0.008)
    rim = jnp.clip(radius * 12.5, 0, 1)
    iris = people.iris(who)
    glint_x = x * jnp.sign(at.face_x) - 0.02 * t.gaze - 0.02 * t.light_x
    lashes = 0.013 + 0.009 * (1 - male) * (1 + 0.7 * share)
    lid = jnp.maximum(jnp.abs(y - upper) - lashes, jnp.abs(x - 0.02 + 0.012 * male) - width)
    crease = jnp.maximum(jnp.abs(y - 1.15 * upper + 0.042) - 0.006, outside)
    below = jnp.maximum(jnp.abs(y - lower) - 0.004, outside)
    return [
        plain(0.45 * jnp.maximum(inside(crease, 1.8), 0.8 * inside(below, 1.8)), skin_shadow * 0.7),
        Layer(open_, 1 - 0.35 * share * share + 3 * jnp.minimum(y, 0), jnp.array(_WHITE[0]), jnp.array(_WHITE[1])),
        Layer(open_ * inside(radius - 0.068), 1 - rim * rim * rim + 4 * y, iris * 0.35, iris * 1.15),
        plain(open_ * inside(radius - 0.030), jnp.full(3, 0.03)),
        plain(0.9 * inside(lid, 1.5), skin_shadow * 0.25),
        plain(0.9 * open_ * soft((glint_x / 0.02) ** 2 + ((y + 0.032) / 0.02) ** 2), jnp.ones(3)),
    ]


def nostrils(at: Place, who: Person, skin_shadow: Colour) -> Layer:
    """Layer of the nostrils; the rest of the nose is shading of the skin (`relief`)."""
    t = who.traits
    x = jnp.abs(at.face_x - 0.35 * YAW * t.yaw) - 0.052 - 0.01 * t.nose_width - 0.008 * who.has["Male"]
    y = at.face_y - NOSE - 0.03 * t.nose_length - 0.004 + 0.3 * x
    return plain(0.75 * soft((x / 0.032) ** 2 + (y / 0.018) ** 2), skin_shadow * 0.45)


def from_mouth(at: Place, who: Person) -> tuple[Field, Field]:
    """Coordinates of the mouth: horizontal, 1 at the corners; vertical, from the line between the lips."""
    t, smiling = who.traits, who.has["Smiling"]
    width = 0.180 + 0.018 * t.mouth_width + 0.065 * smiling + 0.010 * who.has["Male"]
    share = (at.face_x - 0.1 * YAW * t.yaw) / width
    bend = mix(smiling, 0.020 + 0.010 * t.teeth, 0.055 + 0.015 * t.teeth)
    return share, at.face_y - mouth_height(who) + bend * share * share


def mouth(at: Place, who: Person, skin_shadow: Colour) -> list[Layer]:
    """Layers of lips, teeth (in a smile) and the line between the lips."""
    t, has = who.traits, who.has
    share, y = from_mouth(at, who)
    bulge = jnp.maximum(1 - share * share, 0)
    full = 1 + 0.22 * t.lips + 0.12 * has["Wearing_Lipstick"] - 0.22 * has["Male"] - 0.15 * (1 - has["Young"])
    top, bottom = (
        -0.020 * has["Smiling"] * bulge,
        (0.048 + 0.026 * t.teeth) * has["Smiling"] * bulge,
    )  # edges of the gap
    upper = top - 0.050 * full * bulge * (1 - 0.35 * soft((share / 0.22) ** 2))
    lower = bottom + 0.066 * full * bulge
    within = inside((jnp.abs(share) - 1) * 0.2, 2.0)
    shine = 0.75 + 0.4 * soft(((y - bottom - 0.03) / 0.02) ** 2 + (share / 0.4) ** 2) - 0.35 * inside(y - top, 2.0)
    colour = people.lips(who)
    gap = has["Smiling"] * within * inside(jnp.maximum(top - y, y - bottom), 1.2)
    line = (1 - 0.75 * has["Smiling"]) * within * inside(jnp.abs(y - top) - 0.004, 1.7)
    return [
        Layer(within * inside(jnp.maximum(upper - y, y - lower), 1.6), shine, colour * 0.5, colour * 1.08),
        Layer(gap, 1 - 0.6 * share * share, jnp.array(_TEETH[0]), jnp.array(_TEETH[1])),
        plain(0.8 * line, skin_shadow * 0.4),
    ]


def glasses(at: Place, who: Person, head: Head) -> list[Layer]:
    """Layers of clear or dark lenses, their reflections, and the frame."""
    t, wears, dark = who.traits, who.has["Eyeglasses"], who.has["Sunglasses"]
    x, y = eye_x_of(at, who) - 0.010, at.face_y - EYES - 0.015
    width, height = 0.195 + 0.015 * t.frame_size, 0.150 + 0.03 * t.frame_size + 0.012 * dark
    lens = (rounded(x / width * (1 + 0.25 * t.frame_size * y), y / height, 0.5 + 0.5 * t.frame_shape) - 1) * 0.16
    glass = wears * inside(lens)
    streak = soft((wave((at.face_x + at.face_y * 0.8) * 1.6 + 0.2 * t.frame_size) - 1) ** 2 * 20)
    colour = people.frame(who)
    tint = mix(dark, jnp.array([0.80, 0.86, 0.92]), colour * 0.5 + jnp.array([0.04, 0.03, 0.03]))
    thick = 0.017 + 0.010 * jnp.abs(t.frame_colour)
    bridge = jnp.maximum(jnp.abs(y + 0.05 - 1.2 * at.face_x**2) - thick * 0.8, jnp.abs(at.face_x) - 0.09)
    temple = jnp.maximum(jnp.abs(y + 0.05) - thick * 0.8, jnp.maximum(width - x, head.distance - 0.015))
    rim = jnp.minimum(jnp.minimum(jnp.abs(lens) - thick, bridge), temple)
    return [
        Layer(glass * mix(dark, 0.10, 0.94), 0.85 + 1.5 * y * dark, tint * 0.7, tint * (1.1 + 0.6 * dark)),
        plain(glass * mix(dark, 0.32, 0.22) * streak, jnp.ones(3)),
        plain(wears * inside(rim), colour),
    ]
