"""A run of two processes with two devices each equals that of one device; each process reads its share of the data."""

import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from small_run import DATA, fit, fresh, in_float64, leaves, losses
from train_on_hosts import WAYS

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_X64": "1",
    # But for the devices those of this process: the same program has the same bits only if it is compiled alike.
    "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=2"),
}
SECONDS = 240  # several times what it takes on two busy cores; a deadlock fails rather than hangs


def together(processes):
    """What each process prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name("train_on_hosts.py")
    started = [
        subprocess.Popen(
            [sys.executable, script, str(port), str(processes), str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | ENVIRONMENT,
        )
        for number in range(processes)
    ]
    # All are read at once, so that none waits for a full pipe, and the errors of each are told if one of them hangs.
    ends = time.monotonic() + SECONDS
    with ThreadPoolExecutor(processes) as pool:
        outputs = [pool.submit(process.communicate) for process in started]
        try:
            while not all(output.done() for output in outputs) and time.monotonic() < ends:
                time.sleep(0.1)
        finally:
            hung = [number for number, output in enumerate(outputs) if not output.done()]
            for process in started:
                process.kill()
    printed = [output.result() for output in outputs]
    for number, (process, (_, errors)) in enumerate(zip(started, printed, strict=True)):
        assert process.returncode == 0, f"processes {hung} hung; process {number}: {errors}"
    return [json.loads(out.splitlines()[-1]) for out, _ in printed]


@pytest.fixture(scope="module")
def hosts():
    return together(2)


@pytest.fixture(scope="module")
def alone():
    with jax.enable_x64(True):
        return fit(in_float64(fresh()), 2)


def test_two_processes_have_their_devices_together(hosts):
    assert [host["devices"] for host in hosts] == [4, 4]
    assert [host["first"] for host in hosts] == [True, False]


@pytest.mark.parametrize("way", WAYS)
def test_the_run_of_two_processes_is_that_of_one_device(hosts, alone, way):
    state, history = alone
    for host in hosts:
        np.testing.assert_allclose(host[way]["losses"], losses(history), rtol=1e-10)
        for leaf, expected in zip(host[way]["variables"], leaves(state.variables), strict=True):
            np.testing.assert_allclose(leaf, np.ravel(expected), rtol=1e-10, atol=1e-13)
    assert hosts[0][way]["variables"] == hosts[1][way]["variables"]


def test_members_train_over_two_processes(hosts):
    with jax.enable_x64(True):
        expected = [losses(fit(in_float64(fresh(number)), 2)[1]) for number in range(4)]
    for host in hosts:
        np.testing.assert_allclose(np.transpose(host["members"]["losses"]), expected, rtol=1e-10)


def test_a_callback_of_the_first_process_stops_all(hosts):
    assert [host["stopped"] for host in hosts] == [{"seen": [1, 2], "epochs": 2}, {"seen": [], "epochs": 2}]


def test_each_process_reads_its_own_share(hosts):
    for number, host in enumerate(hosts):
        rows = {tuple(index[0]) for index in host["resident"]["images"]}
        assert rows == {(50 * number, 50 * number + 25), (50 * number + 25, 50 * number + 50)}
        of_batch = {tuple(index[1]) for index in host["streamed"]["images"]}  # [steps, batch, ...]
        assert of_batch == {(8 * number, 8 * number + 4), (8 * number + 4, 8 * number + 8)}
    assert len(DATA) == 100


def test_processes_that_disagree_are_told(hosts):
    for number, host in enumerate(hosts):
        assert "the processes disagree on their data: process 1 has another than process 0" in host["disagreement"]
        assert host["disagreement"].endswith(f"this one has that of {number}")


def test_what_the_first_process_refuses_of_its_store_all_refuse(hosts):
    for host in hosts:
        assert host["refusal"].startswith("the step has no description")
