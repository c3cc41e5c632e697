"""Certified Points: cached answers in, a frozen path, the step that may be taken, and the record of it."""
