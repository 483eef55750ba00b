"""Drawing of the figures of an atlas."""
