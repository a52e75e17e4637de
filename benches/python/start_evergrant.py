import json
import sys

import evergrant

with evergrant.Client(**json.loads(sys.argv[1])) as client:
    assert client.session("bench").access_token()
