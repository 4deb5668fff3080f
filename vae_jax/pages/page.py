"""The page as a file: the models, points of their latent spaces, and the scripts that show them."""

import html
import json
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from vae_jax.checkpoints.models import leaves_of_model, variables_of
from vae_jax.data import Split
from vae_jax.data.transforms import Examples, as_split, as_transform
from vae_jax.distributions import DiagonalGaussian, Posterior, Prior
from vae_jax.distributions.standard import UnitGaussian
from vae_jax.errors import InputError, named, require_key, require_path, require_writable_folder
from vae_jax.evaluation import encode_all
from vae_jax.evaluation.attributes import AttributeClassifier
from vae_jax.evaluation.latents import circle, inscribed_lattice
from vae_jax.models import VAE, Variables
from vae_jax.models.parameters import parameter_count
from vae_jax.pages.networks import classifier_network, decoder_network, encoded

POINTS = 10_000
"""Greatest number of encodings in a page."""

STARTS = 24
"""Number of encodings that a model of other than two dimensions can start from."""

DRAWS = 256
"""Number of samples of the prior."""

DIMENSIONS = 64
"""Greatest number of latent dimensions with a slider."""

LATTICE = 15
"""Number of images along each side of the lattice."""

_SCRIPTS = ("network.js", "latent.js", "elements.js", "plane.js", "sliders.js", "page.js")

Content = dict[str, Any]
"""Content of the page, as the scripts read it from JSON."""


def export_page(
    path: Any,
    vae: Any,
    variables: Any,
    data: Examples | None = None,
    *,
    transform: Any = None,
    key: Any = None,
    title: str = "Latent space",
    caption: str = "",
    numbers: Mapping[str, Any] | None = None,
    vectors: Mapping[str, Mapping[str, Any]] | None = None,
    classifier: AttributeClassifier | None = None,
) -> None:
    """Write a page in which a latent space is explored: one HTML file that needs no server, no network and no library.

    The page has the weights of the decoder in float16, and its forward pass in JavaScript. A model of two latent
    dimensions is shown as a plane, in which the image under the pointer is decoded as it moves; any other by a slider
    per dimension, sorted by the KL of each in nats. Models with classes have a choice of the label. The page holds no
    example of the data, only encodings.

    Args:
      path: Path of the file, such as "page.html"; an existing file is replaced.
      vae: Model, or several models by name, which are shown side by side. The decoder is a `MLP`, a `Gated` or a
        `ConvDecoder`.
      variables: Variables of the model, such as `state.variables`; of several models, by the same names.
      data: Examples whose encodings are shown, at most `POINTS`; None for a page without encodings.
      transform: Transform of the data; by default `Scale()` of bytes, and otherwise the stored numbers.
      key: Key of a random transform and of the samples of the prior; by default `jax.random.key(0)`.
      title: Title of the page.
      caption: Sentence on the models, the data, the seed and the numbers.
      numbers: Numbers of the run, shown as JSON.
      vectors: Vectors that are added to the latents, [latent], by attribute and kind; each attribute has all kinds.
      classifier: Classifier of attributes, whose probabilities are shown beside the image.

    Raises:
      InputError: The path can't be written; a decoder, an activation, a likelihood or an event is not one that a page
        shows; the variables or the vectors are not those of the model; or the models do not take the data.
    """
    from vae_jax.plotting import CLASS_COLOURS  # imported here, because it imports matplotlib

    key = jax.random.key(0) if key is None else key
    require_key(key)
    path = _writable(path)
    models, variables = _by_name(vae, variables)
    event_shape = _shared_shape(models)
    split = None if data is None else as_split(data)[:POINTS]
    content = {
        "title": title,
        "caption": caption,
        "numbers": "" if numbers is None else json.dumps(numbers, indent=1, default=str),
        "event": event_shape,
        "vectors": _vectors({} if vectors is None else vectors, models),
        "classifier": None if classifier is None else _classifier(classifier, event_shape),
        "models": [
            _model(jax.random.fold_in(key, number), name, model, _of_model(model, variables[name]), split, transform)
            for number, (name, model) in enumerate(models.items())
        ],
        "latticeSize": LATTICE,
        "colours": CLASS_COLOURS,
        **_data(split, transform),
    }
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(_page(content), encoding="utf-8")
    os.replace(temporary, path)


