"""The prompt of a student as a chat template for stock processors."""

from __future__ import annotations

import json

from kdkit.plugins.students.clinkd.tokens import END, IMAGE, IMAGE_END, IMAGE_START, START

NAME = "chat_template.jinja"

_SYSTEM = f"""\
{{% if loop.first and message['role'] != 'system' %}}
{START}system
{{{{ <text> }}}}{END}
{{% endif %}}
"""
_TEMPLATE = f"""\
{{% for message in messages %}}
<system>\
{START}{{{{ message['role'] }}}}
{{% if message['content'] is string %}}
{{{{ message['content'] }}}}
{{%- else %}}
{{% for part in message['content'] %}}
{{% if part['type'] in ('image', 'image_url') %}}{IMAGE_START}{IMAGE}{IMAGE_END}
{{%- elif part['type'] == 'text' %}}{{{{ part['text'] }}}}
{{%- endif %}}
{{% endfor %}}
{{% endif %}}{END}
{{% endfor %}}
{{% if add_generation_prompt %}}
{START}assistant
{{% endif %}}
"""


def chat_template(system: str) -> str:
    """Jinja for transformers, which trims the line break after a block: ``chat.prompt_of`` for its messages.

    Args:
        system: the system message of conversations without one; empty for none.
    """
    first = _SYSTEM.replace("<text>", json.dumps(system, ensure_ascii=False)) if system else ""
    return _TEMPLATE.replace("<system>", first)
