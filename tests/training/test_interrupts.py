"""The first signal asks, the second stops."""

import signal
import threading

import pytest

from intuitor_lib.training.savepoints import StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_asks_and_the_second_stops(number, capsys):
    stop = StopRequest()
    with stop.listening("saving first"):
        signal.raise_signal(number)
        assert stop.asked
        assert "saving first" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


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
