"""Attributes of synthetic faces and their joint distribution: names and confounders of CelebA."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from vae_jax.errors import DataError, require_positive_int

# In CelebA's spelling and order; Long_Hair and Sunglasses are not CelebA's.
ATTRIBUTES = (
    "Bald",
    "Black_Hair",
    "Blond_Hair",
    "Brown_Hair",
    "Eyeglasses",
    "Gray_Hair",
    "Long_Hair",
    "Male",
    "No_Beard",
    "Pale_Skin",
    "Smiling",
    "Sunglasses",
    "Wavy_Hair",
    "Wearing_Lipstick",
    "Young",
)
HAIR = ("Bald", "Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair")  # exactly one of these is true

# Probabilities given the parents, with False first: _YOUNG[male][eyeglasses]. They follow CelebA for the attributes
# that it has: P(Male | Eyeglasses) = 0.78 and 0.39 without, P(Male | Blond_Hair) = 0.06 and 0.48 without,
# P(Young | Eyeglasses) = 0.44 and 0.80 without. Eyeglasses have 8 % (CelebA: 6.5 %), so that 16,000 faces include
# almost 300 women with glasses, and P(Male) without glasses changes by 0.01 only.
_MALE = 0.42
_EYEGLASSES = (0.0303, 0.1486)
_SUNGLASSES = (0.0, 0.3)  # given Eyeglasses, which include sunglasses as in CelebA
_YOUNG = ((0.876, 0.65), (0.68, 0.38))
_HAIR = (  # [male][young], in the order of HAIR; blond does not depend on age, so that Bayes' rule gives these values
    ((0.00, 0.25, 0.243, 0.287, 0.22), (0.00, 0.40, 0.243, 0.357, 0.00)),
    ((0.12, 0.33, 0.021, 0.229, 0.30), (0.02, 0.60, 0.021, 0.355, 0.004)),
)
_LONG_HAIR = (0.80, 0.06)
_WAVY_HAIR = (0.45, 0.16)
_NO_BEARD = (1.0, 0.60)
_PALE_SKIN = (0.06, 0.02)
_SMILING = (0.54, 0.40)
_WEARING_LIPSTICK = (0.80, 0.005)

_BLOCK = 2_000  # people at a time, so that any count needs one compilation


def sample_attributes(key: Key[Array, ""], count: int) -> Bool[Array, "count attributes"]:
    """Sample the attributes of `count` people, in the order of `ATTRIBUTES`; row i depends on the key and i only."""
    require_positive_int(count=count)
    blocks = [_sample(key, start + np.arange(_BLOCK)) for start in range(0, count, _BLOCK)]
    return jnp.concatenate(blocks)[:count]


@jax.jit
@partial(jax.vmap, in_axes=(None, 0))
def _sample(key: Key[Array, ""], index: Int[Array, ""]) -> Bool[Array, " attributes"]:
    """Sample one person by ancestral sampling."""
    draws = jax.random.uniform(jax.random.fold_in(key, index), (len(ATTRIBUTES),))
    chance = dict(zip(("Hair", *(name for name in ATTRIBUTES if name not in HAIR)), draws, strict=False))

    def given(probabilities: object, *parents: Bool[Array, ""]) -> Float[Array, "..."]:
        return jnp.asarray(probabilities)[tuple(parent.astype(int) for parent in parents)]

    male = chance["Male"] < _MALE
    eyeglasses = chance["Eyeglasses"] < given(_EYEGLASSES, male)
    young = chance["Young"] < given(_YOUNG, male, eyeglasses)
    hair = (chance["Hair"] > jnp.cumsum(given(_HAIR, male, young))[:-1]).sum()
    bald = hair == HAIR.index("Bald")
    person = {name: hair == number for number, name in enumerate(HAIR)} | {
        "Eyeglasses": eyeglasses,
        "Long_Hair": ~bald & (chance["Long_Hair"] < given(_LONG_HAIR, male)),
        "Male": male,
        "No_Beard": chance["No_Beard"] < given(_NO_BEARD, male),
        "Pale_Skin": chance["Pale_Skin"] < given(_PALE_SKIN, male),
        "Smiling": chance["Smiling"] < given(_SMILING, male),
        "Sunglasses": chance["Sunglasses"] < given(_SUNGLASSES, eyeglasses),
        "Wavy_Hair": ~bald & (chance["Wavy_Hair"] < given(_WAVY_HAIR, male)),
        "Wearing_Lipstick": chance["Wearing_Lipstick"] < given(_WEARING_LIPSTICK, male),
        "Young": young,
    }
    return jnp.stack([person[name] for name in ATTRIBUTES])


def require_possible(attributes: Array | np.ndarray) -> None:
    """Raise `DataError` unless the attributes are bool [N, 15] and do not contradict each other.

    Unlikely combinations are allowed, because they are counterfactuals of likely ones.
    """
    if attributes.ndim != 2 or attributes.shape[1] != len(ATTRIBUTES) or attributes.dtype != bool:
        raise DataError(
            f"attributes are {attributes.dtype} of shape {attributes.shape}; expected bool [N, {len(ATTRIBUTES)}], "
            f"in the order {', '.join(ATTRIBUTES)}"
        )
    table = dict(zip(ATTRIBUTES, np.asarray(attributes).T, strict=True))
    refused = {
        f"does not have exactly one of {', '.join(HAIR)}; expected one of these": sum(
            table[name].astype(int) for name in HAIR
        )
        != 1,
        "has Sunglasses without Eyeglasses; expected Eyeglasses too, because they include Sunglasses": (
            table["Sunglasses"] & ~table["Eyeglasses"]
        ),
        "is Bald with Long_Hair or Wavy_Hair; expected one or the other": table["Bald"]
        & (table["Long_Hair"] | table["Wavy_Hair"]),
    }
    for what, wrong in refused.items():
        if wrong.any():
            raise DataError(f"face {int(np.argmax(wrong))} of {len(wrong)} {what}")
