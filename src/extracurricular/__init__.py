"""Knowledge distillation with extracurricular learning.

A student matches a teacher's predictive distribution on draws from an approximation of the data
distribution::

    import extracurricular as xcl

    data = xcl.from_arrays(x, y)
    teacher = xcl.Network(my_network, data.task)
    sampler = xcl.Mixup(xcl.Empirical(data))
    xcl.train(student, sampler, teacher, data.task)

Names are imported when they are first used, so that ``import extracurricular`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    # The redundant names tell type checkers that these are exported.
    from extracurricular.data.base import Data as Data
    from extracurricular.data.base import Split as Split
    from extracurricular.data.base import make_data as make_data
    from extracurricular.data.sets.arrays import from_arrays as from_arrays
    from extracurricular.data.sets.arrays import from_dataset as from_dataset
    from extracurricular.distributions import Categorical as Categorical
    from extracurricular.distributions import Distribution as Distribution
    from extracurricular.distributions import Gaussian as Gaussian
    from extracurricular.distributions import Task as Task
    from extracurricular.distributions import epistemic as epistemic
    from extracurricular.distributions import mixture as mixture
    from extracurricular.errors import DataError as DataError
    from extracurricular.errors import RecipeError as RecipeError
    from extracurricular.errors import TrainingError as TrainingError
    from extracurricular.errors import XclError as XclError
    from extracurricular.evaluation.corruptions import corrupt as corrupt
    from extracurricular.evaluation.metrics import figures as figures
    from extracurricular.evaluation.metrics import gap_closed as gap_closed
    from extracurricular.evaluation.predict import predict as predict
    from extracurricular.export import Exported as Exported
    from extracurricular.export import Shipped as Shipped
    from extracurricular.export import export_module as export_module
    from extracurricular.export import export_run as export_run
    from extracurricular.generators import Generator as Generator
    from extracurricular.knowledge import Recorded as Recorded
    from extracurricular.knowledge import Replay as Replay
    from extracurricular.knowledge import open_knowledge as open_knowledge
    from extracurricular.knowledge import record as record
    from extracurricular.matching import Matching as Matching
    from extracurricular.matching import forward_kl as forward_kl
    from extracurricular.matching import js as js
    from extracurricular.matching import reverse_kl as reverse_kl
    from extracurricular.models import build_model as build_model
    from extracurricular.models import parameter_count as parameter_count
    from extracurricular.predictors.load import load as load
    from extracurricular.predictors.predictor import Prediction as Prediction
    from extracurricular.predictors.predictor import Predictor as Predictor
    from extracurricular.recipe.schema import Recipe as Recipe
    from extracurricular.recipe.schema import parse_recipe as parse_recipe
    from extracurricular.recipe.schema import read_recipe as read_recipe
    from extracurricular.run.pipeline import Run as Run
    from extracurricular.samplers import Augment as Augment
    from extracurricular.samplers import Batch as Batch
    from extracurricular.samplers import Blend as Blend
    from extracurricular.samplers import CutMix as CutMix
    from extracurricular.samplers import Empirical as Empirical
    from extracurricular.samplers import Generated as Generated
    from extracurricular.samplers import Mixup as Mixup
    from extracurricular.samplers import Noise as Noise
    from extracurricular.samplers import Pool as Pool
    from extracurricular.samplers import ResizedCrop as ResizedCrop
    from extracurricular.samplers import Sampler as Sampler
    from extracurricular.samplers import Uncertain as Uncertain
    from extracurricular.samplers import build_sampler as build_sampler
    from extracurricular.teachers import Ensemble as Ensemble
    from extracurricular.teachers import Labels as Labels
    from extracurricular.teachers import MCDropout as MCDropout
    from extracurricular.teachers import Network as Network
    from extracurricular.teachers import Teacher as Teacher
    from extracurricular.teachers.estimators import sklearn_teacher as sklearn_teacher
    from extracurricular.teachers.onnx import OnnxTeacher as OnnxTeacher
    from extracurricular.teachers.raw import FunctionTeacher as FunctionTeacher
    from extracurricular.teachers.raw import RawTeacher as RawTeacher
    from extracurricular.training import Training as Training
    from extracurricular.training import TrainingResult as TrainingResult
    from extracurricular.training import train as train

_HOMES = {
    "evaluation.corruptions": ("corrupt",),
    "data.base": ("Data", "Split", "make_data"),
    "data.sets.arrays": ("from_arrays", "from_dataset"),
    "distributions": ("Categorical", "Distribution", "Gaussian", "Task", "epistemic", "mixture"),
    "errors": ("DataError", "RecipeError", "TrainingError", "XclError"),
    "evaluation.predict": ("predict",),
    "export": ("Exported", "Shipped", "export_module", "export_run"),
    "generators": ("Generator",),
    "knowledge": ("Recorded", "Replay", "open_knowledge", "record"),
    "predictors.load": ("load",),
    "matching": ("Matching", "forward_kl", "js", "reverse_kl"),
    "evaluation.metrics": ("figures", "gap_closed"),
    "models": ("build_model", "parameter_count"),
    "run.pipeline": ("Run",),
    "predictors.predictor": ("Prediction", "Predictor"),
    "recipe.schema": ("Recipe", "parse_recipe", "read_recipe"),
    "samplers": (
        "Augment",
        "Batch",
        "Blend",
        "CutMix",
        "Empirical",
        "Generated",
        "Mixup",
        "Noise",
        "Pool",
        "ResizedCrop",
        "Sampler",
        "Uncertain",
        "build_sampler",
    ),
    "teachers.estimators": ("sklearn_teacher",),
    "teachers.onnx": ("OnnxTeacher",),
    "teachers.raw": ("FunctionTeacher", "RawTeacher"),
    "teachers": ("Ensemble", "Labels", "MCDropout", "Network", "Teacher"),
    "training": ("Training", "TrainingResult", "train"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [*sorted(_HOME_OF), "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
