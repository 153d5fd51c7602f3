"""How do settings come out of JSON again? Each must be of the kind that its field has; nothing in a file is taken on trust."""

from __future__ import annotations

import math
import types
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ..runtime.errors import ArgumentError
from ..runtime.words import shortened

ConfigT = TypeVar("ConfigT")


def from_plain(config: type[ConfigT], values: dict[str, Any]) -> ConfigT:
    """A config of the plain values that :func:`pretint.recipes.options.plain` made of one; what is missing is as by default.

    Raises:
        ArgumentError: a value that the config does not have, or of another kind; or what the config itself raises.

    >>> from pretint.recipes.options import DataOptions
    >>> from_plain(DataOptions, {"root": "a/b", "extra_formats": ["gif"]})
    DataOptions(root=PosixPath('a/b'), max_broken=0.01, extra_formats=('gif',))
    >>> from_plain(DataOptions, {"max_broken": "all"})
    Traceback (most recent call last):
        ...
    pretint.runtime.errors.ArgumentError: max_broken: 'all' is no float; give one.
    """
    kinds = get_type_hints(config)
    unknown = sorted(shortened(name, 50) for name in values.keys() - kinds.keys())
    if unknown:
        raise ArgumentError(
            f"settings: {', '.join(unknown[:5])} are not known to this Pretint; upgrade it, or leave them out."
        )
    return config(**{name: _of_kind(name, kinds[name], value) for name, value in values.items()})


def _of_kind(name: str, kind: Any, value: Any) -> Any:
    """The value as the kind: paths of words, tuples of lists, and floats of whole numbers."""
    if get_origin(kind) in (Union, types.UnionType):
        kinds = get_args(kind)
        if value is None and type(None) in kinds:
            return None
        kind = next(one for one in kinds if one is not type(None))
    if get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise _another_kind(name, "list", value)
        return tuple(_of_kind(name, get_args(kind)[0], item) for item in value)
    if kind is Path and isinstance(value, str) and "\0" not in value:
        return Path(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return float(value)
    if type(value) is not kind or (isinstance(value, float) and not math.isfinite(value)):
        raise _another_kind(name, getattr(kind, "__name__", str(kind)), value)
    return value


def _another_kind(name: str, kind: str, value: Any) -> ArgumentError:
    return ArgumentError(f"{name}: {shortened(repr(value))} is no {kind}; give one.")