def _page(content: Content) -> str:
    """The page with its style, its scripts and its content, in which no text can close an element."""
    files = {name: (resources.files(__package__) / name).read_text("utf-8") for name in (*_SCRIPTS, "page.css")}
    data = json.dumps(content, allow_nan=False)
    for character in "<>&":
        data = data.replace(character, f"\\u{ord(character):04x}")
    return Template((resources.files(__package__) / "page.html").read_text("utf-8")).substitute(
        title=html.escape(content["title"]),
        style=files["page.css"],
        script="\n".join(files[name] for name in _SCRIPTS),
        content=data,
    )


def _data(data: Split | None, transform: Any) -> Content:
    """The range of the pixels, which are shown from black to white, and the labels if there are any."""
    if data is None:
        return {"range": (0.0, 1.0)}
    support = as_transform(transform, data).support
    is_bounded = np.isfinite([support.low, support.high]).all()
    labels = {} if data.labels is None else {"labels": data.labels.tolist(), "classes": np.unique(data.labels).tolist()}
    return {"range": (support.low, support.high) if is_bounded else (0.0, 1.0), **labels}


def _model(
    key: Key[Array, ""], name: str, vae: VAE, variables: Variables, data: Split | None, transform: Any
) -> Content:
    """One model: its decoder, samples of the prior, and what its encodings of the data show."""
    network = decoder_network(vae, variables)
    prior = vae.prior_distribution(variables)
    encode_key, draw_key = jax.random.split(key)
    draws = np.asarray(prior.sample(draw_key, DRAWS))
    posterior = None if data is None else encode_all(encode_key, vae, variables, data, transform=transform)
    z = draws if posterior is None else np.asarray(posterior.mean)
    return {
        "name": name,
        "description": _description(vae, variables),
        "latentDim": vae.latent_dim,
        "classes": vae.classes,
        "network": network,
        "draws": encoded(draws, "prior"),
        **(_plane(z, posterior is not None) if vae.latent_dim == 2 else _sliders(z, posterior, prior)),
    }


def _description(vae: VAE, variables: Variables) -> str:
    parameters = parameter_count(variables["params"]["decoder"])
    latents = f"{vae.latent_dim} latent dimension{'s' * (vae.latent_dim != 1)}"
    return f"{latents}, {type(vae.decoder).__name__} of {parameters:,} parameters, {vae.likelihood}"


def _plane(z: Float[np.ndarray, "n 2"], has_data: bool) -> Content:
    """The circle with 99 % of the encodings and its lattice; without data, the circle with 99 % of the prior."""
    sphere = circle(z)
    return {
        "points": encoded(z, "encodings") if has_data else None,
        "circle": {"centre": sphere.centre.tolist(), "radius": sphere.radius},
        "lattice": encoded(inscribed_lattice(sphere, LATTICE), "lattice"),
    }


def _sliders(z: Float[np.ndarray, "n latent"], posterior: Posterior | None, prior: Prior) -> Content:
    """The dimensions with the largest KL (or standard deviation), and encodings to start from.

    Each dimension has that number and the range of its slider.
    """
    size, unit = _carried(z, posterior, prior)
    low, high = np.quantile(z, (0.005, 0.995), axis=0)
    dimensions = [
        {
            "index": int(index),
            "carries": f"{size[index]:.2f} {unit}" if unit else "",
            "low": min(-3.0, float(low[index])),
            "high": max(3.0, float(high[index])),
        }
        for index in np.argsort(-size, kind="stable")[:DIMENSIONS]
    ]
    return {"dimensions": dimensions, "starts": None if posterior is None else encoded(z[:STARTS], "encodings")}


def _carried(
    z: Float[np.ndarray, "n latent"], posterior: Posterior | None, prior: Prior
) -> tuple[Float[np.ndarray, " latent"], str]:
    """What each dimension carries: its mean KL, or its standard deviation if the KL has no closed form for each."""
    if posterior is None:
        return np.zeros(z.shape[1]), ""
    if isinstance(posterior, DiagonalGaussian) and isinstance(prior, UnitGaussian):
        return np.asarray(posterior.kl()).mean(axis=0), "nats"
    return z.std(axis=0), "s.d."


