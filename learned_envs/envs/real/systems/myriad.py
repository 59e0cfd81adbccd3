"""The eleven systems of Myriad that the experiments on action-conditioned world models use.

Names, equations, bounds and defaults are those of Myriad (Howe, Dufort-Labbe, Rajkumar and Bacon, "Myriad: a real-world
testbed to bridge trajectory optimization and deep learning", NeurIPS 2022, arXiv 2202.10600), which took most of the
problems from Lenhart and Workman, "Optimal Control Applied to Biological Models" (2007). `MyriadSystem` makes them
reinforcement learning problems as Ma et al. do ("Do Transformer World Models Give Better Policy Gradients?", ICML 2024,
arXiv 2402.05290). Where Ma et al. changed a number, the docstring of the problem names theirs.

In the equations x is the state, u the physical control, and time the physical time, each in the problem's own units. Every
problem takes the arguments of `MyriadSystem` as well.
"""

import math
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from typing import ClassVar

import torch
from torch import Tensor

from learned_envs.envs.real.systems.system import Bounds, Columns, System

__all__ = [
    "Bacteria",
    "BearPopulations",
    "Bioreactor",
    "CancerTreatment",
    "Glucose",
    "HIVTreatment",
    "Harvest",
    "InvasivePlant",
    "MouldFungicide",
    "MyriadSystem",
    "PredatorPrey",
    "TimberHarvest",
]

_UNBOUNDED = (-math.inf, math.inf)


@dataclass(frozen=True, kw_only=True)
class MyriadSystem(System):
    """A continuous-time control problem with costs, in explicit Euler steps.

    The next state is ``clip(x + dt * dynamics + noise * normal, state bounds)``, the reward ``-cost * dt``, and a return is the
    plain sum of rewards. A terminal cost is subtracted from the reward of the last step, t = H - 1, and is read on the state
    *before* that step's transition, so that the last action cannot change it: this is how the code of Ma et al. has it,
    and it is kept so that returns are comparable with theirs.

    Args:
        noise: Standard deviation of the normal noise added to each number of the state in every step; at least 0.
        distractors: How many standard normal numbers, drawn anew in every step, stand before the state and mean nothing.

    Raises:
        ValueError: If a parameter lies outside its range.
    """

    start: ClassVar[tuple[float, ...]]
    """The physical state in which every episode begins."""
    bounds: ClassVar[Bounds]
    """Bounds of the physical state."""
    controls: ClassVar[Bounds]
    """Bounds of the physical controls."""

    noise: float = 0.0
    distractors: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise < 0:
            raise ValueError(f"noise is {self.noise}, but a standard deviation must be at least 0.")
        if not isinstance(self.distractors, Integral) or self.distractors < 0:
            raise ValueError(f"distractors is {self.distractors!r}, expected a whole number of at least 0.")

    @abstractmethod
    def dynamics(self, x: Columns, u: Columns, time: Tensor) -> Iterable[Tensor]:
        """Rate of change of each number of the state."""

    @abstractmethod
    def cost(self, x: Columns, u: Columns, time: Tensor) -> Tensor:
        """Cost per unit of time."""

    def terminal_cost(self, x: Columns) -> Tensor | None:
        """Cost of the last state, or None."""
        return None

    @property
    def state_bounds(self) -> Bounds:
        """Bounds of the distractors and of the physical state."""
        return (_UNBOUNDED,) * self.distractors + self.bounds

    @property
    def control_bounds(self) -> Bounds:
        """The physical values that actions of -1 and 1 stand for."""
        return self.controls

    @property
    def noise_size(self) -> int:
        """Standard normal numbers of a step: the distractors, and one for each number of a noisy state."""
        return self.distractors + (len(self.bounds) if self.noise else 0)

    def _start(self, noise: Columns) -> tuple[float | Tensor, ...]:
        return (*noise[: self.distractors], *self.start)

    def _following(self, x: Columns, u: Columns, t: Tensor, noise: Columns) -> Columns:
        x, shocks = x[self.distractors :], noise[self.distractors :]
        rates = self.dynamics(x, u, self._time(x, t))
        following = tuple(old + self.dt * rate for old, rate in zip(x, rates, strict=True))
        if self.noise:
            following = tuple(new + self.noise * shock for new, shock in zip(following, shocks, strict=True))
        following = tuple(new.clamp(low, high) for new, (low, high) in zip(following, self.bounds, strict=True))
        return (*noise[: self.distractors], *following)

    def _reward(self, x: Columns, u: Columns, t: Tensor, noise: Columns) -> Tensor:
        x = x[self.distractors :]
        reward = -self.dt * self.cost(x, u, self._time(x, t))
        final = self.terminal_cost(x)
        return reward if final is None else reward - torch.where(t == self.horizon - 1, final, 0.0)

    def _time(self, x: Columns, t: Tensor) -> Tensor:
        """Physical time of the step, in the dtype of the state."""
        return t.to(x[0].dtype) * self.dt


