"""Training: the pure step, epochs as compiled chunks, callbacks, several members and several devices."""

from vae_jax.training.averaging import averaged, averaged_variables
from vae_jax.training.callbacks import Callback, EarlyStopping, Record
from vae_jax.training.ensemble import init_members, with_settings
from vae_jax.training.loop import EvalFn, fit
from vae_jax.training.principal_components import start_at_pca
from vae_jax.training.schedules import warm_up_then_cosine
from vae_jax.training.sharding import device_mesh
from vae_jax.training.step import Metrics, Step, TrainState, init, make_train_step, member

__all__ = [
    "Callback",
    "EarlyStopping",
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
    "start_at_pca",
    "warm_up_then_cosine",
    "with_settings",
]
