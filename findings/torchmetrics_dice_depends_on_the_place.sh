#!/usr/bin/env bash
# torchmetrics: the generalized Dice of a label map is 0.98 or 0.0001, by its place in the batch.
#
# Versions: torchmetrics 1.9.0, torch 2.13.0, CPU.
# Guess: generalized_dice_score gives a value for each map of the batch, from that map and its
#   truth. A weight is one over the squared area of a class in the truth; a class that the truth
#   does not have gets some fixed one, or the largest of its map. Neighbours and order play no
#   part.
# What happens: such a class gets a largest weight in the whole batch, and the class whose weight
#   that is depends on where the map stands: the table is read along the maps where it was filled
#   along the classes. A map with a false patch, 64 pixels in 4096, has .9921 alone, .9844 as the
#   first of three, .0001 as the second and .0000 as the third. The two others are predicted
#   without fault; they have the patch's class in two pixels and a further class in one.
# Why it matters: the mean over the same predictions is .99 or .67 with the files in another order
#   or the batch of another size; a test set of label maps is full of small classes that most
#   pictures lack. Maps that all have all classes, as in the usual check with random numbers, are
#   scored right, and so is weight_type="linear".
# Seen (the score of the one faulty map):
#   square: alone 0.9921, first of three 0.9844, second 0.0001, third 0.0000
#   simple: alone 0.9921, first of three 0.9844, second 0.1095, third 0.0579
#   linear: alone 0.9844, first of three 0.9844, second 0.9844, third 0.9844
#   the class, the mean of the three: batches of one 0.9974, of three 0.9948 0.6667 0.6667
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 torchmetrics==1.9.0 numpy
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys

import torch
from torchmetrics.functional.segmentation import generalized_dice_score
from torchmetrics.segmentation import GeneralizedDiceScore

truth = torch.zeros(64, 64, dtype=torch.long)
truth[:, 32:] = 1
faulty = truth.clone()
faulty[:8, :8] = 2                   # a patch of a class that the truth does not have
right = truth.clone()                # truth and prediction of the two others
right[0, :2] = 2
right[5, 5] = 4                      # a class in one pixel


def batch(place):
    """-> three predictions and their truths, the faulty one at a place."""
    fakes, reals = [right] * 3, [right] * 3
    fakes[place], reals[place] = faulty, truth
    return torch.stack(fakes), torch.stack(reals)


def score(fakes, reals, place, weights):
    scores = generalized_dice_score(fakes, reals, num_classes=5, input_format="index",
                                    weight_type=weights)
    return round(scores[place].item(), 4)


def mean(batches):
    metric = GeneralizedDiceScore(num_classes=5, input_format="index")
    for fakes, reals in batches:
        metric.update(fakes, reals)
    return round(metric.compute().item(), 4)


found = {}
for weights in ("square", "simple", "linear"):
    alone = score(faulty[None], truth[None], 0, weights)
    places = [score(*batch(place), place, weights) for place in range(3)]
    print(f"{weights}: alone {alone:.4f}, first of three {places[0]:.4f}, second {places[1]:.4f}, "
          f"third {places[2]:.4f}")
    found[weights] = [alone, *places]
fakes, reals = batch(1)
ones = mean([(fakes[i:i + 1], reals[i:i + 1]) for i in range(3)])
threes = [mean([batch(place)]) for place in range(3)]
print(f"the class, the mean of the three: batches of one {ones:.4f}, of three", *threes)
alone, first, second, third = found["square"]
same = alone > 0.99 and abs(first - 0.9844) < 1e-3 and max(second, third) < 0.001
same = same and max(found["simple"][2:]) < 0.2 and min(found["linear"]) == max(found["linear"])
same = same and ones > 0.99 and threes[0] > 0.99 and max(threes[1:]) < 0.67
sys.exit(0 if same else "the behaviour has changed")
PYTHON
