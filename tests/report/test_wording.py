"""The report's words about the data."""

from mindtune.report.wording import data_words

CONVERSION = {
    "records": 1_200, "kept": {"train": 1_100, "held_out": 98},
    "images": {"train": 1_000, "held_out": 40}, "dropped": {},
}  # fmt: skip


def test_what_was_dropped_and_not_asked_is_told():
    plain = "1,100 conversations about 1,000 pictures; 40 pictures held out"
    assert data_words(CONVERSION, 98, 98) == data_words(CONVERSION, None, 98) == plain
    assert data_words(CONVERSION, 400, 98) == (
        f"{plain}; 98 held-out questions, fewer than the 400 to be asked"
    )
    dropped = CONVERSION | {"dropped": {"an answer is empty": 1, "the image is missing": 1}}
    assert data_words(dropped, 98, 98) == f"{plain}; 2 of 1,200 records dropped"
