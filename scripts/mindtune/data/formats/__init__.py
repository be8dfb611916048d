"""The forms of instructions that are read. A new one is a file here and a name in `FORMS`.

A file's form is found by what its records hold, not by its name.
"""

from collections.abc import Mapping
from pathlib import Path

from mindtune.data.formats import llava, messages, sharegpt
from mindtune.data.formats.form import Form, shown
from mindtune.data.json_list import read_records
from mindtune.errors import UserError

# Where records fit several (without pictures, the first two are one), the first counts.
FORMS = (llava.FORM, sharegpt.FORM, messages.FORM)


def find_form(path: Path) -> Form:
    """The form of a file of instructions, by the first record that has but one.

    Raises
    ------
    UserError: the file can't be read, or none of its records is of a form that is known.
    """
    undecided, first = None, None
    for record in read_records(path):
        first = record if first is None else first
        fitting = [form for form in FORMS if form.claims(record)]
        if len(fitting) == 1:
            return fitting[0]
        undecided = undecided or (fitting[0] if fitting else None)
    if undecided or first is None:
        return undecided or FORMS[0]
    shapes = "; ".join(f"`{form.name}`, {form.shape}" for form in FORMS)
    raise UserError(
        f"{path}: record 0 has {_keys(first)}, so it is in none of the forms that are read; write "
        f"records as {shapes}."
    )


def refuse_mixed(form: Form, record: Mapping, where: str) -> None:
    """
    Raises
    ------
    UserError: a record is of another form than its file.
    """
    others = [other for other in FORMS if other.claims(record)]
    if others and form not in others:
        raise UserError(
            f"{where} is in the form `{others[0].name}`, but others of the file are in the form "
            f"`{form.name}`; write each form into a file of its own, and name the further ones in "
            "sources.mixture."
        )


def _keys(record: Mapping) -> str:
    if not record:
        return "no keys"
    return f"the key{'s' if len(record) > 1 else ''} {shown(sorted(record))}"
