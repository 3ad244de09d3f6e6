"""Makes ``python -m edgeinfer`` the same as ``edgeinfer``."""

from __future__ import annotations

from edgeinfer.cli import main

if __name__ == "__main__":
    main()
