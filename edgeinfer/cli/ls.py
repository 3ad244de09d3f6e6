"""``edgeinfer ls``: the short spelling of ``edgeinfer list``."""

from __future__ import annotations

from copy import copy

from edgeinfer.cli.list import command as _list

command = copy(_list)
command.hidden = True
