"""Rendering of faces from layers, back to front."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

from vae_jax.data.synthetic.faces import people
from vae_jax.data.synthetic.faces.attributes import require_possible
from vae_jax.data.synthetic.faces.features import brows, eyes, glasses, mouth, nostrils
from vae_jax.data.synthetic.faces.hair import Hair, beard, style_hair
from vae_jax.data.synthetic.faces.head import Head, blush, ears, neck_and_clothes, relief, shape_head
from vae_jax.data.synthetic.faces.paint import Layer, compose, inside, soft
from vae_jax.data.synthetic.faces.people import SIZE, Person, mix
from vae_jax.data.synthetic.faces.place import Place, place

_BLOCK = 16  # faces at a time; the arrays of larger blocks do not fit the processor's cache


def _backdrop(at: Place, who: Person) -> Layer:
    t = who.traits
    near, far = people.backdrop(who)
    angle = jnp.pi * t.backdrop_angle
    along = 0.5 + 0.4 * (jnp.cos(angle) * at.x + jnp.sin(angle) * at.y)
    glow = soft(((at.x - 0.7 * t.waves) ** 2 + (at.y + 0.3 - 0.5 * t.strands) ** 2) * 2)
    return Layer(jnp.ones_like(along), along + 0.25 * glow, far, near)


class Scene(NamedTuple):
    """Intermediate results that several layers share."""

    traits: Float[Array, " traits"]
    attributes: Bool[Array, " attributes"]
    at: Place
    head: Head
    hair: Hair


def _scene(key: Key[Array, ""], index: Int[Array, ""], attributes: Bool[Array, " attributes"]) -> Scene:
    traits = people.draw_traits(jax.random.fold_in(key, index))
    who = people.person(traits, attributes)
    at = place(who)
    head = shape_head(at, who)
    return Scene(traits, attributes, at, head, style_hair(at, who, head))


def _layers(scene: Scene) -> list[Layer]:
    """The layers of a face, from back to front."""
    traits, attributes, at, head, hair = scene
    who = people.person(traits, attributes)
    skin, strand = people.skin(who), people.hair(who)
    shadow = skin * jnp.array([0.80, 0.66, 0.60]) * (0.8 - 0.05 * who.traits.contrast)
    strand_shadow, strand_light = strand * jnp.array([0.42, 0.35, 0.31]), jnp.minimum(strand * 1.14 + 0.03, 1.0)
    brow = mix(0.45, strand * 0.62, jnp.array([0.20, 0.13, 0.10]))
    layers = [
        _backdrop(at, who),
        Layer(hair.behind, hair.brightness, strand_shadow * 0.75, strand_light * 0.75),
        *neck_and_clothes(at, who, shadow, skin),
        ears(at, who, head, shadow, skin),
        Layer(inside(head.distance), relief(at, who, head) - 0.2 * hair.shadow, shadow, skin),
        blush(at, who, skin),
        nostrils(at, who, shadow),
        *mouth(at, who, shadow),
        beard(at, who, head, strand),
        *eyes(at, who, shadow),
        brows(at, who, brow),
        *glasses(at, who, head),
        Layer(hair.front, hair.brightness, strand_shadow, strand_light),
    ]
    light = people.light(who)
    return [layer._replace(dark=layer.dark * light, light=layer.light * light) for layer in layers]


# Three programs, because XLA would fuse one into a single loop that repeats the work for each use of a result.
_scenes = jax.jit(jax.vmap(_scene, in_axes=(None, 0, 0)))
_all_layers = jax.jit(jax.vmap(_layers))
_composed = jax.jit(jax.vmap(compose))


def draw_faces(key: Key[Array, ""], attributes: Array | np.ndarray) -> UInt8[np.ndarray, "n 64 64 3"]:
    """Draw one face for each row of attributes, by a loop over compiled blocks; it cannot be traced.

    Face i is a function of the key, i and row i: with the same key, another attribute changes the appearance of the
    same person in the same pose, light and place.

    Args:
      key: Key of everything that the attributes do not determine.
      attributes: Attributes, bool [n, 15], in the order of `ATTRIBUTES`.

    Raises:
      DataError: The attributes have another shape or dtype, or contradict each other.
    """
    require_possible(attributes)
    count = len(attributes)
    rows = np.pad(np.asarray(attributes), ((0, -count % _BLOCK), (0, 0)))
    faces = np.empty((len(rows), SIZE, SIZE, 3), np.uint8)

    def draw(start: int) -> None:
        block = slice(start, start + _BLOCK)
        scenes = _scenes(key, np.arange(start, start + _BLOCK), rows[block])
        for channel, values in enumerate(_composed(_all_layers(scenes))):
            faces[block, ..., channel] = values

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # the loops over pixels that XLA compiles use one core
        list(pool.map(draw, range(0, len(rows), _BLOCK)))
    return faces[:count]
