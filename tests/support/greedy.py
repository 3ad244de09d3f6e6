"""``python -m support.greedy PROMPTS COUNT``: the likeliest tokens of models, for a process whose
environment names an instruction set. PROMPTS is a JSON list of GGUF paths and tokens."""

from __future__ import annotations

import json
import sys
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from edgeinfer import _native
from support.ours import our_engine


def main() -> None:
    prompts, count = json.loads(sys.argv[1]), int(sys.argv[2])
    steps = []
    for path, group in groupby(prompts, key=itemgetter(0)):
        with our_engine(Path(path)) as engine:
            steps += [engine.greedy_steps(tokens, count) for _, tokens in group]
    json.dump({"isa": _native.isa(), "steps": steps}, sys.stdout)


main()
