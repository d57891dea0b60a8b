"""The one training loop.

ERM, mixup training, KD and XCL are settings of the same line

    minimise over θ    E_{x ~ p̂(x)} [ w(x) · D( q_T(y|x) ‖ q_S(y|x; θ) ) ]

so they run through the same function with the same number of student steps. A draw is a pure
function of its id, so the state of a training is one integer, the step, plus the states of student
and optimiser. Step s draws ids [s·B, (s + 1)·B) and seeds everything else that is random (dropout).

Between two lines of the log a step asks the device nothing (law 8). Losses and a teacher's NaN
gather on the device, and are read where a line is written. On CUDA devices the steps are captured
as graphs and replayed (``captured``).
"""

from extracurricular.training.additions import Additions
from extracurricular.training.draw import Shared, draw_steps, draws, step_ids
from extracurricular.training.features import Features
from extracurricular.training.loop import TrainingResult, cpu_fabric, train
from extracurricular.training.mastery import Mastery, mastery_of
from extracurricular.training.optimizer import (
    Schedule,
    ema_decay,
    learning_rate,
    make_optimizer,
)
from extracurricular.training.settings import Execution, Training
from extracurricular.training.together import together

__all__ = [
    "Additions",
    "Execution",
    "Features",
    "Mastery",
    "Schedule",
    "Shared",
    "Training",
    "TrainingResult",
    "cpu_fabric",
    "draw_steps",
    "draws",
    "ema_decay",
    "learning_rate",
    "make_optimizer",
    "mastery_of",
    "step_ids",
    "together",
    "train",
]
