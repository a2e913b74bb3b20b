"""Names in a language without labels: teachers with and without aligned prototypes, and students of the target."""
