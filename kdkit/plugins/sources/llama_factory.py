"""Records of LLaMA-Factory: an entry of ``dataset_info.json``, and the conversation that it finds in a record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.contracts import IMAGE_MARK
from kdkit.plugins.sources.records import Record

FORMATS = ("alpaca", "sharegpt", "openai")
UNREAD = ("videos", "audios", "chosen", "rejected", "kto_tag")
"""Columns that kdkit does not support; they must be empty."""
OBSERVATION, FUNCTION = "observation", "function"
NEXT_RESPONSE = "\n</tool_response>\n<tool_response>\n"
SYSTEM = "You are a helpful assistant."
TOOLS = """

# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""
"""LLaMA-Factory's texts for Qwen: the default system message, and what tools add to it."""
SKIP = "correct the record, or skip such records with the option skip_broken: true"
Turn = tuple[str, str]


@dataclass(frozen=True)
class Entry:
    """A data set of ``dataset_info.json``, with LLaMA-Factory's names and defaults.

    As in LLaMA-Factory, an entry with ``tags`` (or ``columns``) sets all others of them to None: system messages are
    then recognized only with ``system_tag``.
    """

    formatting: str
    unread: tuple[str, ...]
    """Fields of records that must be empty."""
    messages: str | None = "conversations"
    prompt: str | None = "instruction"
    query: str | None = "input"
    response: str | None = "output"
    history: str | None = None
    images: str | None = None
    system: str | None = None
    tools: str | None = None
    role_tag: str | None = "from"
    content_tag: str | None = "value"
    user_tag: str | None = "human"
    assistant_tag: str | None = "gpt"
    observation_tag: str | None = "observation"
    function_tag: str | None = "function_call"
    system_tag: str | None = "system"

    @classmethod
    def of(cls, entry: Mapping[str, Any], where: str) -> Entry:
        """Raises: KdkitError for anything but data for supervised fine-tuning in a local file."""
        formatting = entry.get("formatting", FORMATS[0])
        if formatting not in FORMATS or entry.get("ranking"):
            fix = f"convert the data set to one of {', '.join(FORMATS)}, or to a JSON Lines manifest"
            what = f"formatting '{formatting}'{' with ranking' if entry.get('ranking') else ''} is not read"
            raise KdkitError("KD-SRC-051", what, where=where, fix=fix)
        if not isinstance(entry.get("file_name"), str):
            raise KdkitError(
                "KD-SRC-052", "this entry has no file_name", where=where, fix="download the data set first"
            )
        columns, tags = entry.get("columns"), entry.get("tags")
        for name, part in (("columns", columns), ("tags", tags)):
            if part is not None and not (isinstance(part, dict) and all(isinstance(v, str) for v in part.values())):
                fix = f"write {name}: {{...}} with texts in dataset_info.json"
                raise KdkitError(
                    "KD-SRC-053", f"'{name}' must be an object of texts, not {part!r}", where=where, fix=fix
                )
        given: dict[str, Any] = {}
        for field in fields(cls)[2:]:
            group = tags if field.name.endswith("_tag") else columns
            if group is not None:
                given[field.name] = group.get(field.name)
        made = cls(formatting, tuple((columns or {}).get(name, name) for name in UNREAD), **given)
        needed = ("messages", "role_tag", "content_tag", "user_tag", "assistant_tag")
        missing = [name for name in (("prompt",) if formatting == "alpaca" else needed) if getattr(made, name) is None]
        if missing:
            raise KdkitError(
                "KD-SRC-054",
                f"this entry does not define '{missing[0]}'",
                where=where,
                why="an entry with columns or tags resets all that it does not list",
                fix="add it to columns or tags in dataset_info.json",
            )
        return made

    def conversation(self, record: Record, where: str) -> tuple[list[Turn], list[object]]:
        """((role, content) turns with the roles system, user, assistant; names of images) of a record.

        Tool responses become turns of the user and function calls turns of the assistant, as Qwen's template writes
        them.

        Raises:
            KdkitError: the record has another form.
        """
        for name in self.unread:
            if record.get(name):
                fix = "remove such records, or skip them with the option skip_broken: true"
                raise KdkitError("KD-SRC-060", f"kdkit does not read '{name}'", where=where, fix=fix)
        given = record.get(str(self.images))
        images = [] if given is None else list(given) if isinstance(given, list) else [given]
        turns = self._alpaca(record, where) if self.formatting == "alpaca" else self._messages(record, where, images)
        if turns[:1] and turns[0][0] != "system" and self.system and record.get(self.system):
            turns = [("system", str(record[self.system])), *turns]
        given = record.get(str(self.tools))
        if turns and given and (tools := _json_list(given, where)):
            system, turns = (turns[0][1], turns[1:]) if turns[0][0] == "system" else (SYSTEM, turns)
            turns = [("system", system + _tools(tools)), *turns]
        return turns, images

    def _alpaca(self, record: Record, where: str) -> list[Turn]:
        history = record.get(str(self.history)) or []
        good = isinstance(history, list) and all(
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
            for pair in history
        )
        if not good:
            raise KdkitError("KD-SRC-061", f"'{self.history}' is no list of pairs of texts", where=where, fix=SKIP)
        turns = [(role, text) for pair in history for role, text in zip(("user", "assistant"), pair, strict=True)]
        texts = [record.get(name) for name in (self.prompt, self.query) if name and record.get(name)]
        answer = record.get(str(self.response)) or ""
        wrong = [text for text in (*texts, answer) if not isinstance(text, str)]
        if wrong or not texts:
            raise KdkitError(
                "KD-SRC-064",
                f"not a text: {wrong[0]!r}" if wrong else f"'{self.prompt}' is empty",
                where=where,
                why=f"fields: {', '.join(record)}",
                fix=SKIP,
            )
        return [*turns, ("user", "\n".join(map(str, texts))), ("assistant", str(answer))]

    def _messages(self, record: Record, where: str, images: list[object]) -> list[Turn]:
        messages = record.get(str(self.messages))
        if not isinstance(messages, list) or not messages:
            raise KdkitError(
                "KD-SRC-062",
                f"a record needs '{self.messages}', a list",
                where=where,
                why=f"fields: {', '.join(record)}",
                fix="set messages of the entry's columns in dataset_info.json",
            )
        pairs = [(self.user_tag, "user"), (self.assistant_tag, "assistant")]
        pairs += [(self.observation_tag, OBSERVATION), (self.function_tag, FUNCTION)]
        roles = {tag: role for tag, role in reversed(pairs) if tag is not None}
        turns: list[Turn] = []
        own: list[object] = []
        for number, message in enumerate(messages):
            tag = message.get(self.role_tag) if isinstance(message, dict) else None
            system = number == 0 and tag is not None and tag == self.system_tag
            role = "system" if system else roles.get(tag) if isinstance(tag, str) else None
            content = _text(message, self.content_tag, own) if isinstance(message, dict) else None
            if isinstance(message, dict) and message.get("tool_calls") and self.formatting == "openai":
                role, content = FUNCTION, _calls(message["tool_calls"])
            if role is None or content is None:
                known = ", ".join([*reversed(roles), *([self.system_tag] if self.system_tag else [])])
                raise KdkitError(
                    "KD-SRC-063",
                    f"message {number + 1} has {self.role_tag} {tag!r}, or no text in {self.content_tag}",
                    where=where,
                    why=f"the roles of this entry are {known}",
                    fix="define the tags of the entry in dataset_info.json",
                )
            if role == OBSERVATION and turns and turns[-1][0] == OBSERVATION and self.formatting == "openai":
                turns[-1] = (OBSERVATION, turns[-1][1] + NEXT_RESPONSE + content)
            else:
                turns.append((role, content))
        if own and images:
            raise KdkitError("KD-SRC-067", f"images in the messages and in '{self.images}'", where=where, fix=SKIP)
        images += own
        return [_as_template(role, content, where) for role, content in turns]


