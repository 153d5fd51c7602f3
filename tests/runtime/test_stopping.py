"""Signals: at first a number to look at, an exception where stopping half-way does no harm, and never twice."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from pretint.runtime.stopping import Interrupted, StopRequests


def ask(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_kept_and_later_ones_change_nothing(number: signal.Signals):
    with StopRequests() as stop:
        assert stop.received is None
        ask(number)
        ask(signal.SIGTERM)
        ask(signal.SIGINT)
        assert stop.received == number


def test_where_it_does_no_harm_a_signal_stops_at_once_and_a_second_one_does_not_disturb_the_way_out():
    with StopRequests() as stop:
        with pytest.raises(Interrupted) as error, stop.stopping_at_once():
            ask(signal.SIGINT)
        ask()  # while what is left behind is tidied up
    assert error.value.signal_number == stop.received == signal.SIGINT


def test_a_signal_that_came_before_stops_what_may_be_left_before_it_begins():
    with StopRequests() as stop:
        ask()
        with pytest.raises(Interrupted), stop.stopping_at_once():
            pytest.fail("began")
        with stop.stopping_at_once(allowed=False):
            pass


def test_an_outer_handler_does_not_raise_for_a_signal_that_an_inner_one_has_taken():
    with StopRequests(at_once=True) as outer:
        with pytest.raises(Interrupted), StopRequests() as inner, inner.stopping_at_once():
            ask()
        ask()
        assert (inner.received, outer.received) == (signal.SIGTERM, signal.SIGTERM)
    with StopRequests(at_once=True):
        with StopRequests():
            pass
        with pytest.raises(Interrupted):
            ask()


def test_an_outer_handler_is_handed_a_signal_that_an_inner_one_was_left_with():
    with pytest.raises(Interrupted) as error, StopRequests(at_once=True), StopRequests():
        ask(signal.SIGINT)
    assert error.value.signal_number == signal.SIGINT
    with StopRequests() as outer:
        with StopRequests():
            ask()
        assert outer.received == signal.SIGTERM


def test_handlers_are_put_back_and_other_threads_are_left_alone():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequests():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
    seen: list[int | None] = []

    def elsewhere() -> None:
        with StopRequests() as stop:
            seen.append(stop.received)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [None]
