"""Fit world models of continuous states, and train policies by backpropagation through them (Ma et al., ICML 2024)."""
