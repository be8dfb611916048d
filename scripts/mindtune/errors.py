"""The one exception that stands for a mistake somebody can mend."""


class UserError(Exception):
    """A mistake of the user's, or of the user's files, told in one sentence.

    The message says what is wrong (the key or record, and its value), where it
    stands, and what to write instead. It is shown without a traceback, so it has
    to be enough by itself.
    """
