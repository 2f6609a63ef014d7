"""The intensity of a text: windows of anchors and a posterior, a regression on embeddings, and the official files."""

from valueflow.evaluation.comparison import TextScore, mean_profile, probability_higher
from valueflow.evaluation.regression import IntensityRegression, load_or_fit
from valueflow.evaluation.scoring import EvaluatorConfig, Posterior, Score, Scoring

__all__ = [
    "EvaluatorConfig",
    "IntensityRegression",
    "Posterior",
    "Score",
    "Scoring",
    "TextScore",
    "load_or_fit",
    "mean_profile",
    "probability_higher",
]
