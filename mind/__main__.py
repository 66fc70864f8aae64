"""The command `python -m mind`: lists the tools of this package and their purposes."""

import sys
from difflib import get_close_matches
from importlib import metadata

TOOLS = {
    "prepare": "turn clicks, or public data by name, into training, validation and test files",
    "train": "train a model and write it as an artifact",
    "infer": "evaluate a model on the test users, next to baselines and the lists of a service",
    "models": "list, compare and choose trained models, and copy one to where servers load models from",
    "tune": "search for the settings that give the best model",
    "ablation": "train the recipe without each of its choices, to see what each is worth",
    "import_paddlerec": "turn a model that PaddleRec trained into an artifact",
    "item_map": "draw a model's items on a plane, for the explorer page of the HTTP gateway",
}
"""The modules that users run, in the order of their use."""


def main() -> None:
    """Print a line for each tool, or the version. Exit with an error for any other argument."""
    width = max(map(len, TOOLS))
    lines = [f"  python -m mind.{name:<{width}}  {purpose}" for name, purpose in TOOLS.items()]
    title = "Tools of the model package. --help shows the options of a tool, and --version its version:"
    text = "\n".join([title, "", *lines])
    if set(sys.argv[1:]) <= {"--help", "-h"}:
        print(text)
        return
    if sys.argv[1:] == ["--version"]:
        print(metadata.version("mind-recall"))
        return
    asked = sys.argv[1].removeprefix("mind.")
    hint = f"run `python -m mind.{asked}`" if asked in TOOLS else "`python -m mind` lists the tools"
    if asked not in TOOLS and (near := get_close_matches(asked, TOOLS, n=1, cutoff=0.7)):
        hint = f"did you mean `python -m mind.{near[0]}`?"
    sys.exit(f"error: python -m mind takes no {sys.argv[1]}: {hint}")


if __name__ == "__main__":
    main()
