"""`xcl models` as a person meets it."""

from __future__ import annotations

from tests.cli.called import xcl


def test_networks_are_listed() -> None:
    listed = xcl("models")
    assert listed.returncode == 0
    for name in ("resnet{depth}", "mobilenetv2", "vgg{depth}", "timm:{name}", "mlp"):
        assert name in listed.stdout


def test_one_is_told() -> None:
    shown = xcl("models", "{mlp: {hidden: [8]}}", "--input", "13", "--classes", "2")
    assert shown.returncode == 0, shown.stderr
    assert "parameters     130" in shown.stdout
    assert "multiply-adds  120" in shown.stdout
    assert "batch of 1 " in shown.stdout
    assert "batch of 32" in shown.stdout
    wrong = xcl("models", "resnet21")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: resnet21: depth is 21; it should be 6n+2")
    assert wrong.stderr.count("\n") == 1
