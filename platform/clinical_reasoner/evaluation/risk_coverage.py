"""Selective prediction: how often a model is wrong among the answers of which it is most sure.

Geifman & El-Yaniv 2017, "Selective Classification for Deep Neural Networks", arXiv:1705.08500. The area under the curve
is that of Geifman, Uziel & El-Yaniv 2019, arXiv:1805.08206: the mean of the risk over the coverages 1/n, 2/n, ..., 1.
"""

from __future__ import annotations

import numpy as np

from clinical_reasoner.evaluation.cascade import Bools
from clinical_reasoner.evaluation.resampling import Floats, Ints


def risk_coverage(confidence: Floats, wrong: Bools) -> tuple[Floats, Floats]:
    """Coverage (0..1, ascending) and selective risk (0..1, lower is better), one point for each distinct confidence.

    `confidence` and `wrong` (visits,). Answers of the same confidence are kept or left together; those of minus
    infinity come last. Risk at coverage 1 is the error rate.
    """
    order, ends = _ordered(confidence)
    kept = np.append(ends[1:], len(order))
    return kept / len(order), np.cumsum(wrong[order])[kept - 1] / kept


def areas(confidence: Floats, wrong: Bools, weights: Ints) -> Floats:
    """(draws,) area under the curve, 0..1, lower is better; that of a confidence which knows nothing is the error rate.

    `weights` (draws, visits) says how often a visit was drawn. The errors of answers with the same confidence are
    spread evenly over them.
    """
    order, starts = _ordered(confidence)
    drawn = weights[:, order]
    sizes = np.diff(np.append(starts, len(order)))
    of_ties = np.add.reduceat(drawn, starts, axis=1)
    errors = np.add.reduceat(drawn * wrong[order], starts, axis=1)
    rate = np.divide(errors, of_ties, out=np.zeros(errors.shape), where=of_ties > 0)
    kept = np.cumsum(drawn, axis=1)
    summed = np.cumsum(drawn * np.repeat(rate, sizes, axis=1), axis=1)
    risk = np.divide(summed, kept, out=np.zeros(summed.shape), where=kept > 0)
    return np.asarray((risk * drawn).sum(axis=1) / drawn.sum(axis=1))


def _ordered(confidence: Floats) -> tuple[Ints, Ints]:
    """Visits from the most to the least sure, and the places in that order at which a new confidence begins."""
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order]
    new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    return order.astype(np.int64), np.flatnonzero(new).astype(np.int64)
