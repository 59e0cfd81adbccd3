"""The factory: collect real experience, fit world models to it, train agents in them. Run from a checkout."""
