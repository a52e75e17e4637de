"""Prints where to send a session's requests, with a token that is valid now.

python renew.py client.json alice "$REFRESH_TOKEN"     # the refresh token only until it is known
"""

import sys

import evergrant

if len(sys.argv) < 3:
    sys.exit("usage: renew.py CONFIG_FILE SESSION [REFRESH_TOKEN]")
config_file, name, *grant = sys.argv[1:]

with evergrant.Client(config_file=config_file) as client:
    session = client.session(name)
    if grant:
        session.save({"refresh_token": grant[0]})  # does nothing if it is known
    token = session.token()
    print(f"{token.instance_url} with a token of {len(token.access_token)} bytes")