@dataclass(frozen=True, kw_only=True)
class CancerTreatment(MyriadSystem):
    """Keep a tumour small with little chemotherapy.

    State: density of the tumour in [0.001, 1]. Control: strength of the drug in [0, 2].

    Args:
        r: Growth rate of the tumour.
        a: Weight of the tumour in the cost.
        delta: Effect of a dose.
    """

    start = (0.975,)
    bounds = ((1e-3, 1.0),)
    controls = ((0.0, 2.0),)

    duration: float = 20.0
    r: float = 0.3
    a: float = 3.0
    delta: float = 0.45

    def dynamics(self, x: Columns, u: Columns, time: Tensor) -> Columns:
        """Rate x' = r x ln(1/x) - u delta x."""
        return (-self.r * x[0] * x[0].log() - u[0] * self.delta * x[0],)

    def cost(self, x: Columns, u: Columns, time: Tensor) -> Tensor:
        """Cost rate a x^2 + u^2."""
        return self.a * x[0] ** 2 + u[0] ** 2


@dataclass(frozen=True, kw_only=True)
class BearPopulations(MyriadSystem):
    """Hunt bears in a park and in the forest around it, so that few come to the people outside.

    State: bears in the park, in the forest, and outside, each in [0, 2]. Controls: shares hunted in the park and in the
    forest, in [0, 0.2]. The cost of hunting in the park dwarfs everything else.

    Args:
        r: Growth rate of the populations.
        K: Carrying capacity.
        m_p: Share of the park's border that is shared with the forest.
        m_f: Share of the forest's border that is shared with the park.
        c_p: Weight of hunting in the park.
        c_f: Weight of hunting in the forest.
    """

    start = (0.4, 0.2, 0.0)
    bounds = ((0.0, 2.0),) * 3
    controls = ((0.0, 0.2),) * 2

    duration: float = 25.0
    r: float = 0.1
    K: float = 0.75
    m_p: float = 0.5
    m_f: float = 0.5
    c_p: float = 10_000.0
    c_f: float = 10.0

    def dynamics(self, x: Columns, u: Columns, time: Tensor) -> Columns:
        """With k = r/K and q = r/K^2.

        park' = r p - k p^2 + k m_f (1 - p/K) f^2 - u0 p;
        forest' = r f - k f^2 + k m_p (1 - f/K) p^2 - u1 f;
        outside' = k (1 - m_p) p^2 + k (1 - m_f) f^2 + q m_f p f^2 + q m_p p^2 f.
        """
        park, forest, _ = x
        k, q = self.r / self.K, self.r / self.K**2
        park2, forest2 = park**2, forest**2
        return (
            self.r * park - k * park2 + k * self.m_f * (1 - park / self.K) * forest2 - u[0] * park,
            self.r * forest - k * forest2 + k * self.m_p * (1 - forest / self.K) * park2 - u[1] * forest,
            k * (1 - self.m_p) * park2
            + k * (1 - self.m_f) * forest2
            + q * self.m_f * park * forest2
            + q * self.m_p * park2 * forest,
        )

    def cost(self, x: Columns, u: Columns, time: Tensor) -> Tensor:
        """Cost rate outside + c_p u0^2 + c_f u1^2."""
        return x[2] + self.c_p * u[0] ** 2 + self.c_f * u[1] ** 2


