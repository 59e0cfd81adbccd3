"""bfloat16: computed in where it is asked for and a device has it, and nowhere else."""

import pytest
import torch

import training.precision
from training.precision import mixed_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("wanted", "has", "dtype"),
    [(True, True, torch.bfloat16), (True, False, torch.float32), (False, True, torch.float32)],
)
def test_layers_compute_in_bfloat16_where_it_is_wanted_and_there(
    monkeypatch: pytest.MonkeyPatch, wanted: bool, has: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(training.precision, "has_bfloat16", lambda device: has)
    with mixed_precision(CPU, wanted):
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype
