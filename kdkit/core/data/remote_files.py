"""Files behind URLs: which there are, and their bytes from any offset.

``https://`` is read with httpx, by ranges; all other protocols with fsspec, whose packages for ``s3://`` and ``gs://``
are an extra. Credentials come from the environment, as each package documents. No message holds more than the address
without its query.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from kdkit.core.base.errors import ExitCode, KdkitError

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")
PROTOCOLS = ("https", "s3", "gs", "hf", "file", "memory")
"""``file`` needs no fetching; ``memory`` is fsspec's, for tests."""
EXTRA = {"s3": "s3fs", "gs": "gcsfs"}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
BLOCK = 8 << 20
TIMEOUT = 30.0
"""Seconds without data from the server."""
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.I)
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)", re.ASCII)
MAX_FILES = 100_000
AT_ONCE = 8
"""Requests for the sizes of files of a web server."""
BUSY = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class RemoteFile:
    """A file behind a URL.

    Attributes:
        url: where it is.
        name: relative path that it gets here.
        size: in bytes.
        stamp: changes with the content: the ETag, checksum or version that the server gives.
        sha256: of the content, if the server knows it.
    """

    url: str
    name: str
    size: int
    stamp: str
    sha256: str | None = None


UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
"""What OpenSSL says of a certificate that no authority of this machine has signed, or that is of another host."""


class Unavailable(Exception):
    """No answer, or that of a busy server: trying again may help."""


class Files(Protocol):
    """One protocol."""

    def find(self, url: str, ending: str) -> list[RemoteFile]:
        """The file ``url``, or all files below it with the ending; each URL that braces stand for has some.

        Raises:
            Unavailable: later perhaps.
            KdkitError: nothing there; the storage refuses the URL; a web server is asked for a file without the
                ending.
        """

    def read(self, file: RemoteFile, start: int, end: int | None = None) -> Iterator[tuple[int, bytes]]:
        """(offset, bytes) in order, up to ``end``; from 0 where the server cannot begin at ``start``.

        Errors as :meth:`find`.
        """


def is_url(path: str) -> bool:
    """Whether the path of a data entry is a URL."""
    return _URL.match(path) is not None


def check_url(url: str) -> None:
    """Raise KdkitError unless kdkit reads such URLs, and ``url`` holds no credentials."""
    parts, plain = urlsplit(url), "write a complete address: s3://bucket/folder or https://host/folder/{000..099}.tar"
    if parts.scheme not in PROTOCOLS and not (parts.scheme == "http" and is_loopback(url)):
        known = ", ".join(f"{name}://" for name in PROTOCOLS[:-1])
        raise _bad_url(url, f"the protocol {parts.scheme}:// is not read", f"write one of {known}")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        why = "it holds credentials or a query, which would be copied into files and messages"
        fix = "write the plain address; set credentials as the storage documents (AWS_PROFILE, HF_TOKEN, ...)"
        raise _bad_url(url, why, fix)
    if not (parts.netloc or parts.scheme in ("file", "memory")) or "\\" in url or ".." in parts.path.split("/"):
        raise _bad_url(url, "it is no complete address", plain)
    expand(url)


def _bad_url(url: str, why: str, fix: str) -> KdkitError:
    return KdkitError("KD-DATA-220", "this URL cannot be read", where=without_query(url), why=why, fix=fix)


