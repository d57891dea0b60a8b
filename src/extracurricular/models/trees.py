"""Trees as a module: what an estimator of trees has learned, as tensors.

A fitted estimator is code and data in one, and reading a pickle of it runs code. Its trees are
numbers: the column and threshold of each split, the value of each leaf. As tensors they are saved,
loaded, asked and exported as the weights of a network are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from extracurricular.errors import StorageError
from extracurricular.inputs import Inputs, leaves

Array: TypeAlias = np.ndarray[Any, Any]
OPERATOR = "TreeEnsembleRegressor"
"""The operator of ONNX that trees become."""
Reading: TypeAlias = Literal["value", "log", "logit"]
"""What becomes of a block's sum: nothing, its logarithm, or its log-odds."""


class Tree(NamedTuple):
    """One tree of K splits and K + 1 leaves.

    Args:
        feature: Column of each split, [K].
        threshold: Threshold of each split, [K]; a row goes left where its column is at most this.
        children: Left and right child of each split, [K, 2]; ``k`` is a split, ``-1 - k`` a leaf.
        value: Values of the leaves, [K + 1, W].
    """

    feature: Array
    threshold: Array
    children: Array
    value: Array


@dataclass(frozen=True)
class Block:
    """Trees whose values are added up, for some outputs.

    Args:
        trees: The trees; there may be none.
        bias: What is added to the sum, [W].
        reading: What becomes of the sum.
        least: Smallest sum before its logarithm is taken.
    """

    trees: Sequence[Tree]
    bias: Array
    reading: Reading = "value"
    least: float = 0.0


