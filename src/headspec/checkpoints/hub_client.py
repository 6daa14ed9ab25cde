"""Talking to the Hub: bounded retries, ranged reads, and errors that say what to do."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeVar

from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage] - of httpx or httpx2, by its version
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session, hf_raise_for_status

from headspec.errors import CheckpointError, HubUnreachableError

ATTEMPTS = 5
"""How often one request is made before giving up."""

LONGEST_WAIT = 60.0
"""Seconds; a Hub that asks for a longer pause is reported instead of waited for."""

_TRANSIENT = (408, 429, 500, 502, 503, 504)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")

T = TypeVar("T")


class RangeIgnoredError(Exception):
    """The server sends whole files where a part was asked for."""


class _WrongAnswerError(Exception):
    """An answer whose length or range is not what was asked for."""


def is_offline(offline: bool) -> bool:
    """Whether the network is off limits: asked for, or `HF_HUB_OFFLINE=1`."""
    return offline or bool(constants.HF_HUB_OFFLINE)


def patiently(call: Callable[[], T], *, what: str) -> T:
    """Make a request, again where that may help.

    Rate limits (429), server errors and broken connections are tried `ATTEMPTS` times, waiting
    as long as `Retry-After` says (`LONGEST_WAIT` at most) or 1, 2, 4 ... seconds; wrong answers
    three times.

    Args:
        call: makes the request and returns its result.
        what: what is asked for, for messages.

    Raises:
        HubUnreachableError: the Hub cannot be reached, refuses, or does not have it.
        CheckpointError: it keeps sending something else than was asked for.
    """
    with explained(what):
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return call()
            except (HTTPError, _WrongAnswerError) as error:
                pause = _pause(error, attempt)
                if attempt == ATTEMPTS or pause is None:
                    raise
            time.sleep(pause)
    raise AssertionError("every attempt returns or raises")


def _pause(error: Exception, attempt: int) -> float | None:
    """Seconds to wait before the next attempt; None if another one cannot help."""
    if isinstance(error, _WrongAnswerError):
        return 2.0 ** (attempt - 1) if attempt < 3 else None
    wanted = ""
    if isinstance(error, HfHubHTTPError):
        if error.response.status_code not in _TRANSIENT:
            return None
        wanted = error.response.headers.get("Retry-After", "").strip()
    pause = float(wanted) if wanted.isdigit() else min(8.0, 2.0 ** (attempt - 1))
    return pause if pause <= LONGEST_WAIT else None


def read_range(
    url: str,
    span: tuple[int, int],
    *,
    size: int,
    headers: dict[str, str],
    check: Callable[[bytes], bool] | None = None,
) -> bytes:
    """Bytes `span[0]` to `span[1]` (exclusive) of a file, checked for completeness.

    The answer must be exactly that long, and name that range of a file of that size. That does
    not tell flipped bits: no hash of a part of a file exists. Integrity on the way is TLS's; pass
    `check` where the content itself can be checked.

    Args:
        url: where the file is served; redirects are followed.
        span: first and one-past-last byte.
        size: length of the whole file.
        headers: of the request (identification, token).
        check: says whether the bytes can be right.

    Raises:
        RangeIgnoredError: the server sends whole files.
        HubUnreachableError: see `patiently`.
    """
    start, stop = span
    if start == stop:
        return b""
    wanted = {**headers, "Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}

    def call() -> bytes:
        stream = get_session().stream(
            "GET",
            url,
            headers=wanted,
            timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
            follow_redirects=True,
        )
        with stream as response:
            if response.status_code >= 400:
                response.read()
            hf_raise_for_status(response)
            if response.status_code == 200 and span != (0, size):
                raise RangeIgnoredError(url)
            _check_range(response.headers.get("Content-Range"), span, size)
            data = bytearray()
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > stop - start:
                    break
        if len(data) != stop - start:
            raise _WrongAnswerError(f"{len(data)} bytes instead of {stop - start}")
        if check is not None and not check(bytes(data)):
            raise _WrongAnswerError("other content than the Hub lists")
        return bytes(data)

    return patiently(call, what=f"bytes {start} to {stop - 1} of {url}")


def _check_range(content_range: str | None, span: tuple[int, int], size: int) -> None:
    if content_range is None:
        return  # length is checked by the caller
    match = _CONTENT_RANGE.fullmatch(content_range.strip())
    right = (str(span[0]), str(span[1] - 1))
    if match is None or match.groups()[:2] != right or match[3] not in (str(size), "*"):
        raise _WrongAnswerError(f"Content-Range {content_range!r} for a file of {size} bytes")


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Whatever the Hub's client raises, as an error that says what to do."""
    try:
        yield
    except (CheckpointError, RangeIgnoredError):
        raise
    except _WrongAnswerError as error:
        raise CheckpointError(
            expected=what,
            got=f"an incomplete or different answer, again and again ({error})",
            fix="Nothing of it was kept. Try again later, or without a proxy in between; if it "
            "persists, the file on the Hub is damaged.",
        ) from error
    except (HTTPError, EntryNotFoundError, OSError) as error:
        _raise_explained(error, what)
    except HFValidationError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise HubUnreachableError(
            expected=what,
            got=f"an answer that is not the Hub's ({type(error).__name__}: {error!s:.80})",
            fix="Something in between answers instead, such as a proxy or a log-in page: check "
            "the network and HF_ENDPOINT.",
        ) from error


def _raise_explained(error: Exception, what: str) -> NoReturn:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, OfflineModeIsEnabled | LocalEntryNotFoundError):
        got, fix = _first_line(error), OFFLINE_FIX
    elif isinstance(error, GatedRepoError):
        got = f"a gated model ({status})"
        fix = "Accept its terms on its page and log in (`hf auth login`, or set HF_TOKEN)."
    elif isinstance(error, RepositoryNotFoundError):
        got = f"no such model, or a private one ({status})"
        fix = "Check the spelling (owner/name); for a private model log in (`hf auth login`)."
    elif isinstance(error, RevisionNotFoundError):
        got = f"no such revision ({status})"
        fix = "The branch was moved or deleted: open the suite again to list its steps anew."
    elif isinstance(error, EntryNotFoundError):
        got, fix = f"no such file ({status})", "suite.verify() lists what every step holds."
    elif status in (401, 403):
        got = f"access refused ({status})"
        fix = "Log in with a token that may read it (`hf auth login`, or set HF_TOKEN)."
    elif status == 429:
        got = f"too many requests ({status}); wait {_retry_after(error)}"
        fix = "Wait and run again: what was read is cached. A token raises the limit."
    elif status in (404, 410):
        got, fix = f"nothing there ({status})", "Check the address."
    elif status is not None:
        got, fix = f"HTTP status {status}", "Try again later; what was read so far is cached."
    elif isinstance(error, HTTPError | ConnectionError):
        got = f"no connection ({_first_line(error)})"
        fix = f"Check the network and HF_ENDPOINT, then run again. {OFFLINE_FIX}"
    else:
        got = _first_line(error)
        fix = "Nothing incomplete was kept: run again, and check the disk's free space."
    raise HubUnreachableError(expected=what, got=got, fix=fix) from error


OFFLINE_FIX = (
    "Offline, only what an earlier run has read is there: run once with a network (unset "
    "HF_HUB_OFFLINE, offline=False), or use a local folder or the embedded suite, "
    'open_suite("micro").'
)


def _retry_after(error: Exception) -> str:
    assert isinstance(error, HfHubHTTPError)
    wanted = error.response.headers.get("Retry-After")
    return f"{wanted} s" if wanted else "some minutes"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
