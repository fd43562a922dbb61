"""What happens around the onsets of syllables: trajectories of the pose, averages of signals."""
