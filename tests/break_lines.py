"""Break essential lines one at a time and check that the tests notice each.

By hand: `python tests/break_lines.py`, about 15 minutes on two cores. Each row of `LINES` replaces a text that occurs
exactly once in its file, and names a test file and, as `pytest -k` takes them, words of the tests in it that notice. A
row whose text or test is not there any more is an error: update the row. A line that is not noticed needs a test,
in the test file of its subject.

Everything happens in temporary copies. The tests are run once without a broken line, for they must pass then. Exit
status: 0 if each line is noticed, 1 if not, 2 if a row is out of date or a test fails without a broken line.
"""

import argparse
import multiprocessing
import os
import queue
import shutil
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("vae_jax", "tests", "experiments", "pyproject.toml", "README.md")
PRELOADED = ["beartype", "flax.linen", "jax", "jaxtyping", "optax", "orbax.checkpoint", "pytest", "scipy.stats"]
NOTICED = {1: "a test fails", 2: "a test file cannot be imported"}  # exit statuses of pytest


class Line(NamedTuple):
    """A text that occurs exactly once in a file, what replaces it, and the tests that notice."""

    file: str
    old: str
    new: str
    tests: str

    def __str__(self):
        return f"{self.file}: {' '.join(self.old.split())!r} -> {' '.join(self.new.split())!r}"


