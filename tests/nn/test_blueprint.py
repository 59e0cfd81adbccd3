"""Modules built without weights, within limits."""

import pytest
import torch
from torch import nn

from learned_envs.nn.blueprint import BlueprintError, blueprint


@pytest.mark.parametrize("most_calls", range(12))
def test_refused_module_leaves_gradients_on_wherever_the_limit_is_passed(most_calls: int) -> None:
    with pytest.raises(BlueprintError), blueprint(most_elements=100, most_calls=most_calls):
        for _ in range(12):
            nn.init.zeros_(nn.Linear(2, 2).weight)
    assert torch.is_grad_enabled()
