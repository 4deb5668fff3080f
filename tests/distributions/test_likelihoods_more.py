"""Likelihoods of several numbers an entry, of counts and of heavy tails, each against an independent density."""

import functools
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats

import vae_jax as vj
from vae_jax import InputError
from vae_jax.checkpoints.description import build, describe
from vae_jax.distributions.likelihoods import ColourMixtureOfLogisticsImage
from vae_jax.distributions.likelihoods.saddle_point import stirling_error

BYTES = np.arange(256) / 255


def mixture_mass(outputs, x):
    """The numbers of PixelCNN++ for x in [0, 1]: differences of distribution functions on [-1, 1], of each entry."""
    weights = scipy.special.softmax(outputs[..., : outputs.shape[-1] // 3], axis=-1)
    _, location, log_scale = np.split(outputs, 3, axis=-1)
    return (weights * component_mass(location, np.exp(log_scale), 2 * x[..., None] - 1)).sum(axis=-1)


def component_mass(location, scale, x):
    """A difference of two distribution functions, of the tails on the side where neither is near 1."""
    upper = np.where(x > 0.999, np.inf, (x - location + 1 / 255) / scale)
    lower = np.where(x < -0.999, -np.inf, (x - location - 1 / 255) / scale)
    expit = scipy.special.expit
    return np.where(lower > 0, expit(-lower) - expit(-upper), expit(upper) - expit(lower))


def level_logits(outputs, x):
    """[points, rows] from logits [rows, levels]."""
    level = np.round(x * (outputs.shape[-1] - 1)).astype(int)
    return np.take_along_axis(scipy.special.log_softmax(outputs, axis=-1), level.T, axis=-1).T


@dataclass
class Case:
    """A likelihood, what to give it, and its density by other means.

    Attributes:
      likelihood: with values that an independent density knows.
      outputs: of a decoder for some entries, [rows, *numbers of an entry].
      log_density: from those outputs and x [points, rows] to log p(x), [points, rows].
      grid: from those outputs to points [points, rows], on which the density is integrated.
      transform: what makes data of the support.
    """

    likelihood: Any
    outputs: Any
    log_density: Callable
    grid: Callable
    transform: Any

    @property
    def rows(self) -> np.ndarray:
        return np.asarray(self.outputs, np.float64)


REALS = [-1.0, 0.3, 7.0]
U = np.linspace(-16, 16, 2001)  # x = location + sinh(u): a sum over u converges exponentially, also of heavy tails


def real_grid(outputs):
    return np.sinh(U)[:, None] + outputs.reshape(len(outputs), -1)[:, 0]


def count_grid(outputs):
    return np.arange(20_000.0)[:, None] + np.zeros(len(outputs))


def level_grid(outputs, levels=256):
    return (np.arange(levels) / (levels - 1))[:, None] + np.zeros(len(outputs))


def negative_binomial(r):
    return Case(
        vj.NegativeBinomial(r),
        [-6.0, -0.5, 3.0, 5.5],
        lambda outputs, x: scipy.stats.nbinom(r, r / (r + np.exp(outputs))).logpmf(x),
        count_grid,
        vj.Raw(low=0.0, whole=True),
    )


def student_t(degrees, scale):
    return Case(
        vj.StudentT(degrees, scale),
        REALS,
        lambda outputs, x: scipy.stats.t(degrees, outputs, scale).logpdf(x),
        real_grid,
        vj.Raw(),
    )


def categorical(levels):
    outputs = np.random.default_rng(levels).normal(0, 3, (4, levels))
    return Case(vj.Categorical(levels), outputs, level_logits, lambda outputs: level_grid(outputs, levels), vj.Scale())


MIXTURES = np.concatenate(
    [
        np.random.default_rng(1).normal(0, 1, (4, 3)),  # logits
        [[-1.2, 0.0, 0.3], [0.9, 1.0, 1.5], [0.0, 0.1, 0.2], [-3.0, 0.0, 3.0]],
        [[-1.0, -2.0, -3.0], [-5.0, -4.0, -3.0], [-7.0, -6.9, -1.0], [0.0, 0.5, 2.0]],
    ],
    axis=1,
)

CASES = {
    "heteroscedastic": Case(
        vj.HeteroscedasticGaussian(),
        [[-1.0, 0.5], [0.3, -2.0], [7.0, 1.5]],
        lambda outputs, x: scipy.stats.norm(outputs[:, 0], np.exp(outputs[:, 1])).logpdf(x),
        real_grid,
        vj.Raw(),
    ),
    "Student-t": student_t(5.0, 0.7),
    "Student-t of 1.5 degrees": student_t(1.5, 2.0),
    "Student-t of many degrees": student_t(3e4, 1.0),
    "Poisson": Case(
        vj.Poisson(),
        [-6.0, -0.5, 3.0, 8.0],
        lambda outputs, x: scipy.stats.poisson(np.exp(outputs)).logpmf(x),
        count_grid,
        vj.Raw(low=0.0, whole=True),
    ),
    "negative binomial": negative_binomial(0.7),
    "nearly Poisson": negative_binomial(300.0),
    "categorical": categorical(256),
    "categorical of 5 levels": categorical(5),
    "mixture": Case(
        vj.MixtureOfLogistics(3), MIXTURES, lambda outputs, x: np.log(mixture_mass(outputs, x)), level_grid, vj.Scale()
    ),
}
EACH = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def integral(case, values):
    """The sum over the grid of values [points, rows], or the integral."""
    return values.sum(0) if case.likelihood.support.discrete else values.T @ np.cosh(U) * (U[1] - U[0])


ONE_OF_EACH_KIND = pytest.mark.parametrize(
    "case",
    [
        CASES[name]
        for name in ("heteroscedastic", "Student-t", "Poisson", "negative binomial", "categorical", "mixture")
    ],
    ids=lambda case: type(case.likelihood).__name__,
)


@functools.partial(jax.jit, static_argnames="event_ndim")
def log_prob(likelihood, outputs, x, variables=None, observed=None, event_ndim=1):
    return likelihood(outputs, variables, event_ndim).log_prob(x, observed)


@functools.partial(jax.jit, static_argnames="event_ndim")
def mean_and_draw(likelihood, outputs, variables=None, event_ndim=1):
    p = likelihood(outputs, variables, event_ndim)
    return p.mean, p.sample(jax.random.key(3))


def random_event(case, lead, event, seed=0):
    """Outputs [*lead, *event, ...] of the case's own rows, mixed, and x [*event] of the support."""
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, len(case.rows), (*lead, *event))
    grid = case.grid(case.rows)[:, 0]
    grid = grid[np.abs(grid) < 50]
    return np.float32(case.rows[rows]), np.float32(generator.choice(grid, event))


@EACH
def test_the_density_is_scipys_and_normalised(case):
    x = case.grid(case.rows)
    with jax.enable_x64(True):
        found = np.asarray(log_prob(case.likelihood, jnp.asarray(case.rows[:, None]), jnp.asarray(x)[..., None]))
    assert found.dtype == np.float64
    assert np.isfinite(found).all()
    expected = case.log_density(case.rows, x)
    likely = expected > -25  # a difference of distribution functions has no digits far in the tails
    np.testing.assert_allclose(found[likely], expected[likely], rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(integral(case, np.exp(found)), 1, atol=1e-6)


@ONE_OF_EACH_KIND
def test_the_mean_is_that_of_the_density(case):
    x = case.grid(case.rows)
    expected = integral(case, np.exp(case.log_density(case.rows, x)) * x)
    mean = jax.jit(lambda outputs: case.likelihood(outputs, event_ndim=1).mean)(np.float32(case.rows[:, None]))
    np.testing.assert_allclose(mean[:, 0], expected, rtol=2e-5, atol=1e-6)


@ONE_OF_EACH_KIND
def test_draws_have_the_density(case):
    """By the chi-square statistic of levels and counts, Kolmogorov's of real numbers."""
    draws = 4_000
    many = np.repeat(np.float32(case.rows)[:, None], draws, axis=1)
    x = np.asarray(mean_and_draw(case.likelihood, many)[1], np.float64)
    assert np.unique(x, axis=0).shape == x.shape
    for row, own in enumerate(x):
        outputs = case.rows[row : row + 1]
        grid = case.grid(outputs)
        mass = np.exp(case.log_density(outputs, grid))[:, 0]
        if not case.likelihood.support.discrete:
            cumulative = np.cumsum(mass * np.cosh(U)) * (U[1] - U[0])
            assert scipy.stats.kstest(own, lambda x, g=grid[:, 0], c=cumulative: np.interp(x, g, c)).pvalue > 1e-4
            continue
        spacing = case.likelihood.support.spacing
        counts = np.bincount(np.round(own / spacing).astype(int), minlength=len(mass))
        assert chi_square(counts, draws * mass) > 1e-4


def chi_square(counts, expected):
    """The p-value; cells that expect fewer than 5 are one cell."""
    few = expected < 5
    rare, rare_expected = counts[few].sum(), expected[few].sum()
    counts, expected = np.append(counts[~few], rare), np.append(expected[~few], rare_expected)
    if expected[-1] < 1e-9:
        assert counts[-1] == 0
        counts, expected = counts[:-1], expected[:-1]
    statistic = ((counts - expected) ** 2 / expected).sum()
    return scipy.stats.chi2(max(1, len(counts) - 1)).sf(statistic)


@EACH
def test_gradients_are_finite_however_extreme_the_outputs(case):
    support, numbers = case.likelihood.support, case.rows.shape[1:]
    ends = [max(support.low, -1e4), 0.0, 1.0, min(support.high, 1e6)]
    signs = np.random.default_rng(0).choice([-1, 1], (12, *numbers))
    outputs = np.concatenate([np.full((1, *numbers), 0.0), 1e4 * signs, -1e4 * np.abs(signs[:1]), 30 * signs])
    x = np.float32(ends)[:, None, None]
    variables = jax.tree.map(np.asarray, case.likelihood.init())

    @jax.jit
    @jax.value_and_grad
    def total(arguments, x):
        likelihood, outputs, variables = arguments
        return likelihood(outputs, variables, 1).log_prob(x).sum()

    for shift in (-200, 0, 200) if variables else (0,):
        own = jax.tree.map(lambda leaf, shift=shift: leaf + np.float32(shift), variables)
        value, gradients = total((case.likelihood, np.float32(outputs[:, None]), own), x)
        assert np.isfinite(value)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def colour_outputs(generator, shape, components=3):
    return generator.normal(0, 1, (*shape, 10 * components)) - 2 * (np.arange(10 * components) // components // 3 == 2)


IMAGE = (32, 32, 3)


@pytest.mark.parametrize(
    ("likelihood", "spread", "shift"),
    [
        (vj.HeteroscedasticGaussian(), 2.0, 0.0),
        (vj.StudentT(), 2.0, 0.0),
        (vj.StudentT(1e5), 2.0, 0.0),
        (vj.Poisson(), 2.0, 0.0),
        (vj.Poisson(), 1.0, 8.0),
        (vj.NegativeBinomial(2.0), 1.0, 6.0),
        (vj.NegativeBinomial(1e4), 1.0, 8.0),
        (vj.Categorical(), 3.0, 0.0),
        (vj.MixtureOfLogistics(), 2.0, -2.0),
        (vj.ColourMixtureOfLogistics(), 2.0, -2.0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, vj.Likelihood) else "",
)
def test_float32_agrees_with_float64_over_an_image(likelihood, spread, shift):
    generator = np.random.default_rng(0)
    outputs = generator.normal(shift, spread, (2, *likelihood.output_shape(IMAGE))).astype(np.float32)
    x = np.asarray(mean_and_draw(likelihood, jnp.asarray(outputs), event_ndim=3)[1])
    single = log_prob(likelihood, jnp.asarray(outputs), jnp.asarray(x), event_ndim=3)
    assert single.dtype == np.float32
    with jax.enable_x64(True):
        double = log_prob(likelihood, jnp.asarray(outputs, jnp.float64), jnp.asarray(x, jnp.float64), event_ndim=3)
    assert double.dtype == np.float64
    np.testing.assert_allclose(single, double, rtol=1e-6, atol=1e-3)


@ONE_OF_EACH_KIND
@pytest.mark.parametrize("event", [(6,), (2, 3), (1, 2, 3)])
def test_events_of_any_rank_under_leading_axes(case, event):
    outputs, x = random_event(case, (4, 2), event)
    numbers = case.rows.shape[1:]
    assert case.likelihood.output_shape(event) == (*event, *numbers)
    own = case.likelihood.init(event)
    of_batch = log_prob(case.likelihood, outputs, np.stack([x, x]), own, event_ndim=len(event))
    of_one = log_prob(case.likelihood, outputs, x, own, event_ndim=len(event))
    of_entries = log_prob(case.likelihood, outputs.reshape(48, 1, *numbers), np.tile(x.reshape(6), 8)[:, None])
    np.testing.assert_allclose(of_batch, np.asarray(of_entries).reshape(4, 2, 6).sum(-1), rtol=1e-5)
    np.testing.assert_array_equal(of_batch, of_one)
    mean, draw = jax.eval_shape(functools.partial(mean_and_draw, event_ndim=len(event)), case.likelihood, outputs, own)
    assert mean.shape == draw.shape == (4, 2, *event)


@ONE_OF_EACH_KIND
def test_only_observed_entries_count(case):
    outputs, x = random_event(case, (3,), (4, 2))
    x = np.stack([x] * 3)
    observed = np.random.default_rng(5).integers(0, 2, x.shape)
    known = np.asarray(observed, bool)
    with_holes = np.where(known, x, np.float32(np.nan))

    @jax.jit
    @jax.value_and_grad
    def total(outputs):
        return case.likelihood(outputs, event_ndim=2).log_prob(jnp.asarray(with_holes), jnp.asarray(observed)).sum()

    value, gradient = total(outputs)
    alone = log_prob(case.likelihood, outputs[known][:, None], x[known][:, None])
    np.testing.assert_allclose(value, np.asarray(alone).sum(), rtol=1e-5)
    assert np.isfinite(gradient).all()
    assert not np.asarray(gradient)[~known].any()


@pytest.mark.parametrize("likelihood", [vj.StudentT(per_element=True), vj.NegativeBinomial(per_element=True)])
def test_each_entry_may_have_a_variable_of_its_own(likelihood):
    (name, start), *_ = likelihood.init((2, 3))["params"].items()
    assert start.shape == (2, 3)
    assert likelihood.init((2, 3))["params"].keys() == type(likelihood)().init((2, 3))["params"].keys()
    assert type(likelihood)().init((2, 3))["params"][name].shape == ()
    own = np.log(np.float32([[0.5, 1.0, 2.0], [3.0, 4.0, 5.0]]))
    outputs, x = np.full((4, 2, 3), 0.7, np.float32), np.ones((4, 2, 3), np.float32)
    together = log_prob(likelihood, outputs, x, {"params": {name: own}}, event_ndim=2)
    alone = [log_prob(likelihood, outputs[:, :1, 0], x[:, :1, 0], {"params": {name: one}}) for one in own.ravel()]
    np.testing.assert_allclose(together, np.sum(alone, axis=0), rtol=1e-5)
    many = np.full((4_000, 2, 3), 0.7, np.float32)
    draws = np.asarray(mean_and_draw(likelihood, many, {"params": {name: own}}, event_ndim=2)[1])
    spread = draws.std(axis=0).ravel()
    order = np.argsort(spread) if isinstance(likelihood, vj.StudentT) else np.argsort(-spread)
    np.testing.assert_array_equal(order, np.arange(6))


@pytest.mark.parametrize(
    ("likelihood", "parameter", "derivative"),
    [
        (vj.StudentT(5.0), "degrees", lambda h: scipy.stats.t(5.0 + h, 0.5).logpdf(3.0)),
        (
            vj.NegativeBinomial(2.0),
            "inverse_dispersion",
            lambda r: scipy.stats.nbinom(2 + r, 1 / (1 + 4 / (2 + r))).logpmf(7),
        ),
    ],
)
def test_parameters_are_leaves_with_gradients(likelihood, parameter, derivative):
    outputs, x = (0.5, 3.0) if isinstance(likelihood, vj.StudentT) else (math.log(4.0), 7.0)

    @jax.jit
    def of(likelihood):
        return likelihood(jnp.full((1, 1), outputs), event_ndim=1).log_prob(jnp.full(1, x))[0]

    expected = (derivative(1e-4) - derivative(-1e-4)) / 2e-4
    np.testing.assert_allclose(getattr(jax.grad(of)(likelihood), parameter), expected, rtol=1e-3)
    values = jnp.asarray([0.5, 2.0])
    many = type(likelihood)(**{parameter: values})
    together = jax.vmap(of, in_axes=(vj.axes(many, **{parameter: 0}),))(many)
    apart = [of(type(likelihood)(**{parameter: float(one)})) for one in values]
    np.testing.assert_allclose(together, apart, rtol=1e-5)


VALUES = [case.likelihood for case in CASES.values()] + [
    vj.ColourMixtureOfLogistics(2),
    vj.StudentT(per_element=True),
    vj.NegativeBinomial(per_element=True),
]


@pytest.mark.parametrize("likelihood", VALUES, ids=lambda value: type(value).__name__)
def test_each_is_a_value(likelihood):
    assert build(json.loads(json.dumps(describe(likelihood)))) == likelihood
    again = jax.tree.unflatten(*reversed(jax.tree.flatten(likelihood)))
    assert again == likelihood
    assert hash(again) == hash(likelihood)
    assert sum(likelihood == other for other in VALUES) == 1
    outputs = np.zeros((2, *likelihood.output_shape((2, 2, 3))), np.float32)

    def of(likelihood, outputs):
        return likelihood(outputs).log_prob(jnp.zeros((2, 2, 3)))

    expected = jax.jit(functools.partial(of, likelihood))(outputs)
    np.testing.assert_allclose(jax.jit(of)(likelihood, outputs), expected, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.vmap(of, (None, 0)))(likelihood, outputs), expected, rtol=1e-5)


GREY, COUNTS, REAL = vj.Scale().support, vj.Raw(low=0.0, whole=True).support, vj.Raw().support


@pytest.mark.parametrize(
    ("likelihood", "is_likelihood_of", "domain", "words"),
    [
        (vj.HeteroscedasticGaussian(), {REAL}, {REAL, GREY, COUNTS}, "Gaussian negative log-density"),
        (vj.StudentT(4.0), {REAL}, {REAL, GREY, COUNTS}, "Student-t negative log-density .* of degrees 4"),
        (vj.Poisson(), {COUNTS}, {COUNTS}, "Poisson negative log-likelihood"),
        (vj.NegativeBinomial(), {COUNTS}, {COUNTS}, "negative binomial negative log-likelihood"),
        (vj.Categorical(), {GREY}, {GREY}, "categorical negative log-likelihood"),
        (vj.Categorical(128), set(), set(), "categorical"),
        (vj.MixtureOfLogistics(), {GREY}, {GREY}, "mixture of .* logistics negative log-likelihood"),
        (vj.ColourMixtureOfLogistics(), {GREY}, {GREY}, "colour mixture of .* negative log-likelihood"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, vj.Likelihood) else "",
)
def test_each_says_what_it_is_a_likelihood_of(likelihood, is_likelihood_of, domain, words):
    supports = {REAL, GREY, COUNTS}
    assert {values for values in supports if likelihood.is_likelihood_of(values)} == is_likelihood_of
    assert {values for values in supports if likelihood.domain.holds(values)} == domain
    with pytest.raises(InputError, match=words):
        raise InputError(likelihood.label(REAL))


@pytest.mark.parametrize(
    ("likelihood", "numbers"),
    [
        (vj.Bernoulli(), ()),
        (vj.DiscretisedLogistic(0.01), ()),
        (vj.Categorical(7), (7,)),
        (vj.MixtureOfLogistics(2), (6,)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, vj.Likelihood) else "",
)
def test_pmf_has_the_probability_of_each_level(likelihood, numbers):
    outputs = np.float32(np.random.default_rng(2).normal(0, 1, (3, 2, *numbers)))
    outputs = np.concatenate([outputs, 1e4 * outputs])
    levels = likelihood.support.levels
    pmf = np.asarray(jax.jit(lambda outputs: likelihood(outputs, event_ndim=1).pmf())(outputs))
    assert pmf.shape == (6, 2, levels)
    assert pmf.min() >= np.finfo(np.float32).tiny
    np.testing.assert_allclose(pmf.sum(axis=-1), 1, atol=1e-6)
    x = np.float32(np.arange(levels) / (levels - 1))[:, None, None]
    log_mass = log_prob(likelihood, outputs.reshape(12, 1, *numbers), np.broadcast_to(x, (levels, 12, 1)))
    np.testing.assert_allclose(np.exp(log_mass).T.reshape(pmf.shape), pmf, rtol=2e-4, atol=1e-30)


# --- colour ---


def pixelcnn_log_mass(outputs, x):
    """The formula of Salimans et al. (2017) for one pixel x in [-1, 1], component by component."""
    components = len(outputs) // 10
    logits, rest = outputs[:components], outputs[components:].reshape(3, 3, components)
    weights = np.exp(logits) / np.exp(logits).sum()
    total = 0.0
    for k in range(components):
        m, s, c = rest[0, :, k], np.exp(rest[1, :, k]), np.tanh(rest[2, :, k])
        means = [m[0], m[1] + c[0] * x[0], m[2] + c[1] * x[0] + c[2] * x[1]]
        total += weights[k] * math.prod(float(component_mass(means[i], s[i], x[i])) for i in range(3))
    return math.log(total)


def test_colour_is_the_formula_of_pixelcnn():
    generator = np.random.default_rng(4)
    outputs = colour_outputs(generator, (3, 2, 4))
    x = generator.choice(BYTES, (3, 2, 4, 3))
    x[0, 0, :2] = [[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]
    with jax.enable_x64(True):
        found = log_prob(vj.ColourMixtureOfLogistics(3), jnp.asarray(outputs), jnp.asarray(x), event_ndim=3)
    pixels = zip(outputs.reshape(-1, 30), 2 * x.reshape(-1, 3) - 1, strict=True)
    expected = np.reshape([pixelcnn_log_mass(*pixel) for pixel in pixels], (3, 8)).sum(-1)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def corner():
    """One pixel whose two narrow components are near black, and all colours that they reach, [colours, 3]."""
    base = np.array([[2.0, 6.0], [9.0, 4.0], [5.0, 12.0]]) / 255  # [channel, component]
    coefficients = np.array([[0.5, -0.4], [0.3, 0.2], [-0.6, 0.4]])
    location = base.copy()
    location[1] -= coefficients[0] * (base[0] - 0.5)
    location[2] -= coefficients[1] * (base[0] - 0.5) + coefficients[2] * (base[1] - 0.5)
    log_scale = np.array([[-4.5, -5.5], [-5.0, -4.8], [-5.2, -5.0]])
    outputs = np.concatenate([[0.2, -0.3], *(2 * location - 1), *log_scale, *np.arctanh(coefficients)])
    return outputs, np.array(list(itertools.product(range(40), repeat=3))) / 255


@functools.cache
def corner_mass():
    outputs, colours = corner()
    with jax.enable_x64(True):
        pixel, values = jnp.asarray(outputs).reshape(1, 1, 1, 20), jnp.asarray(colours).reshape(-1, 1, 1, 3)
        return np.exp(np.asarray(log_prob(vj.ColourMixtureOfLogistics(2), pixel, values, event_ndim=3)))


def test_colour_is_normalised():
    np.testing.assert_allclose(corner_mass().sum(), 1, atol=1e-6)


def test_colour_draws_and_mean():
    outputs, colours = corner()
    mass, draws = corner_mass(), 20_000
    pixels = np.broadcast_to(np.float32(outputs), (draws, 1, 1, 20))
    means, x = (np.float64(out) for out in mean_and_draw(vj.ColourMixtureOfLogistics(2), pixels, event_ndim=3))
    x = x.reshape(draws, 3)
    levels = np.round(x * 255).astype(int)
    counts = np.bincount(levels @ [1600, 40, 1], minlength=len(colours))
    assert chi_square(counts, draws * mass) > 1e-4
    # Some of red's mass is beyond black, so that green's and blue's means are approximate: to a tenth of a level.
    mean, found = mass @ colours, means[0].ravel()
    np.testing.assert_allclose(found[0], mean[0], atol=1e-6)
    np.testing.assert_allclose(found[1:], mean[1:], atol=0.1 / 255)


def test_colour_under_leading_axes_with_holes():
    generator = np.random.default_rng(6)
    outputs = np.float32(colour_outputs(generator, (4, 2, 2, 3)))
    x = np.float32(generator.choice(BYTES, (2, 2, 3, 3)))
    observed = np.array(np.repeat(generator.integers(0, 2, (2, 2, 3, 1)), 3, axis=-1))
    likelihood = vj.ColourMixtureOfLogistics(3)
    mean, draw = mean_and_draw(likelihood, outputs, event_ndim=3)
    assert mean.shape == draw.shape == (4, 2, 2, 3, 3)
    every_x = np.broadcast_to(x, (4, 2, 2, 3, 3)).reshape(-1, 1, 1, 3)
    of_pixels = log_prob(likelihood, outputs.reshape(-1, 1, 1, 30), every_x, event_ndim=3)
    of_pixels = np.reshape(of_pixels, (4, 2, 2, 3))
    np.testing.assert_allclose(log_prob(likelihood, outputs, x, event_ndim=3), of_pixels.sum((-1, -2)), rtol=1e-5)
    with_holes = np.where(observed > 0, x, np.float32(np.nan))

    @jax.jit
    @jax.value_and_grad
    def total(outputs):  # whose mask is known while it is traced, and checked
        return likelihood(outputs).log_prob(jnp.asarray(with_holes), jnp.asarray(observed)).sum()

    value, gradient = total(outputs)
    np.testing.assert_allclose(value, np.where(observed[..., 0] > 0, of_pixels, 0).sum(), rtol=1e-5)
    assert np.isfinite(gradient).all()
    partly = observed * np.array([1, 0, 1])  # a pixel without its green is left out, since it isn't known under a trace
    assert not np.any(log_prob(likelihood, outputs, x, observed=partly, event_ndim=3))
    one_differs = observed.copy()
    one_differs[0, 0, 0] = [1, 0, 1]
    with pytest.raises(InputError, match="observed differs over the channels"):
        likelihood(jnp.asarray(outputs)).log_prob(jnp.asarray(x), jnp.asarray(one_differs))
    too_high, observed = jnp.asarray(with_holes + 2), jnp.asarray(observed)
    with pytest.raises(InputError, match="x runs from"):  # values that are known under a trace are checked
        jax.jit(lambda outputs: likelihood(outputs).log_prob(too_high, observed))(outputs)


def test_colour_gradients_are_finite_however_extreme_the_outputs():
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (20, 1, 1, 20))
    outputs = jnp.asarray(np.concatenate([1e4 * signs, 20 * signs, 0 * signs]), jnp.float32)

    @jax.jit
    @jax.value_and_grad
    def total(outputs, x):
        return ColourMixtureOfLogisticsImage(outputs).log_prob(x).sum()

    for x in itertools.product([0.0, 1.0], repeat=3):
        value, gradient = total(outputs, jnp.asarray(x).reshape(1, 1, 3))
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


# --- bad input ---


@pytest.mark.parametrize("event", [(3,), (8, 8), (8, 8, 1), (8, 8, 4), (2, 8, 8, 3)])
def test_colour_refuses_other_events(event):
    with pytest.raises(InputError, match=r"are no colour images; expected \(height, width, 3\)"):
        vj.mlp_vae(event, 2, (8,), vj.ColourMixtureOfLogistics())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vj.StudentT(0.0), "degrees is 0.0"),
        (lambda: vj.StudentT(scale=-1.0), "scale is -1.0"),
        (lambda: vj.NegativeBinomial(math.inf), "inverse_dispersion is inf"),
        (lambda: vj.Categorical(1), "levels is 1; expected at least 2"),
        (lambda: vj.Categorical(0), "levels is 0; expected a whole number"),
        (lambda: vj.MixtureOfLogistics(0), "components is 0"),
        (lambda: vj.ColourMixtureOfLogistics(0), "components is 0"),
    ],
)
def test_settings_that_make_no_distribution_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("likelihood", "x", "message"),
    [
        (vj.Poisson(), [0.0, -1.0], "x runs from -1 to 0; this .* takes whole numbers from 0 to inf"),
        (vj.NegativeBinomial(), [0.5, 3.0], "between the levels"),
        (vj.Poisson(), [math.nan, 3.0], "runs from nan"),
        (vj.StudentT(), [math.nan, 3.0], "runs from nan"),
        (vj.HeteroscedasticGaussian(), [math.inf, 3.0], "inf"),
        (vj.Categorical(5), [0.3, 1.0], "between the levels"),
        (vj.MixtureOfLogistics(), [0.5, 1.0], "between the levels"),
        (vj.ColourMixtureOfLogistics(), [[[0.0, 0.5, 1.0]] * 2], "between the levels"),
        (vj.ColourMixtureOfLogistics(), [[[0.0, 1.0]] * 2], r"events of shape .* over events of \(1, 2, 3\)"),
    ],
)
def test_values_without_a_probability_are_refused(likelihood, x, message):
    event = (1, 2, 3) if isinstance(likelihood, vj.ColourMixtureOfLogistics) else (2,)
    with pytest.raises(InputError, match=message):
        likelihood(jnp.zeros((1, *likelihood.output_shape(event))), event_ndim=len(event)).log_prob(jnp.asarray(x))


def test_stirlings_error_on_both_sides_of_its_series():
    n = np.array([1e-4, 0.3, 1.0, 7.99, 8.0, 15.0, 1e3, 1e6])
    with jax.enable_x64(True):
        found = stirling_error(jnp.asarray(n))
    expected = scipy.special.gammaln(n + 1) - (n * np.log(n) - n + np.log(2 * np.pi * n) / 2)
    np.testing.assert_allclose(found, expected, atol=2e-9)


# --- in use ---

GENERATOR = np.random.default_rng(7)
GROUP = GENERATOR.integers(0, 2, 96)
REAL_TABLE = (GENERATOR.normal(0, 1, (96, 4)) + 4 * GROUP[:, None]).astype(np.float32)
COUNT_TABLE = GENERATOR.poisson(2 + 10 * GROUP[:, None], (96, 4)).astype(np.int32)
PIXELS = np.clip(GENERATOR.normal(60 + 120 * GROUP[:, None, None, None], 30, (96, 4, 4, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("likelihood", "data", "transform"),
    [
        (vj.HeteroscedasticGaussian(), REAL_TABLE, vj.Raw()),
        (vj.StudentT(per_element=True), REAL_TABLE, vj.Raw()),
        (vj.Poisson(), COUNT_TABLE, vj.Raw(low=0.0, whole=True)),
        (vj.NegativeBinomial(per_element=True), COUNT_TABLE, vj.Raw(low=0.0, whole=True)),
        (vj.Categorical(), PIXELS, vj.Scale()),
        (vj.MixtureOfLogistics(2), PIXELS, vj.Scale()),
        (vj.ColourMixtureOfLogistics(2), PIXELS, vj.Scale()),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, vj.Likelihood) else "",
)
def test_a_model_of_each_is_trained_and_evaluated(likelihood, data, transform):
    vae, split = vj.mlp_vae(data.shape[1:], 2, (8,), likelihood), vj.Split(data)
    optimizer = optax.adam(1e-2)
    state = jax.jit(lambda key: vj.init(key, vae, optimizer))(jax.random.key(0))
    before = vj.evaluate(jax.random.key(1), vae, state.variables, split, transform=transform)
    step = vj.make_train_step(vae, vj.ELBO(), optimizer)
    state, history = vj.fit(state, step, split, transform=transform, epochs=1, batch_size=8, progress=False)
    after = vj.evaluate(jax.random.key(1), vae, state.variables, split, transform=transform)
    assert np.isfinite(history[0]["loss"])
    assert (after.log_px_z - after.kl).mean() > (before.log_px_z - before.kl).mean()
    if transform.support.discrete:
        bits = vj.bits_per_dim(after.log_px_z - after.kl, vae, transform)
        expected = -(after.log_px_z - after.kl) / math.prod(vae.event_shape) / math.log(2)
        np.testing.assert_allclose(bits, expected, rtol=1e-5)
