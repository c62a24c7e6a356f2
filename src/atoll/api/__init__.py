"""The REST API: routes as data, thin handlers, one table of errors."""
