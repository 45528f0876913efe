"""Writing: which way each file goes, the check of the card, and the commit."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tests.local_hub.card import card_errors
from tests.local_hub.http import Answer, Refusal, Request, route
from tests.local_hub.routes.access import at, readable, signed_in, writable
from tests.local_hub.state import Commit, File, Repository

if TYPE_CHECKING:
    from tests.local_hub.server import LocalHub

LARGE = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".onnx", ".parquet", ".png", ".jpg")
"""As in the ``.gitattributes`` of a new repository; anything binary or above the threshold is large, too."""
CARD = "README.md"


@route("POST", "/api/validate-yaml")
def validate_yaml(_: LocalHub, request: Request) -> Answer:
    asked = request.json()
    found = card_errors(asked["content"], asked.get("repoType") or "model")
    errors = [{"message": message} for message in found]
    return Answer({"errors": errors, "warnings": []}, 400 if errors else 200)


@route("POST", "/api/{kinds}/{repo}/preupload/{revision}")
def preupload(hub: LocalHub, request: Request) -> Answer:
    found = _target(hub, request)
    commit = at(found, request.parts["revision"])
    answers = []
    for asked in request.json()["files"]:
        path, sample = asked["path"], base64.b64decode(asked.get("sample") or "")
        large = path.endswith(LARGE) or asked["size"] > hub.lfs_threshold or b"\0" in sample
        old = commit.files.get(path)
        mode = "lfs" if large else "regular"
        oid = (old.sha256 or old.oid) if old else None
        answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return Answer({"files": answers, "commitOid": commit.oid})


@route("POST", "/api/{kinds}/{repo}/commit/{revision}")
def commit(hub: LocalHub, request: Request) -> Answer:
    """All operations or none: checked against the tip, the card, and what was really uploaded."""
    found, account, revision = _target(hub, request), signed_in(request), request.parts["revision"]
    lines = [json.loads(line) for line in request.content().splitlines() if line.strip()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    with hub.lock:
        tip = at(found, revision)
        parent = header.get("parentCommit")
        if parent and tip.oid != parent:
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        files = _applied(hub, found, tip, lines)
        if request.query.get("create_pr"):
            opened = found.open_pull_request(header["summary"], account.name, tip)
            revision, more = f"refs/pr/{opened.number}", _discussion(request, found, opened.number)
        else:
            more = {}
        made = found.commit(files, header["summary"], account.name, revision, tip)
    url = f"{request.base}/{found.name}/commit/{made.oid}"
    return Answer({"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": "", **more})


def _target(hub: LocalHub, request: Request) -> Repository:
    """A pull request needs read access only."""
    if request.query.get("create_pr") or request.parts["revision"].startswith("refs/pr/"):
        signed_in(request)
        return readable(hub, request)
    return writable(hub, request)


def _applied(hub: LocalHub, found: Repository, tip: Commit, lines: list[dict[str, Any]]) -> Mapping[str, File]:
    files = dict(tip.files)
    for line in lines:
        key, value = line["key"], line["value"]
        if key == "file":
            content = base64.b64decode(value["content"])
            if value["path"] == CARD and (errors := card_errors(content.decode(), found.kind)):
                raise Refusal(400, "\n".join(errors))
            hub.store.put_small(content)
            files[value["path"]] = File.small(content)
        elif key == "lfsFile":
            files[value["path"]] = _large(hub, value)
        elif key == "deletedFile":
            if files.pop(value["path"], None) is None:
                raise Refusal(400, f"A file with the name {value['path']} does not exist")
        elif key == "deletedFolder":
            prefix = value["path"].rstrip("/") + "/"
            files = {path: file for path, file in files.items() if not path.startswith(prefix)}
    return files


def _large(hub: LocalHub, value: Mapping[str, Any]) -> File:
    sha256 = value["oid"]
    if hub.store.has(sha256):
        return File.large(hub.store.size(sha256), sha256)
    xet = hub.xet.hash_of(sha256) if hub.xet else None
    if xet is None:
        raise Refusal(400, f"LFS pointer pointed to a file that does not exist: {sha256}")
    return File.large(value["size"], sha256, xet)


def _discussion(request: Request, found: Repository, number: int) -> dict[str, str]:
    prefix = "datasets/" if found.kind == "dataset" else ""
    return {"pullRequestUrl": f"{request.base}/{prefix}{found.name}/discussions/{number}"}
