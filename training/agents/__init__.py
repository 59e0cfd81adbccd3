"""Agents that train inside world models, or in the real environments beside them."""