def without_query(url: str) -> str:
    """``url`` for messages: no user, password or query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def open_files(url: str) -> Files:
    """What reads ``url``.

    Raises:
        KdkitError: a package is not installed.
    """
    protocol = urlsplit(url).scheme
    if protocol in ("http", "https"):
        return HttpFiles(url)
    try:
        import fsspec

        return FsspecFiles(fsspec.filesystem(protocol), protocol)
    except (ImportError, ValueError):
        packages = EXTRA.get(protocol, "fsspec")
        raise KdkitError(
            "KD-DATA-221",
            f"{protocol}:// needs {packages}",
            where=without_query(url),
            fix=f"pip install 'kdkit[remote]', or {packages} alone",
            code=ExitCode.MISSING,
        ) from None


def expand(url: str) -> list[str]:
    """All URLs that braces stand for: ``{000..099}`` counts, ``{a,b}`` lists.

    Example:
        >>> expand("https://host/{08..10}-{a,b}.tar")[:3]
        ['https://host/08-a.tar', 'https://host/08-b.tar', 'https://host/09-a.tar']
    """
    parts = _BRACES.split(url)
    choices = [[part] if place % 2 == 0 else _choices(part) for place, part in enumerate(parts)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > MAX_FILES:
        raise _bad_url(url, f"it names {count} files", f"name at most {MAX_FILES} in an entry")
    return ["".join(found) for found in product(*choices)]


def _choices(part: str) -> list[str]:
    counted = _RANGE.fullmatch(part)
    if counted is None:
        return part.split(",")
    first, last = int(counted[1]), int(counted[2])
    return [str(n).zfill(len(counted[1])) for n in range(first, min(last, first + MAX_FILES) + 1)]


class HttpFiles:
    """Files of web servers, which list nothing: braces name several.

    Redirects are followed, each only after a check of its address: to ``https``, or from loopback to loopback.
    """

    def __init__(self, url: str) -> None:
        import httpx2  # takes time, and few projects need it

        self._url, self._local = url, is_loopback(url)
        hooks = {"request": [self._check]}
        self._client = httpx2.Client(timeout=TIMEOUT, follow_redirects=True, event_hooks=hooks)

    def _check(self, request: httpx2.Request) -> None:
        """Before each request, also those of redirects."""
        local = is_loopback(str(request.url))
        if local and not self._local:
            raise _refused(self._url, "the server sends kdkit to an address of this machine")
        if request.url.scheme != "https" and not local:
            raise _refused(self._url, "the server sends kdkit to an address without https")

    def find(self, url: str, ending: str) -> list[RemoteFile]:
        urls = expand(url)
        if odd := next((one for one in urls if not one.lower().endswith(ending)), None):
            raise no_file(odd, ending)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return [_present(file, one, ending) for file, one in zip(pool.map(self._head, urls), urls, strict=True)]

    def _head(self, url: str) -> RemoteFile | None:
        with self._answer("HEAD", url) as answer:
            if answer.status_code in (404, 410):
                return None
            size = int(answer.headers.get("content-length", -1))
            stamp = answer.headers.get("etag") or answer.headers.get("last-modified") or ""
        if size < 0:
            raise _refused(url, "the server does not say how large the file is")
        return RemoteFile(url, unquote(urlsplit(url).path.rpartition("/")[2]), size, f"{size} {stamp}")

    def read(self, file: RemoteFile, start: int, end: int | None = None) -> Iterator[tuple[int, bytes]]:
        with self._answer("GET", file.url, start, end) as answer:
            place = start if answer.status_code == 206 else 0
            whole = _whole_size(answer.headers, place)
            stamp = answer.headers.get("etag") or answer.headers.get("last-modified") or ""
            if f"{whole} {stamp}" != file.stamp:
                raise mismatch(file)
            for block in answer.iter_raw(BLOCK):
                yield place, block
                place += len(block)

    def _answer(self, method: str, url: str, start: int = 0, end: int | None = None) -> _Answer:
        asked = {} if not start and end is None else {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        headers = {"Accept-Encoding": "identity", **asked}
        return _Answer(self._client, method, url, headers)


def _whole_size(headers: Mapping[str, str], place: int) -> int:
    """Bytes of the file of which an answer that begins at ``place`` has a part or all; -1 if it does not say so."""
    named = re.fullmatch(r"bytes \d+-\d+/(\d+)", headers.get("content-range", ""), re.ASCII)
    return int(named[1]) if named else int(headers.get("content-length", -1 - place)) + place


class _Answer:
    """A streamed response, with the errors of :class:`Files`."""

    def __init__(self, client: httpx2.Client, method: str, url: str, headers: dict[str, str]) -> None:
        self._stream, self._url = client.stream(method, url, headers=headers), url

    def __enter__(self) -> httpx2.Response:
        from httpx2 import HTTPError

        try:
            answer = self._stream.__enter__()
        except HTTPError as error:
            if UNTRUSTED in str(error):
                raise _untrusted(self._url, _named(error)) from None
            raise Unavailable(_named(error)) from None
        if answer.status_code in BUSY:
            self._stream.__exit__(None, None, None)
            raise Unavailable(f"status {answer.status_code}")
        if answer.status_code >= 400 and answer.status_code not in (404, 410):
            self._stream.__exit__(None, None, None)
            raise _refused(self._url, f"status {answer.status_code}")
        return answer

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        from httpx2 import HTTPError

        self._stream.__exit__(kind, error, trace)
        if isinstance(error, HTTPError):
            raise Unavailable(_named(error)) from None


class FsspecFiles:
    """Files of any file system of fsspec."""

    def __init__(self, system: Any, protocol: str) -> None:
        self._system, self._protocol = system, protocol

    def find(self, url: str, ending: str) -> list[RemoteFile]:
        found: list[RemoteFile] = []
        for one in expand(url):
            root = self._system._strip_protocol(one)
            try:
                self._system.invalidate_cache()
                listed = self._system.find(root, detail=True)
            except FileNotFoundError:
                listed = {}
            except (PermissionError, ValueError) as error:
                raise _refused(one, _named(error)) from None
            except Exception as error:  # each storage raises its own
                raise Unavailable(_named(error)) from None
            here = [self._file(path, root, info) for path, info in sorted(listed.items())
                    if path == root or self._belongs(path, root, ending)]  # fmt: skip
            if not here:
                raise no_file(one, ending, self._instead(listed))
            found += here
        return found

    def _instead(self, listed: Iterable[str]) -> str:
        """What is there, for the message."""
        endings = Counter(path.rpartition("/")[2].rpartition(".")[2] for path in listed)
        if self._protocol == "hf" and "py" in endings:
            return (
                "this data set is a program, and kdkit runs no programs of data sets; the branch refs/convert/parquet "
                "of most data sets has Parquet files: name its commit"
            )
        return ", ".join(f"{count} .{ending}" for ending, count in endings.most_common(5))

    @staticmethod
    def _belongs(path: str, root: str, ending: str) -> bool:
        inside = path.removeprefix(root.rstrip("/") + "/").split("/")
        return path.endswith(ending) and not any(part.startswith(".") for part in inside)

    def _file(self, path: str, root: str, info: dict[str, Any]) -> RemoteFile:
        name = path.rpartition("/")[2] if path == root else path.removeprefix(root.rstrip("/") + "/")
        keys = ("ETag", "etag", "md5Hash", "generation", "blob_id", "LastModified", "mtime", "created", "size")
        stamp = json.dumps([str(info[key]) for key in keys if info.get(key) is not None])
        lfs = info.get("lfs")
        sha = lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)
        return RemoteFile(f"{self._protocol}://{path.lstrip('/') if self._protocol != 'file' else path}", name,
                          int(info["size"]), hashlib.sha256(stamp.encode()).hexdigest(), sha)  # fmt: skip

    def read(self, file: RemoteFile, start: int, end: int | None = None) -> Iterator[tuple[int, bytes]]:
        path, end = self._system._strip_protocol(file.url), file.size if end is None else end
        exact = {"cache_type": "none"} if self._protocol == "hf" else {}  # the default asks for 5 MiB more each time
        for place in range(start, end, BLOCK):
            try:
                block = self._system.cat_file(path, place, min(place + BLOCK, end), **exact)
            except (PermissionError, ValueError) as error:
                raise _refused(file.url, _named(error)) from None
            except Exception as error:
                raise Unavailable(_named(error)) from None
            yield place, block


def _present(found: T | None, url: str, ending: str) -> T:
    """What is behind ``url``: leaving out a file that is named would lose its samples silently."""
    if found is None:
        raise no_file(url, ending)
    return found


def is_loopback(url: str) -> bool:
    """Whether the address is one of this machine."""
    return urlsplit(url).hostname in LOOPBACK


def _named(error: BaseException) -> str:
    """What happened, without addresses, which may be signed."""
    return re.sub(r"\w+://\S+", "...", f"{type(error).__name__}: {error}".strip(": "))[:200]


def _untrusted(url: str, why: str) -> KdkitError:
    """The error for a server that is not who it says; trying again helps as little as it is safe to go on."""
    what, where = "the certificate of the server is not trusted", without_query(url)
    fix = "check the address; if a proxy of your network signs certificates, name its own in SSL_CERT_FILE"
    return KdkitError("KD-DATA-345", what, where=where, why=why, fix=fix, code=ExitCode.MISSING)


def _refused(url: str, why: str) -> KdkitError:
    return KdkitError(
        "KD-DATA-222",
        "the storage refuses this URL",
        where=without_query(url),
        why=why,
        fix="check the address and your credentials, which the environment holds",
        code=ExitCode.MISSING,
    )


def no_file(url: str, ending: str, there: str = "") -> KdkitError:
    """The error for a URL without a file of its source; ``there`` is what it has."""
    return KdkitError(
        "KD-DATA-225",
        f"no {ending} file behind this URL",
        where=without_query(url),
        why=there,
        fix="check the address; web servers list no folders, so name their files: https://host/{000..099}" + ending,
        code=ExitCode.MISSING,
    )


def mismatch(file: RemoteFile) -> KdkitError:
    """The error for content that is not what the storage announced."""
    return KdkitError(
        "KD-DATA-228",
        "the file does not match what its storage says of it",
        where=without_query(file.url),
        why="its size, version or checksum differs: it was replaced meanwhile, or is damaged there",
        fix="run the command again",
    )
