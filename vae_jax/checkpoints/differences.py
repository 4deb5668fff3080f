"""The differences of two descriptions as text for an error message."""

import re
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

_LONGEST = 60  # characters of a value
_MOST = 3  # differences


def difference(name: str, there: Any, here: Any) -> str:
    """The first paths at which two JSON values differ, each with both values.

    Args:
      name: Name of the values, with which each path begins; may be empty.
      there: Value in the checkpoint.
      here: Value of this run.
    """
    texts = [
        f"{_ends(path)} is {_brief(one)} there and {_brief(other)} here"
        for path, one, other in _differences(name, there, here)
    ]
    found = list(dict.fromkeys(texts))  # the description of an optimizer has the same number at several paths
    more = len(found) - _MOST
    return ", ".join(found[:_MOST]) + (f" and {more} more" if more > 0 else "")


def _differences(path: str, there: Any, here: Any) -> Iterator[tuple[str, Any, Any]]:
    """The paths at which two values differ, with both values; values of two kinds are not compared further."""
    if there == here:
        return
    if isinstance(there, Mapping) and isinstance(here, Mapping) and _kind(there) == _kind(here):
        parts = {name: (there.get(name), here.get(name)) for name in sorted(there.keys() | here.keys())}
    elif isinstance(there, list) and isinstance(here, list) and len(f"{there}{here}") > _LONGEST:
        parts = {str(i): both for i, both in enumerate(zip_longest(there, here))}
    else:
        yield path, there, here
        return
    for name, both in parts.items():
        yield from _differences(f"{path}.{name}" if path else name, *both)


def _kind(value: Mapping[str, Any]) -> Any:
    """The class, function or definition that a description names; None of any other mapping."""
    return value.get("class") or value.get("import") or value.get("def")


def _ends(path: str) -> str:
    """The path, shortened to its first and its last two parts."""
    first, *inner = path.split(".")
    return path if len(inner) <= 3 else f"{first}...{'.'.join(inner[-2:])}"


def _brief(value: Any) -> str:
    """The kind of a description, or the value itself; digests and long texts are shortened."""
    text = repr((_kind(value) if isinstance(value, Mapping) else None) or value)
    text = re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1...", text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}...{text[-_LONGEST // 2 :]}"
