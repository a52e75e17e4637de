"""The library: find it, load it, check it; and its queues, through which every call goes that may wait."""

from __future__ import annotations

import os
import sys
from ctypes import CDLL, POINTER, PyDLL, byref, c_char_p, c_int32, c_int64, c_uint32, c_uint64, c_void_p, string_at
from weakref import finalize

from ._errors import InvalidArgument, error_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

ABI_VERSION = 1

# Of every function of evergrant.h: its result, then its parameters. What the library gives away is a pointer
# (c_void_p): as c_char_p, ctypes would drop the address, which is needed to free it.
_OUT, _JSON = POINTER(c_void_p), c_char_p
PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "evergrant_version": (c_char_p,),
    "evergrant_abi_version": (c_uint32,),
    "evergrant_status_name": (c_char_p, c_int32),
    "evergrant_json_member": (c_int32, _JSON, c_char_p, _OUT, _OUT),
    "evergrant_is_rejection": (c_int32, c_int32, c_char_p),
    "evergrant_refresh": (c_int32, _JSON, _OUT, _OUT),
    "evergrant_string_free": (None, c_void_p),
    "evergrant_error_status": (c_int32, c_void_p),
    "evergrant_error_message": (c_char_p, c_void_p),
    "evergrant_error_json": (c_char_p, c_void_p),
    "evergrant_error_free": (None, c_void_p),
    "evergrant_client_open": (c_int32, _JSON, _OUT, _OUT),
    "evergrant_client_stats": (c_int32, c_void_p, _OUT, _OUT),
    "evergrant_client_events": (c_int32, c_void_p, c_uint64, c_uint32, _OUT, _OUT),
    "evergrant_client_close": (c_int32, c_void_p, c_uint32),
    "evergrant_client_free": (None, c_void_p),
    "evergrant_session_save": (c_int32, c_void_p, c_char_p, _JSON, _OUT),
    "evergrant_session_token": (c_int32, c_void_p, c_char_p, _JSON, _OUT, _OUT),
    "evergrant_session_access_token": (c_int32, c_void_p, c_char_p, _JSON, _OUT, _OUT),
    "evergrant_session_renew": (c_int32, c_void_p, c_char_p, c_char_p, _JSON, _OUT, _OUT),
    "evergrant_session_peek": (c_int32, c_void_p, c_char_p, _OUT, POINTER(c_int64)),
    "evergrant_session_stamp": (c_int32, c_void_p, c_char_p, _OUT, _OUT),
    "evergrant_session_allows": (c_int32, c_void_p, c_char_p, c_char_p, c_char_p, POINTER(c_int32), _OUT),
    "evergrant_session_describe": (c_int32, c_void_p, c_char_p, _OUT, _OUT),
    "evergrant_session_list": (c_int32, c_void_p, c_char_p, c_uint32, _OUT, _OUT),
    "evergrant_session_introspect": (c_int32, c_void_p, c_char_p, _OUT, _OUT),
    "evergrant_session_sign_out": (c_int32, c_void_p, c_char_p, _OUT),
    "evergrant_session_forget": (c_int32, c_void_p, c_char_p, _OUT),
    "evergrant_session_move": (c_int32, c_void_p, c_char_p, _JSON, _OUT),
    "evergrant_sign_in_start": (c_int32, c_void_p, _JSON, _OUT, _OUT),
    "evergrant_sign_in_finish": (c_int32, c_void_p, c_char_p, _JSON, c_char_p, _OUT, _OUT),
    "evergrant_sign_in_with_browser": (c_int32, c_void_p, c_char_p, _JSON, _OUT, _OUT),
    "evergrant_sign_in_with_password": (c_int32, c_void_p, c_char_p, _JSON, _OUT, _OUT),
    "evergrant_queue_open": (c_int32, _OUT, POINTER(c_int32), _OUT),
    "evergrant_queue_submit": (c_int32, c_void_p, c_void_p, c_uint64, _JSON, _OUT),
    "evergrant_queue_take": (c_int32, c_void_p, c_uint32, _OUT, _OUT),
    "evergrant_queue_free": (None, c_void_p),
}

# They neither wait nor do I/O, and take a microsecond or so. To release the interpreter lock meanwhile, as for the
# others, would cost more than the call: to get it back takes up to a switch interval where threads compete.
_QUICK = frozenset(
    [
        "evergrant_error_free",
        "evergrant_error_json",
        "evergrant_queue_submit",
        "evergrant_queue_take",
        "evergrant_session_peek",
        "evergrant_session_stamp",
        "evergrant_string_free",
    ]
)


