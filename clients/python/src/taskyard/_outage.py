"""How long a watch has had no stream, and when it is tried again.

Times are those of one steady clock, in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from ._errors import Error, is_lost
from ._retry import LEAST_REST, backoff

STEADY = 1.0
"""A stream that has stood for so long ends the outage before it."""
LEAST_TRY = 0.1
"""For how long an answer is waited for, however little is left of the longest outage."""


@dataclass
class Outage:
    """Since when there has been no stream that stood for long."""

    since: float
    failures: int = 0
    is_told: bool = False
    stands_since: float | None = None
    """A stream tells something again, since then."""


class Outages:
    """The outages of a watch. One that is longer than `max_outage` ends it."""

    def __init__(self, max_outage: float) -> None:
        self.rest_until = 0.0
        """The stream is not opened before."""
        self._max_outage = max_outage
        self._current: Outage | None = None
        self._has_stood = False

    def stands(self, now: float) -> bool:
        """Notes that the stream tells something.

        Answers whether that is news after an outage that was told.
        """
        self._has_stood = True
        outage = self._current
        if outage is None:
            return False
        if outage.stands_since is None:
            outage.stands_since = now
        is_news, outage.is_told = outage.is_told, False
        return is_news

    def lose(self, error: Error, now: float) -> bool:
        """Notes that there is no stream; raises the error if it is of no use to wait.

        Answers whether that is to be told.
        """
        self._fall(now)
        if not error.may_retry:
            raise error
        asked = error.retry_after
        if error.reason in ("WATCH_LIFETIME", "WATCH_STALLED"):
            self.rest_until = now + max(asked or 0.0, LEAST_REST)
            return False
        is_crowded = error.reason == "TOO_MANY_WATCHERS" and self._has_stood
        if not is_lost(error) and not is_crowded:
            raise error
        outage = self._current = self._current or Outage(now)
        outage.failures += 1
        rest = backoff(outage.failures) if asked is None else asked
        self.rest_until = now + max(rest, LEAST_REST)
        if self.rest_until > outage.since + self._max_outage:
            raise error
        is_news, outage.is_told = not outage.is_told, True
        return is_news

    def grace(self, begins: float, longest: float) -> float:
        """For how long an answer is waited for if a try begins at that moment.

        In an outage that is not longer than is waited for.
        """
        if self._current is None:
            return longest
        left = self._current.since + self._max_outage - begins
        return min(longest, max(left, LEAST_TRY))

    def _fall(self, now: float) -> None:
        """Notes that no stream stands: one that stood for long has ended the outage."""
        outage = self._current
        if outage is None or outage.stands_since is None:
            return
        stood, outage.stands_since = now - outage.stands_since, None
        if stood >= STEADY:
            self._current = None
