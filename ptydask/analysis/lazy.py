"""Arrays that stay in the file until they are used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import DTypeLike, NDArray

from ptydask.store.reader import StoredArray


class LazyArray(NDArrayOperatorsMixin):
    """An array of a trial: indexing reads that part, NumPy and Matplotlib take it as it is, ``read()`` gives all.

    ``units`` and ``long_name`` say what the numbers are; ``dims`` names the axes (``omode`` and ``pmode`` are the
    modes of object and probe, ``z`` the slices).
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        fetch: Callable[[Any], NDArray[Any]],
        *,
        units: str = "",
        long_name: str = "",
        dims: tuple[str, ...] = (),
    ) -> None:
        self.shape = shape
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.units, self.long_name, self.dims = units, long_name, dims
        self._fetch = fetch

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of values."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes in memory, once read."""
        return self.size * self.dtype.itemsize

    def read(self) -> NDArray[Any]:
        """The whole array."""
        return self._fetch(())

    def __getitem__(self, part: Any) -> Any:
        """The part that a NumPy index names; only that is read where the index is of integers and slices."""
        # NumPy says of an array without content what is wrong with an index; HDF5 would have it that the file is.
        np.broadcast_to(np.False_, self.shape)[part]
        keys = part if isinstance(part, tuple) else (part,)
        if all(_is_integer(key) or _is_forward_slice(key) or key is Ellipsis for key in keys):
            return self._fetch(part)
        return self.read()[part]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """For ``np.asarray``."""
        if copy is False:
            raise ValueError("an array that lies in a file cannot be had without a copy")
        return np.asarray(self.read(), dtype=dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """Arithmetic reads the whole array."""
        if "out" in kwargs and any(isinstance(out, LazyArray) for out in kwargs["out"]):
            return NotImplemented
        read = [value.read() if isinstance(value, LazyArray) else value for value in inputs]
        return getattr(ufunc, method)(*read, **kwargs)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a single number has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __float__(self) -> float:
        return float(self.read().item())

    def __repr__(self) -> str:
        names = self.dims if len(self.dims) == len(self.shape) else ()
        axes = ", ".join(f"{name}: {size}" for name, size in zip(names, self.shape, strict=True))
        shape = f"({axes})" if names else str(self.shape)
        return " ".join(word for word in ("<LazyArray", shape, str(self.dtype), self.units) if word) + ">"


def from_stored(
    array: StoredArray, dims: tuple[str, ...] = (), ready: Callable[[], object] = lambda: None
) -> LazyArray:
    """An array of the results file; ``ready`` is called before each reading, and raises where it cannot be."""

    def fetch(part: Any) -> NDArray[Any]:
        ready()
        return array[part]

    return LazyArray(
        array.shape,
        array.dtype,
        fetch,
        units=array.units,
        long_name=array.long_name,
        dims=dims if len(dims) == len(array.shape) else (),
    )


def from_polar(amplitude: LazyArray, phase: LazyArray) -> LazyArray:
    """``amplitude * exp(i phase)``, complex, part by part. Both have the same shape."""

    def fetch(part: Any) -> NDArray[Any]:
        product = np.asarray(amplitude[part]) * np.exp(1j * np.asarray(phase[part]))
        return np.asarray(product, dtype=dtype)

    dtype = np.result_type(amplitude.dtype, np.complex64)
    return LazyArray(
        phase.shape, dtype, fetch, units=amplitude.units, long_name="transmission of the object", dims=phase.dims
    )


def _is_integer(key: Any) -> bool:
    return isinstance(key, int | np.integer) and not isinstance(key, bool)


def _is_forward_slice(key: Any) -> bool:
    """A slice that HDF5 can read as it is: it knows no steps backwards."""
    return isinstance(key, slice) and (key.step is None or key.step > 0)
