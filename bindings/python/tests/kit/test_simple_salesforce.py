"""The recipe for simple-salesforce, with the real package.

The server wants the session id where each API carries it.
"""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import zeep.exceptions
from simple_salesforce import exceptions

import evergrant
from salesforce_api import SalesforceApi
from server import Server

SignIn = Callable[..., evergrant.Session]


@pytest.fixture
def start_api(server: Server) -> Iterator[Callable[[], SalesforceApi]]:
    started: list[SalesforceApi] = []

    def start() -> SalesforceApi:
        started.append(SalesforceApi(server.url, server.control_url))
        return started[-1]

    yield start
    for api in started:
        api.close()


@pytest.fixture
def api(start_api: Callable[[], SalesforceApi], server: Server) -> SalesforceApi:
    api = start_api()
    server.set(instance_url=api.url)
    return api


@pytest.fixture
def sf(api: SalesforceApi, sign_in: SignIn) -> Any:
    from simple_salesforce_session import Salesforce

    assert api.url
    return Salesforce(sign_in())


def rest(sf: Any) -> None:
    assert [record["Id"] for record in sf.query_all_iter("SELECT Id FROM Account")] == ["001xx0000000001AAA"] * 2
    assert sf.Account.create({"Name": "Example"})["sent"] == {"Name": "Example"}
    assert sf.Account.get("001xx0000000002AAA")["Name"] == "Example"


def bulk(sf: Any) -> None:
    assert [made["success"] for made in sf.bulk.Account.insert([{"Name": "one"}, {"Name": "two"}])] == [True, True]


def bulk2(sf: Any) -> None:
    (result,) = sf.bulk2.Account.insert(records=[{"Name": "one"}, {"Name": "two"}], wait=0)
    assert (result["numberRecordsProcessed"], result["numberRecordsTotal"]) == (2, 2)
    assert list(sf.bulk2.Account.query("SELECT Id FROM Account", wait=0)) == ['"Id"\n"001xx0000000001AAA"\n']
    assert "001" in sf.bulk2.Account.get_successful_records(result["job_id"])


def metadata(sf: Any) -> None:
    assert sf.mdapi.describe_metadata().metadataObjects[0].xmlName == "ApexClass"
    assert sf.mdapi.CustomObject.read(["Thing__c"]).label == "Thing"
    sf.mdapi.CustomObject.create([sf.mdapi.CustomObject(fullName="Thing__c")])


def deployment(sf: Any) -> None:
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("package.xml", "<Package/>")
    deployed = sf.deploy(package, sandbox=True)
    assert deployed == {"asyncId": "0Afxx0000000001AAA", "state": "Queued"}
    assert sf.checkDeployStatus(deployed["asyncId"])["state"] == "Succeeded"


@pytest.mark.parametrize(
    ("use", "name"),
    [(rest, "rest"), (bulk, "bulk"), (bulk2, "bulk2"), (metadata, "metadata"), (deployment, "metadata")],
)
def test_it_works_across_expiry_at_every_call(
    sf: Any, api: SalesforceApi, server: Server, use: Callable[[Any], None], name: str
) -> None:
    use(sf)
    calls = len(api.calls)
    assert {(call[0], call[3]) for call in api.calls} == {(name, True)}
    assert server.renewals() == 0
    # From now on each token dies of its use, so every call but the first is rejected once, and repeated.
    api.once, api.calls = True, []
    use(sf)
    taken = [call[1:3] for call in api.calls if call[3]]
    rejected = [call[1:3] for call in api.calls if not call[3]]
    assert len(taken) == calls
    assert rejected == taken[1:]
    assert server.renewals() == calls - 1


def test_it_follows_the_org_to_another_instance(
    sf: Any, api: SalesforceApi, server: Server, start_api: Callable[[], SalesforceApi]
) -> None:
    rest(sf)
    new = start_api()
    server.set(instance_url=new.url)
    api.moved, api.calls = True, []
    for use in (rest, bulk, bulk2, metadata, deployment):
        use(sf)
    assert [call[3] for call in api.calls] == [False]
    assert all(call[3] for call in new.calls)
    assert server.renewals() == 1


def test_many_threads_with_a_dead_token_are_one_renewal(sf: Any, server: Server) -> None:
    sf.query("SELECT Id FROM Account")
    server.expire()
    failures: list[BaseException] = []

    def query() -> None:
        try:
            sf.query("SELECT Id FROM Account")
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=query) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert server.renewals() == 1


def test_the_token_is_nowhere_but_in_requests(sf: Any, sign_in: SignIn) -> None:
    token = sign_in().access_token()
    sf.mdapi.describe_metadata()
    places = [sf.session_id, sf.headers, sf.bulk.headers, sf.bulk2.headers, sf.session.headers, vars(sf.mdapi)]
    assert token not in repr(places)


def test_no_redirect_takes_the_token_along(sf: Any, api: SalesforceApi, start_api: Callable[[], SalesforceApi]) -> None:
    elsewhere = start_api()
    api.redirect_to = elsewhere.url
    for use in (rest, bulk, bulk2, deployment):
        with pytest.raises(exceptions.SalesforceGeneralError, match="307"):
            use(sf)
    with pytest.raises(zeep.exceptions.TransportError):
        metadata(sf)
    assert elsewhere.calls == []


def test_what_is_no_rejection_is_raised_by_simple_salesforce(sf: Any, server: Server) -> None:
    with pytest.raises(exceptions.SalesforceMalformedRequest, match="InvalidJob"):
        sf.bulk.Account.insert([{"Name": "refused"}])
    assert server.renewals() == 0


def test_another_url_gets_no_token(sf: Any, start_api: Callable[[], SalesforceApi]) -> None:
    elsewhere = start_api()
    answer = sf.session.get(f"{elsewhere.url}/services/data/", headers=sf.headers, timeout=30)
    assert answer.status_code == 401
    assert elsewhere.calls == [("rest", "GET", "/services/data/", False)]


def test_only_origins_of_the_session_get_the_token(api: SalesforceApi, sign_in: SignIn) -> None:
    from simple_salesforce_session import Salesforce

    sf = Salesforce(sign_in(origins=["https://example.com"]))
    with pytest.raises(requests.exceptions.InvalidURL, match="origins"):
        sf.query("SELECT Id FROM Account")
    assert api.calls == []


def test_simple_salesforce_has_the_version_that_the_recipe_was_written_for() -> None:
    from importlib.metadata import version

    pinned = (Path(__file__).parent / "requirements.txt").read_text()
    assert f"simple-salesforce=={version('simple-salesforce')}\n" in pinned
