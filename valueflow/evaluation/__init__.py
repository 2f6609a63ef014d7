"""The intensity of a text by windows of anchors or a regression on embeddings, means of many, and the official files."""

from valueflow.evaluation import prediction_powered
from valueflow.evaluation.comparison import TextScore, probability_higher
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
    "prediction_powered",
    "probability_higher",
]
