"""What a person sees of a run: its plan, then its progress on a terminal, in a log or below a notebook's cell."""
