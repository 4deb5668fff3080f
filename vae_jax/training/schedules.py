"""Schedules of learning rates."""

import optax

from vae_jax.errors import InputError, require_positive, require_positive_int


def warm_up_then_cosine(peak: float, steps: int, warm_up: float = 0.025) -> optax.Schedule:
    """A learning rate with linear warm-up and cosine decay to 0 (Loshchilov and Hutter, 2017).

    Args:
      peak: Learning rate after the warm-up.
      steps: Number of steps of the whole run.
      warm_up: Share of the steps that belong to the warm-up.

    Raises:
      InputError: `peak` is not above 0, `steps` is not at least 1, or `warm_up` is outside [0, 1).
    """
    require_positive_int(steps=steps)
    require_positive(peak=peak)
    if not 0 <= warm_up < 1:
        raise InputError(f"warm_up is {warm_up}; expected a share of the steps, from 0 to below 1")
    warm_up_steps = min(round(warm_up * steps), steps - 1)  # optax needs one step of decay
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup_steps=warm_up_steps, decay_steps=steps)
