"""The one exception that stands for a mistake somebody can fix."""


class UserError(Exception):
    """A user's mistake, or one in the user's files, in one sentence.

    The message says what is wrong (the key or record, and its value), where it
    stands, and what to write instead. It is shown without a traceback, so it has
    to be enough by itself.
    """