@dataclass(frozen=True, kw_only=True)
class Bioreactor(MyriadSystem):
    """Feed bacteria that break down a contaminant.

    State: bacteria in [0, 1]. Control: nutrients in [0, 1]. Feeding nothing is optimal up to the fourth digit.

    Args:
        K: Weight of the bacteria in the reward.
        G: Growth by nutrients.
        D: Death by crowding.
    """

    start = (0.5,)
    bounds = ((0.0, 1.0),)
    controls = ((0.0, 1.0),)

    duration: float = 2.0
    K: float = 2.0
    G: float = 1.0
    D: float = 1.0

    def dynamics(self, x: Columns, u: Columns, time: Tensor) -> Columns:
        """Rate x' = G u x - D x^2."""
        return (self.G * u[0] * x[0] - self.D * x[0] ** 2,)

    def cost(self, x: Columns, u: Columns, time: Tensor) -> Tensor:
        """Cost rate -K x + u."""
        return -self.K * x[0] + u[0]


@dataclass(frozen=True, kw_only=True)
class HIVTreatment(MyriadSystem):
    """Treat an infection so that many healthy immune cells live.

    State: healthy cells in [0, 1600], infected cells in [0, 100], free virus in [0, 100]. Control: 1 minus the strength of
    the therapy, in [0, 1]; 0 is full therapy. With fewer than 50 steps Euler is unstable, and only the bounds hold the
    virus.

    Args:
        s: Production of healthy cells.
        m1: Death rate of healthy cells.
        m2: Death rate of infected cells.
        m3: Death rate of the virus.
        r: Growth rate of healthy cells.
        Tmax: Number of cells at which they stop to grow.
        k: Rate of infection.
        N: Viruses that an infected cell sets free.
        A: Weight of healthy cells in the reward.
    """

    start = (800.0, 0.04, 1.5)
    bounds = ((0.0, 1600.0), (0.0, 100.0), (0.0, 100.0))
    controls = ((0.0, 1.0),)

    duration: float = 20.0
    s: float = 10.0
    m1: float = 0.02
    m2: float = 0.5
    m3: float = 4.4
    r: float = 0.03
    Tmax: float = 1500.0
    k: float = 2.4e-5
    N: float = 300.0
    A: float = 0.05

    def dynamics(self, x: Columns, u: Columns, time: Tensor) -> Columns:
        """With h healthy, i infected, v virus.

        h' = s/(1 + v) - m1 h + r h (1 - (h + i)/Tmax) - u k h v;  i' = u k h v - m2 i;  v' = N m2 i - m3 v.
        """
        healthy, infected, virus = x
        infection = u[0] * self.k * healthy * virus
        growth = self.r * healthy * (1 - (healthy + infected) / self.Tmax)
        return (
            self.s / (1 + virus) - self.m1 * healthy + growth - infection,
            infection - self.m2 * infected,
            self.N * self.m2 * infected - self.m3 * virus,
        )

    def cost(self, x: Columns, u: Columns, time: Tensor) -> Tensor:
        """Cost rate -A h + (1 - u)^2."""
        return -self.A * x[0] + (1 - u[0]) ** 2


@dataclass(frozen=True, kw_only=True)
class MouldFungicide(MyriadSystem):
    """Keep mould down with little fungicide.

    State: mould in [0, 5]. Control: fungicide in [0, 5].

    Args:
        r: Growth rate of the mould.
        M: Carrying capacity.
        A: Weight of the mould in the cost.
    """

    start = (1.0,)
    bounds = ((0.0, 5.0),)
    controls = ((0.0, 5.0),)

    duration: float = 5.0
    r: float = 0.3
    M: float = 10.0
    A: float = 10.0

    def dynamics(self, x: Columns, u: Columns, time: Tensor) -> Columns:
        """Rate x' = r (M - x) - u x."""
        return (self.r * (self.M - x[0]) - u[0] * x[0],)

    def cost(self, x: Columns, u: Columns, time: Tensor) -> Tensor:
        """Cost rate A x^2 + u^2."""
        return self.A * x[0] ** 2 + u[0] ** 2


