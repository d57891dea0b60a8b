"""AutoGluon's side of ``benchmarks/tables.py``, run by the Python of an environment of its own.

    python benchmarks/tables_peer.py fit DATA SPLIT FOLDER [--seconds S] [--distil-seconds S]
    python benchmarks/tables_peer.py serve FOLDER

``fit`` trains AutoGluon's ensemble on a published split, distils it by AutoGluon itself, and writes
``FOLDER/peer.json``: figures of the ensemble and of each distilled model, and the deviation of the
ensemble's out-of-fold errors. ``serve`` reads arrays of rows [N, K] in the format of .npy from its
standard input (:func:`send`), and writes the ensemble's means [N] to its standard output.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import IO, Any

import numpy as np

LABEL = "target"
# Its students, and the part of the time that each may take.
STUDENTS = {"NN_TORCH": 1.0, "CAT": 0.5, "GBM": 0.75, "RF": 0.5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["fit", "serve"])
    parser.add_argument("places", nargs="+")
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--distil-seconds", type=float, default=90)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.what == "serve":
        serve(Path(given.places[0]))
        return
    data, split, folder = given.places
    fit(Path(data), int(split), Path(folder), given.seconds, given.distil_seconds)


def table(data: Path, split: int, part: str) -> Any:
    """Return the rows of a part of a published split as a data frame, the target at its end."""
    import pandas

    def read(name: str) -> Any:
        return np.loadtxt(data / name, ndmin=1)

    values, rows = np.loadtxt(data / "data.txt"), read(f"index_{part}_{split}.txt").astype(int)
    columns = read("index_features.txt").astype(int)
    [target] = read("index_target.txt").astype(int)
    frame = pandas.DataFrame(values[rows][:, columns], columns=names(len(columns)))
    frame[LABEL] = values[rows, target]
    return frame


def names(count: int) -> list[str]:
    return [f"c{place}" for place in range(count)]


def fit(data: Path, split: int, folder: Path, seconds: float, distil_seconds: float) -> None:
    # Its limits count seconds of this process's CPU, so that other work on the machine takes
    # nothing from it: everything runs in this process, on one thread.
    began = time.time()
    time.time = lambda: began + time.process_time()
    from autogluon.tabular import TabularPredictor

    train, test = table(data, split, "train"), table(data, split, "test")
    started = time.process_time()
    predictor = TabularPredictor(
        LABEL, "regression", "root_mean_squared_error", path=str(folder / "ensemble"), verbosity=0
    )
    # Five folds for each model, so that its figures and its teacher are out of fold.
    predictor.fit(
        train,
        time_limit=seconds,
        num_bag_folds=5,
        num_stack_levels=0,
        num_cpus=1,
        num_gpus=0,
        ag_args_ensemble={"fold_fitting_strategy": "sequential_local"},
    )
    fitted = time.process_time() - started
    best = predictor.model_best
    said = predictor.predict_oof(best)
    spread = float(np.sqrt(np.mean((said.to_numpy() - train[LABEL].to_numpy()) ** 2)))
    found: dict[str, Any] = {"fit_seconds": fitted, "oof_rmse": spread, "best": best, "models": {}}
    found["models"]["teacher"] = measured(predictor, best, test, folder)
    keep(found, folder)
    found["distil_seconds"] = 0.0
    for kind, part in STUDENTS.items():
        started = time.process_time()
        # Its own defaults: spunge, five times the rows. One at a time, as the first would else
        # take all the time.
        try:
            students = predictor.distill(
                time_limit=part * distil_seconds, hyperparameters={kind: {}}, verbosity=0
            )
        except Exception as error:  # a student that fails is told, and the others count
            found["models"][kind] = {"failed": f"{type(error).__name__}: {error}"}
            keep(found, folder)
            continue
        taken = time.process_time() - started
        found["distil_seconds"] += taken
        board = predictor.leaderboard(silent=True).set_index("model")
        for student in students:
            if student.startswith("WeightedEnsemble"):
                continue
            known = measured(predictor, student, test, folder)
            known |= {"validation": -float(board.loc[student, "score_val"]), "seconds": taken}
            found["models"][kind] = known
        keep(found, folder)


def keep(found: dict[str, Any], folder: Path) -> None:
    """Write what is known so far."""
    (folder / "peer.json").write_text(json.dumps(found, indent=2) + "\n")


def measured(predictor: Any, name: str, test: Any, folder: Path) -> dict[str, float]:
    """Return RMSE, bytes, and milliseconds a row in calls of one row and of a thousand."""
    rows, truth = test.drop(columns=LABEL), test[LABEL].to_numpy()
    said = predictor.predict(rows, model=name).to_numpy()
    many = rows.sample(1000, replace=True, random_state=0)
    needed = predictor._trainer.get_minimum_model_set(name)
    size = sum(
        file.stat().st_size
        for part in needed
        for file in (folder / "ensemble" / "models" / part).rglob("*")
        if file.is_file()
    )
    return {
        "rmse": float(np.sqrt(np.mean((said - truth) ** 2))),
        "bytes": size,
        "ms_1": each(predictor, name, rows[:1], 20),
        "ms_1000": each(predictor, name, many, 3) / 1000,
    }


def each(predictor: Any, name: str, rows: Any, times: int) -> float:
    """Return the median time of a call in milliseconds."""
    predictor.persist([name], max_memory=None)
    predictor.predict(rows, model=name)
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        predictor.predict(rows, model=name)
        taken.append(time.perf_counter() - started)
    predictor.unpersist()
    return float(np.median(taken)) * 1000


def serve(folder: Path) -> None:
    # Whatever a library prints must not reach the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    import pandas
    from autogluon.tabular import TabularPredictor

    best = json.loads((folder / "peer.json").read_text())["best"]
    predictor = TabularPredictor.load(str(folder / "ensemble"), verbosity=0)
    predictor.persist([best], max_memory=None)
    while True:
        rows = received(sys.stdin.buffer)
        if rows is None:
            return
        # 0.98 in float32 is 0.9800000191; it was read from the shortest text that rounds to it.
        exact = rows.astype(np.float32).astype(str).astype(float)
        frame = pandas.DataFrame(exact, columns=names(rows.shape[1]))
        send(answers, predictor.predict(frame, model=best).to_numpy().astype(float))


def send(stream: IO[bytes], values: Any) -> None:
    """Write an array to a pipe: the number of its bytes, and then a file of .npy."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    content = buffer.getvalue()
    stream.write(len(content).to_bytes(8, "little") + content)
    stream.flush()


def received(stream: IO[bytes]) -> Any:
    """Read an array that :func:`send` wrote; None at the end."""
    head = stream.read(8)
    if len(head) < 8:
        return None
    return np.load(io.BytesIO(stream.read(int.from_bytes(head, "little"))), allow_pickle=False)


if __name__ == "__main__":
    main()
