"""Cross-lingual question answering: the English start, and cross-entropy with and without the past self."""
