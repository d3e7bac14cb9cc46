"""The SDK side: providers, exporters, and the sinks that turn reports into spans and metrics."""
