"""Chat templates that a recipe names, written out from the published prompt formats.

Sources: OpenAI's ChatML; Stanford Alpaca (Taori et al. 2023); the model cards of Llama 3,
Mistral-Instruct v0.1 and EXAONE 3.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from repsim.core.errors import UsageError, unknown_name

#: Stands for the template that most of the models have.
AUTO = "auto"


def _turns(before: str, after: str, prompt: str) -> str:
    """A template whose turns differ in nothing but the role that stands before them."""
    return (
        "{% for message in messages %}"
        f"{before}{{{{ message['content'] | trim }}}}{after}"
        "{% endfor %}"
        f"{{% if add_generation_prompt %}}{prompt}{{% endif %}}"
    )


TEMPLATES = {
    "chatml": _turns(
        "<|im_start|>{{ message['role'] }}\n", "<|im_end|>\n", "<|im_start|>assistant\n"
    ),
    "llama3": "{{ bos_token }}"
    + _turns(
        "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n", "<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "exaone": _turns("[|{{ message['role'] }}|]", "[|endofturn|]\n", "[|assistant|]"),
    "alpaca": (
        "{% for message in messages %}"
        "{% if message['role'] == 'system' %}{{ message['content'] | trim }}\n\n"
        "{% elif message['role'] == 'user' %}### Instruction:\n{{ message['content'] | trim }}\n\n"
        "{% else %}### Response:\n{{ message['content'] | trim }}{{ eos_token }}\n\n{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}"
    ),
    "mistral": (
        "{{ bos_token }}{% set told = namespace(text='') %}{% for message in messages %}"
        "{% if message['role'] == 'system' %}{% set told.text = message['content'] ~ '\n\n' %}"
        "{% elif message['role'] == 'user' %}"
        "[INST] {{ told.text }}{{ message['content'] | trim }} [/INST]{% set told.text = '' %}"
        "{% else %} {{ message['content'] | trim }}{{ eos_token }}{% endif %}{% endfor %}"
    ),
}  # fmt: skip


def find_template(stated: str) -> str:
    """The template that a recipe names or writes out; "auto" is left for the models to decide."""
    if stated == AUTO or stated in TEMPLATES:
        return TEMPLATES.get(stated, stated)
    if "{" not in stated:
        raise unknown_name("chat template", stated, (AUTO, *TEMPLATES))
    from jinja2 import Environment, TemplateSyntaxError

    plain = re.sub(r"{%-?\s*(end)?generation\s*-?%}", "", stated)  # a tag of transformers
    try:
        Environment(autoescape=True, extensions=["jinja2.ext.loopcontrols"]).parse(plain)
    except TemplateSyntaxError as error:
        raise UsageError(
            f"'chat_template' is not a Jinja template: {error.message} in line {error.lineno}",
            hint=f"known by name: {', '.join((AUTO, *TEMPLATES))}",
        ) from None
    return stated


def most_common_template(templates: Sequence[str | None]) -> str | None:
    """The template that most models have, the first of them where several do; None if none has."""
    found = [template.strip() for template in templates if template]
    return Counter(found).most_common(1)[0][0] if found else None
