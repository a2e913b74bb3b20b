"""MACIL-SD on XD-Violence and on bags that the package draws."""
