"""Writes the files of a small shop, on which the tutorial runs: `python -m tests.shop DIRECTORY`.

Customers click mostly in one of three departments, there mostly on items that are near each other.
"""

from pathlib import Path

import numpy as np
import typer

DEPARTMENTS = {"KIT": "Kitchen", "GAR": "Garden", "TOY": "Toy"}
ITEMS, CUSTOMERS, CLICKS = 40, 600, 12
"""Items of a department, customers, and clicks of each customer."""


def write_shop(directory: Path) -> None:
    """Write clicks.csv and items.csv, the same each time."""
    rng = np.random.default_rng(7)
    skus = np.array([[f"{name}-{1000 + number}" for number in range(ITEMS)] for name in DEPARTMENTS])
    clicks = ["customer_id,sku,clicked_at"]
    for customer in range(CUSTOMERS):
        home, middle = customer % len(skus), rng.integers(ITEMS)
        for click in range(CLICKS):
            department = home if rng.random() < 0.9 else rng.integers(len(skus))
            item = int(middle + rng.normal(0, 4)) % ITEMS
            at = f"2026-08-{1 + customer % 28:02d}T10:{click:02d}:00Z"
            clicks.append(f"cust_{customer},{skus[department, item]},{at}")
    items = ["sku,title,department,price,stock"]
    for department, name in enumerate(DEPARTMENTS.values()):
        for number, sku in enumerate(skus[department]):
            items.append(f'{sku},"{name} article, no. {number}",{name},{5 + number}.90,{(7 * number) % 5}')
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "clicks.csv").write_text("\n".join(clicks) + "\n", encoding="utf-8")
    (directory / "items.csv").write_text("\n".join(items) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(write_shop)  # with --help, which is no directory