def _vectors(vectors: Mapping[str, Mapping[str, Any]], models: Mapping[str, VAE]) -> list[Content]:
    """The attribute vectors, by kind.

    Raises:
      InputError: There are several models, a vector is not one of the model's latents, the kinds differ, or the vectors
        are not given by kind.
    """
    if not isinstance(vectors, Mapping) or not all(isinstance(by_kind, Mapping) for by_kind in vectors.values()):
        raise InputError(
            f"vectors is {named(vectors)}; expected a dict of those of each attribute by kind, such as "
            "{'Blond_Hair': {'balanced': vector}}"
        )
    sizes = {model.latent_dim for model in models.values()}
    kinds = {tuple(by_kind) for by_kind in vectors.values()}
    if vectors and (len(models) > 1 or len(kinds) > 1 or sizes == {2}):
        raise InputError(
            f"vectors of kinds {sorted(kinds)} are given with {len(models)} models of {min(sizes)} latent dimensions; "
            "expected the same kinds of each attribute, and one model of other than two dimensions"
        )
    for name, by_kind in vectors.items():
        for kind, vector in by_kind.items():
            if np.shape(vector) not in {(size,) for size in sizes}:
                raise InputError(f"the {kind} vector of {name} has shape {np.shape(vector)}; expected ({min(sizes)},)")
    return [
        {"name": _readable(name), "kinds": {kind: encoded(vector, "vector") for kind, vector in by_kind.items()}}
        for name, by_kind in vectors.items()
    ]


def _classifier(classifier: AttributeClassifier, event_shape: tuple[int, ...]) -> Content:
    if classifier.classifier.image_shape != event_shape:
        raise InputError(
            f"the classifier takes images of {classifier.classifier.image_shape}; expected those of the model, "
            f"{event_shape}"
        )
    return {"names": [_readable(name) for name in classifier.names], "network": classifier_network(classifier)}


def _readable(name: str) -> str:
    """The name of an attribute, such as blond hair for Blond_Hair."""
    return name.replace("_", " ").lower()


def _shared_shape(models: Mapping[str, Any]) -> tuple[int, ...]:
    """The shape of the images of all models.

    Raises:
      InputError: The page can't show a model, or the models side by side.
    """
    for vae in models.values():
        if not isinstance(vae, VAE):
            raise InputError(f"vae is {named(vae)}; expected a vj.VAE, or several by name")
        if vae.condition_shape is not None:
            raise InputError(
                f"the model has conditions of {vae.condition_shape}; a page has labels alone: use classes="
            )
    shapes = {vae.event_shape for vae in models.values()}
    shape = next(iter(shapes))
    if len(shapes) > 1 or len(shape) != 3 or shape[-1] not in (1, 3):
        text = ", ".join(map(str, sorted(shapes)))
        raise InputError(f"event_shape is {text}; expected (height, width, 1 or 3), the same of all models of a page")
    return shape


def _of_model(vae: VAE, variables: Any) -> Variables:
    """The variables that belong to the model, as arrays of JAX."""
    structure = jax.tree.structure(variables_of(vae))
    return jax.tree.unflatten(structure, leaves_of_model(vae, variables).values())


def _by_name(vae: Any, variables: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Models and variables by name; the name of a single model is empty."""
    if not isinstance(vae, Mapping):
        return {"": vae}, {"": variables}
    if not vae or not isinstance(variables, Mapping) or vae.keys() != variables.keys():
        raise InputError(
            f"the models are {', '.join(vae) or 'none'} and the variables are those of "
            f"{', '.join(variables) if isinstance(variables, Mapping) else named(variables)}; expected the same names"
        )
    return dict(vae), dict(variables)


def _writable(path: Any) -> Path:
    """The path of the file, in a folder that exists and can be written to."""
    require_path("the path of a file, such as page.html", path=path)
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected the path of a file, such as {path / 'page.html'}")
    require_writable_folder(path.parent)
    return path
