"""How fast things are, always as a ratio to something that runs beside them."""
