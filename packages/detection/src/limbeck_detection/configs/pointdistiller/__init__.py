"""PointPillars students with PointDistiller."""
