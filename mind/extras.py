"""What to say when a command is run without the extra that it needs. Imports nothing that an extra brings."""

from importlib.util import find_spec


def missing(extra: str, *modules: str) -> str:
    """The line that says what to install; empty if all of these modules are there."""
    absent = [module for module in modules if find_spec(module) is None]
    if not absent:
        return ""
    return f"error: this needs {', '.join(absent)}: pip install 'mind-recall[{extra}]'"
