import sys

import google.auth.transport.requests
from google.oauth2.credentials import Credentials

credentials = Credentials.from_authorized_user_file(sys.argv[1])
headers: dict[str, str] = {}
credentials.before_request(google.auth.transport.requests.Request(), "GET", "https://api.example.com/", headers)
assert headers["authorization"]
