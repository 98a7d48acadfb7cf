"""Makes an API key for the endpoint, which clients need as soon as there is one; prints it, once."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .pack import import_pack

DESCRIPTION = """
Makes an API key for clients of the endpoint. Only a hash of it is kept: the key is printed now and never again. As soon
as there is one key, every client needs one, also on this machine.
"""


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m tools.api_key", description=DESCRIPTION)
    options.add_argument(
        "--user-directory",
        type=Path,
        metavar="DIR",
        help="ComfyUI's user directory (default: that of the ComfyUI in whose custom_nodes this pack lies)",
    )
    options.add_argument("--revoke-all", action="store_true", help="remove all keys, so that none is needed")
    given = options.parse_args()
    # Not resolved: the pack may be linked into custom_nodes.
    folder = given.user_directory or Path.cwd().parent.parent / "user"
    if not folder.is_dir():
        sys.exit(f"{folder} is no directory: say with --user-directory where ComfyUI's user directory is.")
    import_pack()
    from sd3_local.api.keys import KeyFile

    keys = KeyFile(folder / "__sd3_local" / "keys.json")
    if given.revoke_all:
        keys.revoke_all()
        print("No key is needed any more; while ComfyUI listens to other machines, nobody is let in.")
    else:
        print(keys.make())


if __name__ == "__main__":
    main()
