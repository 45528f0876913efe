"""A request for which the client has no public method."""

from __future__ import annotations

from typing import Any

from kdkit.core.sharing.hub.connection import Hub
from kdkit.core.sharing.hub.retry import patiently


def ask(hub: Hub, method: str, path: str, *, accept: tuple[int, ...] = (), json: Any = None) -> Any:
    """The answer, as the client's HTTP library gives it; with the token, and tried again where that can help.

    Args:
        hub: whom to ask.
        method: of a request that changes nothing.
        path: begins with a slash, quoted.
        accept: statuses that are answers, not errors.
        json: the body.

    Raises:
        HfHubHTTPError: any other status from 400 on; the HTTP library's own errors otherwise.
    """
    from huggingface_hub import utils

    client: Any = utils  # it exports these lazily, which type checkers do not see
    headers = client.build_hf_headers(token=hub.token or False, library_name="kdkit")

    def once() -> Any:
        response = client.get_session().request(method, hub.endpoint + path, headers=headers, json=json)
        if response.status_code not in accept:
            client.hf_raise_for_status(response)
        return response

    return patiently(once)
