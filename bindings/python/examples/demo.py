"""A process of `make demo`: once its input ends, it says the session's access token."""

import platform
import sys

import evergrant

config_file, name = sys.argv[1:]
with evergrant.Client(config_file=config_file) as client:
    print("Python", platform.python_version(), flush=True)
    sys.stdin.read()
    print("OK", client.session(name).access_token(), flush=True)
