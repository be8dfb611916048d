"""The form `sharegpt` of LLaMA-Factory: LLaVA's turns, and a list `images`."""

from mindtune.data.formats.form import Form

FORM = Form(
    "sharegpt",
    '{"images": ["a.jpg"], "conversations": [{"from": "human", "value": "<image>…"}, {"from": "gpt", …}]}',
    images="images",
    turns="conversations",
    role="from",
    value="value",
    user="human",
    assistant="gpt",
    tools=("observation", "function_call"),
)