LINES = [
    Line(file, *row)
    for file, rows in {
        "vae_jax/data/cifar.py": [
            ('or ".." in Path(member.name).parts', "", "test_cifar bad_archive"),
            ("if member.isfile() and member.size", "if member.size", "test_cifar link"),
            ("if not content or len(content) % _RECORD:", "if not content:", "test_cifar bad_file"),
            ("if labels.max() >= len(CLASSES):", "if labels.max() > len(CLASSES):", "test_cifar bad_file"),
            ("planes.transpose(0, 2, 3, 1)", "planes.transpose(0, 3, 2, 1)", "test_cifar read"),
        ],
        "vae_jax/data/synthetic/faces32.py": [
            ("dtype=np.uint16) + 2) // 4", "dtype=np.uint16)) // 4", "test_cifar stand_in"),
        ],
        "vae_jax/evaluation/fitted_prior.py": [
            ("leaf.astype(z.dtype)", "leaf", "test_fitted_prior type_of"),
            ("    _require_trainable(fitted)\n", "", "test_fitted_prior bad_input"),
            (
                "means = product(shares.T, z) / weights[:, None]",
                "means = mixture.means",
                "test_fitted_prior scikit_learn",
            ),
            ("jnp.maximum(deviations / weights[:, None], floor[None])", "deviations", "test_fitted_prior scikit_learn"),
            ("model.draw(draw_keys, posterior, numbers)", "posterior.mean[None]", "test_fitted_prior samples"),
            (
                'for part, tree in parts.items() if part != "prior"',
                "for part, tree in parts.items()",
                "test_fitted_prior earlier",
            ),
            ("of.fit((z - middle) / scale)", "of.fit(z - middle)", "test_full_mixture scales"),
            ("covariances_ * scale * scale[:, None]", "covariances_", "test_full_mixture scales"),
        ],
        "vae_jax/networks/wavelets.py": [
            ("return 64 / 2**level", "return 64.0", "test_wavelets noise"),
            ("_SIGNS / 4, blocks", "_SIGNS / 2, blocks", "test_wavelets inverse"),
            ("np.cos(np.pi * k * (2 * n + 1)", "np.cos(np.pi * n * (2 * k + 1)", "test_wavelets colour_basis"),
            ("return gain(level) * deviation / 2**level", "return gain(level) * deviation", "test_wavelets noise"),
            ("matmul(inputs - 0.5, colour_basis", "matmul(inputs, colour_basis", "test_wavelets noise"),
            ("matmul(means, colour_basis(colours).T,", "matmul(means, colour_basis(colours),", "test_wavelets noise"),
            ("lax.Precision.HIGHEST", "lax.Precision.DEFAULT", "test_wavelets precision"),
            ('name="start")(joined(z, condition))', 'name="start")(joined(z, None))', "test_wavelets condition"),
            (
                "self.likelihood.with_locations(outputs, locations, self.deviation)",
                "self.likelihood.with_locations(outputs, locations)",
                "test_wavelets noise",
            ),
        ],
        "vae_jax/objectives/perceptual.py": [
            ("0.5 * jnp.mean(square", "jnp.mean(square", "test_perceptual hou"),
            ("self.layers, batch.targets,", "self.layers, batch.x,", "test_perceptual targets"),
            ("with require_own_variables(features):", "if True:", "test_perceptual missing_parts"),
        ],
        "vae_jax/objectives/adversarial.py": [
            ("with require_own_variables(self.discriminator):", "if True:", "test_adversarial missing_parts"),
            ("        if self.draws:\n", "        if False:\n", "test_adversarial part"),
            ("        if self.draws:\n", "        if True:\n", "test_adversarial part"),
            ("jax.nn.softplus(-fake).mean", "-jax.nn.softplus(fake).mean", "test_adversarial larsen"),
            ("lead = real[None] - fake", "lead = fake - real[None]", "test_adversarial pairs"),
            ("jax.nn.softplus(-lead)", "jax.nn.softplus(1 - lead)", "test_adversarial pairs"),
            ("accuracy = (lead > 0)", "accuracy = (lead < 0)", "test_adversarial pairs"),
            (
                "self.noise * normal_like(batch.targets, folded(keys, _NOISE), batch_axis=0)",
                "0.0",
                "test_adversarial belong",
            ),
            ("folded(keys, _DRAW)", "_folded(keys, 0)", "test_adversarial larsen"),
            ("0.5 * self.penalty", "self.penalty", "test_adversarial penalty"),
            (" if self.draws else []", "", "test_adversarial larsen"),
        ],
        "vae_jax/checkpoints/vgg19.py": [
            ("kernel.transpose(2, 3, 1, 0)", "kernel.transpose(3, 2, 1, 0)", "test_perceptual independent"),
            ("        layer += _POOLS\n", "", "test_perceptual independent"),
            ("allow_pickle=False", "allow_pickle=True", "test_perceptual refused"),
        ],
        "vae_jax/networks/features.py": [
            ("x, activations = (x - mean) / deviation, {}", "x, activations = x, {}", "test_perceptual independent"),
            ("if not 1 <= compared <= len(activations):", "if False:", "test_adversarial compares"),
        ],
        "vae_jax/training/principal_components.py": [
            ("np.log(noise / kept)", "np.log(noise * kept)", "test_pca_start likelihood"),
            ("LINEAR_SCALE, (0.5 - mean) @ encoding", "LINEAR_SCALE, mean @ encoding", "test_pca_start likelihood"),
            ("np.maximum(kept - noise, 0)", "kept - noise", "test_pca_start equal"),
            ("if not noise > 1e-9 * kept[-1]:", "if not noise > 0:", "test_pca_start bad_input"),
            ("    leaves_of_model(vae, variables)\n", "", "test_pca_start other_models"),
            ("sum() / (len(moments.mean) - count)", "sum() / len(moments.mean)", "test_pca_start likelihood"),
            ("rest / (rows.shape[1] - count)", "rest / rows.shape[1]", "test_pca_start likelihood"),
            ("        kept = np.maximum(kept, noise)\n", "", "test_pca_start fixed"),
            ("        noise = float(vae.likelihood.variance)\n", "", "test_pca_start fixed"),
            ("by_pixel * (kept - noise)", "by_pixel * kept", "test_pca_start mixture"),
            ("encoding = _by_pixel(np.linalg.inv(colour).T,", "encoding = _by_pixel(colour,", "test_pca_start mixture"),
            ("decoding = _by_pixel(conditional, decoding.T).T", "", "test_pca_start mixture"),
            (
                "mean = 0.5 + _by_pixel(conditional, (mean - 0.5)",
                "mean = _by_pixel(conditional, mean",
                "test_pca_start mixture",
            ),
            ("np.clip(-conditional[", "np.clip(conditional[", "test_pca_start mixture"),
            ("deviations * math.sqrt(3) / math.pi", "deviations", "test_pca_start mixture"),
            ("    _require_standard_normal(vae, variables)\n", "", "test_pca_start bad_input"),
        ],
        "vae_jax/networks/conv3x3.py": [
            ("return a - c, b + c, c - b, d - b", "return a - c, b + c, b - c, d - b", "test_residual native_conv"),
            ("0.5 * (b - c), 0.5 * (b + c) + d", "0.5 * (c - b), 0.5 * (b + c) + d", "test_residual native_conv"),
            ("return a, a + b, a - b, b", "return a, a + b, a - b, -b", "test_residual native_convolution"),
            ("return even and channels", "return channels", "test_residual native_convolution"),
            ("return kernel[::-1, ::-1].transpose", "return kernel.transpose", "test_residual native_convolution"),
            ("g, cpu=_gradients_on_cpu", "g, cpu=_native_gradients", "test_residual accelerators"),
        ],
        "vae_jax/networks/residual.py": [
            ("if not self.bias:", "if self.bias:", "test_residual bias"),
            ("jnp.pad(kernel[::-1, ::-1]", "jnp.pad(kernel", "test_residual doubling"),
            ("x[:, ::2, ::2] if self.halve", "x[:, 1::2, 1::2] if self.halve", "test_residual linens_layers"),
            ("(doubled(x) if self.double else x)", "x", "test_residual linens_layers"),
            ('if network.norm == "group":', 'if network.norm != "group":', "test_residual couple"),
            (
                "lambda h: batch_normalised(h, train, mask,",
                "lambda h: batch_normalised(h, train, None,",
                "test_residual padding",
            ),
            ("_CHANNELS_PER_GROUP = 16", "_CHANNELS_PER_GROUP = 8", "test_residual groups"),
            ("_CHANNELS_PER_GROUP = 16", "_CHANNELS_PER_GROUP = 48", "test_residual groups"),
        ],
        "vae_jax/checkpoints/allowed.py": [
            ('if "." in qualname or any(', "if any(", "test_allowed"),
            ('any(part.startswith("_") for part in', "any(False for part in", "test_allowed"),
            ("exported and (_is_frozen", "(_is_frozen", "test_allowed"),
            ("parameters.frozen and parameters.eq", "parameters.frozen", "test_allowed"),
            ("isinstance(vars(np).get(name), np.ufunc)", "_is_function(found)", "test_allowed"),
            ("issubclass(found, np.number | np.bool_)", "True", "test_allowed"),
            ("name in _OF_LINEN and _is_function(found)", "_is_function(found)", "test_allowed"),
            ("return code and _is_within(found.__module__, modules)", "return code", "test_allowed"),
            ('isinstance(found, type) and not part.startswith("__")', "True", "test_allowed"),
            ('module == name or module.startswith(f"{name}.")', "module.startswith(name)", "test_allowed"),
            ("isfunction(found) and (found.__module__", "isfunction(found) or (found.__module__", "test_allowed"),
        ],
        "vae_jax/checkpoints/description.py": [
            ("others, found) is value", "others, found) is not None", "test_description in_the_place"),
            ('re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))', "repr(value)", "test_description no_address"),
            ("values |= inspect.getclosurevars(inner).nonlocals", "", "test_description differs"),
            ("_DEFAULT if value is default and", "described if value is default and", "test_description every_model"),
        ],
        "vae_jax/checkpoints/lock.py": [
            ("fcntl.LOCK_EX | fcntl.LOCK_NB", "fcntl.LOCK_SH | fcntl.LOCK_NB", "test_checkpoint runs_of_a_process"),
            ("return os.path.samestat(", "return True or os.path.samestat(", "test_checkpoint made_anew"),
        ],
        "vae_jax/checkpoints/numbered.py": [
            ("step = max(untried)", "step = min(untried)", "test_checkpoint young"),
            ("lambda folder: _seal_files(folder)", "_FILES.count", "test_checkpoint changed_bit"),
            ("        _require_whole(self.path / str(number), tree)\n", "", "test_checkpoint list_of_its_files"),
            ('_require_whole(self.path / str(number), "notes")', "pass", "test_checkpoint changed_bit"),
            ('if "format" in content else content["content"]["format"]', "", "test_checkpoint another_format"),
            ("_sha256(folder / name) != digest", "not digest", "test_checkpoint broken_file"),
            ('content["number"] != number', "number < 0", "test_checkpoint list_of_its_files"),
            ("len(before) + 1 - self._keep", "len(before) - self._keep", "test_checkpoint young"),
            (
                "number in self.numbers() - self.broken.keys()",
                "number in self.numbers()",
                "test_checkpoint same_number",
            ),
            ("self.failure = self._failed = None\n", "self._failed = None\n", "test_checkpoint writes_that_fail"),
            ("self._lock.take()  # anew", "# anew", "test_checkpoint made_anew"),
            ("self._remove([number])\n", "pass\n", "test_checkpoint writes_that_fail"),
            (
                "            self.remove_unfinished()\n            raise",
                "            raise",
                "test_checkpoint writes_that_fail",
            ),
        ],
        "vae_jax/checkpoints/export.py": [
            ("    _require_platforms(platforms)\n", "", "test_newcomers stores_nothing"),
            ("    require_finite_variables(variables)\n", "", "test_saved_models not_be_exported"),
        ],
        "vae_jax/checkpoints/models.py": [
            ("        elif stored.path.name == BEST:", "        elif False:", "test_saved_models without_a_model"),
            ("else leaves[name][member] for", "else leaves[name][0] for", "test_checkpoint one_member"),
            ("0 <= member < members", "0 <= member <= members", "test_checkpoint one_member"),
        ],
        "vae_jax/checkpoints/store.py": [
            (
                "if text and name not in self._allow",
                "if name not in self._allow",
                "test_compute_dtype without_this_field",
            ),
            ('math.inf if best is None else best[1]["least"]', "math.inf", "test_checkpoint resume"),
            ("if not isinstance(allow, Collection) or ", "if ", "test_newcomers stores_nothing"),
            ("        if not callable(variables):", "        if False:", "test_newcomers stores_nothing"),
            ("if best is not None and not isinstance(best, str):", "if False:", "test_newcomers stores_nothing"),
            ("if text and name", "if name == 'config' and name", "test_same_run each_difference"),
            ("self._variables(state)", "state.variables", "test_checkpoint its_script"),
            (" and name not in self._allow}", "}", "test_same_run each_difference"),
            ("if _LENGTHS & set(different):", "if False:", "test_same_run another_length"),
            ('self._allow & {"key", "settings"} if self._run else set()', "set()", "test_same_run each_difference"),
            ('there |= content["run"]', "there |= self._run", "test_same_run each_difference"),
            (
                "if self._lock.take():",
                "self._newest.remove_unfinished()\n            if self._lock.take():",
                "test_checkpoint runs_of_a_process",
            ),
            ("self._lock.release()", "pass", "test_checkpoint releases_its_folder"),
            ("and not warned:", ":", "test_checkpoint one_warning"),
            ("self._best.retry()", "pass", "test_checkpoint writes_that_fail or full_for_a_while"),
        ],
        "vae_jax/data/attributes.py": [
            ("values.all() or not values.any()", "not values.any()", "test_celeba every_image"),
        ],
        "vae_jax/data/cache.py": [
            ("None if classes is None else tuple(classes)", "None", "test_cifar cached"),
            ("path.stat().st_mtime_ns", "0", "test_data changed"),
            ("item.stat().st_mtime_ns", "0", "test_celeba changed"),
            ('.items()} == manifest["sha256"]', ".items()}", "test_data damaged_cache"),
        ],
        "vae_jax/data/celeba.py": [
            ("repr((options.size, options.crop))", "repr(options.size)", "test_celeba crop"),
            ("attributes.values[block]", "attributes.values[: len(block)]", "test_celeba layouts"),
        ],
        "vae_jax/data/celeba_files.py": [
            ("np.array(tenths) - 7", "np.array(tenths) - 8", "test_celeba partition"),
            ("if count != len(rows):", "if count > len(rows):", "test_celeba as_published"),
        ],
        "vae_jax/data/dataset.py": [
            ("_as_reals(examples) for split, examples", "examples for split, examples", "test_arrays one_split_makes"),
            ("            examples = examples.astype(np.uint8)", "            pass", "test_arrays batches_of_a_loader"),
            ("labels[0] if labels else None", "None", "test_arrays batches_of_a_loader"),
            ('f"{self.images.shape!r}{kind}"', 'f"{kind}"', "test_data digest"),
            ("sha.update(np.ascontiguousarray(self.labels).data)", "pass", "test_data digest"),
            ("sha.update(repr(self.attributes.names).encode())", "pass", "test_celeba digest"),
            ("self.train[:-count], self", "self.train[count:], self", "test_data hold_out"),
            ("if self.labels.min() < 0:", "if self.labels.min() < -1:", "test_data negative_label"),
        ],
        "vae_jax/data/idx.py": [
            ("offset=header).reshape(shape)", "offset=header).reshape(shape[:1] + shape[:0:-1])", "test_data height"),
            ("if len(content) != expected:", "if len(content) < expected:", "test_data damaged"),
        ],
        "vae_jax/data/images.py": [
            ("width * (1 - self.width) / 2", "width * (1 - self.height) / 2", "test_celeba crop"),
            ("{start + number: reason", "{number: reason", "test_celeba unreadable"),
            ("np.delete(block.attributes, list(reasons), axis=0)", "block.attributes", "test_celeba unreadable"),
        ],
        "vae_jax/data/load.py": [
            (
                "if data_dir is not None:\n            raise",
                "if not name:\n            raise",
                "test_data even_for_auto",
            ),
        ],
        "vae_jax/data/synthetic/digits.py": [
            ("* size / _BOX - 0.5", "* size / _BOX", "test_data enlarged"),
        ],
        "vae_jax/data/transforms.py": [
            (', impl="threefry2x32")', ")", "test_transforms dynamic_binar"),
            ("        _require_stored(transform.transform, data)\n", "        pass\n", "test_bad_data one_sentence"),
            ("if data.has_missing and not transform.missing:", "if False:", "test_bad_data one_sentence"),
            (
                "image.astype(jnp.float32) / (LEVELS - 1)",
                "image.astype(jnp.float32) / LEVELS",
                "test_transforms binary",
            ),
            ("if jnp.issubdtype(images.dtype, jnp.floating):", "if False:", "test_transforms divided"),
            ("+ noise) / LEVELS", "+ noise) / (LEVELS - 1)", "test_transforms dequantised"),
            ("(keys, stream) for stream", "(keys, 0) for stream", "test_transforms mirrored"),
            ("images[:, :, ::-1]", "images[:, ::-1]", "test_transforms mirrored"),
            ("jax.random.key(self.seed,", "jax.random.key(0,", "test_transforms static"),
            ("if self.target is None else self.target", "", "test_transforms target"),
            ("image.shape, jnp.float32)", "image.shape)", "test_transforms float64"),
            ("jax.random.bernoulli, p=jnp.float32(0.5)", "jax.random.bernoulli", "test_transforms float64"),
        ],
        "vae_jax/distributions/base.py": [
            ("if key.shape not in ((), (batch,)):", "if False:", "test_newcomers mistake"),
            ("        if name not in params:\n", "        if False:\n", "test_newcomers mistake"),
            ("first + jnp.arange(batch)", "jnp.arange(batch)", "test_distributions position"),
            ("inside + jnp.tanh(x - inside)", "inside", "test_distributions soft_clip"),
        ],
        "vae_jax/distributions/divergence.py": [
            (
                "isinstance(p, UnitGaussian) and isinstance(q, DiagonalGaussian | FullGaussian)",
                "isinstance(q, DiagonalGaussian | FullGaussian)",
                "test_priors mean_5",
            ),
            (
                'require_latents("the mean of q", q.mean, p.mean.shape[-1])',
                "pass",
                "test_distributions another_number",
            ),
            ("(q.log_prob(z) - p.log_prob(z))", "(q.log_prob(z) + p.log_prob(z))", "test_priors log_ratio"),
        ],
        "vae_jax/distributions/flows.py": [
            ("if isinstance(self.base, FullGaussian):", "if False:", "test_flows correlated"),
            ("        require_flow(self.flow)\n", "", "test_newcomers mistake"),
            ("log_det -= log_scale", "log_det += log_scale", "test_flows jacobian"),
            (
                "return self.base.log_prob(e) + log_det",
                "return self.base.log_prob(e)",
                "test_flows change_of_variables",
            ),
            ("return _reordered(z) if layer % 2 else z", "return z", "test_flows only_reorders"),
            ("self.bound * jnp.tanh(log_scale / self.bound)", "log_scale", "test_flows bounded"),
        ],
        "vae_jax/distributions/gaussian.py": [
            ("jnp.exp(0.5 * log_variance) *", "jnp.exp(log_variance) *", "test_distributions samples_are_gaussian"),
            ("- self.log_variance)", "+ self.log_variance)", "test_distributions kl"),
            ("0.5 * (z**2 -", "0.5 * (z**2 +", "test_distributions log_ratio"),
            ("+ log_variance + LOG_2PI", "+ log_variance", "test_distributions log_prob"),
        ],
        "vae_jax/distributions/likelihoods/base.py": [
            ("        except ValueError as error:\n", "        except KeyError as error:\n", "test_newcomers mistake"),
            (
                "return self.init() if variables is None else variables",
                "return self.init()",
                "test_residual scale_per_channel",
            ),
            ("jnp.where(rows(observed) > 0, density, 0)", "density", "test_likelihoods_more only_observed"),
            (
                "density.sum(axis=-1).reshape(leading)",
                "density.mean(axis=-1).reshape(leading)",
                "test_likelihoods several_pixels",
            ),
            ("if found != event:", "if found[:2] != event[:2]:", "test_model other_channels"),
            ("with jax.ensure_compile_time_eval():", "if True:", "test_transformations jit or known"),
            ("or is_traced(x):", "or False:", "test_transformations jit"),
            (" and high - low < math.inf", "", "test_likelihoods without_a_probability"),
        ],
        "vae_jax/distributions/likelihoods/bernoulli.py": [
            ("0.5 * (logits + size)", "0.5 * (logits - size)", "test_likelihoods bernoulli"),
            ("jnp.exp(-size))", "jnp.exp(size))", "test_likelihoods bernoulli"),
            ("_log_sinhc(a / 2).sum()", "_log_sinhc(a).sum()", "test_likelihoods bernoulli"),
            ("jnp.where(a > 0, 1 - x, x)", "jnp.where(a < 0, 1 - x, x)", "test_likelihoods bernoulli"),
            ("away * distance - jnp.log1p(-jnp.exp(-away))", "away * distance", "test_likelihoods bernoulli"),
            ("near = size < _NEAR", "near = size < 10", "test_likelihoods bernoulli"),
            (
                "tail = jnp.log(away) - away * distance",
                "tail = away * (jnp.where(a > 0, x, 1 - x) - 0.5) - (away / 2 - jnp.log(away))",
                "test_likelihoods large_logits",
            ),
            ("self.logits < 0, from_zero", "self.logits > 0, from_zero", "test_likelihoods bernoulli"),
            ("-1 / 180", "1 / 180", "test_likelihoods bernoulli"),
        ],
        "vae_jax/distributions/likelihoods/counts.py": [
            (
                "-deviance(n, log_rate - jnp.log(n)) - stirling_error(n)",
                "-deviance(n, log_rate - jnp.log(n))",
                "test_likelihoods_more scipys",
            ),
            ("jnp.where(x > 0, of_some, -jnp.exp(log_rate))", "of_some", "test_likelihoods_more scipys"),
        ],
        "vae_jax/distributions/likelihoods/gaussian.py": [
            ("(jnp.log(variance) + LOG_2PI)", "jnp.log(variance)", "test_likelihoods real_line"),
            ("squares.mean(axis=event) * weights", "squares.mean(axis=event)", "test_likelihoods optimal_variance"),
            ("jnp.where(entries > 0, squares, 0) * entries", "squares * entries / 2", "test_tables optimal"),
            (
                "jnp.maximum(variance, _LEAST_VARIANCE), event_ndim)\n",
                "variance, event_ndim)\n",
                "test_likelihoods perfect_fit",
            ),
            (
                "jnp.maximum(variance, _LEAST_VARIANCE), event_ndim), updates",
                "variance, event_ndim), updates",
                "test_likelihoods perfect_fit",
            ),
            (
                "learned_scale(self.own(variables)) ** 2",
                "learned_scale(self.own(variables))",
                "test_likelihoods real_line",
            ),
            ("(total, count), self.axis_name)", "(total, count), ())", "test_train under_pmap"),
            ("(1 - self.momentum) * variance", "self.momentum * variance", "test_likelihoods optimal_variance"),
            ("_LEAST_VARIANCE = 1e-8", "_LEAST_VARIANCE = 1e-6", "test_likelihoods perfect_fit"),
            ("batch.mask.astype(squares.dtype)", "batch.mask", "test_likelihoods float64"),
            (".astype(running[name].dtype)", "", "test_likelihoods float64"),
        ],
        "vae_jax/distributions/likelihoods/laplace.py": [
            (
                "jax.random.laplace(k, v.shape, v.dtype)",
                "-jnp.log1p(-jnp.abs(jax.random.uniform(k, v.shape, v.dtype, -1.0)))",
                "test_likelihoods laplace",
            ),
            ("jnp.log(2 * scale)", "jnp.log(scale)", "test_likelihoods real_line"),
        ],
        "vae_jax/distributions/likelihoods/logistic.py": [
            ("half = 0.5 / (LEVELS - 1)", "half = 0.5 / LEVELS", "test_likelihoods discretised"),
            ("jnp.where(x < half, below_upper", "jnp.where(x < half, above_lower", "test_likelihoods discretised"),
            ("(level - 0.5) * step", "level * step", "test_likelihoods discretised"),
            ("jnp.round(jnp.clip(", "jnp.floor(jnp.clip(", "test_likelihoods discretised"),
        ],
        "vae_jax/distributions/likelihoods/mixtures.py": [
            ("(2 * locations - 1), log_scale", "locations, log_scale", "test_residual given_locations"),
            (
                "(first, first + count,",
                "(0, first + count,",
                "test_residual given_locations",
            ),
            ("coefficients[1] * (red - 0.5)", "coefficients[1] * (green - 0.5)", "test_likelihoods_more pixelcnn"),
            ("jnp.tanh(coefficients)", "coefficients", "test_likelihoods_more pixelcnn"),
            ("(observed > 0).all(axis=-1)", "(observed > 0).any(axis=-1)", "test_likelihoods_more holes"),
        ],
        "vae_jax/distributions/likelihoods/student_t.py": [
            ("(h + 0.5) * jnp.log1p(", "h * jnp.log1p(", "test_likelihoods_more scipys"),
        ],
        "vae_jax/distributions/mixture.py": [
            (
                "tangent + _squared_distances(z, means, of_precisions)",
                "jax.jvp(_products, primals, tangents)[1]",
                "test_priors narrow",
            ),
            ("jnp.result_type(z, means, precisions)", "z.dtype", "test_priors precision"),
            (
                "return jnp.exp(0.5 * self.log_variances[component]) * noise",
                "return jnp.exp(self.log_variances[component]) * noise",
                "test_priors draws_from",
            ),
            (
                "constants = jax.nn.log_softmax(logits) -",
                "constants = logits -",
                "test_priors small_variances",
            ),
            ("jnp.tril(self.coefficients, k=-1)", "self.coefficients", "test_full_mixture mixture"),
            ("residuals**2, jnp.exp(-self", "residuals**2, jnp.exp(self", "test_full_mixture density"),
            ("residuals[..., None])[..., 0]", "residuals[..., None])[..., 0] * 1.1", "test_full_mixture draws"),
            ("residuals = jnp.exp(0.5 *", "residuals = jnp.exp(", "test_full_mixture draws"),
        ],
        "vae_jax/distributions/priors.py": [
            ('require_components(self.components, len(params["means"]))', "pass", "test_newcomers mistake"),
            ("require_components(self.components, len(pseudo_inputs))", "pass", "test_newcomers mistake"),
            ("own_params(self, variables))", 'variables["params"])', "test_newcomers mistake"),
            ("if not _are_symmetric(covariances):", "if False:", "test_full_mixture bad_mixtures"),
            ("jax.random.normal(key, shape, jnp.float32)", "jax.random.normal(key, shape)", "test_priors precision"),
            (
                "deviations[..., None] * np.linalg.inv(cholesky)",
                "np.linalg.inv(cholesky)",
                "test_full_mixture variables",
            ),
            ('"log_variances": 2 * np.log(', '"log_variances": np.log(', "test_full_mixture variables"),
            (
                'of["coefficients"], of["logits"])',
                '0 * of["coefficients"], of["logits"])',
                "test_full_mixture variables",
            ),
            ("replace=len(data) < self.components", "replace=True", "test_priors at_most_once"),
        ],
        "vae_jax/errors.py": [
            ("if not is_traced(pair[1])", "", "test_transformations jit"),
        ],
        "vae_jax/evaluation/attributes.py": [
            ("    if vector.shape != z.shape[1:]:", "    if False:", "test_newcomers another_shape"),
            ("(apart if apart > 0 else np.nan)", "apart", "test_attributes all_the_same"),
            ("if not isinstance(attribute, Integral) or ", "if ", "test_newcomers another_shape"),
            ("    if len(shares) != len(values):", "    if False:", "test_newcomers another_shape"),
            ("        leaves_of_model(trained, variables)\n", "", "test_perceptual other_networks"),
            ('if name.startswith("Downsample")', "", "test_perceptual convolutions_of_an_encoder"),
            ("_independence_weights(attributes, codes) if independent else ", "", "test_attributes correlated"),
            ("self.weights[batch.label] * loss", "loss", "test_attributes weighted"),
            (
                "np.minimum(independent / np.maximum(joint, 1e-12), GREATEST_WEIGHT)",
                "independent",
                "test_attributes greatest",
            ),
            ("(~told[~has, i]).mean()", "told[~has, i].mean()", "test_attributes opinion"),
            (
                "self.probabilities[0, :, attribute] <=",
                "self.probabilities[1, :, attribute] <=",
                "test_attributes edits",
            ),
            ("values[before] + way", "values[after] + way", "test_attributes share"),
        ],
        "vae_jax/evaluation/log_px.py": [
            ("while isinstance(stored, Mirrored):", "if isinstance(stored, Mirrored):", "test_evaluate bits"),
            ("stored.missing or not stored.whole", "stored.missing", "test_evaluate bits"),
            ("    known_inputs(batch, model.event_shape)\n", "", "test_newcomers mistake"),
            (
                "    require_observed(batch.targets, model",
                "    False and require_observed(batch.targets, model",
                "test_evaluate missing",
            ),
            ("example_keys(key, count, first)", "example_keys(key, count)", "test_evaluate however_it_is_cut"),
            ('if getattr(model, "posterior", None) is Delta:', "if False:", "test_evaluate bits"),
            ("jnp.where((numbers < samples)[:, None], log_w, -jnp.inf)", "log_w", "test_evaluate however_it_is_cut"),
            ("squares * shrink**2", "squares * shrink", "test_evaluate however_it_is_cut"),
            ("jnp.log(weights / samples)", "jnp.log(weights)", "test_evaluate however_it_is_cut"),
            ("- math.log2(width)", "+ math.log2(width)", "test_evaluate bits"),
            ("(values.high - values.low) / LEVELS", "1.0 / LEVELS", "test_evaluate bits"),
            ("jnp.where(jnp.isneginf(new), 0.0, new)", "new", "test_evaluate without_any_weight"),
            ("jnp.where(none, 1.0, squares)", "squares", "test_evaluate without_any_weight"),
        ],
        "vae_jax/evaluation/classifier.py": [
            ("        require_bytes(data)\n", "", "test_classifier another_type"),
            ('require_labels("labels", labels, len(found))', "labels", "test_newcomers another_shape"),
            ("data.images / np.float32(255)", "data.images.astype(np.float32)", "test_classifier learns"),
            ("-(-steps // steps_per_epoch)", "max(1, steps // steps_per_epoch)", "test_classifier as_many_steps"),
            ("h = nn.relu(MLP(", "h = (MLP(", "test_classifier features"),
        ],
        "vae_jax/evaluation/distances.py": [
            ("flat.mean(axis=0, keepdims=True)", "0 * flat[:1]", "test_distances nearest"),
            ("max(0.0, float(distance))", "float(distance)", "test_distances singular"),
            (
                "np.sort(cdist(real, real), axis=1)[:, k]",
                "np.sort(cdist(real, real), axis=1)[:, k - 1]",
                "test_distances hand",
            ),
            ("within.any(axis=0)", "within.all(axis=0)", "test_distances hand"),
            ("neighbours - 4 * grey", "neighbours - 3 * grey", "test_distances laplacian"),
            ("- 2 * cross", "- cross", "test_distances frechet"),
            ("np.sqrt(len(features) - 1)", "np.sqrt(len(features))", "test_distances frechet"),
            ("nearest = jnp.argmin(", "nearest = jnp.argmax(", "test_distances nearest"),
            (
                "jnp.linalg.norm(images - references[nearest], axis=1)",
                "jnp.sqrt(jnp.maximum(jnp.sum(images**2, 1) + jnp.sum(references[nearest]**2, 1)"
                " - 2 * jnp.sum(images * references[nearest], 1), 0))",
                "test_distances nearest",
            ),
        ],
        "vae_jax/evaluation/estimate.py": [
            ("values - ratio * reference", "values", "test_evaluate ratio_of_paired"),
            ("values.std(ddof=1)", "values.std(ddof=0)", "test_evaluate estimate"),
            ("else math.nan", "else 0.0", "test_evaluate standard_error"),
        ],
        "vae_jax/data/arrays.py": [
            ("    if not np.isfinite(array).all():", "    if False:", "test_newcomers another_shape"),
        ],
        "vae_jax/evaluation/latents.py": [
            ("if isinstance(posterior, FullGaussian | Transformed):", "if False:", "test_flows correlated"),
            ("if total > 0 else 0.0", "", "test_latents separation"),
            ("    if start.shape != end.shape:", "    if False:", "test_newcomers another_shape"),
            ("train.shape[1:] != test.shape[1:]", "False", "test_newcomers another_shape"),
            ("math.ceil(share", "math.floor(share", "test_latents sphere"),
            ("sphere.radius / math.sqrt(2)", "sphere.radius / 2", "test_latents lattice"),
            ("offsets[::-1, None]", "offsets[:, None]", "test_latents lattice"),
            (
                "(1 - share) * start[:, None] + share * end[:, None]",
                "share * start[:, None] + (1 - share) * end[:, None]",
                "test_latents paths",
            ),
            ("here & ~attribute", "~attribute", "test_attributes vector"),
            ("of_means + _mean_covariance(posterior)", "of_means", "test_latents aggregated"),
            ("- len(self.mean) - log_det", "- len(self.mean) + log_det", "test_latents closed_form"),
            ("noise @ root.T", "noise @ root", "test_latents moments"),
            ("weights.append(n1 * n0 / (n1 + n0))", "weights.append(n1 + n0)", "test_attributes precision"),
        ],
        "vae_jax/evaluation/legibility.py": [
            (".max(axis=-1) >= confidence", ".max(axis=-1) > confidence", "test_legibility share"),
            ("shares /= shares.sum()", "shares = shares", "test_legibility share"),
            ("generator.random(len(images)) < 0.5", "generator.random(len(images)) < 0.0", "test_legibility smooth"),
            ("weight * data.images[first] +", "data.images[first] + 0 *", "test_legibility no_class"),
        ],
        "vae_jax/evaluation/passes.py": [
            ('    require_finite_values("z", z)\n', "", "test_newcomers mistake"),
            (
                "return posterior.base if isinstance(posterior, Transformed) else posterior",
                "return posterior",
                "test_evaluate flow",
            ),
            (
                "return noise_keys, transform(transform_keys,",
                "return transform_keys, transform(transform_keys,",
                "test_evaluate streams",
            ),
            (
                "example_keys(key, len(examples), first), examples, labels)).posterior",
                "example_keys(key, len(examples)), examples, labels)).posterior",
                "test_evaluate blocks",
            ),
            (
                "return transform(example_keys(key, len(examples), first), examples, labels)",
                "return transform(example_keys(key, len(examples)), examples, labels)",
                "test_evaluate blocks",
            ),
            (
                "transform=transform), *inputs_of(data)",
                "transform=transform), data.images",
                "test_evaluate gets_the_labels",
            ),
            ("vae.require_condition(condition, len(z))", "", "test_evaluate labels_that_a_model"),
        ],
        "vae_jax/evaluation/units.py": [
            ("on_host(of.mean, np.float64).var(", "on_host(of.mean, np.float64).std(", "test_evaluate active"),
        ],
        "vae_jax/models/constructors.py": [
            ("decoder=MLP(tuple(reversed(hidden))", "decoder=MLP(tuple(hidden)", "test_model shapes"),
            ("output_activation=jnp.tanh", "output_activation=jnp.abs", "test_model batch_norm"),
            ("if not 0 <= momentum < 1:", "if momentum < 0:", "test_model batch_norm"),
        ],
        "vae_jax/models/base.py": [
            (
                'require_finite_values("the condition", as_reals("the condition", leaf))',
                "pass",
                "test_newcomers mistake",
            ),
            ("    require_targets(batch)\n", "", "test_newcomers mistake"),
            ("if not isinstance(network, nn.Module):", "if False:", "test_newcomers mistake"),
            ("    require_transformed(x)\n    require_targets", "    require_targets", "test_newcomers mistake"),
            (
                "            require_condition_shape(self.condition_shape)\n",
                "            pass\n",
                "test_newcomers mistake",
            ),
            ("not isinstance(size, bool) and size > 0", "not isinstance(size, bool)", "test_newcomers mistake"),
            (" and not isinstance(size, bool)", "", "test_newcomers mistake"),
            ("if len(set(names)) < len(names):", "if False:", "test_newcomers mistake"),
            ("        require_compute_dtype(self.compute_dtype)\n", "", "test_compute_dtype refused"),
            (
                "with jax.ensure_compile_time_eval():\n        low, high",
                "if True:\n        low, high",
                "test_transformations jit or known",
            ),
            (
                "with nullcontext() if is_traced((x, observed)) else jax.ensure_compile_time_eval():",
                "if True:",
                "test_evaluate closes_over",
            ),
            (
                '    require_finite_values("x", known, ": give missing entries by Batch.observed")\n',
                "",
                "test_newcomers mistake",
            ),
            ("jnp.where(observed > 0, x, 0)", "jnp.asarray(x)", "test_evaluate missing"),
            ("condition = as_condition(self, condition)", "pass", "test_newcomers list"),
            ("0 <= low <= high < classes", "0 <= low <= high <= classes", "test_evaluate conditional"),
            ("if not self.likelihood.domain.holds(transform.support):", "if False:", "test_evaluate does_not_take"),
        ],
        "vae_jax/models/apply.py": [
            ('(inputs, *jax.tree.leaves(variables.get("params", {})))', "(inputs)", "test_compute_dtype half"),
            ("inputs, arguments), compute_dtype)", "inputs, arguments), None)", "test_compute_dtype products"),
            ("as_dtype(outputs, compute_dtype and full)", "outputs", "test_compute_dtype keep_their_types"),
            ("    require_variables(variables)\n", "", "test_newcomers mistake"),
            ("    flax.errors.ScopeCollectionNotFound,\n", "", "test_perceptual missing_parts"),
            ("    flax.errors.ScopeVariableNotFoundError,\n", "", "test_model statistics_of_another"),
            ('arguments = arguments | {"mask": mask}', "arguments = dict(arguments)", "test_model padding"),
            ('if not takes(network, "mask"):', "if False:", "test_model padding_out"),
            ("if keys is None or not isinstance(network, NNXNetwork):", "if True:", "test_networks nnx"),
            ("            if keys is None:\n                raise", "            raise", "test_networks dropout"),
            (
                "            return _with_dropout(network, variables, inputs, mutable, arguments, keys)\n",
                "            raise _OtherNoiseError\n",
                "test_apply for_each_example",
            ),
            ("if x.shape[:1] != keys.shape or", "if", "test_apply one_by_one"),
            (' or given.get("rng") is not None', "", "test_apply one_by_one"),
            ("(flax.errors.InvalidRngError, _OtherNoiseError):", "_OtherNoiseError:", "test_apply one_by_one"),
            ("call(x[None], deterministic, rng=key)[0]", "call(x, deterministic, rng=key)", "test_apply one"),
            ("rngs={_EXAMPLES: key}", 'rngs={_EXAMPLES: key, "params": key}', "test_apply one_by_one"),
        ],
        "vae_jax/models/vae.py": [
            ('        require_finite_values("z", z)\n', "", "test_newcomers mistake"),
            (
                "jax.lax.stop_gradient(code.posterior) if freeze_posterior else code.posterior",
                "code.posterior",
                "test_flows doubly",
            ),
            (
                'observed = {} if batch.observed is None else {"observed": batch.observed}',
                "observed = {}",
                "test_tables only_observed",
            ),
            ("px_z.log_prob(batch.targets", "px_z.log_prob(batch.x", "test_objectives target"),
            ("posterior.sample(folded(keys, number))", "posterior.sample(keys)", "test_model shapes"),
            ("z = through(self.draw(key, code", "z = (self.draw(key, code", "test_objectives reparameterised_gradient"),
            (
                "jnp.tile(leaf, (copies, *[1] * (leaf.ndim - 1)))",
                "jnp.repeat(leaf, copies, axis=0)",
                "test_model labels or padding",
            ),
            (
                'require_shape("decoder", outputs, (1, *self.likelihood.output_shape(self.event_shape)))',
                "",
                "test_model do_not_fit",
            ),
            ("z.ndim < 2 or z.shape[-1]", "z.shape[-1]", "test_newcomers mistake"),
            ("(1 - share) * first[None]", "share * first[None]", "test_model decoded"),
            ("jnp.where(is_set, values.astype", "jnp.where(~is_set, values.astype", "test_model decoded"),
        ],
        "vae_jax/models/ladder.py": [
            ("latent(*as_dtype((p, q), precise))", "latent(p, q)", "test_compute_dtype keep_their_types"),
            ("folded(keys.reshape(-1), len(layers))", "folded(keys.reshape(-1), 0)", "test_ladder draws_of_an_example"),
            (
                "DiagonalGaussian.from_network(p), DiagonalGaussian.from_network(q)",
                "DiagonalGaussian.from_network(q), DiagonalGaussian.from_network(q)",
                "test_ladder densities_of_a_layer",
            ),
            (
                "jnp.asarray(prior.mean), temperature * jnp.sqrt(prior.variance)",
                "jnp.asarray(prior.mean), jnp.sqrt(prior.variance)",
                "test_ladder temperature",
            ),
            (
                "if unknown := [name for name in given or {} if name not in z]:",
                "if unknown := []:",
                "test_ladder samples_that_are_refused",
            ),
            ("if z[name].shape != (count, size):", "if False:", "test_ladder samples_that_are_refused"),
            ('if others := decoder.keys() - {"params"}:', "if others := set():", "test_ladder bad_ladders"),
        ],
        "vae_jax/networks/conv.py": [
            ("nn.relu(Downsample(features)(h))", "Downsample(features)(h)", "test_model relu"),
            ("Upsample(features)(nn.relu(h))", "Upsample(features)(h)", "test_model relu"),
            ("inputs.reshape(len(inputs), -1) - 0.5", "inputs.reshape(len(inputs), -1)", "test_model linear_path"),
            ("/ math.sqrt(inputs.shape[1])", "/ inputs.shape[1]", "test_model linear_path"),
        ],
        "vae_jax/networks/winograd.py": [
            (
                "jnp.stack([jnp.stack(row, axis=1) for row in pixels], axis=1)",
                "jnp.stack([jnp.stack(row, axis=1) for row in transposed(pixels)], axis=1)",
                "test_conv4x4 three_sides",
            ),
            (
                "(((0,), (0,)), ((), ()))",
                "(((0,), (0,)), ((), ())), precision=jax.lax.Precision.DEFAULT, preferred_element_type=jnp.float32",
                "test_conv4x4 types_are_kept",
            ),
        ],
        "vae_jax/networks/conv4x4.py": [
            ("x.shape[1] % 2 or x.shape[2] % 2", "x.shape[1] % 2", "test_conv4x4 odd"),
            (
                "jnp.pad(x, ((0, 0), (1, 1), (1, 1),",
                "jnp.pad(x, ((0, 0), (0, 2), (0, 2),",
                "test_conv4x4 same_values",
            ),
            ("[:, 1:-1, 1:-1]", "[:, :-2, :-2]", "test_conv4x4 same_values"),
            ("h % 2 == 0 and w % 2 == 0", "w % 2 == 0", "test_conv4x4 three_sides"),
            ("channels * features >= _LEAST_CHANNELS", "0 >= _LEAST_CHANNELS", "test_conv4x4 elsewhere"),
            ("return a - b, b, c - b", "return a - b, b, b - c", "test_conv4x4 three_sides"),
            ("return a, b - (a + c), c", "return a, b - (a - c), c", "test_conv4x4 three_sides"),
            ("return a + b, b + c", "return a + b, b - c", "test_conv4x4 three_sides"),
            ("jnp.pad(a, after) + jnp.pad(c, before)", "jnp.pad(a, before) + jnp.pad(c, after)", "test_conv4x4 three"),
            ("variance_scaling(8.0", "variance_scaling(2.0", "test_conv4x4 scale"),
            ("features).transpose(0, 2, 1, 3, 4, 5).reshape(4,", "features).reshape(4,", "test_conv4x4 three_sides"),
            (
                "upsample(*promote_dtype(y, kernel)) + _bias(self)",
                "upsample(*promote_dtype(y, kernel)) + 0 * _bias(self)",
                "test_conv4x4 same_values",
            ),
            (
                "functools.reduce(operator.add, terms)",
                "functools.reduce(operator.add, terms, jnp.zeros(()))",
                "test_conv4x4 types_are_kept",
            ),
            ("downsample(*promote_dtype(x, kernel))", "downsample(x, kernel)", "test_conv4x4 promote"),
            ("upsample(*promote_dtype(y, kernel)) +", "upsample(y, kernel) +", "test_conv4x4 promote"),
            ("self.features), jnp.float32)", "self.features))", "test_conv4x4 promote"),
            ("y.shape[-1]), jnp.float32)", "y.shape[-1]))", "test_conv4x4 promote"),
            ("(module.features,), jnp.float32)", "(module.features,))", "test_conv4x4 promote"),
        ],
        "vae_jax/networks/dense.py": [
            (
                "parts = [inputs, *jax.tree.leaves(condition)]",
                "parts = [inputs, *(0 * leaf for leaf in jax.tree.leaves(condition))]",
                "test_model labels",
            ),
            ("use_running_average=not train", "use_running_average=False", "test_model batch"),
            ("h = self.activation(h)", "h = nn.relu(h)", "test_model activation"),
            ("= self.output_activation(", "= (", "test_model batch_norm"),
            ("if self.is_initializing() else self.axis_name", "", "test_train under_pmap"),
            ("(h.ndim - 1)) > 0", "(h.ndim - 1)) >= 0", "test_model padding"),
            ("if axis_name is not None and mask is not None:", "if False:", "test_model padding_out"),
        ],
        "vae_jax/objectives/bounds.py": [
            (
                "terms.log_px_z - sum_over_units(terms.log_ratio)",
                "terms.log_px_z + sum_over_units(terms.log_ratio)",
                "test_linear_gaussian every_weight",
            ),
        ],
        "vae_jax/objectives/elbo.py": [
            ("        if not callable(self.kl):\n", "        if False:\n", "test_newcomers mistake"),
            ("jax.errors.ConcretizationTypeError, ", "KeyError, ", "test_newcomers mistake"),
            ("np.linspace(0, steps - 1,", "np.linspace(0, 0,", "test_objectives schedule"),
            ("~(values >= 0)", "values < -9", "test_objectives schedule"),
            ("{layer: kl.mean(axis=0) for", "{layer: kl[0] for", "test_objectives more_samples"),
            ("beta * penalty - log_px_z", "penalty - log_px_z", "test_objectives elbo_is_its_terms"),
            ("(total, weight), self.axis_name)", "(total, weight), ())", "test_objectives free_bits"),
            ("total <= self.free_bits * weight", "total <= self.free_bits", "test_objectives free_bits"),
            ("mask @ kl, mask.sum()", "kl.sum(axis=0), mask.sum()", "test_objectives free_bits"),
        ],
        "vae_jax/objectives/iwae.py": [
            ("freeze_posterior=True,", "freeze_posterior=False,", "test_linear_gaussian doubly"),
            (" - jnp.log(self.samples)", "", "test_objectives log_of_the_mean"),
            ("return gradient * factor, None", "return gradient, None", "test_objectives reparameterised_gradient"),
        ],
        "vae_jax/training/averaging.py": [
            ("state.inner, params, **extra)", "state.inner, params)", "test_train needs_the_loss"),
            ("last if is_masked(average) else average", "average", "test_averaging part_alone"),
            ("steps = state.steps + 1", "steps = state.steps", "test_averaging weighted_sum"),
            ("jax.device_put(params, may_alias=False)", "params", "test_averaging donated"),
            ("optax.apply_updates(params, updates)", "params", "test_averaging weighted_sum"),
            ("(1 + eta) / (steps + eta)", "1 / steps", "test_averaging weighted_sum"),
        ],
        "vae_jax/training/ensemble.py": [
            (
                "init(key, model, optimizer, own, **shared)",
                "init(key, model, optimizer, **shared)",
                "test_ensemble several_settings",
            ),
            ("np.shape(leaf)[:1] != (len(keys),)", "not np.shape(leaf)", "test_ensemble settings"),
            ("step.require_run(data, transform, settings, steps)", "pass", "test_train does_not_take"),
        ],
        "vae_jax/training/feeding.py": [
            ("stream(run_key, ORDER, epoch)", "stream(run_key, ORDER, 0)", "test_train python_loop"),
            ("step % steps_per_epoch * batch_size", "step % steps_per_epoch", "test_train every_image"),
            ("place = step - self.first", "place = step", "test_feeding xla_compiles_by_default"),
            (
                "min(start + self.length, (epoch + 1) * self._steps_per_epoch)",
                "start + self.length",
                "test_feeding windows_hold",
            ),
            (" if first in (start, end)}", "}", "test_feeding never_three"),
        ],
        "vae_jax/training/loop.py": [
            ("select(goes_on(carry), body(carry), carry)", "body(carry)", "test_accelerators same_steps and resident"),
            (' & (totals["finite"] == taken)', "", "test_accelerators not_finite"),
            ('select(last["finite"] > 0, sums, totals)', "sums", "test_train has_all_of_its_steps"),
            ("chunks.append(_sums(metrics, finite, seconds))", "pass", "test_train has_all_of_its_steps"),
            ("for settings in of_members:", "for settings in of_members[:1]:", "test_bad_training sentence"),
            ("if done < total and not stopped:\n", "if True:\n", "test_experiments another_model"),
            ("@partial(jax.jit, inline=True)", "@partial(lambda one: one)", "test_train traces"),
            (
                "        if store.where:\n            _warn",
                "        if True:\n            _warn",
                "test_accelerators other_bits",
            ),
            ('if platform == "gpu" and', "if", "test_accelerators other_bits"),
            (
                'platform == "gpu" and "--xla_gpu_deterministic_ops" not in',
                'platform == "gpu" or not',
                "test_accelerators other_bits",
            ),
            ("count = length or max(1, int(fitting))", "count = max(1, int(fitting))", "test_accelerators fit_on"),
            ("steps / math.ceil(steps / _CHUNK_STEPS)", "_CHUNK_STEPS", "test_accelerators divided"),
            ("replace(local, frozen={})", "local", "test_parts frozen"),
            ("stream(state.key, OBSERVATION,", "stream(state.key, 0,", "test_train python_loop"),
            ("OBSERVATION, state.step)", "OBSERVATION, 0)", "test_train python_loop"),
            ('np.all(metrics["finite"] == count)', 'np.any(metrics["finite"] == count)', "test_ensemble not_finite"),
            ("(total / steps)", "total", "test_train python_loop"),
            ("chunks.clear()", "", "test_train python_loop"),
            (
                "state = layout.place(state)",
                "state = layout.place(state) if mesh else state",
                "test_train argument_alone",
            ),
            ("layout.devices if keys.ndim == 0 else 1", "1", "test_feeding threshold"),
            ("data.images.nbytes > threshold", "data.images.nbytes >= threshold", "test_feeding threshold"),
            ("step.require_run(data, transform, settings, total)", "pass", "test_train does_not_take"),
            ('"data": data.digest,', "", "test_same_run each_difference"),
            ('"batch_size": batch_size,', "", "test_same_run another_length"),
            ('"steps_per_epoch": len(data) // batch_size,', "", "test_same_run another_length"),
            ('"members": state.step.size if state.step.ndim else None,', "", "test_same_run members"),
            ('"transform": describe(transform),', "", "test_same_run each_difference"),
            ('"key": describe(state.key),', "", "test_same_run each_difference"),
            ('"settings": describe(state.settings),', "", "test_same_run each_difference"),
            ("described() if store.where else None", "described()", "test_same_run without_a_store"),
            ("eval_fns[0](copied(state))", "eval_fns[0](state)", "test_train may_be_kept"),
            (" % eval_every == 0", " % 1 == 0", "test_callbacks"),
            ("stopped = not running", "pass", "test_callbacks"),
        ],
        "vae_jax/training/sharding.py": [
            ("state = copied(state)", "pass", "test_train leaves_its_argument"),
            ("rows - jax.lax.axis_index(AXIS) * len(part)", "rows", "test_sharding take"),
            ("(place >= 0) & (place < len(part))", "(place < len(part))", "test_sharding take"),
            ("max(axes, key=", "min(axes, key=", "test_sharding its_part"),
            (
                "jax.lax.with_sharding_constraint(leaf, self._sharding(path, leaf, False))",
                "leaf",
                "test_sharding any_number",
            ),
            (
                "if not 0 <= process_id < num_processes:",
                "if not 0 <= process_id <= num_processes:",
                "test_seeds before_training",
            ),
        ],
        "vae_jax/training/schedules.py": [
            ("warmup_steps=warm_up_steps", "warmup_steps=0", "test_train warm_up"),
            ("min(round(warm_up * steps), steps - 1)", "round(warm_up * steps)", "test_train warm_up"),
        ],
        "vae_jax/training/step.py": [
            ("if jnp.shape(leaf)[:1] != (size,):", "if False:", "test_parts another_size"),
            (
                "            if axis_name is not None:\n                raise",
                "            if False:\n                raise",
                "test_newcomers mistake",
            ),
            ("        _require_of_size(batch, size)\n", "", "test_parts another_size"),
            ("            _require_terms(loss.terms, size)\n", "", "test_parts another_size"),
            ("new if new.dtype == old.dtype else new.astype(old.dtype)", "new", "test_train batch_statistics_keep"),
            ("params, value=loss)", "params)", "test_train needs_the_loss"),
            ("cpu=by_cond, default=by_select", "cpu=by_cond, default=by_cond", "test_accelerators exported and step"),
            ("@functools.partial(jax.jit, inline=True)", "@functools.partial(lambda take: take)", "test_train traces"),
            ("select(finite, take(before), before)", "take(before)", "test_accelerators not_finite"),
            ("variables = merged(own, variables)", "variables = merged(variables, own)", "test_parts starts_from"),
            ("        leaves_of_model(model, variables)\n", "", "test_pca_start given"),
            ("merged(variables, updates), variables", "variables, variables", "test_train batch_statistics"),
            ("jnp.int32), run_key, settings,", "jnp.int32), variables_key, settings,", "test_train key_of_a_run"),
            ("gradients[name if name in losses else MODEL]", "gradients[MODEL]", "test_parts gradient"),
            ("jax.lax.axis_index(axis_name) * size", "0", "test_train pmap"),
            ("NOISE, state.step)", "NOISE, 0)", "test_train new_noise"),
            ("jnp.sum(values * mask)", "jnp.sum(values)", "test_train masked"),
            ("_sum(mask.sum(), axis_name)", "mask.sum()", "test_train pmap"),
            (" & jnp.isfinite(optax.tree.norm(gradient))", "", "test_train not_finite"),
            (
                "jax.random.fold_in(jax.random.fold_in(run_key, stream), number)",
                "jax.random.fold_in(run_key, stream + number)",
                "test_train python_loop",
            ),
            ("        batch = _with_finite_padding(batch, axis_name)\n", "", "test_train masked"),
            ("first = at(of_devices, jnp.argmax(has_example))", "pass", "test_train pmapped"),
            ("self._require_own(state.opt_state, params)", "pass", "test_bad_training sentence"),
            (
                '_require_other_names("frozen arrays", frozen, variables["params"])',
                "pass",
                "test_bad_training sentence",
            ),
            ("return jax.tree.structure(tree), [", "return None, [", "test_bad_training sentence"),
            ('{"loss": losses[MODEL], **parts', '{"loss": total, **parts', "test_parts gradient"),
            ("not 0 <= int(number) < count", "not -count <= int(number) < count", "test_bad_training sentence"),
            ("self.model.require_data(data, transform)", "pass", "test_train does_not_take"),
            ("require_schedules(self.objective, steps)", "pass", "test_objectives schedule_of_a_run"),
        ],
        "vae_jax/pages/networks.py": [
            (
                'arrays["kernel"].transpose(3, 0, 1, 2)',
                'arrays["kernel"].transpose(2, 0, 1, 3)',
                "test_pages library_does and square",
            ),
            ("LINEAR_SCALE / math.sqrt", "1 / math.sqrt", "test_pages library_does and linear"),
            ("slice(None, None, 2) if", "slice(1, None, 2) if", "test_pages library_does and heteroscedastic"),
            ('- statistics["mean"]) * factor', ") * factor", "test_pages library_does and batch"),
            ("< 65_520", "< 1e9", "test_pages bad_input"),
        ],
        "vae_jax/pages/network.js": [
            ("i += 4) {\n    const [a,", "i += 5) {\n    const [a,", "test_pages library_does and dense"),
            ("2 * i + a - 1", "2 * i + a", "test_pages library_does and square"),
            ("x[half + i]", "x[i]", "test_pages library_does and gated"),
            ("0.5 + a / 12", "0.5 + a / 2", "test_pages continuous_bernoulli"),
            ("fraction * 2 ** -24", "0", "test_pages float16"),
        ],
        "vae_jax/pages/page.py": [
            ('for character in "<>&"', 'for character in ">&"', "test_pages texts"),
            ("np.argsort(-size", "np.argsort(size", "test_pages sliders"),
            ("leaves_of_model(vae, variables).values()", "jax.tree.leaves(variables)", "test_pages bad_input"),
        ],
        "vae_jax/pages/plane.js": [
            (
                "straightPath(...state.pins, FRAMES).forEach((z, i)",
                "straightPath(...state.pins, 99).forEach((z, i)",
                "test_pages plane",
            ),
            ("< 5) pin();", "< 500) pin();", "test_pages plane"),
        ],
        "vae_jax/pages/sliders.js": [
            (
                "amounts: vectors.map(() => 0) });",
                "amounts: vectors.map(() => 1) });",
                "test_pages vectors",
            ),
            ("Math.min(Math.max(pixel, 0), 1)", "pixel", "test_pages vectors"),
        ],
        "experiments/anomaly_detection.py": [
            ("-log_px - least,\n", "-log_px,\n", "test_anomaly_detection quadrature"),
            ('"ratio": of_background - log_px', '"ratio": log_px - of_background', "test_anomaly_detection quadrature"),
            (
                "self.rate, image.shape), other, image)",
                "self.rate, image.shape), image, image)",
                "test_anomaly_detection perturbed",
            ),
            ("order[~anomaly][::-1]", "order[~anomaly]", "test_anomaly_detection extremes"),
            ("== leave_one_out", "!= leave_one_out", "test_anomaly_detection equally"),
            ("roc_auc_score(anomaly, score)", "roc_auc_score(anomaly, -score)", "test_anomaly_detection area"),
            ('"svm": -svm', '"svm": svm', "test_anomaly_detection pca"),
            ("entr(p) + entr(1 - p)", "entr(p)", "test_anomaly_detection closed"),
        ],
        "experiments/celeba_losses.py": [
            ("    require_enough(run.data)\n", "", "test_celeba_losses refused"),
            ("schedule(config.discriminator_rate)", "config.discriminator_rate", "test_celeba_losses rates"),
            ("LINEAR_RATE * peak if config.pca", "peak if config.pca", "test_celeba_losses rates"),
            ("            variables=start,\n", "            variables=None,\n", "test_celeba_losses four_models"),
            ("mirrored_too(run.data.train.images[:FITTED])", "run.data.train.images", "test_celeba_losses four_models"),
            ("images[:FITTED]", "images", "test_celeba_losses four_models"),
            ("variables, seen)\n", "variables, test)\n", "test_celeba_losses four_models"),
            (
                "for name, settings in others.items() if name in",
                "for name, settings in others.items() if True or name in",
                "test_celeba_losses four_models",
            ),
        ],
        "experiments/harness/face_measures.py": [
            ("paired_frechet(of_real, of_decoded) if paired else", "", "test_celeba_losses errors_of"),
            ("vj.paired_ratio(*sharpness)._asdict() if paired else", "", "test_celeba_losses errors_of"),
        ],
        "experiments/celeba_attributes.py": [
            ("run.classifier_key(4)", "run.key", "test_experiments seed_of_its_option"),
        ],
        "experiments/cifar_deep.py": [
            ("model, MIRRORED, minutes", "model, TRANSFORM, minutes", "test_cifar_deep minutes_set"),
        ],
        "experiments/harness/report.py": [
            ("png.unlink(missing_ok=True)", "pass", "test_run photographs"),
            ("if picture.getcolors(maxcolors=2**16) is None:", "if False:", "test_run photographs"),
            ("if np.all(pixels ==", "if np.any(pixels ==", "test_run photographs"),
            ("if np.all(pixels ==", "if not np.all(pixels ==", "test_run greys"),
        ],
        "experiments/clustering.py": [
            ("key=normalised_entropy)", "key=lambda fitted: -fitted.score(rows))", "test_clustering smallest"),
            (
                "linear_sum_assignment(counts, maximize=True)",
                "linear_sum_assignment(counts)",
                "test_clustering accuracy",
            ),
            ("variance / 10", "variance", "test_clustering starts"),
            (
                "np.argmax(prior.responsibilities(jnp.asarray(z)), axis=-1)",
                "np.zeros(len(z), int)",
                "test_clustering component",
            ),
            ("== number, 0.0, -jnp.inf", "== 0, 0.0, -jnp.inf", "test_clustering component"),
            ("whole.x / (1 - self.share)", "whole.x", "test_clustering dropped"),
            ("        train_transform=Dropped(),\n", "", "test_clustering dropped"),
            ("epochs=PASSES * run.epochs", "epochs=run.epochs", "test_clustering dropped"),
        ],
        "experiments/colourisation.py": [
            ("jnp.arange(images.shape[-1]) < 2", "jnp.arange(images.shape[-1]) < 3", "test_colourisation sees"),
            (".swapaxes(2, 3)", ".swapaxes(1, 2)", "test_colourisation reduced"),
            ("deterministic=not train", "deterministic=False", "test_colourisation dropout"),
            ("UNet(config.width, shape, config.dropout)", "UNet(config.width, shape)", "test_colourisation dropout"),
            ("- 2 * ours @ theirs.T", "- ours @ theirs.T", "test_colourisation neighbours"),
            ("images[..., :2] - answer, answer", "images[..., :2], answer", "test_colourisation sees"),
            ("(mean + mean[:, ::-1]) / 2", "mean", "test_colourisation baselines_are"),
            ("COMPONENTS, *seen.shape", "2, *seen.shape", "test_colourisation projection"),
        ],
        "vae_jax/compression/bins.py": [
            (" + 0.5) / BINS", ") / BINS", "test_compression medians"),
            ("_masses(bins - place, width", "_masses(bins, width", "test_compression inverts"),
        ],
        "vae_jax/compression/bits_back.py": [
            ('"<i4") % BINS', '"<i4") % 1', "test_compression length"),
            ("support.low + support.spacing * image[None]", "1.0 * image[None]", "test_compression length"),
        ],
        "vae_jax/compression/container.py": [
            ("1 <= images <= len(payload)", "1 <= images", "test_compression forged"),
            ("if hashlib.sha256(body).digest() != digest:", "if False:", "test_compression changed"),
            ('.ljust(content.images, b"\\0")', "", "test_compression one_byte"),
            ("            temporary.unlink()", "            pass", "test_compression failed_write"),
        ],
        "vae_jax/compression/environment.py": [
            ('if not flag.startswith("--xla_gpu")', "if flag", "test_compression names_versions"),
            (" + np.asarray(leaf).tobytes()", "", "test_compression another_model"),
        ],
        "vae_jax/compression/images.py": [
            ("reversed(range(len(images)))", "range(len(images))", "test_compression come_back"),
            ("    if is_same:\n", "    if True:\n", "test_compression right_sha256"),
            ("if images.max() >= levels:", "if images.max() > levels:", "test_compression no_bytes"),
        ],
        "experiments/lossless_compression.py": [
            ("if is_binary else []", "if not is_binary else []", "test_compression_scripts all_pixels"),
        ],
        "experiments/lossy_compression.py": [
            ("np.clip(levels, low, high)", "levels", "test_compression_scripts coded"),
            (".swapaxes(1, 2)", "", "test_compression_scripts mosaic"),
            ("images[..., 0].size", "images.size", "test_compression_scripts point"),
        ],
        "experiments/denoising.py": [
            ("jnp.where(u < share / 2, 0.0, 1.0)", "1.0", "test_denoising salt"),
            ("len(b) * (variance + ridge)", "(variance + ridge)", "test_denoising least_squares"),
            ("np.diag(ridge / variances)", "np.diag(ridge * variances)", "test_denoising conditional"),
            ("np.where(noisy == GREY, clipped, noisy) if", "clipped if", "test_denoising clipped"),
            ("noise, tuning, scaled(held_out))", "noise, noisy, scaled(test))", "test_denoising best_baseline"),
        ],
        "experiments/memorising.py": [
            ("noise[index] * jax", "0 * noise[index] * jax", "test_memorising noise"),
            (" + jnp.sum(z**2) / 2", "", "test_memorising prior"),
            ("distances[path] = np.inf", "distances[path[-1]] = np.inf", "test_memorising chain"),
            ("if config.devices.mesh() is not None:", "if False:", "test_memorising refused"),
            ("[jnp.sin(angles), jnp.cos(angles)]", "[angles, jnp.cos(angles)]", "test_memorising period"),
        ],
        "experiments/harness/options.py": [
            ("replace(self, seed=seed, members=1", "replace(self, members=1", "test_run consecutive"),
            ("checkpoint_dir=kept and kept / folder", "checkpoint_dir=kept", "test_run consecutive"),
        ],
        "experiments/harness/recipe.py": [
            ("leaf.ndim > 1", "leaf.ndim > 0", "test_averaging decay"),
            ("int(share * steps)", "int(share)", "test_run share_of_the_steps"),
        ],
        "experiments/harness/run.py": [
            ("vj.averaged_variables(state), self.data.test", "state.variables, self.data.test", "test_run averaged"),
            ("Trained(model, vj.averaged_variables(state)", "Trained(model, state.variables", "test_run averaged"),
            ("training.weight_decay, self.steps)", "training.weight_decay, self.epochs)", "test_run schedule"),
            ("transform=train_transform,", "transform=transform,", "test_run schedule"),
            ("model.require_data(self.data.train, each)", "pass", "test_run range"),
        ],
        "experiments/harness/script.py": [
            ('if "--xla_gpu_deterministic_ops" not in flags:', "if False:", "test_seeds deterministic"),
            ('if "--xla_gpu_deterministic_ops" not in flags:', "if True:", "test_seeds deterministic"),
        ],
        "experiments/harness/seeds.py": [
            ("values.std(axis=0, ddof=1)", "values.std(axis=0, ddof=0)", "test_seeds deviation_of_trees"),
        ],
    }.items()
    for row in rows
]


