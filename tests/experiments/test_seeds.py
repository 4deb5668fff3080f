"""Runs of several seeds: their means and standard deviations, and their programs."""

import os

import numpy as np
import pytest
from harness.options import Options
from harness.script import run_seeds
from harness.seeds import mean_and_deviation, scalars


def test_mean_and_deviation_of_trees():
    of_members = [
        {"kl": 1.0, "curve": [1, 2], "name": "VAE", "label": f"seed {seed}", "rows": [{"c": 1, "e": e}], "none": None}
        for seed, e in ((0, 3.0), (1, 5.0))
    ]
    of_members[1]["kl"] = 4.0
    summary = mean_and_deviation(of_members)
    assert summary["kl"] == {"mean": 2.5, "standard_deviation": pytest.approx(np.std([1, 4], ddof=1))}
    assert summary["curve"] == {"mean": [1, 2], "standard_deviation": [0, 0]}
    assert (summary["name"], summary["label"], summary["none"]) == ("VAE", ["seed 0", "seed 1"], None)
    assert summary["rows"][0]["e"]["mean"] == 4
    assert list(scalars(summary)) == [("kl", 2.5, pytest.approx(2.1213, abs=1e-4))]


@pytest.mark.parametrize("given", ["", " --xla_gpu_deterministic_ops=false"])
def test_programs_are_deterministic_on_a_gpu_unless_the_environment_says_otherwise(monkeypatch, given):
    flag = " --xla_gpu_deterministic_ops=true"
    others = os.environ["XLA_FLAGS"].replace(flag, "")
    monkeypatch.setenv("XLA_FLAGS", others + given)
    seen = []

    def main(options):
        seen.append(os.environ["XLA_FLAGS"])
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_seeds(main, Options())
    assert seen == 2 * [others + (given or flag)]
