"""Binary attributes of images: named boolean columns, any number of which can be true of an image."""

import difflib
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from vae_jax.errors import DataError, array_spec, named, some


@dataclass(frozen=True, eq=False)
class Attributes:
    """Attributes of N images; `attributes["Smiling"]` is the column of that name, bool [N].

    Attributes:
      names: Names of the A attributes, all different.
      values: Whether each image has each attribute.

    Raises:
      DataError: There are no names, a name occurs twice, or the values have another dtype or shape.
    """

    names: tuple[str, ...]
    values: np.ndarray  # bool [N, A]

    def __post_init__(self) -> None:
        if not self.names:
            raise DataError("no attribute has a name; expected one name or more, or attributes=None for none at all")
        if twice := [name for name, count in Counter(self.names).items() if count > 1]:
            raise DataError(f"attributes have the name {twice[0]!r} more than once; expected each name once")
        if self.values.dtype != np.bool_ or self.values.ndim != 2 or self.values.shape[1] != len(self.names):
            raise DataError(
                f"attributes are {self.values.dtype} of shape {self.values.shape}; expected bool "
                f"[N, {len(self.names)}], one column per name (for values of -1 and 1: values > 0)"
            )

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"Attributes({array_spec(self.values)}: {some(self.names, 5)})"

    def __getitem__(self, name: Any) -> np.ndarray:
        """Whether each image has the attribute `name`: bool [N].

        Raises:
          DataError: No attribute has that name; the message lists similar names, or the available ones.
        """
        if not isinstance(name, str):
            raise DataError(
                f"attributes[...] was given {named(name)}; expected the name of an attribute, one of "
                f"{some(self.names, 40)}: attributes.rows(index) selects images"
            )
        if name not in self.names:
            folded = {known.casefold(): known for known in self.names}  # "male" and "eyeglasses" are similar too
            close = [folded[match] for match in difflib.get_close_matches(name.casefold(), folded, cutoff=0.5)]
            hint = f"did you mean {' or '.join(close)}?" if close else f"expected one of {', '.join(self.names)}"
            raise DataError(f"no attribute has the name {name!r}; {hint}")
        return self.values[:, self.names.index(name)]

    def rows(self, index: slice | np.ndarray) -> "Attributes":
        """The attributes of some of the images: a slice, integers [n] or bool [N]."""
        return Attributes(self.names, self.values[index])

    def require_both(self, name: Any) -> np.ndarray:
        """`attributes[name]`, for comparisons of images with the attribute and images without it.

        Raises:
          DataError: No attribute has that name, no image has the attribute, or every image has it.
        """
        values = self[name]
        if len(values) == 0 or values.all() or not values.any():
            have = "every one" if len(values) and values.all() else "none"
            raise DataError(
                f"of {len(values):,} images {have} has the attribute {name!r}; expected some with it and some without: "
                "take more images or another attribute"
            )
        return values
