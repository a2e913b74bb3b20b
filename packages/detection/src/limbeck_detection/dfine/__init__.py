"""D-FINE: a detector whose decoder layers teach one another."""
