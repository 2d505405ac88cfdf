"""The first signal asks, Ctrl-C after it stops."""

import signal
import threading

import pytest

from intuitor_lib.training.savepoints import StopRequest, interruptible


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_asks_and_ctrl_c_after_it_stops(number, capsys):
    stop = StopRequest()
    with stop.listening("saving first"):
        signal.raise_signal(number)
        assert stop.asked
        assert "saving first" in capsys.readouterr().err
        signal.raise_signal(signal.SIGTERM)  # another one who asks
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_sigterm_interrupts_instead_of_ending_the_process():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"), interruptible():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_was_there_comes_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match="x"), StopRequest().listening(""):
        raise ValueError("x")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_another_thread_listens_to_nothing():
    stop, failed = StopRequest(), []

    def work():
        try:
            with stop.listening(""):
                pass
        except ValueError as error:  # of signal.signal outside of the main thread
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed
