"""The HTTP API: thin routers over storage, engines and configuration."""
