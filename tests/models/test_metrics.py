"""Metrics of logits and targets against plain loops and scikit-learn, on random data with ties."""

import math

import pytest
import torch
from sklearn.metrics import confusion_matrix, roc_auc_score, top_k_accuracy_score

from models import metrics


def random_answers(seed, count=500, classes=10, rounded=True):
    """Logits of which many are equal, if rounded, and targets that they tell something about."""
    torch.manual_seed(seed)
    targets = torch.randint(classes, (count,))
    logits = torch.randn(count, classes)
    logits[torch.arange(count), targets] += 1
    return (logits.round() if rounded else logits), targets


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_errors(seed, k):
    logits, targets = random_answers(seed, rounded=False)
    right = top_k_accuracy_score(targets, logits, k=k, labels=range(10))
    assert metrics.top_error(logits, targets, k) == pytest.approx(100 * (1 - right))


def test_the_top_error_is_that_of_the_sums_where_classes_tie():
    logits, targets = random_answers(0)
    sums = metrics.Sums(1, torch.device("cpu"))
    sums.add(torch.tensor(0.0), [logits], targets)
    assert metrics.top_error(logits, targets) == sums.result().errors[0]


@pytest.mark.parametrize("rounded", [True, False])
@pytest.mark.parametrize("bins", [1, 5, 15])
def test_calibration_error_is_that_of_a_loop(bins, rounded):
    logits, targets = random_answers(bins, rounded=rounded)
    found = [[] for _ in range(bins)]
    for row, target in zip(logits.double().softmax(1), targets, strict=True):
        confidence = row.max().item()
        found[max(math.ceil(confidence * bins) - 1, 0)].append((confidence, (row.argmax() == target).item()))
    expected = 0.0
    for members in filter(None, found):
        confidence, right = (sum(values) / len(members) for values in zip(*members, strict=True))
        expected += len(members) / len(targets) * abs(right - confidence)
    assert metrics.calibration_error(logits, targets, bins) == pytest.approx(100 * expected)


def test_calibration_at_its_ends():
    sure = 1e4 * torch.eye(10)
    targets = torch.arange(10)
    assert metrics.calibration_error(sure, targets) == 0
    assert metrics.calibration_error(sure, targets.roll(1)) == 100
    assert metrics.calibration_error(torch.zeros(10, 10), targets) == pytest.approx(0)  # all say 1/10, one is right


@pytest.mark.parametrize("rounded", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_the_ranking_of_mistakes_is_that_of_scikit_learn(seed, rounded):
    logits, targets = random_answers(seed, rounded=rounded)
    confidence, answers = logits.double().softmax(1).max(1)
    expected = roc_auc_score(answers == targets, confidence)
    assert metrics.failure_auroc(logits, targets) == pytest.approx(expected)


def test_the_ranking_of_mistakes_at_its_ends():
    logits = torch.eye(10) * torch.arange(1, 11)[:, None]  # the first are the least sure
    targets = torch.arange(10)
    assert metrics.failure_auroc(logits, targets) is None
    assert metrics.failure_auroc(logits, targets.roll(1)) is None
    targets[:4] += 1
    assert metrics.failure_auroc(logits, targets) == 1
    assert metrics.failure_auroc(logits.flip(0), targets.flip(0)) == 1
    assert metrics.failure_auroc(torch.eye(10), targets) == 0.5


def test_confusions_are_counted_by_true_class_and_answer():
    logits, targets = random_answers(4, rounded=False)
    expected = confusion_matrix(targets, logits.argmax(1)).tolist()
    found = metrics.confusion(logits, targets)
    assert [[row.get(answer, 0) for answer in range(10)] for row in found] == expected
    assert metrics.confusion(logits[:0], targets[:0]) == [{}] * 10
