"""The factory: collect real experience, fit world models to it, train agents in them. Run from a checkout."""

from importlib.util import find_spec

if find_spec("tensorboard") is None:
    raise ImportError('The factory needs more than the library does: pip install -c constraints.txt -e ".[train]"')
