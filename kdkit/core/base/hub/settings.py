"""Settings of the network in the environment: proxies, certificates and tokens that no request could use."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from kdkit.core.base.errors import ExitCode, KdkitError

_PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY")


def require_usable_settings(environment: Mapping[str, str]) -> None:
    """Check what HTTP clients read from the environment.

    Raises:
        KdkitError: a proxy of an unknown kind, a SOCKS proxy without its package, or missing certificates.
    """
    for variable in (name for upper in _PROXIES for name in (upper, upper.lower())):
        address = environment.get(variable, "")
        if not address:
            continue
        kind = address.partition("://")[0].lower() if "://" in address else "http"
        if kind in ("socks5", "socks5h"):
            if find_spec("socksio") is None:
                raise KdkitError(
                    "KD-HUB-060",
                    "a SOCKS proxy needs the package socksio",
                    where=variable,
                    fix=f"kdkit install socksio; or unset {variable}",
                    code=ExitCode.MISSING,
                )
        elif kind not in ("http", "https"):
            raise KdkitError(
                "KD-HUB-061",
                f"'{kind}' is no kind of proxy",
                where=variable,
                why="kinds are http, https, socks5 and socks5h",
                fix=f"write {'socks5' if kind.startswith('socks') else 'http'}://HOST:PORT, or unset {variable}",
            )
        elif not _is_proxy(address if "://" in address else f"http://{address}"):
            raise KdkitError(
                "KD-HUB-064",
                "not the address of a proxy",
                where=variable,
                fix=f"write {kind}://HOST:PORT, or unset {variable}",
            )
    for variable, there in (("SSL_CERT_FILE", Path.is_file), ("SSL_CERT_DIR", Path.is_dir)):
        place = environment.get(variable, "")
        if place and not there(Path(place)):
            raise KdkitError(
                "KD-HUB-062",
                "no such certificates",
                where=variable,
                why=place,
                fix=f"correct the path, or unset {variable} for the certificates of Python",
                code=ExitCode.MISSING,
            )


def _is_proxy(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def checked_token(token: str, where: str) -> str:
    """The token without spaces around it.

    Raises:
        KdkitError: it has a character that no token has; the message does not show the token.
    """
    token = token.strip()
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise KdkitError(
            "KD-HUB-063",
            "the token has a space, a line break or a letter that no token has",
            where=where,
            fix="copy it again from the settings of the Hub",
            code=ExitCode.DENIED,
        )
    return token
