"""Checks of the arguments of `init`, `make_train_step` and `fit`."""

from typing import Any

from vae_jax.errors import InputError, named, require_typed_key

INIT = "init(key, model, optimizer)"
MAKE_TRAIN_STEP = "make_train_step(model, objective, optimizer)"


def require_keys(keys: Any, call: str) -> None:
    """Raise `InputError` unless the argument is an array of typed keys."""
    expected = f"expected typed keys, such as jax.random.split(jax.random.key(0), 3): {call}"
    require_typed_key(keys, expected)
    if keys.ndim != 1 or not keys.shape[0]:
        raise InputError(f"keys has shape {keys.shape}; {expected}")


def require_model(model: Any, call: str) -> None:
    """Raise `InputError` unless the argument is an object with a method `init`."""
    if isinstance(model, type):
        raise InputError(f"model is the class {model.__name__}; expected a model, such as vj.mlp_vae(...): {call}")
    if not callable(getattr(model, "init", None)) or _is_optimizer(model):
        kind = "an optimizer" if _is_optimizer(model) else named(model)
        raise InputError(f"model is {kind}; expected a model, such as vj.mlp_vae(...): {call}")


def require_objective(objective: Any) -> None:
    """Raise `InputError` unless the argument is a function or an object that can be called."""
    if isinstance(objective, type):
        name = objective.__name__
        raise InputError(f"objective is the class {name}; make an object of it: {name}()")
    if not callable(objective):
        kind = "an optimizer" if _is_optimizer(objective) else named(objective)
        raise InputError(f"objective is {kind}; expected an objective, such as vj.ELBO(): {MAKE_TRAIN_STEP}")


def require_optimizer(optimizer: Any, call: str = "") -> None:
    """Raise `InputError` unless the argument has the methods `init` and `update` of an optax optimizer."""
    if _is_optimizer(optimizer) and not isinstance(optimizer, type):
        return
    if callable(optimizer) and hasattr(optimizer, "__name__"):
        name = optimizer.__name__
        raise InputError(f"optimizer is the function {name}; call it with its arguments, such as optax.{name}(1e-3)")
    where = f": {call}" if call else ""
    raise InputError(
        f"optimizer is {named(optimizer)}; expected an optimizer of optax, such as optax.adam(1e-3){where}"
    )


def _is_optimizer(value: Any) -> bool:
    return callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))
