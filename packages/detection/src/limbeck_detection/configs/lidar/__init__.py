"""PointPillars and PointDistiller on simulated lidar frames."""