class _Library:
    """The functions of a loaded library as attributes, each bound when it is first used."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._library, self._quick = CDLL(path), PyDLL(path)

    def __getattr__(self, name: str) -> Any:
        prototype = PROTOTYPES.get(name)
        if prototype is None:
            raise AttributeError(name)
        function = getattr(self._quick if name in _QUICK else self._library, name)
        function.restype, function.argtypes = prototype[0], prototype[1:]
        self.__dict__[name] = function
        return function


def _candidates() -> list[str]:
    """Where the library may be, best first: all absolute paths."""
    named = os.environ.get("EVERGRANT_LIBRARY")
    if named:
        if not os.path.isabs(named):
            raise ImportError(f"EVERGRANT_LIBRARY must be an absolute path, not {named!r}")
        return [named]
    file = {"darwin": "libevergrant.dylib", "win32": "evergrant.dll"}.get(sys.platform, "libevergrant.so")
    package = os.path.dirname(os.path.abspath(__file__))
    found = [os.path.join(package, file)]
    root, inside = package[: -len(_CHECKOUT)], package.endswith(_CHECKOUT)
    if inside and os.path.exists(os.path.join(root, "Cargo.toml")):
        found += [os.path.join(root, "target", profile, file) for profile in ("release", "debug")]
    return found


_CHECKOUT = os.path.join(os.sep, "bindings", "python", "src", "evergrant")


def _load() -> _Library:
    candidates = _candidates()
    path = next((path for path in candidates if os.path.exists(path)), None)
    if path is None:
        hint = "; build it with `cargo build --release`" if len(candidates) > 1 else ""
        raise ImportError(f"evergrant found no library. It looked for {' and '.join(candidates)}{hint}")
    try:
        library = _Library(path)
        abi = library.evergrant_abi_version()
    except (OSError, AttributeError) as problem:
        raise ImportError(f"evergrant cannot load {path}: {problem}", path=path) from problem
    if abi != ABI_VERSION:
        raise ImportError(
            f"this version of the Python package needs a library with ABI {ABI_VERSION}, but {path} has ABI {abi}; "
            "install a package and a library of the same release",
            path=path,
        )
    return library


library = _load()


def text(owned: c_void_p) -> str:
    """The text of an owned string, which is freed."""
    try:
        return string_at(owned.value or 0).decode()
    finally:
        library.evergrant_string_free(owned)


def check(status: int, error: c_void_p) -> None:
    """Raises what a direct call has reported."""
    if status:
        import json

        try:
            details = json.loads(library.evergrant_error_json(error))
        finally:
            library.evergrant_error_free(error)
        raise error_of(details)


def to_json(members: Mapping[str, Any]) -> str:
    """A JSON object of the members that are not ``None``."""
    import json

    return json.dumps({name: value for name, value in members.items() if value is not None}, default=_plain)


def _plain(value: Any) -> dict[Any, Any]:
    from collections.abc import Mapping

    if isinstance(value, Mapping):
        return {**value}
    raise TypeError(f"no argument can be a {type(value).__name__}, or contain one")


class Queue:
    """One queue of the library. ``fd`` is readable whenever finished calls wait to be taken."""

    __slots__ = ("__weakref__", "_end", "_handle", "fd")

    def __init__(self) -> None:
        handle, fd, error = c_void_p(), c_int32(), c_void_p()
        check(library.evergrant_queue_open(byref(handle), byref(fd), byref(error)), error)
        self._handle, self.fd = handle, fd.value
        self._end = finalize(self, _end_queue, handle, self.fd)
        self._end.atexit = False

    def submit(self, client: c_void_p | None, tag: int, call: str) -> None:
        """Starts a call; ``take`` brings its result."""
        error = c_void_p()
        check(library.evergrant_queue_submit(self._handle, client, tag, call.encode(), byref(error)), error)

    def take(self) -> list[dict[str, Any]]:
        """The results of all finished calls. Never waits."""
        import json

        taken, error = c_void_p(), c_void_p()
        check(library.evergrant_queue_take(self._handle, 0, byref(taken), byref(error)), error)
        results: list[dict[str, Any]] = json.loads(text(taken))
        return results

    def close(self) -> None:
        """Ends the queue. Calls under way go on; their results are dropped."""
        self._handle = c_void_p()
        self._end()


def _end_queue(handle: c_void_p, fd: int) -> None:
    library.evergrant_queue_free(handle)
    os.close(fd)


_idle: list[Queue] = []
_MOST_IDLE = 16


def call(client: c_void_p | None, request: str) -> Any:
    """Makes one call and waits for its result."""
    (result,) = call_all([(client, request)])
    return value_of(result)


def call_all(calls: list[tuple[c_void_p | None, str]]) -> list[dict[str, Any]]:
    """Makes calls and waits for all results, in any order.

    It waits with nothing but a poll: a signal can end that at any time, and gevent knows how to.
    """
    import select

    try:
        queue = _idle.pop()
    except IndexError:
        queue = Queue()
    try:
        for tag, (client, request) in enumerate(calls):
            queue.submit(client, tag, request)
        # Looked up, and made, each time: gevent may patch it at any time.
        poll = select.poll()
        poll.register(queue.fd, select.POLLIN)
        results = queue.take()
        while len(results) < len(calls):
            poll.poll()
            results += queue.take()
    except BaseException:
        queue.close()
        raise
    if len(_idle) < _MOST_IDLE:
        _idle.append(queue)
    else:
        queue.close()
    return results


def value_of(result: dict[str, Any]) -> Any:
    """The value of a finished call; raises what it has reported."""
    if result["status"] != "OK":
        raise error_of(result["error"])
    return result["value"]


def forget_idle_queues() -> None:
    """In a forked child: they are its parent's."""
    _idle.clear()


def c_text(name: str, value: str) -> bytes:
    """A text argument of a direct call, which C would cut at a NUL."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    if "\0" in value:
        raise InvalidArgument(f"{name} must not contain a NUL")
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(f"{name} is no Unicode text") from None
