"""Trying again: for how long, with which rests in between, and on which answers."""

from __future__ import annotations

import random

import grpc

from ._errors import TOO_LATE, Error, is_lost

MAX_ELAPSED = 60.0
"""No try begins later after the first that failed: a drain and a restart of the server.

A try that stood for longer, as one that waited for room, did not fail in the outage before it.
"""
LEAST_REST = 0.01
LONGEST_PUSHBACK = 30.0
"""A longer pushback of the server ends the tries: people want to know."""


def longest_backoff(failures: int) -> float:
    """Doubles from 100 ms up to 5 s with the failures in a row."""
    return min(0.1 * 2.0 ** min(failures - 1, 10), 5.0)


def backoff(failures: int) -> float:
    """The rest after so many failures: between half and all, so that many clients spread."""
    return longest_backoff(failures) * random.uniform(0.5, 1)


class Tries:
    """The tries of one call that may safely be repeated, all before one deadline."""

    def __init__(self, deadline: float | None = None) -> None:
        self._deadline = deadline
        self._failures = 0
        self._since = 0.0
        self._last: Error | None = None

    def left(self, now: float) -> float | None:
        """Seconds that the next try may take; None is for ever."""
        if self._deadline is None:
            return None
        if now >= self._deadline:
            why = "" if self._last is None else f"; before that: {self._last}"
            raise Error(grpc.StatusCode.DEADLINE_EXCEEDED, TOO_LATE + why)
        return self._deadline - now

    def rest(
        self, error: Error, now: float, *, begun: float | None = None, is_early: bool = False
    ) -> float:
        """Seconds to rest before the next try; raises the error if there is to be none.

        The try that failed was begun then, by default just now. An error that is early is a
        deadline that passed before its time, after which another try is worth it.
        """
        if begun is not None and now > begun + MAX_ELAPSED:
            self._failures = 0
        self._failures += 1
        if self._failures == 1:
            self._since = now
        self._last = error
        asked = error.retry_after
        is_worth_it = (is_lost(error) or is_early) and error.may_retry
        if not is_worth_it:
            raise error
        if asked is not None and asked > LONGEST_PUSHBACK:
            raise error
        rest = backoff(self._failures) if asked is None else max(asked, LEAST_REST)
        if now + rest > self._since + MAX_ELAPSED:
            raise error
        return rest if self._deadline is None else min(rest, max(0.0, self._deadline - now))
