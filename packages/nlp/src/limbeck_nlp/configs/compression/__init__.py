"""BERT-base made smaller on your own text: DistilBERT, TinyBERT, MiniLM with and without an assistant."""
