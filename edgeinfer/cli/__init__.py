"""The command line. A verb is a module here that defines ``command``; see ``_program``."""

from __future__ import annotations

from edgeinfer.cli._program import main, program, verbs

__all__ = ["main", "program", "verbs"]
