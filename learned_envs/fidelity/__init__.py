"""How faithful an imagined environment is: real against learned."""
