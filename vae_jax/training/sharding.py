"""Devices and hosts: a mesh of devices, and the sharding of states and data. Independent of models.

The devices of a mesh share the batch of a run, or the members of an ensemble. Several processes, one or more per host,
have one mesh; each reads its share of the data, and all execute the same steps.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import GetAttrKey, tree_map_with_path
from jaxtyping import Array, Int, PyTree, Shaped

from vae_jax.errors import InputError, require_positive_int

AXIS = "devices"
_REPLICATED, _SPLIT = PartitionSpec(), PartitionSpec(AXIS)

State = TypeVar("State")


def device_mesh(devices: int | None = None) -> Mesh:
    """A mesh of the first `devices` devices, or of all devices of all processes.

    Raises:
      InputError: There are fewer devices, or there are several processes and `devices` is not the number of all.
    """
    there = jax.devices()
    if devices is not None:
        require_positive_int(devices=devices)
        if devices > len(there):
            kinds = f"{len(there)} {there[0].platform} device{'s' if len(there) > 1 else ''}"
            raise InputError(f"devices is {devices}, but there are only {kinds}")
        if devices < len(there) and jax.process_count() > 1:
            raise InputError(f"devices is {devices}, but {jax.process_count()} processes have {len(there)}; use all")
    return Mesh(np.array(there[:devices]), (AXIS,))


@dataclass(frozen=True)
class Layout:
    """The devices of a run: one device, or the devices of a mesh, which is flattened to one axis.

    Attributes:
      mesh: Mesh of devices; None is one device.
      shard_optimizer: Whether each device of the mesh stores only a part of the optimizer's state (ZeRO, stage 1;
        Rajbhandari et al., 2020).

    Raises:
      InputError: `shard_optimizer` is True without a mesh.
    """

    mesh: Mesh | None = None
    shard_optimizer: bool = False

    def __post_init__(self) -> None:
        if self.mesh is not None:
            object.__setattr__(self, "mesh", Mesh(self.mesh.devices.reshape(-1), (AXIS,)))
        elif self.shard_optimizer:
            raise InputError("there is no mesh to shard the optimizer's state over; give mesh=vj.device_mesh()")

    @property
    def devices(self) -> int:
        """Number of devices."""
        return 1 if self.mesh is None else self.mesh.size

    def require_divisible(self, **counts: int) -> None:
        """Raise `InputError` unless the devices can share each number equally."""
        for name, count in counts.items():
            if count % self.devices:
                below, above = count - count % self.devices, count + -count % self.devices
                raise InputError(
                    f"{name} is {count}, which {self.devices} devices can't share; choose "
                    + (f"{below} or {above}" if below else f"{above}")
                )

    def place(self, state: Any) -> Any:
        """A copy of a training state, or of the state of several members, on these devices."""
        state = copied(state)
        if self.mesh is None:
            return state
        return tree_map_with_path(lambda path, leaf: _put(leaf, self._sharding(path, leaf, state.step.ndim > 0)), state)

    def constrain(self, state: State) -> State:
        """The state of one run in a compiled program, constrained to the sharding of `place`."""
        if self.mesh is None:
            return state
        return tree_map_with_path(
            lambda path, leaf: jax.lax.with_sharding_constraint(leaf, self._sharding(path, leaf, False)), state
        )

    def fetch(self, tree: State) -> State:
        """The tree on one device of this process; without a mesh, the tree itself."""
        if self.mesh is None:
            return tree
        return copied(jax.tree.map(lambda leaf: leaf.addressable_data(0), _whole(tree, self.mesh)))

    def read(
        self, shape: tuple[int, ...], axis: int | None, rows: Callable[[tuple[slice, ...]], np.ndarray]
    ) -> Shaped[Array, "..."]:
        """An array on these devices, split along an axis or replicated.

        Args:
          shape: Shape of the array.
          axis: Axis along which the array is split; None replicates it.
          rows: Function from an index to the part of the array; each process requests only its part.
        """
        everything = tuple(slice(0, size) for size in shape)
        if self.mesh is None:
            return jnp.asarray(rows(everything))
        spec = _REPLICATED if axis is None else PartitionSpec(*[None] * axis, AXIS)

        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            parts = zip(index or everything, shape, strict=True)
            return rows(tuple(slice(*along.indices(size)[:2]) for along, size in parts))

        return jax.make_array_from_callback(shape, NamedSharding(self.mesh, spec), part)

    def take(self, array: Shaped[Array, "n ..."], rows: Int[Array, " batch"]) -> Shaped[Array, "batch ..."]:
        """`array[rows]` of an array that is split along its first axis; the result is split likewise."""
        if self.mesh is None:
            return array[rows]

        def exchange(part: Array, rows: Array) -> Array:
            # Each row is on one device and 0 on all others, so a sum sends it to its destination.
            place = rows - jax.lax.axis_index(AXIS) * len(part)
            here = ((place >= 0) & (place < len(part))).reshape(-1, *[1] * (part.ndim - 1))
            values = jnp.where(here, part[jnp.clip(place, 0, len(part) - 1)], 0)
            return jax.lax.psum_scatter(values, AXIS, tiled=True)

        return jax.shard_map(exchange, mesh=self.mesh, in_specs=(_SPLIT, _REPLICATED), out_specs=_SPLIT)(array, rows)

    def over_members(self, function: Callable[[Any, Any], Any], members: PyTree, shared: PyTree) -> Any:
        """`function(member, shared)` of each member along the leading axis, with the members distributed over devices.

        A CPU takes the members one after the other, because batched matrix products are slower there. Other devices
        take them together, because one small model does not use the whole device.
        """

        def one_after_the_other(members: PyTree, shared: PyTree) -> PyTree:
            return jax.lax.map(lambda member: function(member, shared), members)

        def side_by_side(members: PyTree, shared: PyTree) -> PyTree:
            return jax.vmap(function, in_axes=(0, None))(members, shared)

        def here(members: PyTree, shared: PyTree) -> PyTree:
            return jax.lax.platform_dependent(members, shared, cpu=one_after_the_other, default=side_by_side)

        if self.mesh is None:
            return here(members, shared)
        spread = jax.shard_map(here, mesh=self.mesh, in_specs=(_SPLIT, _REPLICATED), out_specs=_SPLIT, check_vma=False)
        return spread(members, shared)

    def _sharding(self, path: tuple[Any, ...], leaf: Any, of_members: bool) -> NamedSharding:
        """The sharding of a leaf of a training state."""
        assert self.mesh is not None
        if self.shard_optimizer and not of_members and path[0] == GetAttrKey("opt_state"):
            return self._part(leaf)
        return NamedSharding(self.mesh, _SPLIT if of_members else _REPLICATED)

    def _part(self, leaf: Any) -> NamedSharding:
        """The sharding of a leaf of the optimizer's state: along its longest axis that the devices can share."""
        assert self.mesh is not None
        axes = [axis for axis, size in enumerate(leaf.shape) if size % self.devices == 0]
        if not axes:
            return NamedSharding(self.mesh, _REPLICATED)
        axis = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(self.mesh, PartitionSpec(*[None] * axis, AXIS))


