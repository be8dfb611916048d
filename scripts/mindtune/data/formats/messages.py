"""The form of OpenAI's chats, ms-swift's standard: `messages` with `role` and `content`, and `images`.

LLaMA-Factory has it too, as `sharegpt` with tags of its own. A content may be a list of parts,
`{"type": "text", "text"}` and `{"type": "image"}`, which are joined with nothing between them. A
picture's name is in the part (`image`, or `image_url` with or without `url`) or in `images`.
"""

from collections.abc import Mapping

from mindtune.data.conversation import IMAGE_MARK
from mindtune.data.formats.form import Form, Unfit, shown
from mindtune.errors import UserError

PICTURES = ("image", "image_url")
OTHER_MEDIA = ("video", "video_url", "audio", "audio_url", "input_audio")


class Messages(Form):
    """Its turns may be lists of parts."""

    def plain(self, record: Mapping, here: str) -> Mapping:
        turns = record.get(self.turns)
        if not isinstance(turns, list):
            return record
        inline: list[str | None] = []
        joined = [self._joined(turn, inline, f"{here}, turn {n}") for n, turn in enumerate(turns)]
        if joined == turns:
            return record
        named = [name for name in inline if name is not None]
        beside = record.get(self.images)
        if not named:
            return {**record, self.turns: joined}
        if beside and ([beside] if isinstance(beside, str) else beside) != named:
            raise UserError(
                f"{here} has pictures in `{self.images}` and others in its parts; name each in one "
                "place."
            )
        return {**record, self.turns: joined, self.images: named}

    def _joined(self, turn, inline: list[str | None], here: str):
        """A turn with one text; the pictures of its parts (None without a name) go to `inline`."""
        if not isinstance(turn, dict) or not isinstance(turn.get(self.value), list):
            return turn
        texts = []
        for number, part in enumerate(turn[self.value]):
            text, picture = _part(part, f"{here}: `{self.value}[{number}]`")
            texts.append(text)
            inline += picture
        return {**turn, self.value: "".join(texts)}


def _part(part, here: str) -> tuple[str, list[str | None]]:
    """The text of a part, and its picture, if it is one."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text":
        text = part.get("text")
        if not isinstance(text, str):
            raise UserError(f"{here} has the `text` {shown(text)}, but it must be text.")
        return text, []
    if kind in PICTURES:
        name = part.get(kind)
        if isinstance(name, dict):
            name = name.get("url")
        if name is not None and not isinstance(name, str):
            raise UserError(f"{here} has the picture {shown(name)}, but it must be a file name.")
        return IMAGE_MARK, [name or None]
    if kind in OTHER_MEDIA:
        raise Unfit(f"it is about {_media(kind)} (a part `{kind}`), which is not read")
    raise UserError(f"{here} is {shown(part)}, but must be of the type `text` or `image`.")


def _media(kind: str) -> str:
    return "a video" if kind.startswith("video") else "a sound"


FORM = Messages(
    "messages",
    '{"images": ["a.jpg"], "messages": [{"role": "user", "content": "<image>…"}, {"role": "assistant", …}]}',
    images="images",
    turns="messages",
    role="role",
    value="content",
    user="user",
    assistant="assistant",
    tools=("tool", "tool_call", "tool_response", "function", "observation"),
)
