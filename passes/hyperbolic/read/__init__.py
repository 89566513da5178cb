"""From nodes to forms: what each ATen operator does to the value of a row."""
