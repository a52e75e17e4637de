"""What tests/c/worker.c is, in Python: it does what stdin says and says on stdout what came of it. Its form is there.

Of the commands it knows those that tests/processes tells workers of all languages.
"""

import json
import os
import sys
import time

import evergrant


def ended(words: list[str]) -> None:
    sys.exit(0)


def opened(words: list[str]) -> None:
    global client
    client = evergrant.Client(**json.loads(words[0]))


def repeat(words: list[str]) -> int:
    while True:
        COMMANDS[words[0]](words[1:])


COMMANDS = {
    "open": opened,
    "save": lambda words: client.session(words[0]).save(json.loads(words[1])),
    "token": lambda words: dict(client.session(words[0]).token()),
    "renew": lambda words: dict(client.session(words[0]).renew(*words[1:])),
    "describe": lambda words: client.session(words[0]).describe(),
    "repeat": repeat,
    "end": ended,
}

for line in sys.stdin:
    tag, name, *words = line.rstrip("\n").split("\t")
    began = time.monotonic_ns()
    status = "OK"
    try:
        answer = COMMANDS[name](words)
    except evergrant.EvergrantError as error:
        status = error.status
        answer = {"status": status, "message": str(error), **vars(error)}
    us = (time.monotonic_ns() - began) // 1000
    reply = {"tag": tag, "pid": os.getpid(), "us": us, "status": status, "answer": answer}
    print(json.dumps(reply), flush=True)
