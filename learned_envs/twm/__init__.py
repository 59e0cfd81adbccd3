"""The transformer world model for pixels (Robine et al., ICLR 2023)."""
