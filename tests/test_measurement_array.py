"""Files of measurements that are read in part."""

import numpy as np
import pytest

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
