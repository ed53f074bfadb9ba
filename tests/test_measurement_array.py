"""Files of measurements that are read in part."""

import h5py
import numpy as np
import pytest

from ptydask.store.foreign.damage import explain_unreadable
from ptydask.store.foreign.measurement_array import opened_array


@pytest.mark.parametrize("suffix", ["npy", "raw"])
def test_a_slice_is_no_map_of_its_file(tmp_path, suffix):
    """The pages of a map count as memory as long as it is there: 4 GiB that are read in slabs would be 4 GiB."""
    stack = np.arange(5 * 4 * 4, dtype=np.float32).reshape(5, 4, 4)
    path, params = tmp_path / f"data.{suffix}", {"gap": 0}
    if suffix == "npy":
        np.save(path, stack)
    else:
        path.write_bytes(stack.tobytes())
    with opened_array(path, params, stack.shape) as array:
        assert (tuple(array.shape), array.dtype) == (stack.shape, stack.dtype)
        part = array[1:3, :, 2]
    assert type(part) is np.ndarray
    assert part.base is None
    assert np.array_equal(part, stack[1:3, :, 2])


@pytest.mark.parametrize("kind", ["cut", "damaged", "npy", "text", "gone"])
def test_what_cannot_be_read_in_words(kind, tmp_path) -> None:
    """How much of a file that is cut short is there; damage inside; no HDF5 at all."""
    path = tmp_path / ("d.npy" if kind == "npy" else "d.h5")
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file.create_dataset("data", data=np.arange(9000.0), chunks=(9000,), fletcher32=True)
    data = bytearray((tmp_path / "whole.h5").read_bytes())
    if kind == "damaged":
        data[-5000:-4000] = bytes(1000)
        path.write_bytes(data)
    elif kind == "cut":
        path.write_bytes(data[:50000])
    elif kind == "npy":
        np.save(path, np.zeros(9000))
        path.write_bytes(path.read_bytes()[:50000])
    elif kind == "text":
        path.write_text("text")
    with pytest.raises((OSError, ValueError)) as raised, opened_array(path, {"key": "data"}, (1, 9000, 1)) as array:
        np.asarray(array[0:9000])
    rule, hint = explain_unreadable(path, raised.value)
    words = {"cut": "50 kB of ", "damaged": "is damaged", "npy": "50 kB", "text": "no HDF5", "gone": "no such file"}
    assert words[kind] in rule
    assert ("copy it again" in hint) == (kind in ("cut", "damaged", "npy"))
