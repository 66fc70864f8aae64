"""The images, built and run without a container engine; `python -m tests.faults.images` prints the figures."""

import pytest

from tests.build_images import CPU_TARGETS
from tests.faults.images import drill, why_not


@pytest.mark.timeout(1200)
@pytest.mark.skipif(bool(why_not()), reason=f"the images cannot be built here: {why_not()}")
def test_the_demo_runs_in_images_that_were_built_here() -> None:
    rows = drill()
    assert rows.keys() == set(CPU_TARGETS)
    for image, row in rows.items():
        print(f"{image}: {row.megabytes:.0f} MB, built in {row.build_s:.0f} s, healthy after {row.start_s or 0:.1f} s")
