"""ATST on sounds that the package renders, on AudioSet and on DESED."""
