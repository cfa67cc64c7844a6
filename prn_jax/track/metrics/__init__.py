"""Figures of tracks against truth: HOTA, CLEAR MOT, Identity, by MOTChallenge's rules."""
