import json
import sys
from pathlib import Path

from simple_salesforce import Salesforce

answer = json.loads(Path(sys.argv[1]).read_text())
salesforce = Salesforce(instance_url=answer["instance_url"], session_id=answer["access_token"])
assert salesforce.session_id
