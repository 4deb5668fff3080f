"""A signal stops a run at a state that can be resumed; a second one acts at once."""

import os
import signal
import threading
from contextlib import nullcontext

import pytest
from small_run import assert_same, fit, fresh

import vae_jax as vj
from vae_jax.training.stopping import StopSignals

NUMBERS = (signal.SIGINT, signal.SIGTERM)


def handlers():
    return [signal.getsignal(number) for number in NUMBERS]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_stopped_run_is_resumed_to_the_same_bits(number):
    before, during = handlers(), []

    def send(state):
        during.append(handlers())
        if int(state.step) == 6:
            os.kill(os.getpid(), number)
        return {}

    with pytest.raises(vj.StoppedError) as caught:
        fit(fresh(), 3, eval_fn=send)
    stopped = caught.value
    done = int(stopped.state.step)
    assert 6 < done < 18
    assert stopped.signal == number
    assert str(stopped).startswith(f"{number.name} stopped the training after step {done} of 18; this run saves no")
    assert during[0] != before, "the run did not set handlers"
    assert handlers() == before
    with pytest.warns(UserWarning, match=rf"has {done} steps .*resumes within an epoch") if done % 6 else nullcontext():
        resumed, _ = fit(stopped.state, 3)
    assert_same(resumed, fit(fresh(), 3)[0])


def test_a_signal_in_the_last_chunk_leaves_a_whole_run():
    def send(state):
        if int(state.step) == 12:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    assert_same(fit(fresh(), 2, eval_fn=send)[0], fit(fresh(), 2)[0])


def test_a_run_in_a_thread_leaves_the_handlers_alone():
    before, during, states = handlers(), [], []

    def run():
        states.append(fit(fresh(), 1, eval_fn=lambda state: during.append(handlers()) or {})[0])

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(120)
    assert during == [before]
    assert_same(states[0], fit(fresh(), 1)[0])


def test_a_second_signal_acts_at_once():
    received = []
    original = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda number, frame: received.append(number)),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell's background has another
    }
    try:
        with StopSignals() as stop:
            assert stop.received is None
            os.kill(os.getpid(), signal.SIGTERM)
            assert (stop.received, received) == (signal.SIGTERM, [])
            os.kill(os.getpid(), signal.SIGTERM)
            assert received == [signal.SIGTERM]
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        for number, handler in original.items():
            signal.signal(number, handler)


def test_handlers_are_restored_after_an_error():
    before = handlers()

    def fail(state):
        raise OSError("no measure")

    with pytest.raises(OSError, match="no measure"):
        fit(fresh(), 1, eval_fn=fail)
    assert handlers() == before