def out_of_date(lines):
    """A sentence for each row whose text does not occur exactly once."""
    for line in lines:
        times = (ROOT / line.file).read_text().count(line.old)
        if times != 1:
            yield f"{line} has a text that occurs {times} times in {line.file}; expected once"


def pytest_arguments(tests):
    name, _, words = tests.partition(" ")
    (path,) = (ROOT / "tests").rglob(f"{name}.py")
    return [str(path.relative_to(ROOT)), *(["-k", words] if words else [])]


def together(lines):
    """The tests of all rows by their file, as one run each."""
    words = {}
    for line in lines:
        name, _, of_line = line.tests.partition(" ")
        words.setdefault(name, set()).add(of_line)
    return {name: name if "" in those else f"{name} {' or '.join(sorted(those))}" for name, those in words.items()}


def run_pytest(copy, arguments):
    """Run in a process that was forked after the imports of `PRELOADED`, which take longer than most tests."""
    output = os.open(copy / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(copy)
    os.environ["PYTHONPATH"] = str(copy)
    sys.path.insert(0, str(copy))
    import pytest

    # jaxtyping has a pytest plugin, whose assertions are not rewritten when it is imported before.
    settings = ["-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    try:
        status = int(pytest.main(["-x", "-q", *settings, *arguments]))
    except BaseException:
        traceback.print_exc()
        status = 3  # an internal error, as pytest has it; 1 would be a failed test
    sys.exit(status)


class Copies:
    """Copies of the repository, one for each test run at the same time.

    Args:
      place: a folder for the copies, and for a compilation cache that they share where the environment names none.
      jobs: number of copies.
      seconds: time limit of a test run.
    """

    def __init__(self, place, jobs, seconds):
        self._free, self._seconds = queue.Queue(), seconds
        os.environ |= {
            # A bytecode file of the same second and size as the broken source would be taken for its own.
            "PYTHONDONTWRITEBYTECODE": "1",
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", str(place / "cache")),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(PRELOADED)
        for number in range(jobs):
            copy = place / f"copy{number}"
            copy.mkdir()
            for name in COPIED:
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / name, copy)
            self._free.put(copy)

    def run(self, tests, line=None):
        """The exit status of pytest (None beyond the time limit), the end of its output, and its seconds."""
        copy, start = self._free.get(), time.monotonic()
        source = line and copy / line.file
        original = line and source.read_text()
        try:
            if line:
                source.write_text(original.replace(line.old, line.new))
            process = self._processes.Process(target=run_pytest, args=(copy, pytest_arguments(tests)))
            process.start()
            process.join(self._seconds)
            if process.exitcode is None:
                process.kill()
                process.join()
                return None, f"no end after {self._seconds:.0f} s", self._seconds
            return process.exitcode, (copy / "output").read_text()[-3_000:], time.monotonic() - start
        finally:
            if line:
                source.write_text(original)
            self._free.put(copy)


def main(lines, jobs, seconds):
    if errors := list(out_of_date(lines)):
        print(*errors, sep="\n")
        return 2
    noticed, unnoticed = 0, []
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(jobs) as pool:
        copies = Copies(Path(place), jobs, seconds)
        of_line = {pool.submit(copies.run, line.tests, line): line for line in lines}
        unbroken = {pool.submit(copies.run, tests): tests for tests in together(lines).values()}
        for number, run in enumerate(as_completed(of_line | unbroken), 1):
            line, (status, output, took) = of_line.get(run), run.result()
            if line is None:
                tests, outcome = unbroken[run], "passes" if status == 0 else f"FAILS, status {status}"
                if status != 0:
                    errors.append(f"without a broken line {tests} ends with status {status}")
            else:
                tests, outcome = line.tests, NOTICED.get(status, f"NOT NOTICED, status {status}")
                if status in NOTICED:
                    noticed += 1
                elif status in (0, None):
                    unnoticed.append(f"not noticed by {tests}: {line}")
                else:
                    errors.append(f"{line}: pytest ends with status {status}; are there tests named {tests}?")
            print(
                f"{number}/{len(of_line | unbroken)} {line or 'unbroken'}: {outcome} ({tests}, {took:.0f} s)",
                flush=True,
            )
            if outcome not in ("passes", *NOTICED.values()):
                print(output, flush=True)
    print(*unnoticed, *errors, f"noticed {noticed} of {len(lines)}", sep="\n")
    return 2 if errors else 1 if unnoticed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only rows with this text in their file, texts or tests")
    parser.add_argument("--jobs", type=int, default=2, help="test runs at the same time")
    parser.add_argument("--seconds", type=float, default=900.0, help="time limit of a test run")
    parser.add_argument("--list", action="store_true", help="print the rows and run nothing")
    options = parser.parse_args()
    chosen = [line for line in LINES if options.only in f"{line} {line.tests}"]
    if options.list:
        print(*chosen, sep="\n")
    else:
        sys.exit(main(chosen, options.jobs, options.seconds))
