"""`--members N`: a script runs N times with seeds that follow each other, and trains its N models as one program.

Each member runs the script in a thread of its own, one at a time. Where a member does what all of them do together,
such as training, it waits for the others; what they ask for is then done once, in the main thread, where signals are
heard.
"""

import contextlib
import io
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

Own = TypeVar("Own")
Answer = TypeVar("Answer")


@dataclass(frozen=True, eq=False)
class Member:
    """One of those who meet.

    Attributes:
      meeting: of them all.
      number: from 0.
    """

    meeting: "Meeting"
    number: int


_MEMBER: ContextVar[Member | None] = ContextVar("member", default=None)


class _AbandonedError(Exception):
    """Another member has failed; this one's thread ends."""


def together(serve: Callable[[list[Own]], Sequence[Answer]], own: Own) -> Answer:
    """What `serve` makes of what all members bring, called once; a script that runs alone brings the only one.

    Args:
      serve: from the members' own, in the order of their seeds, to an answer for each.
      own: what this member brings.
    """
    member = _MEMBER.get()
    return serve([own])[0] if member is None else member.meeting.together(member.number, serve, own)


def run_members(main: Callable[[int], None], members: int) -> None:
    """`main(number)` of each member.

    Raises:
      Exception: the first that a member has raised.
    """
    if members == 1:
        main(0)
    else:
        with contextlib.redirect_stdout(_Prefixed(sys.stdout)):
            Meeting(main, members).hold()


class Meeting:
    """The members' threads, of which one runs at a time: the one that holds the baton."""

    def __init__(self, main: Callable[[int], None], members: int) -> None:
        self._main, self._members = main, members
        self._baton = threading.Condition()
        self._requests: dict[int, tuple[Callable[[list[Any]], Sequence[Any]], Any]] = {}
        self._answers: dict[int, Any] = {}
        self._ended = 0
        self._error: BaseException | None = None

    def hold(self) -> None:
        """Let all members run to their ends."""
        threads = [threading.Thread(target=self._attend, args=(number,)) for number in range(self._members)]
        try:
            with self._baton:
                for thread in threads:
                    thread.start()
                while self._ended < self._members and self._error is None:
                    self._baton.wait_for(self._all_wait)
                    self._serve()
        except BaseException as error:
            self._error = self._error or error
        finally:
            with self._baton:
                self._baton.notify_all()
            for thread in threads:
                thread.join()
        if self._error is not None:
            raise self._error

    def together(self, number: int, serve: Callable[[list[Own]], Sequence[Answer]], own: Own) -> Answer:
        """A member's part of `together`."""
        self._requests[number] = (serve, own)
        self._baton.notify_all()
        self._baton.wait_for(lambda: number in self._answers or self._error is not None)
        if self._error is not None:
            raise _AbandonedError
        return self._answers.pop(number)

    def _all_wait(self) -> bool:
        return self._error is not None or len(self._requests) + self._ended == self._members

    def _serve(self) -> None:
        if self._error is not None or not self._requests:
            return
        requests, self._requests = dict(sorted(self._requests.items())), {}
        serve = next(iter(requests.values()))[0]
        answers = serve([own for _, own in requests.values()])
        self._answers = dict(zip(requests, answers, strict=True))
        self._baton.notify_all()

    def _attend(self, number: int) -> None:
        _MEMBER.set(Member(self, number))
        with self._baton:
            try:
                if self._error is None:
                    self._main(number)
            except _AbandonedError:
                pass
            except BaseException as error:
                self._error = self._error or error
            finally:
                self._ended += 1
                self._baton.notify_all()


class _Prefixed(io.TextIOBase):
    """Text whose lines begin with the number of the member that has printed them."""

    def __init__(self, out: Any) -> None:
        self._out = out

    def write(self, text: str) -> int:
        """Prefix and pass on."""
        member = _MEMBER.get()
        for line in text.splitlines(keepends=True):
            self._out.write(line if member is None or not line.strip() else f"member {member.number}: {line}")
        return len(text)

    def flush(self) -> None:
        """Pass on."""
        self._out.flush()


def mean_and_deviation(of_members: Sequence[Any]) -> Any:
    """Of trees of numbers: at each number's place its "mean" over the members and its "standard_deviation" (n - 1).

    Lists of numbers of one length are taken number by number. What is no number stays where it is the same for all,
    and is a list of theirs where it isn't.
    """
    first = of_members[0]
    if all(isinstance(each, Mapping) and each.keys() == first.keys() for each in of_members):
        return {name: mean_and_deviation([each[name] for each in of_members]) for name in first}
    if all(each == first for each in of_members) and not _is_numeric(first):
        return first
    if all(_is_numeric(each) and np.shape(each) == np.shape(first) for each in of_members):
        values = np.array(of_members, np.float64)
        return {"mean": values.mean(axis=0).tolist(), "standard_deviation": values.std(axis=0, ddof=1).tolist()}
    if all(isinstance(each, list | tuple) and len(each) == len(first) for each in of_members):
        return [mean_and_deviation(each) for each in zip(*of_members, strict=True)]
    return list(of_members)


def scalars(summary: Any, name: str = "") -> Iterator[tuple[str, float, float]]:
    """The names, means and deviations of the single numbers that `mean_and_deviation` has found."""
    if not isinstance(summary, Mapping):
        return
    if summary.keys() == {"mean", "standard_deviation"}:
        if not isinstance(summary["mean"], list):
            yield name, summary["mean"], summary["standard_deviation"]
        return
    for part, of_part in summary.items():
        yield from scalars(of_part, f"{name}.{part}" if name else str(part))


def _is_numeric(value: Any) -> bool:
    """A number, or lists of them of one shape."""
    if isinstance(value, list | tuple):
        try:
            return len(value) > 0 and np.asarray(value).dtype.kind in "iuf"
        except ValueError:  # of lists of several lengths
            return False
    return isinstance(value, int | float) and not isinstance(value, bool)
