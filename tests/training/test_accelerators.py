"""Programs for accelerators, proved on a CPU: the same results, and loops that ask the host for nothing.

A program that is lowered for CUDA has no custom call, so that the CPU can run it.
"""

import warnings
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import drawn
from jax.export import DisabledSafetyCheck, export
from jaxlib.mlir import passmanager
from small_run import DATA, OPTIMIZER, STEP, VAE, assert_close, assert_same, fit, fresh, fresh_members, losses

import vae_jax as vj
from vae_jax.training import feeding, loop
from vae_jax.training.feeding import Resident, ResidentFeeder, StreamingFeeder
from vae_jax.training.loop import run_chunk
from vae_jax.training.sharding import ONE_DEVICE, Layout

PLATFORMS = ("cuda", "rocm", "tpu")
FEED = Resident(jnp.asarray(DATA.images), jnp.asarray(DATA.labels), len(DATA))
LENGTH = 6


class Padded(vj.Scale):
    """Every third image, by its bytes, is padding."""

    def __call__(self, keys, images, labels=None):
        batch = super().__call__(keys, images, labels)
        return replace(batch, mask=images.sum((1, 2, 3)) % 3 > 0)


def chunk(state, count, step=STEP, feed=FEED, layout=ONE_DEVICE, length=None):
    settings = {"step": step, "transform": Padded(), "batch_size": 16, "layout": layout, "length": length}
    return run_chunk(layout.place(state), feed, count, **settings)[:2]


def resident():
    return {"state": fresh()}


def averaged():
    optimizer = vj.averaged(OPTIMIZER)
    return {"state": vj.init(jax.random.key(0), VAE, optimizer), "step": vj.make_train_step(VAE, vj.ELBO(), optimizer)}


def streamed():
    return {"state": fresh(), "feed": StreamingFeeder(DATA, 16, ONE_DEVICE, fresh().key).at(0)[0]}


def members():
    return {"state": fresh_members(3)}


def devices():
    layout = Layout(vj.device_mesh(8), shard_optimizer=True)
    return {"state": fresh(), "layout": layout, "feed": ResidentFeeder(DATA, 16, layout, members=False).at(0)[0]}


def adversarial():
    vae, objective = vj.mlp_vae((6, 6, 1), 2, (5,), vj.Gaussian(0.1)), vj.Adversarial(vj.Discriminator((4,)))
    optimizer = optax.partition({"model": optax.sgd(1e-4), "discriminator": optax.sgd(1e-4)}, objective.labels)
    state = vj.init(jax.random.key(0), vae, optimizer, objective=objective)
    return {"state": state, "step": vj.make_train_step(vae, objective, optimizer)}


@pytest.mark.parametrize("case", [resident, averaged, streamed, members, devices, adversarial])
def test_a_loop_of_fixed_length_takes_the_same_steps(case):
    settings = case()
    state = settings.pop("state")
    expected, totals = chunk(state, 4, **settings)
    after, masked_totals = chunk(state, 4, length=LENGTH, **settings)
    assert after.step.reshape(-1)[0] == 4
    assert_close(after, expected, rtol=1e-6, atol=1e-7)
    assert_close(masked_totals, totals, rtol=1e-6, atol=1e-6)
    whole, _ = chunk(state, 6, length=LENGTH, **settings)
    assert_same(chunk(after, 2, length=LENGTH, **settings)[0], whole)


def breaks_at(step):
    def objective(key, model, variables, batch, number):
        loss = vj.ELBO()(key, model, variables, batch, number)
        return loss._replace(per_example=loss.per_example + jnp.where(number == step, jnp.nan, 0.0))

    return objective


def test_a_loop_of_fixed_length_takes_no_step_after_one_that_is_not_finite():
    in_chunks = partial(chunk, step=vj.make_train_step(VAE, breaks_at(2), OPTIMIZER))
    expected, totals = in_chunks(fresh(), 6)
    after, masked_totals = in_chunks(fresh(), 6, length=LENGTH)
    assert int(after.step) == int(masked_totals["finite"]) == 2
    assert_same(in_chunks(fresh(), 3)[1], totals)
    assert_close(after, expected, rtol=1e-6, atol=1e-7)
    assert_close(masked_totals, totals, rtol=1e-6, atol=1e-6)
    program, leaves = of_leaves(partial(in_chunks, length=LENGTH), fresh(), 6)
    assert_close(run_as_lowered_for_cuda(program, *leaves), (expected, totals), rtol=1e-5, atol=1e-5)


def chunks_of_four(platform, steps):
    """The length of the loops of an accelerator, of which the second in an epoch of 6 steps is masked."""
    return 4


