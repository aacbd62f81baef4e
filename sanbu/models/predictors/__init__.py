"""Predictors: called with inputs x, they give outputs_BO: numbers, or one score for each class."""
