"""How the compact world model is trained while its agent plays: on codes that are computed once, for two CPU cores."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from learned_envs.twm.observation_model import GridObservationModel
from learned_envs.twm.world_model import TransformerWorldModel, TwmState
from training.agents.actor_critic import ActorCritic, Rollout
from training.agents.imagination import StepwiseImagination
from training.agents.replay import AgentReplay
from training.loop import Stage
from training.precision import mixed_precision
from training.ranges import check_ranges
from training.twm.dynamics import DynamicsStage, DynamicsTraining, encode_all
from training.twm.observation import ObservationStage, ObservationTraining
from training.twm.replay import Replay

__all__ = ["CompactTraining", "CompactWorld"]


@dataclass(frozen=True)
class CompactTraining:
    """Schedule of the compact world model beside its agent.

    Args:
        observation: Pretraining of the observation model.
        dynamics: Pretraining of the dynamics.
        online: Their training beside the agent, an update for each of the agent's, so that the run sets ``updates``.
        refresh_every: Updates between two looks at what was newly recorded.
        refine_every: Updates between two refinements of the observation model; a multiple of ``refresh_every``.
        refinement: Updates of a refinement, at the rate that the observation model's schedule has near its end.
        context: Recorded steps before a rollout.
        bfloat16: Whether to imagine in bfloat16 where the device has it.

    Raises:
        ValueError: If a number lies outside its range, or pictures shall be moved (``moved_share``).
    """

    observation: ObservationTraining = field(default_factory=lambda: ObservationTraining(updates=1500))
    dynamics: DynamicsTraining = field(
        default_factory=lambda: DynamicsTraining(updates=2000, batch=32, length=24, self_fed=0.0)
    )
    online: DynamicsTraining = field(
        default_factory=lambda: DynamicsTraining(updates=0, batch=32, length=24, learning_rate=5e-4)
    )
    refresh_every: int = 50
    refine_every: int = 500
    refinement: int = 100
    context: int = 8
    bfloat16: bool = True

    def __post_init__(self) -> None:
        check_ranges(self, counts=("refresh_every", "refine_every", "context"), not_negative=("refinement",))
        if self.refine_every % self.refresh_every:
            raise ValueError(f"refine_every is {self.refine_every}, but must be a multiple of {self.refresh_every}.")
        for name, fit in (("dynamics", self.dynamics), ("online", self.online)):
            if fit.moved_share:
                raise ValueError(
                    f"{name}.moved_share is {fit.moved_share}, but codes that change are not moved: set it to 0."
                )


class CompactWorld:
    """The compact model: codes of single frames are computed once, the dynamics learn on them, the agent imagines in them.

    Args:
        model: The model, changed in place.
        replay: What was recorded, and grows.
        agent: Who learns in it.
        config: The schedule; ``online.updates`` says how many updates the agent takes.
    """

    def __init__(
        self, model: TransformerWorldModel, replay: AgentReplay, agent: ActorCritic, config: CompactTraining
    ) -> None:
        assert isinstance(model.observation_model, GridObservationModel)
        self.model, self.replay, self.agent, self.config = model, replay, agent, config
        # The empty scene is that of random play, also when a run is resumed.
        self.observation = ObservationStage(model.observation_model, self._frames(), config.observation)
        self.imagination = StepwiseImagination(model, agent.actor, agent.config, config.bfloat16)
        self.codes = torch.empty(0, dtype=torch.uint8)
        self.known = 0  # steps at the last refresh
        self.online: DynamicsStage | None = None
        with torch.no_grad():  # begin with a policy that is nearly random
            agent.actor.layers[-1].weight.mul_(0.01)  # type: ignore[operator]

    def _frames(self) -> Tensor:
        return torch.from_numpy(self.replay.frames[: self.replay.num_frames]).to(self.replay.device)

    def _steps(self, length: int) -> Replay:
        experience = self.replay.experience(self.known)
        return Replay(experience, self.model.config.num_actions, length, self.replay.device)

    def _refresh(self) -> None:
        """Look at what was recorded since the last time."""
        self.known = len(self.replay)
        new = self._frames()[len(self.codes) :]
        if len(new):
            parts = [self.codes] if len(self.codes) else []
            self.codes = torch.cat([*parts, encode_all(self.model.observation_model.eval(), new)])

    def pretraining(self, seed: int) -> Iterator[Stage]:
        """Codes first, then what happens next in them."""
        self.observation.name = "pretrain_observation"
        yield self.observation
        self._refresh()
        config = self.config.dynamics
        steps = self._steps(config.length)
        yield DynamicsStage(self.model.dynamics, self.codes, steps, config, name="pretrain_dynamics")

    def _online(self) -> DynamicsStage:
        if self.online is None:
            config = self.config.online
            self.online = DynamicsStage(self.model.dynamics, self.codes, self._steps(config.length), config)
        return self.online

    def update(self, step: int) -> dict[str, Tensor]:
        """See `World.update`."""
        if step and step % self.config.refine_every == 0:
            self._refine()
        if step % self.config.refresh_every == 0:
            self._refresh()
            self._online().grow(self.codes, self._steps(self.config.online.length))
        return {name.split("/", 1)[1]: value for name, value in self._online().update(step).items()}

    def _refine(self) -> None:
        self.observation.grow(self._frames())
        late = int(0.9 * self.observation.updates)
        for _ in range(self.config.refinement):
            self.observation.update(late)
        self.codes = self.codes[:0]  # all frames look different now

    @torch.no_grad()
    def imagine(self) -> Rollout:
        """See `World.imagine`: from steps that were drawn uniformly, after as much context as their episodes have."""
        online, device, context = self._online(), self.replay.device, self.config.context
        recorded = online.replay.steps
        candidates = recorded.real[context:].nonzero().squeeze(1)  # windows whose last step is a real one
        chosen = candidates[torch.randint(len(candidates), (self.agent.config.starts,), device=device)]
        steps = chosen.unsqueeze(1) + torch.arange(context + 1, device=device)
        classes = self.codes[recorded.frames[steps]].argmax(-1)  # (N, context + 1, V)
        one_hot = functional.one_hot(classes, self.codes.shape[-1]).float()
        rewards = self.model.feed(recorded.rewards_before[steps])
        same = recorded.episodes[steps] == recorded.episodes[steps[:, -1:]]
        with mixed_precision(device, self.config.bfloat16):
            memory = self.model.eval().dynamics.remember(
                one_hot[:, :-1].flatten(2), recorded.actions[steps[:, :-1]], rewards[:, :-1], same[:, :-1]
            )
        nothing = torch.empty(len(chosen), 0, dtype=torch.uint8, device=device)  # nobody looks at pictures
        begin = TwmState(memory, one_hot[:, -1], rewards[:, -1], nothing)
        return self.imagination(begin, classes[:, -self.agent.actor.codes :])

    def picture(self) -> Tensor:
        """See `World.picture`: recorded frames above their reconstructions."""
        return self.observation.visualize(0)["reconstructions"]

    def state_dict(self) -> dict[str, Any]:
        """See `World.state_dict`."""
        return {
            "observation": self.observation.state_dict(),
            "frames": len(self.observation.frames),
            "dynamics": self._online().state_dict(),
            "codes": self.codes,
            "known": self.known,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `World.load_state_dict`."""
        self.observation.grow(self._frames()[: state["frames"]])
        self.observation.load_state_dict(state["observation"])
        self.codes, self.known = state["codes"].to(self.replay.device), state["known"]
        self.online = None
        self._online().load_state_dict(state["dynamics"])
