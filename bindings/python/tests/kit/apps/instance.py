"""An instance of a serverless platform: runs the recipe's handler for each line of its input."""

from __future__ import annotations

import json
import sys

import evergrant
from serverless_handler import handler

for line in sys.stdin:
    try:
        answer = handler(json.loads(line))
    except evergrant.EvergrantError as error:
        answer = {"reason": error.reason}
    print(json.dumps(answer), flush=True)
