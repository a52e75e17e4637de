"""Sessions: what every program does with them."""

from __future__ import annotations

import evergrant
from server import Server


def test_a_saved_session_gives_a_token_and_renews_it(alice: evergrant.Session, server: Server) -> None:
    token = alice.token()
    assert token["instance_url"] == token.instance_url == server.url
    assert (token.session, token.generation, token.uncommitted) == ("alice", 1, False)
    assert alice.access_token() == token.access_token
    assert server.renewals() == 0
    renewed = alice.renew(rejected=token.access_token)
    assert renewed.generation == 2
    assert alice.renew(rejected=token.access_token).access_token == renewed.access_token
    assert alice.access_token() == renewed.access_token != token.access_token
    assert server.renewals() == 1
    server.assert_no_token_was_used_twice()
