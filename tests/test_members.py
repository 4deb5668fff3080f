"""Members of a script: each as it would be alone, trained as one program, and what is made of their numbers."""

import json
import threading

import jax
import numpy as np
import pytest
from conftest import small_split, write_idx
from harness.members import _MEMBER, mean_and_deviation, run_members, scalars, together
from harness.options import Options
from harness.run import Run, _run_together
from matplotlib.figure import Figure

import vae_jax as vj
from vae_jax.plotting.curves import with_bands


def test_members_meet_in_the_order_of_their_numbers_and_in_the_main_thread():
    served, ended = [], {}

    def serve(brought):
        served.append((threading.current_thread() is threading.main_thread(), brought))
        return [10 * own for own in brought]

    def main(number):
        ended[number] = [together(serve, number), together(serve, number + 1)]

    run_members(main, 3)
    assert served == [(True, [0, 1, 2]), (True, [1, 2, 3])]
    assert ended == {0: [0, 10], 1: [10, 20], 2: [20, 30]}


def test_what_members_bring_is_in_the_order_of_their_numbers_whoever_comes_first():
    served = []

    def main(number):
        if number == 0:
            meeting = _MEMBER.get().meeting
            meeting._baton.wait_for(lambda: len(meeting._requests) == 2)
        assert together(lambda brought: served.append(brought) or brought, 5 + number) == 5 + number

    run_members(main, 3)
    assert served == [[5, 6, 7]]


def test_one_member_needs_no_meeting():
    answers = []
    run_members(lambda number: answers.append(together(lambda brought: [sum(brought)], 5)), 1)
    assert answers == [5]


@pytest.mark.parametrize("where", ["before the meeting", "in what is served"])
def test_a_member_that_fails_ends_all(where):
    def serve(brought):
        raise vj.InputError("served badly")

    def main(number):
        if where == "before the meeting" and number == 1:
            raise vj.InputError("one is wrong")
        together(serve, number)

    with pytest.raises(vj.InputError, match="one is wrong" if where == "before the meeting" else "served badly"):
        run_members(main, 3)
    assert threading.active_count() == 1 or all("attend" not in str(t) for t in threading.enumerate())


def test_lines_say_whose_they_are(capsys):
    run_members(lambda number: print(f"seed {7 + number}\n\nno more"), 2)
    printed = capsys.readouterr().out
    assert "member 0: seed 7\n\nmember 0: no more\n" in printed
    assert "member 1: seed 8\n" in printed


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


def test_bands_stand_around_curves_that_differ_and_around_nothing_else():
    def figure(level):
        figure = Figure()
        axes = figure.subplots()
        axes.plot([1, 2, 3], [level, level + 1, level + 4], label="curve")
        axes.plot([1, 3], [0, 0], label="the same in all")
        axes.plot([level, level + 1], [0, 1], label="of other abscissas")
        figure.suptitle("title")
        return figure

    banded = with_bands([figure(0.0), figure(2.0)])
    (axes,) = banded.axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [1, 2, 5])
    (band,) = axes.collections
    low, high = band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max()
    np.testing.assert_allclose([low, high], [1 - np.sqrt(2), 5 + np.sqrt(2)])
    assert axes.get_ylim()[1] > 5.9, "the limits are those of all members"
    assert "mean and standard deviation of 2 seeds" in banded.get_suptitle()
    alone = figure(1.0)
    assert with_bands([alone]) is alone
    assert not alone.axes[0].collections


def main(options):
    run = Run.start("any", options)
    trained = run.train(run.key, vj.mlp_vae((6, 6, 1), hidden=(8,)), vj.ELBO())
    numbers = {"last": trained.history[-1]["test_negative_elbo"], "history": trained.history}
    run.report(numbers | {"mean_weight": float(np.mean(trained.variables["params"]["encoder"]["Dense_0"]["kernel"]))})


def test_each_member_is_the_run_of_its_seed(tmp_path, capsys):
    data = write_idx(tmp_path / "data", small_split(96), small_split(40, seed=1))

    def report(out, **options):
        _run_together(main, Options(data_dir=data, epochs=2, batch_size=16, out=tmp_path / out, **options))
        return json.loads((tmp_path / out / "any.json").read_text())

    kept = tmp_path / "kept"
    both = report("both", seed=3, members=2, devices="all", checkpoint_dir=kept)
    alone = [report(f"seed{seed}", seed=seed) for seed in (3, 4)]
    for own, single in zip(both["of_members"], alone, strict=True):
        assert own["last"] == pytest.approx(single["last"], rel=1e-5)
        assert own["mean_weight"] == pytest.approx(single["mean_weight"], rel=1e-4)
        assert [record["loss"] for record in own["history"]] == pytest.approx(
            [record["loss"] for record in single["history"]], rel=1e-5
        )
    assert alone[0]["last"] != alone[1]["last"]
    assert both["last"]["mean"] == pytest.approx(np.mean([single["last"] for single in alone]), rel=1e-5)
    assert both["seed"] == 3
    printed = capsys.readouterr().out
    assert "mean and standard deviation of 2 seeds from 3" in printed
    assert f"last: {both['last']['mean']:.4g} +- {both['last']['standard_deviation']:.2g}" in printed
    again = report("again", seed=3, members=2, checkpoint_dir=kept)
    assert again["of_members"] == both["of_members"], "trained anew"
    vae, variables = vj.restore_model(kept / "VAE", member=1)
    kernel = variables["params"]["encoder"]["Dense_0"]["kernel"]
    assert float(np.mean(kernel)) == both["of_members"][1]["mean_weight"]
    assert vae.encode(variables, jax.numpy.zeros((1, 6, 6, 1))).mean.shape == (1, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"members": 0}, "members is 0"),
        ({"devices": 9}, "devices is 9, but there are only 8 cpu devices"),
        ({"devices": 3, "batch_size": 16}, "batch_size is 16, which 3 devices can't share; take 15 or 18"),
        ({"devices": 2, "members": 3}, "members is 3, which 2 devices can't share; take 2 or 4"),
        ({"coordinator": "nowhere"}, "coordinator is 'nowhere'; expected HOST:PORT"),
        ({"coordinator": "here:1", "num_processes": 2}, "give the number of processes and this one's number"),
        ({"coordinator": "here:1", "num_processes": 2, "process_id": 2}, "process_id is 2; expected 0 to 1"),
    ],
)
def test_what_can_not_be_shared_is_refused_before_training(options, message, tmp_path, monkeypatch):
    data = write_idx(tmp_path / "data", small_split(96), small_split(40, seed=1))
    monkeypatch.setattr("vae_jax.training.loop.run_chunk", lambda *args, **kwargs: pytest.fail("training began"))
    with pytest.raises(vj.InputError) as error:
        _run_together(main, Options(data_dir=data, epochs=1, out=tmp_path / "out", **options))
    assert message in str(error.value)
