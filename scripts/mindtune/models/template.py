"""The one form of a conversation in which a family's models are trained and asked."""

from dataclasses import dataclass
from pathlib import Path

from mindtune.models import family, room
from mindtune.models.shape import read_config


@dataclass(frozen=True)
class Template:
    """Turns between two tokens each, and tokens that stand for pictures.

    turn_start, turn_end: a turn's. text_end: ends a text, and fills rows up. picture: what as many
    times as it has tokens stands for a picture, between picture_start and picture_end. system: the text
    of a conversation without one of its own, empty for none.
    """

    turn_start: str
    turn_end: str
    text_end: str
    picture: str
    picture_start: str
    picture_end: str
    system: str

    def question_text(self, question: str, first: bool, system: str | None = None) -> str:
        """A question's turn up to where its answer begins. Nothing of it is trained.

        first: it opens the conversation, so that the system text comes before it; None for the
        template's.
        """
        text = f"{self.turn_start}user\n{question}{self.turn_end}\n{self.turn_start}assistant\n"
        system = system or self.system
        if not first or not system:
            return text
        return f"{self.turn_start}system\n{system}{self.turn_end}\n{text}"

    def answer_text(self, answer: str) -> str:
        """The rest of the turn, which is trained."""
        return f"{answer}{self.turn_end}\n"

    def picture_text(self, tokens: int = 1) -> str:
        """What stands for a picture of so many tokens."""
        return f"{self.picture_start}{self.picture * tokens}{self.picture_end}"


def template_of(hf_dir: str | Path) -> Template:
    """The template of the family of the model in a Hugging Face directory.

    Raises
    ------
    UserError: its config.json is not there, or of no family here.
    """
    model_type = family(read_config(hf_dir), str(Path(hf_dir) / "config.json"))
    return room(model_type, "template").TEMPLATE
