"""A world of questions and groups whose answers follow from a planted value."""

import numpy as np

from valueflow.profiles.opinionqa.items import Item

SCALE = ("A great deal", "A fair amount", "Not too much", "None at all")


def world(seed: int = 0, num_questions: int = 120, groups: int = 6):
    """Questions with a pole each; groups have a value, and answer by question and value."""
    rng = np.random.default_rng(seed)
    value_G, pole_Q = rng.normal(size=groups), rng.choice([-1.0, 1.0], num_questions)
    base_QO = rng.normal(size=(num_questions, 4))
    items = []
    for q in range(num_questions):
        for g in range(groups):
            logit = base_QO[q] + 0.5 * pole_Q[q] * value_G[g] * np.array([1.5, 0.5, -0.5, -1.5]) + 0.15 * rng.normal(size=4)
            gold = np.exp(logit) / np.exp(logit).sum()
            items.append(Item(f"{q}/{g}", f"q{q}", f"question {q}", SCALE, f"ATTR{g % 3}", str(g), tuple(gold)))
    return items, value_G, pole_Q, base_QO, {f"q{q}": f"b{q // 3}" for q in range(num_questions)}


def softmax(logit):
    return np.exp(logit) / np.exp(logit).sum()
