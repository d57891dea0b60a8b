"""Print the lowest allowed version of each requirement, or with --tests the core of the tests.

``make test-lower`` runs these tests on those versions. torch is the pinned one, as older wheels are
gigabytes; linters and heavy extras that no core test needs are left out.
"""

import re
import sys
import tomllib
from pathlib import Path

EXTRAS = ("datasets", "excel", "hub", "mat", "onnx", "parquet", "tensorboard")
NOT_NEEDED = ("extracurricular", "moto", "mypy", "ruff", "types-")
# One file or more of each room, in a few minutes: what calls other packages most.
CORE = """
    tests/test_distributions.py tests/test_matching.py tests/test_names.py
    tests/test_distillation.py
    tests/cli/test_cli.py tests/cli/test_predict.py tests/data/test_base.py tests/data/test_warts.py
    tests/data/sets/test_table.py tests/data/sets/test_arrays.py tests/data/sets/test_imagefolder.py
    tests/data/formats tests/evaluation/test_metrics.py tests/export
    tests/generators/test_tables.py tests/knowledge/test_codecs.py tests/recipe/test_read.py
    tests/recipe/test_reference.py tests/report/test_report.py tests/run/test_run.py
    tests/teachers/test_named.py tests/teachers/test_onnx.py tests/training/test_loop.py
"""


def lowest(text: str) -> list[str]:
    """Return ``name==version`` for each requirement of a pyproject.toml."""
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(one for name in EXTRAS for one in extras[name])]
    wanted += [one for one in extras["dev"] if not one.startswith(NOT_NEEDED)]
    found: dict[str, str] = {}
    for one in wanted:
        match = re.fullmatch(r"([\w.-]+)(?:\[.*\])?>=([\w.]+)", one)
        if match and match[1] != "torch":
            found.setdefault(match[1], match[2])
    return [f"{name}=={version}" for name, version in found.items()]


if __name__ == "__main__":
    root = Path(__file__).parents[1]
    if "--tests" in sys.argv:
        print(*CORE.split())
    else:
        print(*lowest((root / "pyproject.toml").read_text(encoding="utf-8")), sep="\n")
