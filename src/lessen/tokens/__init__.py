"""Token elimination: scores from attention, retention profiles, and what leaves where."""
