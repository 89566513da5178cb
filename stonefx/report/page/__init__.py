"""The report as one self-contained page: what it shows, as data, and the template that writes it."""
