"""One file a situation, written to the documented interface alone, so that the same file runs with either library."""
