"""World models of continuous states whose steps give analytic gradients (Ma et al., ICML 2024)."""
