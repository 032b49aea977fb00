"""Prints the lowest releases that the installed package admits, as constraints for pip."""

from __future__ import annotations

import re
from importlib.metadata import requires

LEFT_OUT = ("dev", "gpu", "tensorrt")
"""Extras that are not tested here; PyTorch brings a newer cuda-bindings than `tensorrt` needs."""


def main() -> None:
    """Turns every requirement `name<limit,>=version` into `name==version`, except LEFT_OUT's."""
    for requirement in requires("ifrnet-deploy") or []:
        found = re.match(r"([\w-]+)(?:\[\w+\])?[^;]*>=([\w.]+)", requirement)
        if found and not any(f'extra == "{name}"' in requirement for name in LEFT_OUT):
            print(f"{found[1]}=={found[2]}")


if __name__ == "__main__":
    main()
