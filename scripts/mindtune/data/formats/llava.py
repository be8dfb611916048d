"""The form of LLaVA-Instruct: `image` is a name, or a list of names."""

from mindtune.data.formats.form import Form

FORM = Form(
    "llava",
    '{"image": "a.jpg", "conversations": [{"from": "human", "value": "<image>…"}, {"from": "gpt", …}]}',
    images="image",
    turns="conversations",
    role="from",
    value="value",
    user="human",
    assistant="gpt",
    tools=("observation", "function_call"),
)
