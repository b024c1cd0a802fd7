"""The 3-D CNN by itself: which epoch it keeps, how it batches, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clinical_reasoner.config.evaluation import CnnConfig
from clinical_reasoner.distillation.volumes import Cubes, TrainedCnn, batches, cnn_probabilities, train_cnn

SIDE = 16
CONFIG = CnnConfig(blocks=(1, 1), init_features=4, growth=4, epochs=4, patience=4, learning_rate=0.02, batch_size=4)
TRAIN, VALIDATION = np.arange(12), np.arange(12, 18)


@pytest.fixture(scope="module")
def cubes() -> Cubes:
    """Dark, grey and bright noise."""
    truth = np.arange(18) % 3
    noise = np.random.default_rng(0).integers(0, 60, size=(18, SIDE, SIDE, SIDE))
    return Cubes((noise + 80 * truth[:, None, None, None]).astype(np.uint8), truth.astype(np.int64))


def trained(cubes: Cubes, **changes: object) -> TrainedCnn:
    return train_cnn(cubes, TRAIN, VALIDATION, 3, CONFIG.model_copy(update=changes))


def test_the_best_epoch_is_kept(cubes: Cubes) -> None:
    found = trained(cubes)
    assert 1 <= found.epoch <= len(found.macro_f1) <= CONFIG.epochs
    assert found.macro_f1[found.epoch - 1] == max(found.macro_f1)
    probabilities = cnn_probabilities(found.network, cubes.voxels, VALIDATION, batch_size=4)
    assert probabilities.shape == (6, 3) and probabilities.sum(axis=1) == pytest.approx(np.ones(6))
    if max(found.macro_f1) == 1:
        assert (probabilities.argmax(axis=1) == cubes.truth[VALIDATION]).all()


def test_training_ends_when_nothing_gets_better(cubes: Cubes) -> None:
    found = trained(cubes, epochs=30, patience=1, learning_rate=1e-12)
    assert len(found.macro_f1) < 30


def test_size_is_that_of_the_configuration(cubes: Cubes) -> None:
    small, wide = trained(cubes, epochs=1), trained(cubes, epochs=1, init_features=8)
    assert small.parameters == sum(one.numel() for one in small.network.parameters()) < wide.parameters
    assert small.network.features.conv0.out_channels == 4


def test_answers_do_not_depend_on_the_batch(cubes: Cubes) -> None:
    network = trained(cubes, epochs=1).network
    everyone = np.arange(18)
    one_by_one = cnn_probabilities(network, cubes.voxels, everyone, batch_size=1)
    np.testing.assert_allclose(cnn_probabilities(network, cubes.voxels, everyone, 18), one_by_one, atol=1e-5)


def test_random_numbers_of_others_go_on_as_before(cubes: Cubes) -> None:
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    trained(cubes, epochs=1)
    assert torch.equal(torch.rand(2), wanted)


@pytest.mark.parametrize("batch_size", [2, 3, 8])
def test_no_batch_holds_a_single_visit(batch_size: int) -> None:
    for visits in range(2, 40):
        sizes = [len(part) for part in np.array_split(np.arange(visits), batches(visits, batch_size))]
        assert sum(sizes) == visits and min(sizes) >= 2 and max(sizes) <= batch_size + 1


def test_smallest_cube_of_each_depth_goes_through() -> None:
    for blocks in ((1,), (1, 1), (1, 1, 1)):
        config = CONFIG.model_copy(update={"blocks": blocks, "epochs": 1})
        side = config.smallest_side
        voxels = np.random.default_rng(0).integers(0, 255, size=(4, side, side, side)).astype(np.uint8)
        found = train_cnn(Cubes(voxels, np.array([0, 1, 0, 1])), np.arange(4), np.arange(4), 2, config)
        assert np.isfinite(cnn_probabilities(found.network, voxels, np.arange(4), 2)).all()
