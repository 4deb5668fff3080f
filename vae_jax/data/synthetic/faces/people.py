"""Traits of a face, which the key determines, and colours that depend on them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from vae_jax.data.synthetic.faces.attributes import ATTRIBUTES

SIZE = 64

Scalar = Float[Array, ""]
Colour = Float[Array, "3"]
Field = Float[Array, "64 64"]  # a number per pixel: coordinate, signed distance, coverage or brightness


class Traits(NamedTuple):
    """Properties without an attribute, each uniform on (-1, 1)."""

    shift_x: Scalar
    shift_y: Scalar
    zoom: Scalar
    tilt: Scalar
    yaw: Scalar
    pitch: Scalar
    light_x: Scalar
    light_y: Scalar
    contrast: Scalar
    warmth: Scalar
    melanin: Scalar
    undertone: Scalar
    head_width: Scalar
    head_length: Scalar
    jaw: Scalar
    ears: Scalar
    eye_distance: Scalar
    eye_size: Scalar
    eye_opening: Scalar
    eye_slant: Scalar
    eye_colour: Scalar
    eye_shade: Scalar
    gaze: Scalar
    brow_height: Scalar
    brow_arch: Scalar
    brow_weight: Scalar
    nose_length: Scalar
    nose_width: Scalar
    mouth_width: Scalar
    mouth_height: Scalar
    lips: Scalar
    lip_colour: Scalar
    teeth: Scalar
    hair_tone: Scalar
    hair_volume: Scalar
    hair_length: Scalar
    hairline: Scalar
    parting: Scalar
    strands: Scalar
    waves: Scalar
    beard_shape: Scalar
    beard_length: Scalar
    frame_shape: Scalar
    frame_colour: Scalar
    frame_size: Scalar
    clothes_hue: Scalar
    clothes_value: Scalar
    neckline: Scalar
    backdrop_hue: Scalar
    backdrop_value: Scalar
    backdrop_colourfulness: Scalar
    backdrop_angle: Scalar
    backdrop_contrast: Scalar


class Person(NamedTuple):
    """A face to draw.

    Attributes:
      has: 1.0 or 0.0 for each of `ATTRIBUTES`.
      traits: All other properties.
    """

    has: dict[str, Scalar]
    traits: Traits


def draw_traits(key: Key[Array, ""]) -> Float[Array, " traits"]:
    """Sample traits, in the order of `Traits`."""
    return jax.random.uniform(key, (len(Traits._fields),), minval=-1.0, maxval=1.0)


def person(traits: Float[Array, " traits"], attributes: Bool[Array, " attributes"]) -> Person:
    """The person with these traits and attributes, by name."""
    return Person(dict(zip(ATTRIBUTES, attributes.astype(jnp.float32), strict=True)), Traits(*traits))


def mix(share: Array | float, at_zero: Array | float, at_one: Array | float) -> Array:
    """Linear interpolation."""
    return jnp.asarray(at_zero + share * (at_one - at_zero))


def _palette(position: Scalar, *colours: tuple[float, float, float]) -> Colour:
    """Linear interpolation of colours that are equally spaced from 0 to 1."""
    steps = jnp.diff(jnp.array(colours), axis=0)
    shares = jnp.clip(position * len(steps) - jnp.arange(len(steps)), 0, 1)
    return jnp.array(colours[0]) + (shares[:, None] * steps).sum(axis=0)


def _hue(angle: Scalar, value: Scalar, saturation: Scalar) -> Colour:
    """A colour of the colour wheel; `angle` has period 2."""
    wheel = 0.5 + 0.5 * jnp.cos(jnp.pi * (angle + jnp.array([0.0, -2 / 3, 2 / 3])))
    return value * (1 - saturation + saturation * wheel)


def skin(who: Person) -> Colour:
    """Colour of the skin in full light."""
    t = who.traits
    melanin = (0.5 + 0.5 * t.melanin) ** 1.5  # most faces in CelebA have fair skin
    tone = _palette(
        melanin,
        (0.99, 0.85, 0.76),
        (0.97, 0.79, 0.66),
        (0.89, 0.67, 0.51),
        (0.72, 0.49, 0.35),
        (0.50, 0.33, 0.24),
    )
    tone = tone * (1 + 0.03 * t.undertone * jnp.array([0.3, -0.4, -1.5]))
    tone = mix(0.12 * who.has["Male"], tone, tone * jnp.array([0.92, 0.82, 0.76]))
    return mix(who.has["Pale_Skin"], tone, jnp.array([1.0, 0.90, 0.85]))


def hair(who: Person) -> Colour:
    """Colour of the hair in full light; for the attribute Bald, of the brows."""
    tone, has = 0.5 + 0.5 * who.traits.hair_tone, who.has
    return (
        has["Black_Hair"] * _palette(tone, (0.13, 0.11, 0.12), (0.25, 0.19, 0.17))
        + has["Brown_Hair"] * _palette(tone, (0.40, 0.25, 0.16), (0.52, 0.30, 0.17), (0.64, 0.43, 0.27))
        + has["Blond_Hair"] * _palette(tone, (0.80, 0.60, 0.36), (0.92, 0.75, 0.47), (0.96, 0.85, 0.64))
        + has["Gray_Hair"] * _palette(tone, (0.62, 0.61, 0.61), (0.88, 0.87, 0.86))
        + has["Bald"] * _palette(tone, (0.25, 0.19, 0.16), (0.45, 0.32, 0.22))
    )


def iris(who: Person) -> Colour:
    """Colour of the iris: brown, or from green to blue for light skin."""
    t = who.traits
    brown = _palette(0.5 + 0.5 * t.eye_shade, (0.20, 0.11, 0.06), (0.42, 0.25, 0.12))
    light = _palette(0.5 + 0.5 * t.eye_shade, (0.36, 0.47, 0.30), (0.33, 0.52, 0.66), (0.45, 0.60, 0.78))
    return jnp.where((t.eye_colour > 0) & (t.melanin < 0.1), light, brown)


def lips(who: Person) -> Colour:
    """Colour of the lips: redder than the skin, or lipstick from pink to dark red."""
    natural = skin(who) * jnp.array([0.87, 0.62, 0.62])
    stick = _palette(
        0.5 + 0.5 * who.traits.lip_colour,
        (0.90, 0.36, 0.46),
        (0.82, 0.12, 0.20),
        (0.70, 0.08, 0.22),
        (0.48, 0.06, 0.16),
    )
    return mix(who.has["Wearing_Lipstick"], natural, stick)


def clothes(who: Person) -> Colour:
    """Colour of the clothes: any hue, from dark to light."""
    t = who.traits
    return _hue(t.clothes_hue, 0.5 + 0.42 * t.clothes_value, 0.35 + 0.25 * t.neckline)


def light(who: Person) -> Colour:
    """Colour of the light: white, or slightly warmer or colder."""
    return 1 + 0.04 * who.traits.warmth * jnp.array([1.0, 0.0, -1.0])


def backdrop(who: Person) -> tuple[Colour, Colour]:
    """The two colours of the gradient of the background, similar and not saturated."""
    t = who.traits
    value, saturation = 0.58 + 0.30 * t.backdrop_value, 0.16 + 0.13 * t.backdrop_colourfulness
    fall = 0.28 + 0.16 * t.backdrop_contrast
    return (
        _hue(t.backdrop_hue, value * (1 + fall / 2), saturation),
        _hue(t.backdrop_hue + 0.15, value * (1 - fall), saturation),
    )


def frame(who: Person) -> Colour:
    """Colour of the frame of the glasses: black, brown or red."""
    return _palette(
        0.5 + 0.5 * who.traits.frame_colour,
        (0.08, 0.08, 0.09),
        (0.10, 0.08, 0.08),
        (0.30, 0.17, 0.10),
        (0.42, 0.10, 0.12),
    )
