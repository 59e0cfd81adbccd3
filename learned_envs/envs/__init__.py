"""The faces of a learned environment, and in `real` the environments they were learned from."""
