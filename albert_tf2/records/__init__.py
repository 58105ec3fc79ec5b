"""Records to masked batches."""
