"""A trial of PtyRAD that starts from a reconstruction: what was carried takes the place of what PtyRAD made anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ptydask.engines.ptyrad import kept_arrays
from ptydask.engines.ptyrad.carried_start import CarriedStart, FreshTrial, carry
from ptydask.lineage import TrialStart
from ptydask.model import TrialInput
from ptydask.space import tunables


class StartedTrial:
    """Of one trial with the params dict ``params``; make it before PtyRAD's Initializer changes those."""

    def __init__(self, start: TrialStart, params: Mapping[str, Any], trial: TrialInput) -> None:
        self._start, self._tuned = start, frozenset(trial.params)
        self._values = {name: tunables.current_value(params, name) for name in tunables.PARAMETERS}

    def put_into(self, variables: dict[str, Any], jitter: Any) -> None:
        """Before the model is made: arrays of the carried sizes among PtyRAD's ``init_variables``.

        ``jitter`` (N, 2) is by how many pixels PtyRAD displaced the positions at random, None for not at all. Raises
        ValueError where the reconstruction does not fit the trial.
        """
        unit, own = self._start.attributes["length_unit"], kept_arrays.UNITS[variables["length_unit"]]
        if unit != own:
            raise ValueError(f"the start has its lengths in {unit}, and the trial in {own}")
        positions = variables["crop_pos"].astype(np.float64) + variables["probe_pos_shifts"]
        fresh = FreshTrial(
            crop=variables["crop_pos"],
            nominal=positions if jitter is None else positions - jitter,
            object_shape=variables["obj"].shape,
            probe=variables["probe"],
            pixel_size=float(variables["dx"]),
            slice_thickness=float(variables["slice_thickness"]),
            tilts=variables["obj_tilts"],
            affine=tuple(variables["scan_affine"] or (1.0, 0.0, 0.0, 0.0)),
            params=self._values,
            tuned=self._tuned,
        )
        self._carried = carry(self._start, fresh)
        self._intensity = float(np.sum(np.abs(fresh.probe) ** 2))
        variables["crop_pos"], variables["probe_pos_shifts"] = self._carried.crop, self._carried.shifts
        variables["obj"] = self._carried.amplitude * np.exp(1j * self._carried.phase)
        variables["probe"] = self._carried.probe

    def put_onto(self, model: Any) -> None:
        """After the model is made: values that would be rounded on the way, and those that iterations refine.

        PtyRAD's constraint ``fix_probe_int`` keeps the intensity of the fresh probe.
        """
        carried: CarriedStart = self._carried
        exact = {
            "opt_objp": carried.phase,  # a phase beyond pi stays there
            "opt_obja": carried.amplitude,
            "opt_slice_thickness": np.float32(carried.slice_thickness),
            "opt_obj_tilts": carried.tilts,
        }
        with torch.no_grad():
            for name, value in exact.items():
                getattr(model, name).copy_(torch.as_tensor(np.array(value, np.float32)))
        model.probe_int_sum = torch.full_like(model.probe_int_sum, self._intensity)