def test_fit_on_an_accelerator_is_fit_on_a_cpu(monkeypatch):
    monkeypatch.setattr(loop, "_loop_length", chunks_of_four)
    compiled = run_chunk._cache_size()
    state, history = fit(fresh(), 3)
    assert_same(fit(fit(fresh(), 1)[0], 3)[0], state)
    assert run_chunk._cache_size() <= compiled + 1, "a chunk was compiled anew"
    monkeypatch.undo()
    expected, expected_history = fit(fresh(), 3)
    assert_close(state, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(losses(history), losses(expected_history), rtol=1e-6)


def test_streamed_members_that_resume_on_an_accelerator_are_resident_ones(monkeypatch, tmp_path):
    monkeypatch.setattr(loop, "_loop_length", chunks_of_four)
    monkeypatch.setattr(feeding, "WINDOW_BYTES", 2 * 4 * 16 * 6 * 6)  # windows of 4 steps
    expected, _ = fit(fresh_members(2), 2)
    fit(fresh_members(2), 1, stream_above=0, store=vj.Checkpoints(tmp_path, {}, every_seconds=0.0))
    resumed, _ = fit(fresh_members(2), 2, stream_above=0, store=vj.Checkpoints(tmp_path, {}, every_seconds=0.0))
    assert_close(resumed, expected, rtol=1e-5, atol=1e-6)


def test_the_steps_of_a_feed_are_divided_among_the_fewest_chunks():
    assert loop._loop_length("cpu", 468) is None
    lengths = {steps: loop._loop_length("gpu", steps) for steps in (1, 256, 257, 468, 2545)}
    assert lengths == {1: 1, 256: 256, 257: 129, 468: 234, 2545: 255}


@pytest.mark.parametrize(
    ("platform", "flags", "warns"),
    [
        ("gpu", "--xla_force_host_platform_device_count=8", True),
        ("gpu", "--xla_gpu_deterministic_ops=true", False),
        ("gpu", "--xla_gpu_deterministic_ops=false", False),
        ("cpu", "", False),
    ],
)
def test_saved_runs_on_a_gpu_warn_of_other_bits_unless_the_environment_says(
    monkeypatch, tmp_path, platform, flags, warns
):
    monkeypatch.setattr(loop, "_platform", lambda state: platform)
    monkeypatch.setenv("XLA_FLAGS", flags)
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        fit(fresh(), 1, store=vj.Checkpoints(tmp_path, {}))
        fit(fresh(), 1)  # has nothing to resume
    told = [each for each in given if "--xla_gpu_deterministic_ops=true" in str(each.message)]
    assert len(told) == warns


FLOW = vj.Coupling(2, (4,))
MODELS = {
    "mlp": vj.mlp_vae((8, 8, 3), 2, (4,)),
    "conv": vj.conv_vae((8, 8, 3), 2, (4, 4), vj.MixtureOfLogistics(2), linear=True),
    "resnet": vj.resnet_vae((8, 8, 3), 2, 16, blocks=(1, 1)),
    "ladder": vj.ladder_vae((8, 8, 3), (2, 2), (4,)),
    "conv ladder": vj.conv_ladder_vae((8, 8, 3), 2, (16, 4), (1, 1), 2),
    "wavelet ladder": vj.wavelet_ladder_vae((8, 8, 3), (16, 4), (1, 1)),
    "flows": vj.mlp_vae((8, 8, 3), 2, (4,), prior=vj.FlowPrior(FLOW), posterior=vj.FlowPosterior(FLOW)),
    "mixture": vj.mlp_vae((8, 8, 3), 2, (4,), prior=vj.GaussianMixture(3), posterior=vj.FullGaussian),
    "VampPrior": vj.mlp_vae((8, 8, 3), 2, (4,), prior=vj.VampPrior(3)),
}


def walk(operation):
    yield operation
    for region in operation.regions:
        for block in region:
            for inner in block:
                yield from walk(inner.operation)


def canonical(lowered):
    """All operations of a program, with the functions inlined and the branches of other platforms removed."""
    module = lowered.compiler_ir()
    with module.context:
        passmanager.PassManager.parse("builtin.module(inline,canonicalize)").run(module.operation)
    return list(walk(module.operation))


def constant(value):
    return getattr(value.owner, "name", "") == "stablehlo.constant"


def counts_up_to_a_constant(loop):
    """Whether a `while` compares one of its arguments with a constant, and adds a constant to it in each turn."""
    condition, body = (region.blocks[0] for region in loop.regions)
    compare, _ = operations = [operation.operation for operation in condition]
    counter, limit = compare.operands
    added = body.operations[len(body.operations) - 1].operation.operands[counter.arg_number].owner
    return (
        [operation.name for operation in operations] == ["stablehlo.compare", "stablehlo.return"]
        and constant(limit)
        and added.name == "stablehlo.add"
        and body.arguments[counter.arg_number] in added.operands
        and any(map(constant, added.operands))
    )


def assert_asks_the_host_for_nothing(operations):
    names = {operation.name for operation in operations}
    assert not names & {"stablehlo.case", "stablehlo.if", "stablehlo.infeed", "stablehlo.outfeed"}
    targets = {str(o.attributes["call_target_name"]) for o in operations if o.name == "stablehlo.custom_call"}
    assert not {target for target in targets if "callback" in target}
    assert all(counts_up_to_a_constant(operation) for operation in operations if operation.name == "stablehlo.while")


@pytest.mark.parametrize("name", MODELS)
def test_a_chunk_of_each_model_asks_the_host_for_nothing(name):
    model, optimizer = MODELS[name], vj.averaged(optax.sgd(1e-3))
    variables = drawn(model.init, jax.random.key(0), jnp.zeros((4, 8, 8, 3)))
    settings = {"step": vj.make_train_step(model, vj.ELBO(), optimizer), "transform": vj.Binarize(), "batch_size": 4}

    @jax.jit
    def first_chunk(key, images):
        state = vj.init(key, model, optimizer, variables=variables)
        return run_chunk(state, Resident(images, None, len(images)), 2, length=3, **settings)

    traced = first_chunk.trace(jax.random.key(0), jax.ShapeDtypeStruct((40, 8, 8, 3), jnp.uint8))
    of_cuda, _ = (traced.lower(lowering_platforms=platforms) for platforms in (PLATFORMS[:1], PLATFORMS[1:]))
    assert_asks_the_host_for_nothing(canonical(of_cuda))


BATCH = vj.Batch(jnp.full((4, 6, 6, 1), 0.5), label=jnp.zeros(4, jnp.int32))
IN_CHUNKS = partial(chunk, length=LENGTH)


def adversarial_chunk(state, count):
    return IN_CHUNKS(state, count, adversarial()["step"])


def of_leaves(program, *arguments):
    """A program of the arrays of its arguments, since the types of a state are checked and `jax.export` has others."""
    leaves, structure = jax.tree.flatten(arguments)
    return jax.jit(lambda *leaves: jax.tree.leaves(program(*jax.tree.unflatten(structure, leaves)))), leaves


def run_as_lowered_for_cuda(program, *arguments):
    of_cuda = export(program, platforms=["cuda"], disabled_checks=[DisabledSafetyCheck.platform()])
    return of_cuda(*arguments).call(*arguments)


@pytest.mark.parametrize(
    ("program", "make", "argument"),
    [
        (STEP, fresh, BATCH),
        (jax.vmap(STEP, in_axes=(0, None)), lambda: fresh_members(2), BATCH),
        (IN_CHUNKS, fresh, 4),
        (IN_CHUNKS, lambda: fresh_members(2), 4),
        (adversarial_chunk, lambda: adversarial()["state"], 4),
    ],
    ids=["step", "step of members", "chunk", "chunk of members", "adversarial chunk"],
)
def test_programs_are_exported_and_ask_the_host_for_nothing(program, make, argument):
    program, leaves = of_leaves(program, make(), argument)
    assert export(program, platforms=PLATFORMS)(*leaves).platforms == PLATFORMS
    traced = program.trace(*leaves)
    for platform in PLATFORMS:
        assert_asks_the_host_for_nothing(canonical(traced.lower(lowering_platforms=(platform,))))


@pytest.mark.parametrize("make", [fresh, lambda: fresh_members(3)], ids=["one", "members"])
def test_the_chunk_of_an_accelerator_takes_the_steps_of_a_cpu(make):
    program, leaves = of_leaves(IN_CHUNKS, make(), 4)
    assert_close(run_as_lowered_for_cuda(program, *leaves), chunk(make(), 4), rtol=1e-5, atol=1e-5)


def test_an_accelerator_draws_the_bits_of_a_cpu():
    def draw(key):
        one, other, another = jax.random.split(key, 3)
        return jax.random.bits(one, (5, 7)), jax.random.permutation(other, 9), jax.random.fold_in(another, 4)

    program, keys = jax.jit(jax.vmap(draw)), jax.random.split(jax.random.key(3), 2)
    assert_same(run_as_lowered_for_cuda(program, keys), program(jax.random.split(jax.random.key(3), 2)))
