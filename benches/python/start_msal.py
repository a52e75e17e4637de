import sys
from pathlib import Path

import msal
from offline import SCOPES, application

cache = msal.SerializableTokenCache()
cache.deserialize(Path(sys.argv[1]).read_text())
app = application(cache)
assert app.acquire_token_silent(SCOPES, app.get_accounts()[0])["access_token"]