@dataclass(frozen=True, kw_only=True)
class Bacteria(MyriadSystem):
    """Grow bacteria with a nutrient whose by-product kills them.

    State: bacteria in [0, 10]. Control: nutrient in [0, 2]. Extinction is for ever: only small controls keep clear of it.

    Args:
        r: Growth rate of the bacteria.
        A: Growth by the nutrient.
        B: Strength of the by-product.
        C: Weight of the final bacteria in the reward.
    """

    start = (1.0,)
    bounds = ((0.0, 10.0),)
    controls = ((0.0, 2.0),)

    duration: float = 1.0
    r: float = 1.0
    A: float = 1.0
    B: float = 12.0
    C: float = 1.0

    def dynamics(self, x: Columns, u: Columns, time: Tensor) -> Columns:
        """Rate x' = r x + A u x - B u^2 exp(-x)."""
        return (self.r * x[0] + self.A * u[0] * x[0] - self.B * u[0] ** 2 * torch.exp(-x[0]),)

    def cost(self, x: Columns, u: Columns, time: Tensor) -> Tensor:
        """Cost rate u^2."""
        return u[0] ** 2

    def terminal_cost(self, x: Columns) -> Tensor:
        """Terminal cost -C x."""
        return -self.C * x[0]


@dataclass(frozen=True, kw_only=True)
class PredatorPrey(MyriadSystem):
    """Poison a pest and its predator.

    State: prey in [0, 11], predators in [0, 11], poison used so far in [0, 5]. Control: poison in [0, 1]. Myriad's end
    condition, 5 units of poison used, is not enforced, so to do nothing is optimal. Ma et al. set ``duration=100``.

    Args:
        d1: Effect of the poison on the prey.
        d2: Effect of the poison on the predators.
        A: Weight of the poison in the cost.
    """

    start = (10.0, 1.0, 0.0)
    bounds = ((0.0, 11.0), (0.0, 11.0), (0.0, 5.0))
    controls = ((0.0, 1.0),)

    duration: float = 10.0
    d1: float = 0.1
    d2: float = 0.1
    A: float = 1.0

    def dynamics(self, x: Columns, u: Columns, time: Tensor) -> Columns:
        """Rates x0' = (1 - x1) x0 - d1 x0 u;  x1' = (x0 - 1) x1 - d2 x1 u;  x2' = u."""
        prey, predators, _ = x
        return (
            (1 - predators) * prey - self.d1 * prey * u[0],
            (prey - 1) * predators - self.d2 * predators * u[0],
            u[0],
        )

    def cost(self, x: Columns, u: Columns, time: Tensor) -> Tensor:
        """Cost rate (A/2) u^2."""
        return self.A / 2 * u[0] ** 2

    def terminal_cost(self, x: Columns) -> Tensor:
        """Terminal cost x0."""
        return x[0]


@dataclass(frozen=True, kw_only=True)
class Glucose(MyriadSystem):
    """Bring blood sugar to the desired level with little insulin.

    State: glucose and hormone, each in [0, 1]. Control: insulin in [0, 0.01]. All returns lie within about 0.1% of each
    other. Ma et al. set ``l=0.4``.

    Args:
        a: Decay of glucose.
        b: Effect of the hormone on glucose.
        c: Decay of the hormone.
        A: Weight of the deviation in the cost.
        l: Desired level of glucose.
    """

    start = (0.75, 0.0)
    bounds = ((0.0, 1.0),) * 2
    controls = ((0.0, 0.01),)

    duration: float = 0.2
    a: float = 1.0
    b: float = 1.0
    c: float = 1.0
    A: float = 2.0
    l: float = 0.5  # noqa: E741 - the problem's own name

    def dynamics(self, x: Columns, u: Columns, time: Tensor) -> Columns:
        """Rates x0' = -a x0 - b x1;  x1' = -c x1 + u."""
        glucose, hormone = x
        return (-self.a * glucose - self.b * hormone, -self.c * hormone + u[0])

    def cost(self, x: Columns, u: Columns, time: Tensor) -> Tensor:
        """Cost rate 1e5 (A (x0 - l)^2 + u^2)."""
        return 1e5 * (self.A * (x[0] - self.l) ** 2 + u[0] ** 2)


