"""Activation and update sizes over width: is the parametrisation right?"""
