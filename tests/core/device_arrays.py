"""A stand-in for CuPy on a machine without a GPU: arrays that refuse every implicit transfer from and to the host.

Like CuPy's arrays, they cannot be converted by NumPy functions, cannot be mixed with NumPy arrays, and come back only through
`.get()`; unlike CuPy's, they are accepted by no numpy function at all. Code that runs on them takes its array module from its
arguments. This says nothing about speed or rounding on a real device.
"""

from __future__ import annotations

import types
from typing import Any

import numpy as np


def _unwrap(value: Any) -> Any:
    if isinstance(value, DeviceArray):
        return value.host
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError("a NumPy array met a device array: transfer it with xp.asarray first")
    if isinstance(value, (tuple, list)):
        return type(value)(_unwrap(item) for item in value)
    return value


def _wrap(value: Any) -> Any:
    return DeviceArray(value) if isinstance(value, (np.ndarray, np.generic)) else value


class DeviceArray:
    __module__ = "cupy"
    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, host: Any) -> None:
        self.host = np.asarray(host)

    def __array__(self, *arguments: Any, **options: Any) -> Any:
        raise TypeError("implicit conversion to NumPy: use .get()")

    def get(self) -> Any:
        return self.host.copy()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.host, name)
        return _lift(found) if callable(found) else _wrap(found) if name == "T" else found

    def __getitem__(self, key: Any) -> Any:
        return _wrap(self.host[_unwrap(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self.host[_unwrap(key)] = _unwrap(value)

    def __len__(self) -> int:
        return len(self.host)

    def __float__(self) -> float:
        return float(self.host)

    def __int__(self) -> int:
        return int(self.host)


def _operator(name: str) -> Any:
    def apply(self: DeviceArray, *others: Any) -> Any:
        result = getattr(self.host, name)(*(_unwrap(other) for other in others))
        return self if result is self.host else _wrap(result)

    return apply


_BINARY = ["add", "sub", "mul", "truediv", "pow", "matmul", "and", "or", "lshift", "rshift"]
_COMPARISONS = ["lt", "le", "gt", "ge", "eq", "ne"]
for _name in [*_BINARY, *(f"r{n}" for n in _BINARY), *(f"i{n}" for n in _BINARY), *_COMPARISONS, "neg"]:
    setattr(DeviceArray, f"__{_name}__", _operator(f"__{_name}__"))


def _lift(function: Any) -> Any:
    def lifted(*arguments: Any, **options: Any) -> Any:
        return _wrap(function(*_unwrap(arguments), **{key: _unwrap(value) for key, value in options.items()}))

    if hasattr(function, "reduceat"):
        lifted.reduceat = _lift(function.reduceat)  # type: ignore[attr-defined]
    return lifted


def device_module() -> types.ModuleType:
    """The array module of the stand-in; put it into sys.modules as "cupy" for the duration of a test."""
    module = types.ModuleType("cupy")
    module.asarray = lambda value: value if isinstance(value, DeviceArray) else DeviceArray(np.array(value))  # type: ignore[attr-defined]
    module.__getattr__ = lambda name: _lift(getattr(np, name))  # type: ignore[method-assign]
    return module
