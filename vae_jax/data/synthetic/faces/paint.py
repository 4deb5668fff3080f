"""Layers of paint from signed distances; a negative distance is inside, edges are about one pixel wide."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, UInt8

from vae_jax.data.synthetic.faces.people import SIZE, Colour, Field, Scalar, mix

PIXEL = 2 / SIZE


class Layer(NamedTuple):
    """A layer of paint.

    Attributes:
      coverage: Opacity, from 0 to 1.
      brightness: Interpolation between the colours `dark` (0) and `light` (1).
      dark: Colour at brightness 0.
      light: Colour at brightness 1.
    """

    coverage: Field
    brightness: Field | Scalar
    dark: Colour
    light: Colour


def plain(coverage: Field, colour: Colour) -> Layer:
    """A layer of one colour."""
    return Layer(coverage, jnp.zeros(()), colour, colour)


def inside(distance: Field, edge: float = 1.3) -> Field:
    """Coverage, from 1 inside to 0 outside, over `edge` pixels."""
    return jnp.clip(0.5 - distance / (edge * PIXEL), 0, 1)


def soft(square: Field) -> Field:
    """A smooth spot: approximately exp(-square), and 0 if square >= 4."""
    root = jnp.maximum(1 - 0.25 * square, 0)
    return (root * root) * (root * root)


def wave(phase: Field) -> Field:
    """Approximation of a sine of period 1 by parabolas."""
    turn = phase - jnp.floor(phase) - 0.5
    return 16 * turn * (jnp.abs(turn) - 0.5)


def norm(x: Field, y: Field) -> Field:
    """Euclidean norm; 1 on the unit circle."""
    return jnp.sqrt(x * x + y * y + 1e-6)


def rounded(x: Field, y: Field, squareness: Array | float) -> Field:
    """Function that is 1 on an outline between a circle (squareness 0) and a rounded square (1)."""
    xx, yy = x * x, y * y
    return mix(squareness, jnp.sqrt(xx + yy + 1e-6), jnp.sqrt(jnp.sqrt(xx * xx + yy * yy + 1e-9)))


def compose(layers: list[Layer]) -> tuple[UInt8[Array, "64 64"], ...]:
    """Composite the layers, the last on top: the channels red, green and blue."""
    channels = []
    for channel in range(3):
        value = jnp.zeros((SIZE, SIZE))
        for layer in layers:
            value = mix(layer.coverage, value, mix(layer.brightness, layer.dark[channel], layer.light[channel]))
        channels.append(jnp.round(255 * jnp.clip(value, 0, 1)).astype(jnp.uint8))
    return tuple(channels)
