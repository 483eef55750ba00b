"""The engine of studies: units of work, a store of immutable parts, executors. Knows no model."""
