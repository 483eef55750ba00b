"""Drawing of the figures of a validation."""
