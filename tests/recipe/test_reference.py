"""What `xcl explain` and docs/reference.md say is what the code takes."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import extracurricular.knowledge.named
import extracurricular.knowledge.quantised  # noqa: F401 (both register entries)
from extracurricular.cli import app
from extracurricular.data.sets import DATA
from extracurricular.errors import RecipeError
from extracurricular.generators.base import GENERATORS
from extracurricular.knowledge.codecs import CODECS
from extracurricular.matching import Matching
from extracurricular.matching.divergences import DIVERGENCES
from extracurricular.models import MODELS
from extracurricular.models.estimators import ESTIMATORS
from extracurricular.models.families import DISTRIBUTIONS
from extracurricular.recipe import schema, students
from extracurricular.recipe.described import KINDS, entries, section
from extracurricular.recipe.plain_values import Loader
from extracurricular.recipe.read import parse_recipe
from extracurricular.recipe.reference import Key, described, explain, keys, settings_of
from extracurricular.recipe.reference_page import page
from extracurricular.recipe.ships import shipped_recipes
from extracurricular.registry import Registry, check_settings
from extracurricular.run.loggers import LOGGERS
from extracurricular.samplers.base import SAMPLERS
from extracurricular.samplers.scores import SCORES
from extracurricular.teachers.named import ENTRIES
from extracurricular.training import Training
from extracurricular.training.optimizers import OPTIMIZERS

ROOT = Path(__file__).parents[2]
REGISTRIES: dict[str, Registry[Any]] = {
    "data": DATA, "model": MODELS, "teacher": ENTRIES, "generator": GENERATORS,
    "sampler": SAMPLERS, "score": SCORES, "divergence": DIVERGENCES, "codec": CODECS,
    "logger": LOGGERS, "optimizer": OPTIMIZERS, "distribution": DISTRIBUTIONS,
    "estimator": ESTIMATORS,
}  # fmt: skip
SECTIONS = {
    **{name: value for module in (schema, students) for name, value in vars(module).items()
       if inspect.isclass(value) and issubclass(value, students.Section)},
    "Training": Training,
}  # fmt: skip
PAIRS = [(kind, name) for kind in KINDS for name in entries(kind)]


def test_every_kind_of_entry_is_described() -> None:
    assert set(KINDS) == set(REGISTRIES)


@pytest.mark.parametrize("kind", KINDS)
def test_the_sources_name_what_is_registered(kind: str) -> None:
    assert sorted(entries(kind)) == REGISTRIES[kind].names()


def takes(entry: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return {
        name: parameter
        for name, parameter in inspect.signature(entry).parameters.items()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_an_entry_has_the_settings_that_its_code_takes(kind: str, name: str) -> None:
    entry = REGISTRIES[kind].entry(name)
    in_name = set(re.findall(r"\{(\w+)\}", name))
    wanted = {k: v for k, v in takes(entry).items() if k not in {*KINDS[kind].supplied, *in_name}}
    found = {setting.name: setting for setting in entries(kind)[name].settings}
    assert set(found) == set(wanted)
    for setting, parameter in wanted.items():
        assert (found[setting].default is None) == (parameter.default is parameter.empty)
        simple = isinstance(parameter.default, bool | int | float | str | None)
        if simple and parameter.default is not parameter.empty:
            assert yaml.load(str(found[setting].default), Loader=Loader) == parameter.default


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_each_setting_has_a_meaning_and_an_example_that_is_valid(kind: str, name: str) -> None:
    for key in settings_of(described(kind)[name]):
        assert key.setting.meaning, key.path
        assert not re.match("As for|See `", key.setting.meaning), key.path
        assert "|" not in key.setting.type
        value = yaml.load(key.value, Loader=Loader)
        assert value is not None, key.path
        skip = tuple(set(takes(REGISTRIES[kind].entry(name))) - {key.setting.name})
        check_settings(REGISTRIES[kind].entry(name), {key.setting.name: value}, key.path, skip)


@pytest.mark.parametrize("name", [*SECTIONS, "Matching"])
def test_a_section_has_the_keys_of_the_schema(name: str) -> None:
    found = [setting.name for setting in section(name).settings]
    if name == "Matching":
        assert found == list(inspect.signature(Matching).parameters)
    else:
        fields = SECTIONS[name].model_fields
        assert found == [field.alias or key for key, field in fields.items()]


def test_all_sections_of_a_recipe_are_reached() -> None:
    reached = {key.setting.section for key in keys()} - {""}
    assert reached | {"Recipe", "Section"} == {*SECTIONS, "Matching"}


def base() -> dict[str, Any]:
    return {
        "name": "n", "data": "digits", "teacher": {"model": "mlp"}, "defaults": {"model": "mlp"},
        "budgets": {"tiny": {}},
        "students": {"from_labels": {"learns_from": "labels"}, "usual": {}, "mine": {}, "kd": {}},
    }  # fmt: skip


NEEDS = {
    "teacher.key": {"teacher": {"weights": "w.pth"}},
    "teacher.classes": {"teacher": {"weights": "w.pth"}},
    "teacher.training.milestones": {"teacher": {"training": {"schedule": "steps"}}},
    "teacher.training.schedule": {"teacher": {"training": {"milestones": [0.5]}}},
    "students.kd.training.milestones": {"students": {"kd": {"training": {"schedule": "steps"}}}},
    "students.kd.training.schedule": {"students": {"kd": {"training": {"milestones": [0.5]}}}},
    "teacher.record.codec": {"teacher": {"record": {"draws": 10}}},
    "generators.kd.least_variety": {"generators": {"kd": {"model": "gmm"}}},
    "students.kd.start.key": {"students": {"kd": {"start": {"path": "w.pth"}}}},
    "students.kd.start.strict": {"students": {"kd": {"start": {"path": "w.pth"}}}},
    **{
        f"students.kd.features.{key}": {
            "students": {"kd": {"features": {"student": "a", "teacher": "b"}}}
        }
        for key in ("student", "teacher", "loss", "weight")
    },
    "within.minutes": {"within": {"part": 0.4}},
    "within.part": {"within": {"minutes": 10}},
    "within.without": {"within": {"minutes": 10, "part": 0.4}},
    "students.kd.draws": {"students": {"kd": {"estimator": "extra_trees"}}},
    "students.kd.cost.unit": {"students": {"kd": {"cost": {"of": "mine"}}}},
}
_AMONG = {"students": {"kd": {"choose": {"among": {"kd": {}, "b": {}}}}}}


def merge(values: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping):
            merge(values.setdefault(key, {}), value)
        else:
            values[key] = value


@pytest.mark.parametrize("key", keys(), ids=lambda key: key.path)
def test_each_key_has_a_meaning_and_an_example_that_is_valid(key: Key) -> None:
    assert key.setting.meaning
    if key.setting.section and not key.value:
        return
    value, path = yaml.load(key.value, Loader=Loader), key.path.replace("NAME", "kd")
    assert value is not None
    values = base()
    merge(values, _AMONG if "choose" in path and path[-5:] != "among" else NEEDS.get(path, {}))
    *above, last = path.split(".")
    if above[:1] == ["teacher"] and set(path.split(".")) & {"onnx", "function", "answers"}:
        fitted = path.split(".")[1]
        first = {"onnx": "path", "function": "function", "answers": "path"}[fitted]
        values["teacher"] = {fitted: {first: "mine:answer"}}
    if path == "teacher.estimator":
        del values["teacher"]["model"]
    here = values
    for part in above:
        here = here.setdefault(part, {})
    here[last] = value
    parse_recipe(values)


def used(value: Any, path: str) -> Iterator[str]:
    """Yield the dotted path of each key inside a recipe."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield f"{path}.{key}".strip(".")
            yield from used(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from used(inner, f"{path}.{number}")


# Below these stand names, or values that are mappings.
_FREE = re.compile(r"(^|\.)(chains|budgets?|rename|columns|among|std|blend)\.")


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_key_of_a_shipped_recipe_is_explained(name: str) -> None:
    for path in used(yaml.load(shipped_recipes()[name], Loader=Loader), ""):
        if not _FREE.search(path) and not re.search(r"(linear|cosine|finish)$", path):
            assert explain(path), path


def test_a_mistyped_key_is_told_with_its_neighbour() -> None:
    with pytest.raises(RecipeError, match=r"called 'temprature'.*'temperature'"):
        explain("temprature")


def test_a_path_of_the_users_own_is_explained_under_it() -> None:
    [found] = explain("students.mine.sampler.1.mixup.alpha")
    assert found.key is not None
    assert "Beta distribution" in found.key.setting.meaning
    [found] = explain("students.mine.training.lr")
    assert found.path == "students.mine.training.lr"
    assert {one.path for one in explain("lr")} >= {"teacher.training.lr", "gan.lr"}


def test_the_page_is_that_of_the_code() -> None:
    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == page(), (
        "run python docs/tables.py"
    )


@pytest.mark.parametrize(
    "words", [["samplers"], ["samplers", "mixup"], ["matchings"], ["matchings", "js"], ["models"],
              ["explain"], ["explain", "lr"], ["explain", "teacher"], ["explain", "uncertain"]],
    ids=" ".join,
)  # fmt: skip
def test_the_commands_answer(words: list[str]) -> None:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "`" not in result.output
    assert len(result.output) > 60


def test_what_only_looks_a_word_up_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from extracurricular.cli import app\n"
        "for words in (['--help'], ['recipes'], ['recipes', 'show', 'digits'], ['models'],\n"
        "              ['samplers'], ['matchings'], ['explain'], ['explain', 'lr']):\n"
        "    assert CliRunner().invoke(app, words).exit_code == 0, words\n"
        "    assert 'torch' not in sys.modules, words\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
