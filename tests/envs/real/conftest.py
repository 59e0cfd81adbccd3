"""The real systems that the tests of their faces run over: every id, and the noisy forms of some."""

from pathlib import Path

import pytest

from learned_envs.envs.real.registration import SYSTEM_IDS
from tests.contract.vector_checker import Subject

_SUBJECTS = [Subject(name, id, Path()) for id, name in SYSTEM_IDS.items()] + [
    Subject("noisy HIVTreatment", "Myriad/HIVTreatment-v0", Path(), {"noise": 0.1, "distractors": 2}),
    Subject("distracted Bacteria", "Myriad/Bacteria-v0", Path(), {"distractors": 1, "fixed": "dt"}),
    Subject(
        "noisy CopyTask",
        "CopyTask-v0",
        Path(),
        {"target_deviation": 0.3, "reward_deviation": 0.1, "final_share": 0.3, "show_phase": True},
    ),
]


@pytest.fixture(params=_SUBJECTS, ids=lambda subject: subject.name.replace(" ", "-"))
def subject(request: pytest.FixtureRequest) -> Subject:
    """Each real system in turn."""
    return request.param
