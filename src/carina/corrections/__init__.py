"""What readers say of a run's masks: strokes, finished corrections, accepted and rejected; kept in the run's folder."""
