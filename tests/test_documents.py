"""The examples of the documents run, and print what the documents say."""

import doctest
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vae_jax as vj

ROOT = Path(__file__).parent.parent


def blocks(document, language="python"):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def test_the_quick_start_prints_what_the_readme_says(tmp_path, monkeypatch, capsys):
    start, resumable = blocks("README.md")
    (said,) = blocks("README.md", "text")
    names = {}
    exec(start, names)
    printed = capsys.readouterr().out
    numbers = re.compile(r"negative ELBO: ([\d.]+) \+- ([\d.]+) nats\n")
    # Other CPUs and compilers round differently, and training amplifies the difference.
    (elbo, error), (expected, expected_error) = (
        map(float, numbers.fullmatch(text).groups()) for text in (printed, said)
    )
    assert elbo == pytest.approx(expected, abs=1.5)
    assert error == pytest.approx(expected_error, abs=0.3)
    assert names["digits"].shape == (16, 28, 28, 1)
    monkeypatch.chdir(tmp_path)
    exec(resumable.replace("epochs=20", "epochs=2"), names)
    assert len(names["history"]) == 2
    exec(resumable.replace("epochs=20", "epochs=3"), names)
    assert [record["epoch"] for record in names["history"]] == [1, 2, 3]
    assert names["variables"].keys() == {"params"}


def test_the_examples_of_the_library_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = (
        re.sub(
            r"epochs=\d+",
            "epochs=1",
            text.replace("5_000", "20").replace("500)", "20)"),
        )
        for text in blocks("vae_jax/README.md")
    )
    names = {}
    for example in examples:
        exec(example, names)
    optimizer = names["optimizer"]
    assert np.all(names["estimates"].log_px < 0)
    assert len(names["records"][0]["kl"]) == 3
    assert names["history"][-1]["validation_negative_elbo"] > 0
    assert names["loaded"].model == names["vae"]
    assert (tmp_path / "runs/mine_exported/decoder.bin").exists()

    def last_loss(model, objective, data, **settings):
        state = vj.init(jax.random.key(0), model, optimizer)
        step = vj.make_train_step(model, objective, optimizer)
        return vj.fit(state, step, data, epochs=1, batch_size=64, progress=False, **settings)[1][-1]["loss"]

    own = vj.mlp_vae((20,), 2, (8,), names["Exponential"](), prior=names["Ring"]())
    assert np.isfinite(last_loss(own, vj.ELBO(), np.abs(names["rows"]), transform=vj.Raw(0.0)))
    images = names["data"].train[:64]
    assert np.isfinite(last_loss(names["own_vae"], names["capacity"], images, transform=names["WithNoise"]()))


def test_the_api_reference_is_built_without_warnings(tmp_path):
    written = blocks("CONTRIBUTING.md", "bash")[-1].partition("&& PDOC_ALLOW_EXEC=1 .venv/bin/python ")[2]
    arguments = written.replace("\\\n", " ").replace("runs/api", str(tmp_path)).split()
    environment = os.environ | {"PDOC_ALLOW_EXEC": "1"}
    command = [sys.executable, *arguments]
    built = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert built.returncode == 0, built.stderr[-2000:]
    page = (tmp_path / "vae_jax.html").read_text()
    names = [name for name in vj.__all__ if not inspect.ismodule(getattr(vj, name))]
    assert [name for name in names if f'id="{name}"' not in page] == []
    assert (tmp_path / "vae_jax/evaluation/latents.html").exists()


def test_the_readmes_fit_two_screens_and_their_links_exist():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130
    for document in ("README.md", "CONTRIBUTING.md", "vae_jax/README.md", "experiments/README.md", "figures/README.md"):
        text = (ROOT / document).read_text()
        found = re.findall(r"\]\(([^)#:]+)\)", text) + re.findall(r'src="([^"]+)"', text)
        assert [link for link in found if not (ROOT / document).parent.joinpath(link).exists()] == []


def test_the_references_are_those_that_are_cited():
    cited = re.compile(r"(?<!\w)([A-Z][\w-]+(?: and [A-Z][\w-]+| et al\.)?),? \(?((?:19|20)\d\d)(?=[,;)])")
    folders = [ROOT / name for name in ("vae_jax", "experiments", "figures")]
    files = [*ROOT.glob("*.md"), *(path for folder in folders for path in folder.rglob("*.[mp][dy]"))]
    references = ROOT / "vae_jax" / "REFERENCES.md"
    texts = [re.sub(r"[\s#]+", " ", path.read_text()) for path in files if path != references]
    found = {f"{authors} ({year})" for text in texts for authors, year in cited.findall(text)}
    assert found == set(re.findall(r"^\| ([^|]*\(\d{4}\)) \|", references.read_text(), re.MULTILINE))


def test_every_public_name_has_a_docstring():
    assert [name for name in vj.__all__ if not getattr(vj, name).__doc__] == []


def test_the_examples_of_the_docstrings_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    for name in vj.__all__:
        for example in finder.find(getattr(vj, name), name, globs={"vj": vj, "jax": jax, "jnp": jnp, "np": np}):
            runner.run(example)
    results = runner.summarize()
    assert results.failed == 0
    assert results.attempted >= 20