def _text(message: Mapping[str, Any], tag: str | None, images: list[object]) -> str | None:
    """The content of a message; parts of a list are joined, with a mark for each image. Adds named images."""
    content = message.get(str(tag))
    if isinstance(content, str) or not isinstance(content, list):
        return content if isinstance(content, str) else None
    text = ""
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            text += part["text"]
        elif kind in ("image", "image_url"):
            text += IMAGE_MARK
            name = part.get(kind, part.get("path"))
            name = name.get("url") if isinstance(name, dict) else name
            images += [name.removeprefix("file://") if isinstance(name, str) else name] if name is not None else []
        else:
            return None
    return text


def _calls(calls: object) -> str | None:
    functions = [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    return json.dumps(functions, ensure_ascii=False) if functions else None


def _as_template(role: str, content: str, where: str) -> Turn:
    if role == OBSERVATION:
        return "user", f"<tool_response>\n{content}\n</tool_response>"
    if role != FUNCTION:
        return role, content
    calls = _json_list(content, where)
    texts = [json.dumps({"name": c.get("name"), "arguments": c.get("arguments")}, ensure_ascii=False) for c in calls]
    return "assistant", "\n".join(f"<tool_call>\n{text}\n</tool_call>" for text in texts)


def _tools(tools: Sequence[Mapping[str, Any]]) -> str:
    whole = [tool if tool.get("type") == "function" else {"type": "function", "function": tool} for tool in tools]
    return TOOLS.format(tools="".join("\n" + json.dumps(tool, ensure_ascii=False) for tool in whole))


def _json_list(value: object, where: str) -> Sequence[Mapping[str, Any]]:
    """A list of objects, or one object, perhaps as JSON text."""
    try:
        value = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        value = None
    found: list[Any] = value if isinstance(value, list) else [value]
    if not all(isinstance(item, dict) for item in found):
        raise KdkitError("KD-SRC-059", "function calls and tools must be JSON objects", where=where, fix=SKIP)
    return found


def choose_entry(info: Record, dataset: str | None, where: str) -> tuple[str, Mapping[str, Any]]:
    """(name, entry) of the data set ``dataset``, or of the only one.

    Raises:
        KdkitError: there is no such data set, or there are several and none is chosen.
    """
    if dataset is None and len(info) != 1:
        raise KdkitError(
            "KD-SRC-057", f"{len(info)} data sets here", where=where, fix=f"set dataset: {' or '.join(info)}"
        )
    name = dataset or next(iter(info))
    if not isinstance(info.get(name), dict):
        raise KdkitError("KD-SRC-058", f"no data set '{name}'", where=where, fix=did_you_mean(name, tuple(info)))
    return name, info[name]
