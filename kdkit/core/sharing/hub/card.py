"""The Hub's own check of a card's metadata, before anything is sent or made."""

from __future__ import annotations

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.sharing.hub.ask import ask
from kdkit.core.sharing.hub.connection import Hub
from kdkit.core.sharing.hub.plan import UploadPlan

CARD = "README.md"
_SHOWN = 160
"""Characters of one message: the Hub lists all licenses that it knows."""


def check_card(hub: Hub, plan: UploadPlan) -> None:
    """Raises: KdkitError (exit 1) naming the fields that the Hub refuses. A Hub that has no such check is believed."""
    if all(file.path != CARD for file in plan.to_send):
        return
    content = (plan.folder / CARD).read_text(encoding="utf-8", errors="replace")
    body = {"content": content, "repoType": plan.kind}
    response = ask(hub, "POST", "/api/validate-yaml", json=body, accept=(400, 404, 405))
    if response.status_code != 400:
        return
    errors = [str(error.get("message")) for error in response.json().get("errors", ())]
    raise KdkitError(
        "KD-HUB-001",
        "the Hub refuses the metadata of the card; nothing was pushed",
        where=str(plan.folder / CARD),
        why="; ".join(error if len(error) <= _SHOWN else f"{error[:_SHOWN]} ..." for error in errors),
        fix="correct these fields between the '---' lines at its top",
        code=ExitCode.FOUND,
    )