class Trees(nn.Module):
    """Trees that are asked as a network is: standardised inputs in, raw outputs [B, outputs] out.

    Args:
        blocks: For each block the number of its trees, the number of its outputs, and its reading.
        splits: Splits of all trees.
        values: Values of all leaves.
        depth: Most splits from a root to a leaf.

    The parameters are 0 until :func:`planted` or ``load_state_dict`` fills them. Thresholds and
    values count as parameters; no gradient goes through the choice of a leaf.
    """

    feature: Tensor
    below: Tensor
    roots: Tensor
    least: Tensor

    def __init__(
        self, blocks: Sequence[tuple[int, int, Reading]], splits: int, values: int, depth: int
    ) -> None:
        super().__init__()
        self.blocks = [(int(count), int(width), reading) for count, width, reading in blocks]
        self.depth = depth
        # The file of a program of torch.export has plain operators; one of ONNX has one for trees.
        self.in_onnx = False
        count, outputs = sum(b[0] for b in self.blocks), sum(b[1] for b in self.blocks)
        self.register_buffer("roots", torch.zeros(count, dtype=torch.int32))
        self.register_buffer("feature", torch.zeros(max(splits, 1), dtype=torch.int32))
        self.register_buffer("below", torch.full((max(splits, 1), 2), -1, dtype=torch.int32))
        self.register_buffer("least", torch.zeros(outputs))
        self.threshold = nn.Parameter(torch.zeros(max(splits, 1)))
        self.value = nn.Parameter(torch.zeros(max(values, 1)))
        self.bias = nn.Parameter(torch.zeros(outputs))

    @property
    def spec(self) -> dict[str, Any]:
        """The arguments that make a module of this shape, as plain values."""
        return {
            "blocks": [list(block) for block in self.blocks],
            "splits": len(self.feature),
            "values": len(self.value),
            "depth": self.depth,
        }

    def forward(self, x: Inputs) -> Tensor:
        """Return the raw outputs, [B, outputs]."""
        parts = [leaf.reshape(leaf.shape[0], -1) for leaf in leaves(x).values()]
        table = (torch.cat(parts, 1) if len(parts) > 1 else parts[0]).float()
        sums = self._as_onnx(table) if self.in_onnx else self._sums(self._leaves(table))
        sums = sums + self.bias
        read, first = [], 0
        for _, width, reading in self.blocks:
            own = sums[:, first : first + width]
            if reading != "value":
                own = own.clamp_min(self.least[first : first + width])
            if reading == "log":
                own = own.log()
            if reading == "logit":
                most = 1 - self.least[first : first + width]
                own = torch.logit(torch.minimum(own, most))
            read.append(own)
            first += width
        return torch.cat(read, 1)

    def _leaves(self, table: Tensor) -> Tensor:
        """Return the place of the first value of the leaf that a row reaches, [B, trees]."""
        feature, below = self.feature.long(), self.below.long().reshape(-1)
        at = self.roots.long().expand(table.shape[0], -1)
        for _ in range(self.depth):
            split = at.clamp_min(0)
            right = table.gather(1, feature[split]) > self.threshold[split]
            at = torch.where(at < 0, at, below[2 * split + right.long()])
        return -1 - at

    def _sums(self, leaf: Tensor) -> Tensor:
        """Return the sum of each output's values, [B, outputs]."""
        columns, first = [], 0
        for count, width, _ in self.blocks:
            own = leaf[:, first : first + count]
            columns += [self.value[own + place].sum(1) for place in range(width)]
            first += count
        return torch.stack(columns, 1)

    def _as_onnx(self, table: Tensor) -> Tensor:
        """Return the same sums as one operator of ONNX, which runtimes are quick at.

        The exporter gives it its nodes, :meth:`onnx_attributes`.
        """
        outputs = self.bias.shape[0]
        found: Tensor = torch.onnx.ops.symbolic(
            f"ai.onnx.ml::{OPERATOR}",
            [table],
            attrs={"n_targets": outputs},
            dtype=torch.float32,
            shape=(table.shape[0], outputs),
            version=3,
        )
        return found

    def onnx_attributes(self) -> dict[str, list[int] | list[float] | list[str]]:
        """Return the nodes of all trees as the attributes of ``TreeEnsembleRegressor``."""
        feature, children = self.feature.tolist(), self.below.tolist()
        threshold, value = self.threshold.tolist(), self.value.tolist()
        rows: list[tuple[int, int, int, str, float, int, int]] = []
        targets: list[tuple[int, int, int, float]] = []
        output = tree = 0
        roots = iter(self.roots.tolist())
        for count, width, _ in self.blocks:
            for _ in range(count):
                # A node has its number in the order in which it is met.
                waiting, numbered = [next(roots)], 1
                number = 0
                while number < len(waiting):
                    node = waiting[number]
                    if node < 0:
                        rows.append((tree, number, 0, "LEAF", 0.0, 0, 0))
                        targets += [
                            (tree, number, output + place, value[-1 - node + place])
                            for place in range(width)
                        ]
                    else:
                        rows.append(
                            (tree, number, feature[node], "BRANCH_LEQ", threshold[node],
                             numbered, numbered + 1)
                        )  # fmt: skip
                        waiting += children[node]
                        numbered += 2
                    number += 1
                tree += 1
            output += width
        names = ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids",
                 "falsenodeids")  # fmt: skip
        nodes = {f"nodes_{name}": list(column) for name, column in zip(names, zip(*rows))}  # noqa: B905
        ends = ("treeids", "nodeids", "ids", "weights")
        return nodes | {
            f"target_{name}": list(column)
            for name, column in zip(ends, zip(*targets))  # noqa: B905
        }


def planted(blocks: Sequence[Block]) -> Trees:
    """Return a module of fitted trees.

    A threshold becomes the largest float32 that is no larger, so a row of float32 takes the same
    way as by the threshold itself.
    """
    trees = [tree for block in blocks for tree in block.trees]
    shape = [(len(block.trees), len(block.bias), block.reading) for block in blocks]
    splits, values = sum(len(t.feature) for t in trees), sum(t.value.size for t in trees)
    module = Trees(shape, splits, values, max((_depth(tree) for tree in trees), default=0))
    roots, children, leaf, split = [], [], 0, 0
    for tree in trees:
        width = tree.value.shape[1]
        # A leaf is known by the place of its first value.
        to_leaf = -1 - (leaf + (-1 - tree.children) * width)
        children.append(np.where(tree.children < 0, to_leaf, tree.children + split))
        roots.append(split if len(tree.feature) else -1 - leaf)
        split, leaf = split + len(tree.feature), leaf + tree.value.size
    state = {
        "roots": torch.tensor(roots, dtype=torch.int32),
        "least": torch.tensor([b.least for b in blocks for _ in b.bias], dtype=torch.float32),
        "bias": torch.tensor(np.concatenate([b.bias for b in blocks]), dtype=torch.float32),
    }
    if splits:
        state |= {
            "feature": torch.tensor(np.concatenate([t.feature for t in trees]), dtype=torch.int32),
            "threshold": torch.from_numpy(_below(np.concatenate([t.threshold for t in trees]))),
            "below": torch.tensor(np.concatenate(children), dtype=torch.int32),
        }
    if values:
        every = np.concatenate([t.value.reshape(-1) for t in trees])
        state["value"] = torch.tensor(every, dtype=torch.float32)
    module.load_state_dict(module.state_dict() | state)
    return module.eval()


