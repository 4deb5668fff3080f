"""Another Python's script: its lines, and what can be wrong with it."""

import sys
from pathlib import Path

import pytest
from benchmarks.peer import peer_lines, torch_command, torch_device

from vae_jax.errors import InputError


def test_lines_are_read_and_options_passed(tmp_path):
    script = tmp_path / "peer.py"
    script.write_text("import json, sys\nfor word in sys.argv[1:]: print(json.dumps({'word': word}))")
    lines = peer_lines([sys.executable, str(script), "first"], batch=3)
    assert [line["word"] for line in lines] == ["first", "--batch", "3"]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("raise SystemExit('no such data')", "the peer failed (no such data)"),
        ("raise SystemExit(3)", "the peer failed (exit status 3)"),
        ("print('warming up')", "no JSON: 'warming up'"),
    ],
)
def test_a_peer_that_fails_is_a_sentence(tmp_path, script, message):
    path = tmp_path / "peer.py"
    path.write_text(script)
    with pytest.raises(InputError) as error:
        peer_lines([sys.executable, str(path)])
    assert message in str(error.value)


def test_a_python_that_is_none_is_a_sentence(tmp_path):
    script = tmp_path / "peer.py"
    script.write_text("")
    with pytest.raises(InputError, match="missing does not exist"):
        torch_command(tmp_path / "missing", script)
    with pytest.raises(InputError, match=r"missing\.py does not exist"):
        torch_command(Path(sys.executable), tmp_path / "missing.py")
    with pytest.raises(InputError, match="is no Python"):
        torch_command(script, script)


@pytest.mark.parametrize(("ours", "torchs"), [("cpu", "cpu"), ("gpu", "cuda")])
def test_pytorch_runs_on_the_device_of_jax(ours, torchs, monkeypatch):
    monkeypatch.setattr("jax.default_backend", lambda: ours)
    assert torch_device() == torchs
