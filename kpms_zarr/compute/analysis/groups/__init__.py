"""Comparison of groups of sessions or animals: permutation tests whose units are never bouts."""
