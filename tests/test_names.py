"""The public names: each is there, and none is imported before it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import extracurricular as xcl


@pytest.mark.parametrize("name", xcl.__all__)
def test_a_public_name_is_there(name: str) -> None:
    assert getattr(xcl, name) is not None
    assert name in dir(xcl)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Mixdown'"):
        _ = xcl.Mixdown


def test_short_names_are_aliases() -> None:
    assert xcl.Network is xcl.NetworkTeacher
    assert xcl.Ensemble is xcl.EnsembleTeacher
    assert xcl.Labels is xcl.LabelTeacher
    assert xcl.MCDropout is xcl.DropoutTeacher
    assert xcl.sklearn_teacher is xcl.EstimatorTeacher


def test_importing_the_package_imports_nothing_of_it() -> None:
    code = (
        "import sys, extracurricular\n"
        "print([m for m in sys.modules if m == 'torch' or m.startswith('extracurricular.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
