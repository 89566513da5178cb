"""The operators one by one: against the libraries that people use, inductor on plain formulas, and a copy."""
