"""Every example runs, small, as a reader would run it."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SIZES = {
    "analytic_gradients": "--num-envs 2 --horizon 3 --updates 2",
    "cleanrl_style": "--steps 32 --num-envs 4 --rollout 4",
    "compare_with_real": "--games 2 --context 4 --steps 10",
    "evaluate": "--num-envs 2 --steps 6",
    "fork_a_state": "--steps 3 --hold 2",
    "real_context": "--context 4 --steps 8",
    "record": "--num-envs 2 --steps 4",
    "sb3_ppo": "--steps 64 --n-envs 2 --evaluations 1 --episodes 1",
    "torch_ppo": "--steps 128 --num-envs 2 --episodes 1",
    "video": "--games 2 --steps 3",
}
SAYS = {
    "analytic_gradients": "update 1: mean return",
    "compare_with_real": "step 10: ball off by",
    "evaluate": "real: ",
    "fork_a_state": "action 5: reward",
    "real_context": "last real picture: True",
    "record": "8 steps are in",
    "sb3_ppo": "Best mean return in real Pong",
    "torch_ppo": "imagined steps: -2",
    "video": "film.gif",
}


def test_there_are_ten_and_each_is_tested() -> None:
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == sorted(SIZES) and len(SIZES) == 10
    listed = (EXAMPLES / "README.md").read_text()
    assert all(f"[{name}.py]({name}.py)" in listed for name in SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_example_runs(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *SIZES[name].split()]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert SAYS.get(name, "") in ran.stdout
