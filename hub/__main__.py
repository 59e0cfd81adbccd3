"""The shipping department's command line: ``python -m hub COMMAND --help``."""

import sys
from pathlib import Path
from typing import Annotated

import tyro

__all__ = ["main"]

_Positional = Annotated[Path, tyro.conf.Positional]


def build(run: _Positional, /, out: Path | None = None, repo: str | None = None, license: str | None = None) -> None:
    """Make a snapshot that can be published: what a training run wrote, with a film and a card.

    Args:
        run: Folder of a finished run, or of a snapshot that is to be completed, or brought to today's format.
        out: Where it goes; what is there is replaced. By default dist/hub/ID for a run, and the same folder for a snapshot.
        repo: Where it will be published, ORGANIZATION/NAME; by default where the old card says, or the catalogue's own place.
        license: Licence of the model, as the Hub names it; by default what the old card says, or mit.
    """
    from hub.build import build as make
    from hub.build import find_source
    from learned_envs.manifest import CONFIG, parse_json

    source, folder = find_source(run)
    if out is None:
        out = folder if source is None else Path("dist") / "hub" / str(parse_json(folder / CONFIG).get("id"))
    print(f"The snapshot is in {make(run, out, repo, license)}")


def check(folder: _Positional, /) -> None:
    """Check everything that a reader would check, and play.

    Args:
        folder: The snapshot.
    """
    from hub.check import check as run

    for found in run(folder):
        print(f"ok: {found}")


def card(folder: _Positional, /, repo: str | None = None, license: str | None = None) -> None:
    """Make the card anew: README.md, with metadata for the Hub.

    Args:
        folder: The snapshot.
        repo: Where it will be published, ORGANIZATION/NAME; by default where the old card says, or the catalogue's own place.
        license: Licence of the model, as the Hub names it; by default what the old card says, or mit.
    """
    from hub.card import write_card

    print(f"The card is in {write_card(folder, repo, license)}")


def publish(
    folder: tyro.conf.Positional[Path | None] = None,
    /,
    repo: str | None = None,
    all: bool = False,
    private: bool = False,
    tag: str | None = None,
    dry_run: bool = False,
) -> None:
    """Put a snapshot on the Hub: one commit of what changed, a tag, and notes of what is new. It is checked first.

    The token is the one of `hf auth login` or HF_TOKEN. For a server without Xet, set HF_HUB_DISABLE_XET=1.

    Args:
        folder: The snapshot.
        repo: Where it goes, ORGANIZATION/NAME; by default the catalogue's own place. With --all, the ORGANIZATION alone.
        all: Publish every bundled snapshot instead of one folder.
        private: Make new repositories private.
        tag: Tag for the release, such as v1.2.
        dry_run: Only say what would be done.
    """
    from hub.publish import publish as send
    from hub.publish import publish_all

    if all == (folder is not None):
        raise ValueError("Name one folder, or give --all; not both, and not neither.")
    if folder is None:
        publish_all(repo, private, tag, dry_run)
    else:
        send(folder, repo, private, tag, dry_run)


def catalogue(query: tyro.conf.Positional[str | None] = None, /, org: str | None = None) -> None:
    """List what is published, beside what is bundled in this checkout.

    Args:
        query: Only names that contain this.
        org: Whose models; by default those of the catalogue.
    """
    from hub.catalogue import print_catalogue

    print_catalogue(query, org)


def pull(name: Annotated[str, tyro.conf.Positional], /, revision: str | None = None, out: Path | None = None) -> None:
    """Copy a published snapshot into a plain folder.

    Args:
        name: ORGANIZATION/NAME, or an id of the catalogue.
        revision: Branch, tag or commit.
        out: Where it goes; by default a folder of the repository's name here.
    """
    from hub.catalogue import pull as fetch

    print(f"The snapshot is in {fetch(name, revision, out)}")


def main() -> None:
    """Run a command; what a user can mend is told in one line."""
    import gymnasium
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    from learned_envs.download import is_of_network

    commands = {
        "build": build,
        "check": check,
        "card": card,
        "publish": publish,
        "catalogue": catalogue,
        "pull": pull,
    }
    try:
        tyro.extras.subcommand_cli_from_dict(commands, prog="python -m hub", description=__doc__)
    except (gymnasium.error.Error, ValueError, OSError, HfHubHTTPError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        sys.exit("Interrupted.")
    except Exception as error:
        if not is_of_network(error):
            raise
        sys.exit(f"error: {constants.ENDPOINT} cannot be reached: {error}")


if __name__ == "__main__":
    main()
