"""A page in the browser on which a person plays a learned environment beside the real one. Needs ``learned-envs[play]``."""
