"""The reference learner: near-field covariance estimation at a reconfigurable intelligent surface.

Written the way a person in this field trains. Nothing here knows the toolkit but `model.case`.
"""
