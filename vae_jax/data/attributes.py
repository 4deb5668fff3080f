"""What is true of each image: named columns of yes and no, of which any number may hold at once."""

import difflib
from collections import Counter
from dataclasses import dataclass

import numpy as np

from vae_jax.errors import DataError


@dataclass(frozen=True, eq=False)
class Attributes:
    """Attributes of N images; `attributes["Smiling"]` tells for each whether it has that one.

    Attributes:
      names: of the A attributes, each once.
      values: whether an image has the attribute.

    Raises:
      DataError: no names or one of them twice, or another dtype or shape.
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
                f"[N, {len(self.names)}], a column a name (for values of -1 and 1: values > 0)"
            )

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, name: str) -> np.ndarray:
        """Whether each image has the attribute: bool [N].

        Raises:
          DataError: no attribute has that name; the message lists those that come close.
        """
        if name not in self.names:
            folded = {known.casefold(): known for known in self.names}  # "male" and "eyeglasses" are close too
            close = [folded[match] for match in difflib.get_close_matches(name.casefold(), folded, cutoff=0.5)]
            hint = f"did you mean {' or '.join(close)}?" if close else f"expected one of {', '.join(self.names)}"
            raise DataError(f"no attribute has the name {name!r}; {hint}")
        return self.values[:, self.names.index(name)]

    def rows(self, index: slice | np.ndarray) -> "Attributes":
        """The attributes of some of the images: a slice, whole numbers [n] or bool [N]."""
        return Attributes(self.names, self.values[index])

    def require_both(self, name: str) -> np.ndarray:
        """As `attributes[name]`, for work that sets images with the attribute against images without it.

        Raises:
          DataError: no attribute has that name, or no image has the attribute, or every image has it.
        """
        values = self[name]
        if len(values) == 0 or values.all() or not values.any():
            have = "every one" if len(values) and values.all() else "none"
            raise DataError(
                f"of {len(values):,} images {have} has the attribute {name!r}; expected some with it and some without: "
                "take more images or another attribute"
            )
        return values
