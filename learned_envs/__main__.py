"""``python -m learned_envs`` is ``learned-envs``."""

from learned_envs.cli import main

if __name__ == "__main__":
    main()
