"""Scalars of a run for W&B or MLflow: the numbers of the training logs, which TensorBoard gets too, and the scores.

Each training and each evaluation is one run of the tracker, called like its stage folder. It is sent once, when the run
has ended; `tracked.json` in the run's folder says what was sent. Where it goes is the tracker's own business
(WANDB_MODE, MLFLOW_TRACKING_URI, …); without such a setting MLflow writes files into the run's folder.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from uqabench.artifact import Artifact
from uqabench.errors import MissingExtra
from uqabench.files import read_json, write_json

SENT = "tracked.json"
_BATCH = 1000  # metrics that MLflow takes in one call
Points = list[tuple[int, dict[str, float]]]
"""Scalars by step."""


def check_tracker(tracker: str) -> None:
    """MissingExtra where the tracker that the settings ask for is not installed."""
    if tracker != "none" and find_spec(tracker) is None:
        raise MissingExtra(tracker, tracker, f"tracker: {tracker}")


def track(tracker: str, run: Path, artifacts: Iterable[Artifact]) -> list[str]:
    """Send the scalars of stage folders that were not sent before; returns the names of those that were."""
    if tracker == "none":
        return []
    send = _SENDERS[tracker]
    sent = read_json(run / SENT) if (run / SENT).is_file() else {}
    names = []
    for artifact in artifacts:
        name = f"{artifact.manifest['stage']}/{artifact.path.name}"
        points = scalars(artifact.path)
        if points and name not in sent.get(tracker, []):
            send(run, name, artifact.manifest["config"], points)
            names.append(name)
            sent[tracker] = [*sent.get(tracker, []), name]
            write_json(run / SENT, sent)
    return names


def scalars(folder: Path) -> Points:
    """What a stage folder has to tell: the records of its training log, or the accuracies of an evaluation."""
    if (folder / "log.jsonl").is_file():
        records = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        return [(record.get("step", record.get("epoch", 0)), _numbers(record)) for record in records]
    if (folder / "predictions.jsonl").is_file():
        metrics = read_json(folder / "metrics.json")
        scores = {"overall": metrics["overall"], **metrics["tasks"], **metrics["subtasks"]}
        tokens = {"tokens": metrics["avg_tokens"]} if "avg_tokens" in metrics else {}
        return [(0, {**{f"accuracy/{scope}": score["accuracy"] for scope, score in scores.items()}, **tokens})]
    return []


def _numbers(record: dict[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in record.items()
        if name not in ("step", "epoch") and isinstance(value, (int, float))
    }


def _send_mlflow(run: Path, name: str, config: dict[str, Any], points: Points) -> None:
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    uri = None if "MLFLOW_TRACKING_URI" in os.environ else (run.resolve() / "mlruns").as_uri()
    client = MlflowClient(tracking_uri=uri)
    title = f"uqabench {run.resolve().name}"
    known = client.get_experiment_by_name(title)
    experiment = known.experiment_id if known else client.create_experiment(title)
    of = client.create_run(experiment, run_name=name).info.run_id
    now = int(time.time() * 1000)
    # MLflow's names have no "@", as in recall@10.
    metrics = [
        Metric(re.sub(r"[^\w ./-]", "_", key), v, now, step) for step, found in points for key, v in found.items()
    ]
    for start in range(0, len(metrics), _BATCH):
        client.log_batch(of, metrics=metrics[start : start + _BATCH])
    params = [Param(key, str(value)[:500]) for key, value in config.items()]
    client.log_batch(of, params=params[:100])
    client.set_terminated(of)


def _send_wandb(run: Path, name: str, config: dict[str, Any], points: Points) -> None:
    import wandb

    settings = wandb.Settings(console="off", silent=True)
    group = run.resolve().name
    with wandb.init(project="uqabench", group=group, name=name, config=config, dir=str(run), settings=settings) as of:
        for step, found in points:
            of.log(found, step=step)


_SENDERS: dict[str, Callable[[Path, str, dict[str, Any], Points], None]] = {
    "wandb": _send_wandb,
    "mlflow": _send_mlflow,
}
