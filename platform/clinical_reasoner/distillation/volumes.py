"""The vision-only baseline: a 3-D CNN on the cubes of scans, trained on one split, its epoch chosen on another.

The network is MONAI's DenseNet121: Huang et al. 2017, doi:10.1109/CVPR.2017.243; Cardoso et al. 2022, "MONAI",
doi:10.48550/arXiv.2211.02701. Torch and MONAI are imported by what trains, not with this module.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score, log_loss

from clinical_reasoner.config.evaluation import CnnConfig
from clinical_reasoner.progress import ProgressBar

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Cubes:
    """Scans and diagnoses of visits; also more than memory holds, as only those of a batch are read together."""

    voxels: NDArray[np.uint8]
    """(visits, side, side, side), grey values 0..255."""
    truth: Ints
    """(visits,) index of the true label."""


@dataclass(frozen=True)
class TrainedCnn:
    network: Any
    """torch module: (batch, 1, side, side, side) in -1..1 to (batch, labels) logits."""
    epoch: int
    """The epoch that was kept, from 1."""
    macro_f1: tuple[float, ...]
    """On the validation split after each epoch, 0..1."""
    device: str
    parameters: int


def train_cnn(cubes: Cubes, train: Ints, validation: Ints, labels: int, config: CnnConfig) -> TrainedCnn:
    """Train on the visits `train` (indices), keep the epoch that is best on the visits `validation`: the highest
    macro-F1, and of equal ones the lowest negative log-likelihood.

    Plain cross-entropy and AdamW, no augmentation. Takes a GPU where there is one; torch's own random numbers go on as
    if nothing had been drawn.
    """
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with (
        torch.random.fork_rng(devices=[torch.cuda.current_device()] if device.type == "cuda" else []),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        torch.manual_seed(config.seed)
        network = _network(labels, config).to(device)
        return _fit(network, cubes, train, validation, labels, config)


def cnn_probabilities(network: Any, voxels: NDArray[np.uint8], visits: Ints, batch_size: int) -> NDArray[np.float64]:
    """P(label), shape (visits, labels), of the cubes at these indices."""
    import torch

    network.eval()
    parts = np.array_split(visits, max(1, ceil(len(visits) / batch_size)))
    with torch.no_grad():
        found = [torch.softmax(network(_inputs(voxels[part], network)).double(), dim=1).cpu().numpy() for part in parts]
    return np.concatenate(found)


def _network(labels: int, config: CnnConfig) -> Any:
    from monai.networks.nets.densenet import DenseNet121

    return DenseNet121(
        spatial_dims=3,
        in_channels=1,
        out_channels=labels,
        init_features=config.init_features,
        growth_rate=config.growth,
        block_config=config.blocks,
    )


def _fit(network: Any, cubes: Cubes, train: Ints, validation: Ints, labels: int, config: CnnConfig) -> TrainedCnn:
    import torch

    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate)
    random = np.random.default_rng(config.seed)
    parts = batches(len(train), config.batch_size)
    scores: list[tuple[float, float]] = []
    weights: Any = None
    steps = config.epochs * parts
    with ProgressBar("3D CNN, steps", steps) as bar:
        for epoch in range(1, config.epochs + 1):
            network.train()
            for number, part in enumerate(np.array_split(random.permutation(train), parts), start=1):
                loss = _step(network, optimizer, cubes, part)
                done = (epoch - 1) * parts + number
                if done < steps:  # the last word is below
                    bar.update(done, f"epoch {epoch}, loss {loss:.4f}")
            found = cnn_probabilities(network, cubes.voxels, validation, config.batch_size)
            scores.append(_score(cubes.truth[validation], found, labels))
            if scores[-1] > max(scores[:-1], default=(-1.0, 0.0)):
                best, weights = epoch, copy.deepcopy(network.state_dict())
            if epoch - best >= config.patience:
                break
        bar.update(done, f"epoch {best} kept, macro-F1 {scores[best - 1][0]:.3f}", total=done)
    network.load_state_dict(weights)
    return TrainedCnn(
        network=network,
        epoch=best,
        macro_f1=tuple(f1 for f1, _ in scores),
        device=next(network.parameters()).device.type,
        parameters=sum(one.numel() for one in network.parameters()),
    )


def batches(visits: int, batch_size: int) -> int:
    """Number of nearly equal batches of at most `batch_size` visits, or one more where a batch of a single visit would
    be left: batch normalisation needs two."""
    return max(1, min(ceil(visits / batch_size), visits // 2))


def _step(network: Any, optimizer: Any, cubes: Cubes, visits: Ints) -> float:
    import torch

    inputs = _inputs(cubes.voxels[visits], network)
    loss = torch.nn.functional.cross_entropy(network(inputs), torch.from_numpy(cubes.truth[visits]).to(inputs.device))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.item())


def _inputs(voxels: NDArray[np.uint8], network: Any) -> Any:
    """(batch, 1, side, side, side) float32 in -1..1, where the network is."""
    import torch

    device = next(network.parameters()).device
    return torch.from_numpy(np.array(voxels)).to(device).unsqueeze(1).float() / 127.5 - 1.0


def _score(truth: Ints, probabilities: NDArray[np.float64], labels: int) -> tuple[float, float]:
    """Macro-F1, and the mean log-likelihood of the true labels (nats); of both the higher is better."""
    f1 = f1_score(truth, probabilities.argmax(axis=1), labels=range(labels), average="macro", zero_division=0)
    return float(f1), -float(log_loss(truth, probabilities, labels=range(labels)))
