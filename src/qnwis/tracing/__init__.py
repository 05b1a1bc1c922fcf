"""OpenTelemetry traces of requests, runs and activities, where its own environment variables ask for them."""
