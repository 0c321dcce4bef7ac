"""What becomes of a request: checked, planned as a program, drawn, kept and told of."""