@dataclass(frozen=True, kw_only=True)
class Harvest(MyriadSystem):
    """Harvest a dying stock that becomes more valuable with time.

    State: the stock, without bounds. Control: share harvested, in [0, 1].

    Args:
        A: Weight of the harvest in the reward.
        k: Value that a unit approaches as time goes on.
        m: Death rate of the stock.
    """

    start = (0.4,)
    bounds = (_UNBOUNDED,)
    controls = ((0.0, 1.0),)

    duration: float = 10.0
    A: float = 5.0
    k: float = 10.0
    m: float = 0.2

    def dynamics(self, x: Columns, u: Columns, time: Tensor) -> Columns:
        """Rate x' = -(m + u) x."""
        return (-(self.m + u[0]) * x[0],)

    def cost(self, x: Columns, u: Columns, time: Tensor) -> Tensor:
        """Cost rate -A (k time/(time + 1)) x u + u^2."""
        return -self.A * (self.k * time / (time + 1)) * x[0] * u[0] + u[0] ** 2


@dataclass(frozen=True, kw_only=True)
class TimberHarvest(MyriadSystem):
    """Invest in a forest, then sell its timber.

    State: timber in [0, 20000]. Control: share of the income that is invested, in [0, 1].

    Args:
        r: Discount rate.
        k: Growth by investment.
    """

    start = (100.0,)
    bounds = ((0.0, 20_000.0),)
    controls = ((0.0, 1.0),)

    duration: float = 5.0
    r: float = 0.0
    k: float = 1.0

    def dynamics(self, x: Columns, u: Columns, time: Tensor) -> Columns:
        """Rate x' = k x u."""
        return (self.k * x[0] * u[0],)

    def cost(self, x: Columns, u: Columns, time: Tensor) -> Tensor:
        """Cost rate -exp(-r time) x (1 - u)."""
        return -torch.exp(-self.r * time) * x[0] * (1 - u[0])


@dataclass(frozen=True, kw_only=True)
class InvasivePlant(MyriadSystem):
    """Weed out five patches of an invasive plant.

    State: size of each patch, without bounds. Controls: share removed from each, in [0, 1]. In Myriad this is a discrete map
    without a terminal cost; here, as Ma et al. have it, its increment is the rate of change, and the plants that are left
    cost at the end.

    Args:
        B: Weight of the work in the cost.
        k: Spread of a patch.
        eps: Size below which a patch spreads less.
    """

    start = (0.5, 1.0, 1.5, 2.0, 10.0)
    bounds = (_UNBOUNDED,) * 5
    controls = ((0.0, 1.0),) * 5

    duration: float = 10.0
    B: float = 1.0
    k: float = 1.0
    eps: float = 0.01

    def dynamics(self, x: Columns, u: Columns, time: Tensor) -> Columns:
        """Rates xi' = (xi + k xi/(eps + xi)) (1 - ui) - xi."""
        patches = zip(x, u, strict=True)
        return tuple((size + self.k * size / (self.eps + size)) * (1 - work) - size for size, work in patches)

    def cost(self, x: Columns, u: Columns, time: Tensor) -> Tensor:
        """Cost rate B (u0^2 + ... + u4^2)."""
        return self.B * sum((work**2 for work in u[1:]), u[0] ** 2)

    def terminal_cost(self, x: Columns) -> Tensor:
        """Terminal cost x0 + ... + x4."""
        return sum(x[1:], x[0])
