"""The configuration as types: docs/configuration.md has the meaning of each key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence  # noqa: TC003 (get_type_hints() needs them)
from typing import Literal, TypedDict


class Configuration(TypedDict, total=False):
    """The arguments of :class:`Client`, for programs that hold them in a dict."""

    config_file: str
    site_url: str
    issuer: str
    token_endpoint: str
    authorization_endpoint: str
    introspection_endpoint: str
    revocation_endpoint: str
    client_id: str
    client_secret: str
    client_secret_file: str
    client_secret_env: str
    private_key_file: str
    key_id: str
    assertion_algorithm: Literal["RS256", "PS256", "ES256"]
    assertion_audience: str
    client_auth: Literal["client_secret_basic", "client_secret_post", "private_key_jwt", "none"]
    basic_encoding: Literal["raw", "form"]
    scope: str
    refresh_parameters: Mapping[str, str]
    authorize_parameters: Mapping[str, str]
    parameters_in: Literal["body", "headers"]
    store: str
    namespace: str
    encryption_key: str | Sequence[str]
    encryption_key_file: str
    encryption_key_env: str
    session_lifetime_s: int
    expiry_from_introspection: bool
    renew_before_s: int
    early_renewal: Literal["background", "wait", "off"]
    recheck_s: int
    renews: bool
    lost_reply: Literal["replay", "sign_in"]
    reuse_window_s: int
    newest_wins: bool
    connect_timeout_ms: int
    exchange_timeout_ms: int
    max_wait_ms: int
    exit_wait_ms: int
    max_exchanges: int
    max_cached_sessions: int
    origins: Sequence[str]
    ca_file: str
    client_certificate_file: str
    client_key_file: str
    proxy: str
    user_agent: str


class RefreshRequest(Configuration):
    """The arguments of :func:`refresh`."""

    refresh_token: str
