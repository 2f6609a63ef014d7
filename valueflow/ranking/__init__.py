"""Window plans, Plackett-Luce, calibration: pure mathematics."""
