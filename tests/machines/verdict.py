"""What the server's log says of a run with troubles: nothing was lost but by the three cases of docs/guarantees.md, or
by a store that went back in time.
"""

from typing import TYPE_CHECKING, Any

from soak import LIFE_MS, agent

if TYPE_CHECKING:
    from stores import Lost
    from trouble import Trouble

# A request may come so long after its sender got into trouble, or before: its exchange's limit.
EXCHANGE_MS = 4000
# In the order in which a family has them.
OUTCOMES = ["ok", "reused_and_revoked", "family_revoked"]
ALLOWED = {"TIMED_OUT", "STORE", "UNAVAILABLE", "SIGN_IN_REQUIRED"}


def judge(
    log: list[dict[str, Any]],
    troubles: list["Trouble"],
    killed: dict[str, int],
    reports: dict[str, dict[str, Any]],
    ends: int,
    calm_ms: int,
) -> list[str]:
    """The case of each loss."""
    families: dict[int, list[dict[str, Any]]] = {}
    for entry in log:
        families.setdefault(entry["family"], []).append(entry)
    for entries in families.values():
        # The log is in the order of arrival.
        entries.sort(key=lambda entry: (entry["processed_ms"], OUTCOMES.index(entry["outcome"])))
    lost, revoked_ms = [], {}
    for family, entries in families.items():
        reuse = check(entries)
        if reuse:
            lost.append(explain(entries, reuse, troubles, killed, reports))
            revoked_ms[family] = reuse["processed_ms"]
    assert len(lost) == ends == len(families) - 1, (
        f"{len(families)} sign-ins, {len(lost)} families revoked, the session has ended {ends} times"
    )
    issued = {entry["issued_access_token"]: entry for entry in log if entry["issued_access_token"]}
    for name, report in reports.items():
        tokens(name, report, issued, revoked_ms)
        for at_ms, error in report["failed"]:
            assert error["status"] in ALLOWED, f"{name}: {error}"
            assert at_ms < calm_ms, f"{name} has no token {at_ms - calm_ms} ms after all should be well: {error}"
        assert max(got_ms for _, _, got_ms, _ in report["seen"].values()) > calm_ms, f"{name} has had no token since"
    return lost


def check(entries: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Whether all requests of a family are as they may be. The one that has lost it, if any."""
    spent, reuse = set(), None
    for entry in entries:
        if reuse:
            assert entry["outcome"] == "family_revoked", entry
        elif entry["outcome"] == "reused_and_revoked":
            reuse = entry
        else:
            assert (entry["outcome"], entry["rotated"]) == ("ok", True), entry
            assert entry["generation"] not in spent, entry
            spent.add(entry["generation"])
    return reuse


def explain(
    entries: list[dict[str, Any]],
    reuse: dict[str, Any],
    troubles: list["Trouble"],
    killed: dict[str, int],
    reports: dict[str, dict[str, Any]],
) -> str:
    """Which of the three cases it was, by what happened to the process that got the answer, or to the one that sent
    once more. It is none where a process knew of the successor, unless that request was long on its way, or the store
    had forgotten it.
    """
    first = next(entry for entry in entries if entry["generation"] == reuse["generation"])
    owner, other = agent(first), agent(reuse)

    def had(name: str, kinds: str, since_ms: int, until_ms: int) -> bool:
        return any(
            trouble.machine
            and trouble.machine in name
            and trouble.kind.removeprefix("long ") in kinds
            and trouble.begin_ms <= until_ms
            and trouble.end_ms >= since_ms
            for trouble in troubles
        )

    since, until = first["at_ms"] - EXCHANGE_MS, reuse["at_ms"]
    token = first["issued_access_token"]
    others = [report["seen"] for name, report in reports.items() if name != owner]
    committed = any(entry["generation"] > first["generation"] and entry["at_ms"] < until for entry in entries)
    committed |= any(seen[token][3] < until for seen in others if token in seen)
    if not committed:
        if killed.get(owner, until) < until or had(owner, "cut off", since, until):
            return "lost reply"
        if had(owner, "paused", since, until):
            return "paused owner"
    elif owner != other and (killed.get(other, until) < until or had(other, "cut off, paused", since, until)):
        return "ghost"
    if any(trouble.lost and went_back(entries, first, reuse, trouble.lost) for trouble in troubles):
        return "store went back"
    happened = [trouble for trouble in troubles if trouble.begin_ms <= until and trouble.end_ms >= since]
    raise AssertionError(f"nothing explains this loss (committed: {committed}): {first} {reuse} {happened}")


def went_back(entries: list[dict[str, Any]], first: dict[str, Any], reuse: dict[str, Any], lost: "Lost") -> bool:
    """Whether the store had known that this refresh token was claimed, or spent, and then did not: one was sent before,
    one after, and by then nobody can have repaired the store. Who repairs it brings back what they have seen, which may
    be a generation in between, and is without its claim.
    """
    had, has = lost.had["generation"], lost.has["generation"]
    claimed, claim = (record.get("attempt", {}).get("id") for record in (lost.had, lost.has))
    # Server and store count alike, as every renewal rotates.
    sent = reuse["generation"]
    forgotten = has <= sent and (sent < had or (sent == had and claimed not in (None, claim)))
    before, after = sorted(entry["at_ms"] for entry in (first, reuse))
    repaired = any(
        entry["generation"] > reuse["generation"] and lost.back_ms < entry["at_ms"] < reuse["at_ms"] - EXCHANGE_MS
        for entry in entries
    )
    return forgotten and before < lost.died_ms + EXCHANGE_MS and after > lost.back_ms and not repaired


def tokens(name: str, report: dict[str, Any], issued: dict[str, dict[str, Any]], revoked_ms: dict[int, int]) -> None:
    """What a process got was valid when it asked, as far as anybody could know."""
    for token, (_, asked_ms, _, _) in report["seen"].items():
        assert token in issued, f"{name} has a token that the server did not issue"
        late_ms = asked_ms - (issued[token]["processed_ms"] + LIFE_MS)
        assert late_ms < 0, f"{name} was given a token {late_ms} ms after its end"
    for token, _, answered_ms, status in report["refused"]:
        entry = issued[token]
        if status != -1:
            end_ms = min(entry["processed_ms"] + LIFE_MS, revoked_ms.get(entry["family"], answered_ms + 1))
            early_ms = end_ms - answered_ms
            assert (status, early_ms <= 0) == (401, True), f"{name}: {status}, {early_ms} ms before its end"
