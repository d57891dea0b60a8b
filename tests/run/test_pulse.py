"""A cluster of Ray that dies under a run, as far as it can be told without one."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from extracurricular.errors import TrainingError
from extracurricular.run import cluster
from extracurricular.run.cluster import Pulse, told_of_loss
from extracurricular.run.on_ray import _Driver


def ray_at(head: str, node: str, joined: bool = True) -> Any:
    """What a module ``ray`` says of a cluster of one node."""
    host, _, port = node.rpartition(":")
    known = {"NodeID": "a", "NodeManagerAddress": host, "NodeManagerPort": int(port)}
    context = SimpleNamespace(gcs_address=head, get_node_id=lambda: "a")
    client = SimpleNamespace(ray=SimpleNamespace(is_connected=lambda: not joined))
    return SimpleNamespace(
        get_runtime_context=lambda: context,
        nodes=lambda: [known, known | {"NodeID": "b", "NodeManagerPort": 1}],
        util=SimpleNamespace(client=client),
    )


def listening() -> tuple[socket.socket, str]:
    made = socket.create_server(("127.0.0.1", 0))
    return made, f"127.0.0.1:{made.getsockname()[1]}"


def feel(pulse: Pulse) -> None:
    """Look, however short ago the last look was."""
    pulse._looked -= 10
    pulse.feel()


def test_a_head_or_a_node_that_no_longer_listens_ends_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "_HEAD", 0.0)
    monkeypatch.setattr(cluster, "_HERE", 0.0)
    head, at_head = listening()
    node, at_node = listening()
    pulse = Pulse(ray_at(at_head, at_node))
    feel(pulse)
    node.close()
    with pytest.raises(TrainingError, match="Ray has died here; the same command goes on"):
        feel(pulse)
    head.close()
    with pytest.raises(TrainingError, match=f"the head of the cluster at '{at_head}' has died"):
        feel(pulse)


def test_a_head_that_is_silent_for_a_moment_is_not_dead() -> None:
    head, at_head = listening()
    pulse = Pulse(ray_at(at_head, at_head))
    head.close()
    feel(pulse)


def test_a_run_outside_of_the_cluster_asks_no_sockets_of_it() -> None:
    feel(Pulse(ray_at("10.255.255.1:1", "10.255.255.1:1", joined=False)))


def test_a_lost_connection_is_one_sentence() -> None:
    problem = r"the cluster at 'ray://h:1' is gone \(reset\); the same command goes on"
    with pytest.raises(TrainingError, match=problem), told_of_loss("ray://h:1"):
        raise ConnectionResetError("reset")


def test_nothing_is_asked_of_a_cluster_whose_connection_is_lost() -> None:
    """Ray would look for another cluster, and wait for it."""
    asked: list[object] = []
    ray = SimpleNamespace(is_initialized=lambda: False, cancel=lambda *a, **k: asked.append(a))
    driver = _Driver(ray, {}, "", None)
    driver.running = {"task": None}  # type: ignore[dict-item]
    driver.cancel()
    assert not asked
