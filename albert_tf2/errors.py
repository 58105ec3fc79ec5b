"""The one exception that means "the user can mend this"."""


class UserError(ValueError):
    """A mistake in a file, a flag or a setting, told in one sentence.

    The sentence names the file, the line or key, the value received and the
    remedy. Command lines print it as `error: ...` and exit with code 2
    (`command_line.run`); library callers catch it as a `ValueError`.
    """
