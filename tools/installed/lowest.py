"""Prints, as a constraints file of pip, the lowest releases that the installed package admits."""

from __future__ import annotations

import re
from importlib.metadata import requires


def main() -> None:
    """Turns every requirement `name>=version` into `name==version`; those of `dev` are left out."""
    for requirement in requires("ifrnet-deploy") or []:
        found = re.match(r"([\w-]+)(?:\[\w+\])?>=([\w.]+)", requirement)
        if found and 'extra == "dev"' not in requirement:
            print(f"{found[1]}=={found[2]}")


if __name__ == "__main__":
    main()
