"""Agents that learn in the imagination of a world model."""
