"""The same walk, fast."""
