"""Noise that is a function of key, counter and position alone."""

import pytest
import torch

from learned_envs.nn.noise import uniform

# Multiples of 2**-24 drawn by version 0.1.0. Renew them only with a note in the change log: every seeded rollout of every
# learned environment changes with them.
GOLDEN = {
    (0, 0): [5671579, 4515256, 4556131, 8055908],
    (1, 0): [7260255, 7140922, 9054137, 13711190],
    (0, 1): [10644145, 5265938, 12311257, 7724942],
    (42, 7): [12581787, 14564382, 13515491, 16593403],
    (-1, 3): [4493692, 10186774, 11404244, 4300810],
    (2**62 + 11, 10**12): [11457805, 15814880, 7923785, 16157479],
}

_MASK = (1 << 64) - 1


def _mix(bits: int) -> int:
    """The finaliser of SplitMix64."""
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _MASK
    return bits ^ (bits >> 31)


def _reference(key: int, counter: int, count: int) -> list[float]:
    golden = 0x9E3779B97F4A7C15
    row = _mix((_mix((key + golden) & _MASK) + counter * 0xD1342543DE82EF95) & _MASK)
    return [(_mix((row + position * golden) & _MASK) >> 40) * 2.0**-24 for position in range(1, count + 1)]


def test_equals_the_definition_in_unbounded_integers() -> None:
    pairs = [(0, 0), (1, 0), (0, 1), (123456789, 77), (2**63 - 1, 2**40), (-1, 5), (-(2**63), 0)]
    drawn = uniform(torch.tensor([key for key, _ in pairs]), torch.tensor([counter for _, counter in pairs]), 9)
    for row, (key, counter) in enumerate(pairs):
        assert drawn[row].tolist() == _reference(key, counter, 9), f"key {key}, counter {counter}"


@pytest.mark.parametrize("pair", GOLDEN, ids=str)
def test_seeded_rollouts_stay_the_same_from_version_to_version(pair: tuple[int, int]) -> None:
    key, counter = pair
    drawn = uniform(torch.tensor([key]), torch.tensor([counter]), 4)[0] * 2**24
    assert drawn.tolist() == GOLDEN[pair]


def test_batch_and_row_length_do_not_matter() -> None:
    keys, counters = torch.randint(2**62, (50,)), torch.arange(50)
    whole = uniform(keys, counters, 33)
    assert torch.equal(whole[7:9, :5], uniform(keys[7:9], counters[7:9], 5))
    assert torch.equal(whole.flip(0), uniform(keys.flip(0), counters.flip(0), 33))


def test_global_generator_is_neither_read_nor_advanced() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = uniform(torch.tensor([3]), torch.tensor([4]), 5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(uniform(torch.tensor([3]), torch.tensor([4]), 5), first)


def test_is_uniform_in_the_half_open_interval() -> None:
    drawn = uniform(torch.arange(1000), torch.zeros(1000).long(), 1000).flatten()
    assert drawn.dtype == torch.float32
    assert drawn.min() >= 0 and drawn.max() < 1
    counts = torch.histc(drawn, 100, 0, 1)
    # Chi-square with 99 degrees of freedom: mean 99, standard deviation 14; five of them.
    assert ((counts - 1e4).square() / 1e4).sum() < 99 + 5 * 14


@pytest.mark.parametrize("neighbour", ["position", "counter", "key"])
def test_neighbouring_draws_are_independent(neighbour: str) -> None:
    """No correlation, also of the squares, between draws that differ by one in one coordinate."""
    keys, counters = torch.arange(300_000) // 3, torch.arange(300_000) % 3
    if neighbour == "position":
        first, second = uniform(keys, counters, 2).unbind(1)
    else:
        first = uniform(keys, counters, 1)[:, 0]
        second = uniform(keys + (neighbour == "key"), counters + (neighbour == "counter"), 1)[:, 0]
    for power in (1, 2):
        correlation = torch.corrcoef(torch.stack([first**power, second**power]).double())[0, 1]
        assert correlation.abs() < 5 / 300_000**0.5, f"correlation {correlation} of powers {power}"
    quadrants = torch.histogramdd(torch.stack([first, second], 1), [4, 4], range=[0.0, 1.0, 0.0, 1.0]).hist
    expected = 300_000 / 16
    assert ((quadrants - expected).square() / expected).sum() < 15 + 5 * 30**0.5


def test_no_two_keys_or_counters_draw_alike() -> None:
    keys = torch.cat([torch.arange(-500, 500), 2**62 + torch.arange(500)])
    rows = torch.cat([uniform(keys, torch.full_like(keys, counter), 4) for counter in range(20)])
    assert len(torch.unique(rows, dim=0)) == len(rows)
