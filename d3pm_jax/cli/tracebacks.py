"""Makes one line of the traceback of an error in a user's own code."""

import sysconfig
import traceback
from pathlib import Path

import d3pm_jax
from d3pm_jax.errors import UserError, one_line

# All files are the user's, but those of this library, of Python, its scripts, as `d3pm`, and in folders of
# installed packages.
LIBRARIES = (
    Path(d3pm_jax.__file__).resolve().parent,
    Path(sysconfig.get_path("stdlib")).resolve(),
    Path(sysconfig.get_path("scripts")).resolve(),
)
# Errors of JAX for code that asks for the value of an array while a program is made of it.
TRACED = (
    "ConcretizationTypeError",
    "TracerArrayConversionError",
    "TracerBoolConversionError",
    "TracerIntegerConversionError",
)
CURE_OF_TRACED = (
    "values are known only when the compiled program runs; compute with jax.numpy, choose by jnp.where, "
    "print by jax.debug.print"
)
INSTALLED = {"site-packages", "dist-packages"}


def shorten_traceback(error: BaseException) -> str | None:
    """Names the user's file, line and statement that an error comes from, and then what is wrong there.

    It is the innermost statement of the user's: frames of JAX, Flax and this library are left out.

    Returns:
        One line; None for an error that comes from no code of the user's, and for a UserError that this code
        raises, whose message says what is wrong by itself.
    """
    innermost = traceback.extract_tb(error.__traceback__)[-1:]
    if isinstance(error, UserError) and any(is_of_user(frame.filename) for frame in innermost):
        return None
    message = str(error)
    if not isinstance(error, UserError):
        message = f"{type(error).__name__}: {one_line(error, 400)}"
    # The error of a user's part may be the cause of one that this library raises.
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SyntaxError) and cause.filename and is_of_user(cause.filename):
            # The file was never run, so that no frame is in it.
            return f"{cause.filename}, line {cause.lineno}, `{(cause.text or '').strip()}`: {message}"
        if type(cause).__name__ in TRACED:
            first_line = str(cause).splitlines()[0].removesuffix(".")
            message = f"{first_line}: {CURE_OF_TRACED}"
        frames = traceback.extract_tb(cause.__traceback__)
        user_frames = [frame for frame in frames if is_of_user(frame.filename)]
        if user_frames:
            frame = user_frames[-1]
            return f"{frame.filename}, line {frame.lineno}, `{frame.line}`: {message}"
        cause = cause.__cause__
    return None


def is_of_user(filename: str) -> bool:
    """Says whether a file of code is the user's; code that was made of a text has none."""
    path = Path(filename).resolve()
    is_of_library = any(path.is_relative_to(folder) for folder in LIBRARIES)
    return path.is_file() and not is_of_library and INSTALLED.isdisjoint(path.parts)
