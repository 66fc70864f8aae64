"""The message for a command that runs without the extra that it needs. Imports nothing that an extra installs."""

from importlib.util import find_spec


def missing(extra: str, *modules: str) -> str:
    """Return a line that says what to install; empty if all of the modules are installed."""
    absent = [module for module in modules if find_spec(module) is None]
    if not absent:
        return ""
    return f"error: this needs {', '.join(absent)}: pip install 'mind-recall[{extra}]'"
