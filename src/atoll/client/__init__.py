"""A thin synchronous client for the REST API, made to start fast: see docs/decisions/0003-client-start-up.md."""
