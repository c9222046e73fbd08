"""What operators see: log, and later metrics and traces."""
