"""Experiments of papers, repeated: each writes a figure, and a JSON of numbers, seeds and intervals."""

from training.experiments.registry import EXPERIMENTS, run_experiment

__all__ = ["EXPERIMENTS", "run_experiment"]