def _below(threshold: Array) -> Array:
    near = threshold.astype(np.float32)
    return np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near)


def _depth(tree: Tree) -> int:
    """Return the most splits from the root to a leaf."""
    depth, level = 0, np.arange(min(1, len(tree.feature)))
    while level.size:
        depth += 1
        below = tree.children[level].reshape(-1)
        level = below[below >= 0]
    return depth


def restored(
    spec: Any,
    state: Mapping[str, Tensor],
    inputs: int | None = None,
    outputs: int | None = None,
) -> Trees:
    """Return the module of trees that were saved.

    Args:
        spec: :attr:`Trees.spec` of the module.
        state: Its ``state_dict``.
        inputs, outputs: The numbers of inputs and outputs that it must have; None for any.

    Raises:
        StorageError: They are no trees, or lead out of themselves.
    """
    try:
        shape = {name: spec[name] for name in ("blocks", "splits", "values", "depth")}
        counts = [count for block in shape["blocks"] for count in block[:2]]
        numbers = [*counts, shape["splits"], shape["values"], shape["depth"]]
        splits, values = len(state["feature"]), len(state["value"])
        if not all(type(n) is int and n >= 0 for n in numbers) or len(counts) > 2 * values + 64:
            raise ValueError("its sizes are no numbers")
        if (shape["splits"], shape["values"]) != (splits, values) or shape["depth"] > splits:
            raise ValueError("its sizes are others")
        if sum(count for count, *_ in shape["blocks"]) != len(state["roots"]):
            raise ValueError("its trees are others")
        width = sum(width for _, width, *_ in shape["blocks"])
        if width != len(state["bias"]) or outputs not in (None, width):
            raise ValueError("its outputs are others")
        if any(state[name].dtype.is_floating_point for name in ("roots", "feature", "below")):
            raise ValueError("its places are no whole numbers")
        if state["below"].shape != (splits, 2):
            raise ValueError("its splits are others")
        limits = [("below", -values, splits), ("roots", -values, splits)]
        limits += [] if inputs is None else [("feature", 0, inputs)]
        for name, least, most in limits:
            if bool(((state[name] < least) | (state[name] >= most)).any()):
                raise ValueError(f"{name!r} leads nowhere")
        # A split stands before those below it, so there is no circle.
        if bool(((state["below"] >= 0) & (state["below"] <= torch.arange(splits)[:, None])).any()):
            raise ValueError("a split leads back")
        if _walked(shape["blocks"], state) != shape["depth"]:
            raise ValueError("its depth is another")
        module = Trees(**shape)
        module.load_state_dict(dict(state))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        problem = " ".join(str(error).split())
        raise StorageError(f"the weights are no trees: {problem}") from None
    return module.eval()


def _walked(blocks: Sequence[Any], state: Mapping[str, Tensor]) -> int:
    """Return the most splits from a root to a leaf, of trees without a circle.

    Raises:
        ValueError: A split stands in two places, so that an export would write it out twice, or a
            leaf has not as many values as its block has outputs.
    """
    below, roots, values = state["below"].long(), state["roots"].long(), len(state["value"])
    known = torch.cat([roots[roots >= 0], below[below >= 0]])
    if bool((torch.bincount(known) > 1).any()):
        raise ValueError("a split stands in two places")
    depth = first = 0
    for count, width, *_ in blocks:
        level, deep = roots[first : first + count], 0
        first += count
        while True:
            if bool((width - 1 - level[level < 0] > values).any()):
                raise ValueError("a leaf leads out of the values")
            level = level[level >= 0]
            if not len(level):
                break
            level, deep = below[level].reshape(-1), deep + 1
        depth = max(depth, deep)
    return depth