ONE_DEVICE = Layout()


@jax.jit
def copied(state: State) -> State:
    """A copy of each leaf, by one program."""
    return jax.tree.map(jnp.copy, state)


def _put(leaf: Array, sharding: NamedSharding) -> Array:
    """An array that each process has, on the devices of all processes."""
    if jax.process_count() == 1:
        return jax.device_put(leaf, sharding)
    if _is_key(leaf):
        return jax.random.wrap_key_data(_put(jax.random.key_data(leaf), sharding), impl=jax.random.key_impl(leaf))
    return jax.make_array_from_callback(leaf.shape, sharding, np.asarray(leaf).__getitem__)


@partial(jax.jit, static_argnames="mesh")
def _whole(tree: State, mesh: Mesh) -> State:
    """A tree, replicated on the devices of the mesh."""
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, _REPLICATED))


def start_processes(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Connect the processes of a run (`jax.distributed.initialize`), before any other use of JAX.

    Args:
      coordinator: Address HOST:PORT of process 0; None detects the cluster (SLURM, Open MPI, Kubernetes, Cloud TPU).
      num_processes: Total number of processes; None takes it from the cluster.
      process_id: Number of this process, from 0; None takes it from the cluster.

    Raises:
      InputError: An argument is missing or out of range, no cluster was detected, or the other processes did not
        connect in time.
    """
    if coordinator is not None:
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdigit():
            raise InputError(f"coordinator is {coordinator!r}; expected HOST:PORT")
        if num_processes is None or process_id is None:
            raise InputError("a coordinator requires num_processes and process_id, the number of this process from 0")
        require_positive_int(num_processes=num_processes)
        if not 0 <= process_id < num_processes:
            raise InputError(f"process_id is {process_id}; expected 0 to {num_processes - 1}")
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"the processes did not connect ({str(error).splitlines()[0]}); check that all were started and can reach "
            "the coordinator"
        ) from error


def is_first_process() -> bool:
    """Whether this process is process 0, which writes files."""
    return jax.process_index() == 0


def least(*numbers: float) -> tuple[float, ...]:
    """The minimum of each number over all processes."""
    if jax.process_count() == 1:
        return numbers
    return tuple(multihost_utils.process_allgather(np.array(numbers, np.float64)).min(axis=0).tolist())


def device_memory() -> int:
    """Memory of a device in bytes; of a CPU, the memory of the machine."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    return statistics.get("bytes_limit") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def from_first_process(tree: State, text: str) -> tuple[State, str]:
    """The tree of arrays and the text of process 0; the other processes give trees of the same shapes."""
    if jax.process_count() == 1:
        return tree, text
    raw = jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, tree)
    sent = np.frombuffer(text.encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(sent))))
    received = multihost_utils.broadcast_one_to_all((raw, np.resize(sent, length)))
    leaves = [
        jax.random.wrap_key_data(raw, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else jnp.asarray(raw)
        for raw, leaf in zip(jax.tree.leaves(received[0]), jax.tree.leaves(tree), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves), bytes(received[1]).decode()


def require_same(**texts: str) -> None:
    """Raise `InputError` in every process unless all processes have the same texts."""
    if jax.process_count() == 1:
        return
    digests = [list(hashlib.sha256(text.encode()).digest()) for text in texts.values()]
    of_processes = multihost_utils.process_allgather(np.array(digests, np.uint8))
    for name, seen in zip(texts, np.swapaxes(of_processes, 0, 1), strict=True):
        others = [str(i) for i, digest in enumerate(seen) if not np.array_equal(digest, seen[0])]
        if others:
            raise InputError(
                f"the processes disagree on their {name}: process {', '.join(others)} has another than process 0; "
                f"start all with the same; this one has {texts[name]}"
            )


def _is_key(leaf: Any) -> bool:
    return bool(jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key))
