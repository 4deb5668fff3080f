"""Layers and shading of head, neck and clothes."""

from typing import NamedTuple

import jax.numpy as jnp

from vae_jax.data.synthetic.faces import people
from vae_jax.data.synthetic.faces.paint import Layer, inside, norm, plain, rounded, soft, wave
from vae_jax.data.synthetic.faces.people import Colour, Field, Person, Scalar
from vae_jax.data.synthetic.faces.place import EYES, NOSE, YAW, Place, eye_x_of, mouth_height


class Head(NamedTuple):
    """Shape and shading of the head.

    Attributes:
      distance: Signed distance to the outline.
      light: Brightness of the light on it, about 0 to 1.
      width: Half of its width at the cheeks.
    """

    distance: Field
    light: Field
    width: Scalar


def shape_head(at: Place, who: Person) -> Head:
    """The head of a person: an egg, with a squarer jaw for men."""
    t, male = who.traits, who.has["Male"]
    width = 0.505 + 0.028 * t.head_width + 0.014 * male
    chin = 0.765 + 0.035 * t.head_length + 0.02 * male
    middle = -0.06
    below = at.head_y - middle
    v = below * jnp.where(below > 0, 1 / (chin - middle), 1 / 0.74)
    low = jnp.maximum(v, 0)
    u = at.head_x * (1 + (0.27 - 0.08 * male - 0.07 * t.jaw) * low * low) / width
    distance = (rounded(u, v, jnp.where(below > 0, 0.14 + 0.10 * t.jaw + 0.18 * male, 0.28)) - 1) * 0.52
    facing = jnp.sqrt(jnp.maximum(1.25 - u * u - v * v, 0.05))
    light = 0.2 + 0.62 * facing + 0.33 * t.light_x * u - (0.18 + 0.12 * t.light_y) * v
    return Head(distance, light, width)


def relief(at: Place, who: Person, head: Head) -> Field:
    """Brightness of the skin: light on the head, with shading of nose, eye sockets, folds and age."""
    t, has = who.traits, who.has
    x, y, old = jnp.abs(at.face_x), at.face_y, 1 - has["Young"]
    eye_x, nose_x = eye_x_of(at, who), at.face_x - 0.35 * YAW * t.yaw
    nose_y, side = y - NOSE - 0.03 * t.nose_length, jnp.where(t.light_x < 0, 1.0, -1.0)
    wing = 0.085 + 0.012 * t.nose_width + 0.012 * has["Male"]
    nose_xx = nose_x * nose_x
    tone = head.light
    tone -= 0.15 * soft((eye_x / 0.17) ** 2 + ((y - EYES + 0.03) / 0.10) ** 2)
    bridge = inside(jnp.abs(nose_y + 0.17) - 0.12, 5.0)
    tone += bridge * (0.10 * soft(nose_xx / 0.035**2) - 0.22 * soft(((nose_x - side * wing * 0.8) / 0.045) ** 2))
    tone += 0.16 * soft(nose_xx / 0.05**2 + ((nose_y + 0.045) / 0.045) ** 2)
    tone -= 0.30 * soft(nose_xx / wing**2 + ((nose_y - 0.025) / 0.03) ** 2)
    chin_y = y - mouth_height(who) - 0.15
    tone -= 0.14 * soft((at.face_x / 0.13) ** 2 + (chin_y / 0.035) ** 2)
    tone += 0.12 * soft((at.face_x / 0.11) ** 2 + ((chin_y - 0.07) / 0.05) ** 2)
    fold = soft(((x - wing - 0.055 - 0.55 * nose_y) / 0.028) ** 2) * inside(jnp.abs(nose_y - 0.11) - 0.09, 4.0)
    tone -= (0.03 + 0.26 * old + 0.07 * has["Smiling"]) * fold
    bags = soft((eye_x / 0.13) ** 2 + ((y - EYES - 0.11 + 3 * eye_x * eye_x) / 0.026) ** 2)
    furrows = jnp.maximum(wave(y * 8.5 + 2 * at.face_x * at.face_x), 0) * soft(
        (at.face_x / 0.22) ** 2 + ((y + 0.46) / 0.10) ** 2
    )
    return tone - old * (0.17 * bags + 0.16 * furrows)


def neck_and_clothes(at: Place, who: Person, dark: Colour, light: Colour) -> list[Layer]:
    """Layers of neck and shoulders, and of the clothes."""
    t, male = who.traits, who.has["Male"]
    x = at.x - 0.05 * t.shift_x
    side = jnp.abs(x)
    neck = 0.25 + 0.02 * t.head_width + 0.08 * male
    slope = jnp.maximum(side - neck, 0)
    top = 0.66 + 0.03 * t.shift_y + (0.48 - 0.06 * male) * jnp.sqrt(slope + 0.002)
    shoulders = jnp.minimum(jnp.maximum(side - neck, 0.3 - at.y), top - at.y)
    tone = 0.10 + 1.3 * jnp.clip(at.y - 0.62, 0, 0.4) + 0.3 * t.light_x * x - 0.6 * side * side
    neckline = jnp.where(t.neckline > 0, 0.99 - 0.8 * side, 0.95 - 0.9 * side * side)  # a V or round
    opening = neckline + 0.03 * t.neckline - at.y
    cloth = jnp.maximum(shoulders - 0.012, opening)
    fold = 0.72 + 0.1 * wave(x * 1.3 + t.clothes_hue) + 0.2 * t.light_x * x - 0.3 * jnp.maximum(opening + 0.1, 0)
    colour = people.clothes(who)
    return [Layer(inside(shoulders), tone, dark, light), Layer(inside(cloth), fold, colour * 0.35, colour * 1.1)]


def ears(at: Place, who: Person, head: Head, dark: Colour, light: Colour) -> Layer:
    """Layer of both ears, of which the far one is half hidden."""
    t = who.traits
    y = at.head_y - 0.03
    x = jnp.abs(at.head_x + 0.4 * YAW * t.yaw) - head.width + 0.005 + 0.12 * y
    shape = norm(x / (0.07 + 0.012 * t.ears), y / 0.15)
    inner = soft(((x - 0.02) / 0.03) ** 2 + (y / 0.08) ** 2)
    return Layer(inside((shape - 1) * 0.09), 0.62 * head.light + 0.25 - 0.25 * inner, dark, light)


def blush(at: Place, who: Person, skin: Colour) -> Layer:
    """Layer of red cheeks."""
    spot = soft(((jnp.abs(at.face_x) - 0.32) / 0.13) ** 2 + ((at.face_y - 0.20) / 0.12) ** 2)
    return plain((0.24 - 0.10 * who.has["Male"]) * spot, skin * jnp.array([0.98, 0.66, 0.62]))
