"""Endpoint and token of a Hub."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hub.errors import hub_errors
from kdkit.core.base.hub.retry import with_retries
from kdkit.core.base.hub.settings import checked_token, require_usable_settings

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Kind = Literal["model", "dataset"]
TOKEN = "KDKIT_HUB_TOKEN"
HOME = "huggingface.co"
"""The host that 'hf auth login' and HF_TOKEN belong to."""


@dataclass(frozen=True)
class Account:
    """Owner of a token; ``role`` is the token's: read, write or fineGrained."""

    name: str
    organizations: tuple[str, ...]
    role: str


@dataclass(frozen=True)
class Hub:
    """An endpoint and the token for it.

    Attributes:
        endpoint: without a slash at the end.
        token: None for an anonymous user; never shown.
        withheld: why a saved token is not sent to this host; else empty.
    """

    endpoint: str
    token: str | None = field(default=None, repr=False)
    withheld: str = ""

    @cached_property
    def api(self) -> HfApi:
        """The client; ``token=False`` keeps it from looking for a token by itself.

        Raises:
            KdkitError: the environment names a proxy or certificates that cannot be used.
        """
        from huggingface_hub import HfApi, constants

        import kdkit

        if not constants.HF_HUB_OFFLINE:
            require_usable_settings(os.environ)
        return HfApi(
            endpoint=self.endpoint,
            token=self.token or False,
            library_name="kdkit",
            library_version=kdkit.__version__,
        )

    @cached_property
    def account(self) -> Account:
        """The owner of the token; requested once.

        Raises:
            KdkitError: no token, or one that the Hub does not know (exit 4); no network (exit 3).
        """
        self.require_token()
        with hub_errors(self.endpoint, self):
            facts = with_retries(lambda: self.api.whoami())
        token = facts.get("auth", {}).get("accessToken", {})
        organizations = tuple(org["name"] for org in facts.get("orgs", ()))
        return Account(facts["name"], organizations, token.get("role", ""))

    def require_token(self) -> None:
        """Raises: KdkitError without a token, saying how to give one."""
        if self.token is None:
            raise KdkitError(
                "KD-HUB-004",
                "no token for this Hub",
                where=self.endpoint,
                why=self.withheld,
                fix=self.how_to_log_in,
                code=ExitCode.DENIED,
            )

    @property
    def how_to_log_in(self) -> str:
        """How a user provides a token for this endpoint."""
        if is_home(self.endpoint):
            return "run 'hf auth login' with a token that may write, or set HF_TOKEN"
        return f"set {TOKEN} to a token of {urlsplit(self.endpoint).netloc}"

    def scrub(self, text: str) -> str:
        """``text`` without the token."""
        return text.replace(self.token, "***") if self.token else text

    def url(self, repo: str, kind: Kind = "model", revision: str = "") -> str:
        """The page of a repository, for people."""
        prefix = "datasets/" if kind == "dataset" else ""
        return f"{self.endpoint}/{prefix}{repo}" + (f"/tree/{revision}" if revision else "")


def connect(
    endpoint: str | None = None, token: str | None = None, *, environment: Mapping[str, str] = os.environ
) -> Hub:
    """The Hub to use; sends no request.

    ``token`` and ``KDKIT_HUB_TOKEN`` are sent to any endpoint. ``HF_TOKEN`` and the token of ``hf auth login`` are sent
    to huggingface.co over https alone, and not to a mirror in ``HF_ENDPOINT``.

    Args:
        endpoint: by default ``HF_ENDPOINT``, else https://huggingface.co.
        token: by default ``KDKIT_HUB_TOKEN``, else, for huggingface.co, what ``huggingface_hub`` finds.
        environment: environment variables.

    Raises:
        KdkitError: the endpoint is no http(s) address, or the token has letters that no token has.
    """
    address = (endpoint or environment.get("HF_ENDPOINT") or f"https://{HOME}").rstrip("/")
    if not _is_address(address):
        raise KdkitError(
            "KD-HUB-005",
            "not the address of a Hub",
            where="endpoint" if endpoint else "HF_ENDPOINT",
            why="an address is https://HOST, without user name or password",
            fix=f"unset it for https://{HOME}",
        )
    explicit = token or environment.get(TOKEN)
    if explicit:
        return Hub(address, checked_token(explicit, "the token" if token else TOKEN))
    if environment.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() in ("1", "TRUE", "YES", "ON"):
        return Hub(address, None, "HF_HUB_DISABLE_IMPLICIT_TOKEN is set")
    if is_home(address):
        from huggingface_hub import get_token

        found = get_token()
        return Hub(address, checked_token(found, "HF_TOKEN or 'hf auth login'") if found else None)
    return Hub(address, None, f"a token saved for {HOME} is not sent to {urlsplit(address).netloc}")


def is_home(endpoint: str) -> bool:
    """Whether tokens saved on this machine are meant for this endpoint."""
    parts = urlsplit(endpoint)
    return parts.scheme == "https" and parts.netloc in (HOME, f"www.{HOME}", f"{HOME}:443")


def _is_address(text: str) -> bool:
    """Whether this is http(s)://HOST[:PORT], without user name or password."""
    try:
        parts = urlsplit(text)
        return (
            parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc and parts.port != 0
        )
    except ValueError:  # a port that is no number, half of an IPv6 address
        return False
