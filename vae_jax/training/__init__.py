"""Training: the pure step, whole epochs as compiled chunks, members, devices."""

from vae_jax.training.averaging import averaged, averaged_variables
from vae_jax.training.ensemble import init_members, with_settings
from vae_jax.training.loop import EvalFn, Record, fit
from vae_jax.training.sharding import device_mesh
from vae_jax.training.step import Metrics, Step, TrainState, init, make_train_step, member, warm_up_then_cosine

__all__ = [
    "EvalFn",
    "Metrics",
    "Record",
    "Step",
    "TrainState",
    "averaged",
    "averaged_variables",
    "device_mesh",
    "fit",
    "init",
    "init_members",
    "make_train_step",
    "member",
    "warm_up_then_cosine",
    "with_settings",
]
