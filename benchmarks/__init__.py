"""Cost of pbmon against its peers, as ratios taken in one run."""
