"""Fitting transformer world models to recorded experience."""
